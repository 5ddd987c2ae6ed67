"""``manage.py webhooks_status``: how the service fares, for people and for monitoring."""

from __future__ import annotations

import json
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandParser
from django.utils import translation

from webhooks import health

#: Whatever else ends the command badly (no database, say) exits with 1 as well, and says so.
EXIT: Final = {health.HEALTHY: 0, health.IDLE: 0, health.DEGRADED: 1, health.DOWN: 2}


class Command(BaseCommand):
    help = (
        "Tell how the webhook service fares, and why. Exits with 0 where it is healthy or idle, "
        "with 1 where it is degraded, with 2 where it is down."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object, on one line")

    def handle(self, *args: Any, **options: Any) -> None:
        # Monitoring reads this, whatever LANGUAGE_CODE is.
        with translation.override("en"):
            self.tell(as_json=options["json"])

    def tell(self, *, as_json: bool) -> None:
        found = health.of_service()
        headline = health.headline(found)
        if as_json:
            reasons = [{"code": r.code, "message": r.message} for r in found.verdict.reasons]
            shown = {
                **found.as_dict(),
                "headline": headline.text,
                "reasons": reasons,
                "success_rate_24h": found.success_rate_24h,
                "dead_24h": found.dead_24h,
                "suspended_24h": found.suspended_24h,
                "schedules": {each.name: each.as_dict() for each in found.schedules},
            }
            self.stdout.write(json.dumps(shown))
        else:
            self.stdout.write(str(headline))
            for reason in found.verdict.reasons:
                self.stdout.write(f"  - {reason.message}")
        if code := EXIT[found.status]:
            raise SystemExit(code)
