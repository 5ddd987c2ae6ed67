"""What the product keeps: campaigns and their pushes, and the figures that its pages read.

``campaign`` and ``push`` are what happened; ``stats`` adds the steps up as they are recorded;
``counts`` is what was last counted of the webhooks; ``simulation`` is a run of the simulator.
"""

from example_project.campaigns.models.campaign import Campaign
from example_project.campaigns.models.counts import DeliveryCount, EventCount
from example_project.campaigns.models.push import STEPS, Device, Push
from example_project.campaigns.models.simulation import Simulation
from example_project.campaigns.models.stats import CampaignStats

__all__ = [
    "STEPS",
    "Campaign",
    "CampaignStats",
    "DeliveryCount",
    "Device",
    "EventCount",
    "Push",
    "Simulation",
]
