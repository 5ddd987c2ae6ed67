"""Examples of requests, by operationId. A test sends each of them."""

from __future__ import annotations

from typing import Any, Final


def _example(summary: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "value": value}


EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "createSubscription": {
        "least": _example(
            "What it takes",
            {"callback_url": "https://example.com/webhooks", "event_types": ["*"]},
        ),
        "most": _example(
            "With options",
            {
                "callback_url": "https://example.com/webhooks",
                "event_types": ["*"],
                "rate_limit": 600,
                "ordered": True,
                "headers": {"X-Tenant": "acme"},
                "contact_email": "ada@example.com",
                "description": "The warehouse",
                "metadata": {"team": "logistics"},
            },
        ),
        "resthooks": _example(
            "As REST Hooks clients ask", {"hookUrl": "https://example.com/webhooks", "event": "*"}
        ),
    },
    "replaceSubscription": {
        "all": _example(
            "Everything that is not named is set back",
            {
                "callback_url": "https://example.com/webhooks",
                "event_types": ["*"],
                "description": "The warehouse",
            },
        )
    },
    "updateSubscription": {
        "move": _example("Another URL", {"callback_url": "https://example.com/webhooks/2"}),
        "pause": _example("Pause it", {"status": "suspended", "on_suspend": "keep"}),
    },
    "suspendSubscription": {
        "discard": _example("Drop new events meanwhile", {"on_suspend": "discard"})
    },
    "resumeSubscription": {
        "discard": _example("Drop what has waited", {"backlog": "discard"}),
    },
    "rotateSubscriptionSecret": {
        "hour": _example("The old one signs for another hour", {"overlap_seconds": 3600})
    },
    "replaySubscription": {
        "count": _example(
            "How many would that be?",
            {
                "from": "2026-01-15T00:00:00Z",
                "to": "2026-01-16T00:00:00Z",
                "dry_run": True,
            },
        ),
        "missing": _example(
            "Only those that have no delivery to it",
            {"from": "2026-01-15T00:00:00Z", "types": ["*"], "only_missing": True},
        ),
    },
    "redeliverDelivery": {
        "again": _example("For a receiver that drops repeats", {"new_id": True}),
    },
}
