"""The tables, one module for each idea; queries are methods of their querysets."""

from webhooks.models.attempt import DeliveryAttempt
from webhooks.models.dead_letters import DeadLetter, DeadLetterRun
from webhooks.models.delivery import Delivery
from webhooks.models.event import Event
from webhooks.models.lane import Lane
from webhooks.models.message import Message
from webhooks.models.replay import Replay
from webhooks.models.site_pages import WebhookHealth, WorkersAndSchedules
from webhooks.models.stats import DeliveryStats
from webhooks.models.subscription import SigningSecret, Subscription
from webhooks.models.worker import Duty, Worker

__all__ = [
    "DeadLetter",
    "DeadLetterRun",
    "Delivery",
    "DeliveryAttempt",
    "DeliveryStats",
    "Duty",
    "Event",
    "Lane",
    "Message",
    "Replay",
    "SigningSecret",
    "Subscription",
    "WebhookHealth",
    "Worker",
    "WorkersAndSchedules",
]
