"""The example project as a browser meets it: a web server, its clusters, receivers on loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import requests

from tests.e2e.project import ExampleProject
from tests.world import Answer, Receiver, until

#: Name and password of who looks at it.
LOGIN = "admin"
#: The cluster of the webhooks, and the product's own, which sends the campaigns.
CLUSTERS = ("webhooks", "example")


class Site(ExampleProject):
    """Runs within its ``with`` block.

    clusters: which ones run. founded: a database to begin with, else a new one is made.
    """

    def __init__(
        self, place: Path, *, clusters: Sequence[str] = (), founded: Path | None = None
    ) -> None:
        super().__init__(place, deliveries=())
        self.clusters = clusters
        self.environment["DJANGO_SETTINGS_MODULE"] = "tests.browser.settings"
        # The web server is no cluster's: it enqueues for the one that is meant.
        del self.environment["Q_CLUSTER_NAME"]
        self.good = Receiver(Answer(status=204, body=b""))
        self.failing = Receiver(Answer(status=500, body=b"the database is full"))
        #: Fails until somebody sets another answer.
        self.healing = Receiver(Answer(status=500))
        self._cookies: dict[str, str] = {}
        if founded is not None:
            shutil.copy(founded, self.database)

    @property
    def database(self) -> Path:
        return Path(self.environment["EXAMPLE_DATABASE"])

    def found(self) -> None:
        """Make the database, with somebody who may log in."""
        self.python(f"said = population.found({LOGIN!r}, {LOGIN!r})")

    def __enter__(self) -> Self:
        try:
            if not self.database.exists():
                self.found()
            self._start("web", "runserver", "--noreload", "--insecure", f"127.0.0.1:{self.port}")
            for name in self.clusters:
                self.environment["Q_CLUSTER_NAME"] = name
                self._start(f"cluster-{name}", "qcluster")
            self.environment.pop("Q_CLUSTER_NAME", None)
            if self.clusters:
                # It stays when there is nothing to do, and so there is always a worker to look at.
                self._start("worker", "webhooks_worker")
            until(self._answers, timeout=60, what="the web server's first answer")
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        # At once: a cluster would end its running drain first, and nobody looks any more.
        for process in self._running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        super().close()
        self.good.close()
        self.failing.close()
        self.healing.close()

    def python(self, code: str, seconds: float = 120) -> Any:
        """What ``said`` is, as JSON tells it, after this code ran in the project."""
        told = self.shell(
            "import json\nfrom tests.browser import population, registry\n"
            f"{code}\nprint(json.dumps(said))",
            seconds,
        )
        return json.loads(told.splitlines()[-1])

    def populate(self) -> None:
        """Have something happen; from then on ``subscriptions``, ``places`` and ``routes`` say
        what there is."""
        told = self.python(
            f"made = population.populate({self.good.url!r}, {self.failing.url!r})\n"
            "population.campaigns()\n"
            "said = [made, population.pages(), registry.routes()]"
        )
        self.subscriptions: dict[str, str] = told[0]
        self.places: list[str] = told[1]
        self.routes: list[str] = told[2]

    def neglect(self) -> None:
        """Something is due from now on (``neglected_at``, by the monotonic clock)."""
        self.python(f"said = population.neglect({self.good.url!r})")
        self.neglected_at = time.monotonic()

    def cast(self) -> dict[str, dict[str, str]]:
        """Those that somebody will work on, by the way of working and by what they are."""
        urls = (self.good.url, self.healing.url, self.failing.url)
        found: dict[str, dict[str, str]] = self.python(f"said = population.cast(*{urls!r})")
        return found

    def log_in(self, session: requests.Session) -> None:
        address = f"{self.origin}/admin/login/"
        session.get(address, timeout=30)
        fields = {"username": LOGIN, "password": LOGIN}
        token = session.cookies["csrftoken"]
        answer = session.post(address, {**fields, "csrfmiddlewaretoken": token}, timeout=30)
        assert "sessionid" in session.cookies, answer.text

    def cookies(self) -> list[dict[str, str]]:
        """Of somebody who is logged in, as Playwright takes them."""
        if not self._cookies:
            with requests.Session() as session:
                self.log_in(session)
                self._cookies = dict(session.cookies)
        return [
            {"name": name, "value": value, "url": self.origin}
            for name, value in self._cookies.items()
        ]
