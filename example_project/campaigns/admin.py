"""Plain pages for campaigns, devices and pushes."""

from django.contrib import admin

from example_project.campaigns.models import Campaign, Device, Push


@admin.register(Campaign)
class CampaignAdmin(admin.ModelAdmin):
    list_display = ["name", "state", "requester", "created_at", "started_at", "finished_at"]
    list_filter = ["state"]
    readonly_fields = ["created_at", "started_at", "finished_at"]
    search_fields = ["name"]


@admin.register(Device)
class DeviceAdmin(admin.ModelAdmin):
    list_display = ["token", "platform", "created_at", "unsubscribed_at"]
    list_filter = ["platform"]
    search_fields = ["=token"]
    show_full_result_count = False


@admin.register(Push)
class PushAdmin(admin.ModelAdmin):
    """Read-only: a step that no event tells of would make the product and its webhooks disagree."""

    list_display = [
        "id",
        "campaign",
        "device",
        "sent_at",
        "delivered_at",
        "opened_at",
        "clicked_at",
        "unsubscribed_at",
        "failed_at",
    ]
    list_filter = ["campaign"]
    list_select_related = ["campaign", "device"]
    show_full_result_count = False

    def has_add_permission(self, request, obj=None):
        return False

    def has_change_permission(self, request, obj=None):
        return False

    def has_delete_permission(self, request, obj=None):
        return False
