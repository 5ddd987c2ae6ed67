"""Signals: the way in, and what the service tells the host project.

All but the first are sent with ``send_robust`` after the transaction they speak of has committed;
an exception in a receiver is logged and goes no further.

Those of deliveries are sent for each answer to a POST that was written and counts for its delivery:
for one event, once; for a batch or a digest's page, once for each delivery in it, in the order of
their ids. For a digest of counts, however many events it counts, once in all: of the delivery that
stands for it, whose ``delivery_id``, ``event_id`` and ``event_type`` they carry. The others in it
take over its state later, silently. A process that dies between the commit and the signal takes
the signal with it.
"""

from django.dispatch import Signal

#: The way in: a command to our recorder. ``emit()`` is a ``send()`` of it. Arguments: ``type``,
#: ``data``, and as wanted ``requester``, ``subject``, ``idempotency_key``, ``occurred_at``,
#: ``using``. The recorder answers with the ``Event``. Its errors propagate to the sender.
webhook_event = Signal()

#: An event was recorded and its transaction has committed. Arguments: ``event``.
event_recorded = Signal()

#: A delivery was acknowledged with a 2xx. Arguments: ``delivery_id``, ``subscription_id``,
#: ``event_id``, ``event_type``, ``attempts``, ``status_code``.
delivery_succeeded = Signal()

#: An attempt failed and another one will follow. Arguments: as above, and ``error_code``,
#: ``due_at`` (when the next try is due).
delivery_failed = Signal()

#: A delivery ended undelivered by an attempt's answer. Arguments: as ``delivery_succeeded``, and
#: ``error_code``, ``state`` (``dead``, ``expired``, or ``cancelled`` after 410 Gone). What is
#: cancelled, discarded or expires without an attempt is seen in its row, and not told here.
delivery_dead = Signal()

#: A subscription moved from one status to another. Arguments: ``subscription``, ``previous``,
#: ``status``, ``reason``.
subscription_status_changed = Signal()

#: An owner is told how a subscription fares. Arguments: ``subscription``; ``state``: ``failing``,
#: ``recovered`` (by a delivery, or by the probe that ended its suspension) or ``suspended`` (not by
#: its owner); ``previous``: what the owner was told before, ``failing``, ``suspended`` or "";
#: ``reason``: a :class:`webhooks.health.Reason`, None for ``recovered``. Sent by the sweep. A
#: receiver that returns True has told the owner itself: no mail is sent then.
subscription_health_changed = Signal()
