"""The one place that judges health: of a subscription, and of the whole service.

Figures come from lanes, the roll-up and the queue, never from counting attempts, so that a verdict
costs the same handful of statements at any size. Every verdict but a good one has reasons that say
what is wrong, since when, and what to do. Nothing is changed here.

``verdicts`` says what a verdict is and where its limits lie, ``reasons`` puts it into sentences,
``subscriptions`` and ``service`` judge; ``headlines`` sums up for people, ``workers``, ``digests``
and ``figures`` read what the admin's pages show beside the verdict.
"""

from webhooks.health.headlines import Headline as Headline
from webhooks.health.headlines import capped as capped
from webhooks.health.headlines import failing_endpoints as failing_endpoints
from webhooks.health.headlines import headline as headline
from webhooks.health.headlines import of_crew as of_crew
from webhooks.health.headlines import sentence as sentence
from webhooks.health.reasons import backlog_expires_at as backlog_expires_at
from webhooks.health.reasons import failing as failing
from webhooks.health.reasons import how_to_fix as how_to_fix
from webhooks.health.reasons import lateness as lateness
from webhooks.health.reasons import suspended as suspended
from webhooks.health.service import ServiceHealth as ServiceHealth
from webhooks.health.service import of_service as of_service
from webhooks.health.subscriptions import LastAttempt as LastAttempt
from webhooks.health.subscriptions import SubscriptionHealth as SubscriptionHealth
from webhooks.health.subscriptions import of_subscription as of_subscription
from webhooks.health.verdicts import DEGRADED as DEGRADED
from webhooks.health.verdicts import DOWN as DOWN
from webhooks.health.verdicts import FAILING as FAILING
from webhooks.health.verdicts import FAILING_AFTER as FAILING_AFTER
from webhooks.health.verdicts import HEALTHY as HEALTHY
from webhooks.health.verdicts import IDLE as IDLE
from webhooks.health.verdicts import MOST_COUNTED as MOST_COUNTED
from webhooks.health.verdicts import Percentiles as Percentiles
from webhooks.health.verdicts import Reason as Reason
from webhooks.health.verdicts import Verdict as Verdict
from webhooks.health.verdicts import as_text as as_text
from webhooks.health.verdicts import shown as shown
