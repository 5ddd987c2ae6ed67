"""``manage.py demo``: the whole of it, from a simulated click to a verified signature."""

from __future__ import annotations

import importlib.util
import os
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from example_project.demo import live, once
from example_project.demo.api import Refused
from example_project.demo.console import Console
from example_project.demo.processes import ChildDied
from example_project.demo.services import NotReady
from example_project.demo.stopping import Stopped, StopSignal


class Command(BaseCommand):
    help = (
        "Run a push campaign, its webhooks and two subscribers on this machine, until Ctrl-C. "
        "With --once: emit a number of events, wait for the last acknowledgement, and exit 0 only "
        "if the product, the webhooks and the subscribers agree about every one of them."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="headless, N events, then tie out")
        parser.add_argument(
            "--events", type=_count, default=2000, help="with --once: how many (2000)"
        )
        parser.add_argument(
            "--json", action="store_true", help="with --once: the last line is one JSON object"
        )
        parser.add_argument(
            "--timeout", type=float, default=120, help="with --once: seconds to settle (120)"
        )
        parser.add_argument(
            "--fail",
            type=_share,
            default=0.1,
            help="share of requests that the subscribers answer with 500 (0.1)",
        )
        parser.add_argument("--seed", type=int, default=1, help="seed of all that is simulated (1)")
        parser.add_argument(
            "--database",
            help="SQLite file; by default that of the settings, and a new one with --once",
        )
        parser.add_argument(
            "--port",
            type=int,
            default=8000,
            help="of the web server (8000); --once takes any free one",
        )
        parser.add_argument("--rate", type=float, default=5, help="events per second (5)")

    def execute(self, *args: Any, **options: Any) -> str | None:
        # Around the system checks as well: Ctrl-C is heard from here on.
        with StopSignal() as self.stop:
            return super().execute(*args, **options)

    def handle(self, *args: Any, **options: Any) -> None:
        if importlib.util.find_spec("standardwebhooks") is None:
            raise CommandError(
                "The demo's subscribers verify with the package 'standardwebhooks', which is not "
                "installed: pip install 'django-webhook-delivery[demo]'."
            )
        database = options["database"] and os.path.abspath(options["database"])
        self.stdout.ending = ""  # the console ends its own lines
        console = Console(self.stdout)
        try:
            if options["once"]:
                self._once(console, database, options)
            else:
                asked = live.Live(
                    options["rate"], options["fail"], options["port"], options["seed"], database
                )
                live.run(asked, console, self.stop)
        except Stopped as stopped:
            console.say(f"{stopped}; nothing is left running.")
            if options["once"]:
                raise SystemExit(128 + stopped.number) from None
        except (ChildDied, NotReady, Refused, OSError) as error:
            raise CommandError(str(error)) from error
        finally:
            console.close()

    def _once(self, console: Console, database: str | None, options: dict[str, Any]) -> None:
        asked = once.Once(
            options["events"], options["fail"], options["timeout"], options["seed"], database
        )
        result = once.run(asked, console, self.stop)
        result.show(console)
        console.say("It ties out." if result.ok else "It does not tie out.")
        if options["json"]:
            console.say(result.as_json())
        if not result.ok:
            raise CommandError("\n".join(result.reasons))


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError("at least 1 event")
    return number


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share < 1:
        raise ArgumentTypeError("a share of requests, from 0 up to but not including 1")
    return share
