"""The example project, running: a web server and a worker in processes, with their own database.

Nothing of the test run's settings reaches them; what a test does to them it does over HTTP, or as
an operator would, with ``manage.py``.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import requests

from tests.example.running import ROOT
from tests.example.running import environment as bare_environment
from tests.world import until

#: Seconds that a process has between SIGTERM and SIGKILL. A cluster ends with its running drain.
GRACE = 25.0

QCLUSTER = ("qcluster",)
WORKER = ("webhooks_worker",)


class ExampleProject:
    """Runs within its ``with`` block. deliveries: the command that delivers."""

    def __init__(self, place: Path, *, deliveries: tuple[str, ...]) -> None:
        place.mkdir(exist_ok=True)
        self.place = place
        self.deliveries = deliveries
        self.environment = {
            **bare_environment(place / "home"),
            "EXAMPLE_DATABASE": str(place / "example.sqlite3"),
            "Q_CLUSTER_NAME": "webhooks",
            "PYTHONUNBUFFERED": "1",
        }
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]

    def __enter__(self) -> Self:
        try:
            self.manage("migrate", "--verbosity=0")
            self.manage("webhooks_schedules")
            self._start("web", "runserver", "--noreload", f"127.0.0.1:{self.port}")
            self._start("deliveries", *self.deliveries)
            until(self._answers, timeout=60, what="the web server's first answer")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def api(self) -> str:
        """Where the webhooks' API is mounted."""
        return f"{self.origin}/webhooks"

    def manage(self, *arguments: str, seconds: float = 60) -> str:
        """Run a management command to its end; what it printed. Fails the test if it fails."""
        done = subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *arguments],
            cwd=self.place,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def shell(self, code: str, seconds: float = 60) -> str:
        """Do what an operator does in ``manage.py shell``; what it printed."""
        return self.manage("shell", "--no-imports", "-c", code, seconds=seconds)

    def sweep(self) -> None:
        """What happens once a minute, now."""
        self.shell("from webhooks.tasks import sweep; sweep()")

    def log(self, name: str) -> str:
        """What ``web`` or ``deliveries`` has said so far."""
        return (self.place / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        for process in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            # The group as well: what a process has left behind when it was killed.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._running.clear()

    def _start(self, name: str, *arguments: str) -> None:
        with (self.place / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), *arguments],
                cwd=self.place,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        for name, process in self._running.items():
            assert process.poll() is None, f"{name} has ended:\n{self.log(name)}"
        try:
            return requests.get(f"{self.origin}/accounts/login/", timeout=30).ok
        except requests.ConnectionError:
            return False
