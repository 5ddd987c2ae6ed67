"""Devices and pushes: plain lists."""

from __future__ import annotations

from django.contrib import admin

from example_project.campaigns.models import Device, Push
from webhooks.admin.pages import CappedPaginator, LogAdmin


@admin.register(Device)
class DeviceAdmin(admin.ModelAdmin):
    list_display = ["token", "platform", "created_at", "unsubscribed_at"]
    list_filter = ["platform"]
    search_fields = ["=token"]
    show_full_result_count = False
    paginator = CappedPaginator


@admin.register(Push)
class PushAdmin(LogAdmin):
    """Read-only: a step that no event tells of would make the product and its webhooks disagree."""

    list_display = [
        "id",
        "campaign",
        "device",
        "sent_at",
        "delivered_at",
        "opened_at",
        "opens",
        "clicked_at",
        "clicks",
        "unsubscribed_at",
        "failed_at",
    ]
    list_filter = ["campaign"]
    list_select_related = ["campaign", "device"]
