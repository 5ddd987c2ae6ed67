"""The event types of the product. ``webhooks`` finds this module by its name."""

from __future__ import annotations

from typing import Any

from webhooks import catalog

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "push_id": {"type": "integer", "description": "The push: one message to one device."},
        "campaign_id": {"type": "integer"},
        "campaign": {"type": "string", "description": "Name of the campaign."},
        "device": {
            "type": "object",
            "properties": {
                "token": {"type": "string"},
                "platform": {"type": "string", "enum": ["android", "ios", "web"]},
            },
            "required": ["token", "platform"],
        },
        "at": {"type": "string", "format": "date-time", "description": "When it happened."},
    },
    "required": ["push_id", "campaign_id", "campaign", "device", "at"],
}

_EXAMPLE: dict[str, Any] = {
    "push_id": 4711,
    "campaign_id": 7,
    "campaign": "Autumn sale",
    "device": {"token": "0f8c3a52d1e94b7e", "platform": "ios"},
    "at": "2025-10-01T08:30:00.123456Z",
}

for _name, _title, _description in (
    ("push.sent", "Push sent", "The push was handed to the device's push service."),
    ("push.delivered", "Push delivered", "The device has confirmed that it shows the push."),
    ("push.opened", "Push opened", "The user has opened the push."),
    ("push.clicked", "Push clicked", "The user has followed the link in the push."),
    (
        "push.unsubscribed",
        "Device unsubscribed",
        "The user wants no more pushes; the device gets none from now on.",
    ),
):
    catalog.register(
        _name, title=_title, description=_description, schema=_SCHEMA, example=_EXAMPLE
    )
