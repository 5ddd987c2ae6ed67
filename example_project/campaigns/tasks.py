"""What the product's own django-q2 cluster runs; ``manage.py campaign_schedules`` installs it.

Not the webhooks' cluster: a slow receiver must not keep a campaign from being sent, nor the other
way round.
"""

from __future__ import annotations

from example_project.campaigns import counting, simulator


def simulate(pk: int) -> None:
    """A slice of a simulation."""
    simulator.work(pk)


def housekeep() -> None:
    """Each minute: go on with runs that lost their process, count what may have changed."""
    simulator.continue_abandoned()
    counting.count_due()
