from django.apps import AppConfig


class CampaignsConfig(AppConfig):
    name = "example_project.campaigns"
    label = "campaigns"
    verbose_name = "Push campaigns"
