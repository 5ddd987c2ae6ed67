from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class CampaignsConfig(AppConfig):
    name = "example_project.campaigns"
    label = "campaigns"
    verbose_name = _("Push campaigns")
