"""The processes that are measured, and what they cost: CPU seconds from /proc (Linux)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TICK = os.sysconf("SC_CLK_TCK")


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A manage command in a process group of its own; at the end all of it is stopped."""
    verbose = None if os.environ.get("WEBHOOKS_TEST_VERBOSE") else subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "django", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=verbose,
        stderr=verbose,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # The first one alone: a cluster stops its workers by itself, and hangs without them.
        with suppress(ProcessLookupError):
            process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def timed(*arguments: str, since: Callable[[], bool], timeout: float) -> tuple[float, float]:
    """Run a manage command to its end: seconds that it took, and seconds of CPU.

    since: asked every few milliseconds; both are counted from when it first says True, so that
    Python's and Django's start are left out. timeout: seconds for all of it.
    """
    deadline = time.monotonic() + timeout
    began, used = 0.0, 0.0
    with running(*arguments) as process:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"{arguments} took more than {timeout} s")
            if not began and since():
                began, used = time.monotonic(), _cpu(process.pid) or 0.0
            time.sleep(0.005)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not began:
        raise RuntimeError(f"{arguments} ended with {process.returncode} before it did anything")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime - used


class ServerCpu:
    """CPU of the PostgreSQL backends that serve one database, while this context lasts.

    Each is read every 20 ms, so the last bit of a backend that ends is missed; what the server does
    in the background (checkpoints, the WAL writer) is not counted either.
    """

    def __init__(self, database: str) -> None:
        self._mark = database.encode()
        self._first: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> ServerCpu:
        for pid in self._backends():
            self._first[pid] = _cpu(pid) or 0.0
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        return sum(cpu - self._first.get(pid, 0.0) for pid, cpu in self._last.items())

    def _watch(self) -> None:
        known: set[int] = set()
        rounds = 0
        while not self._over.wait(0.02):
            if rounds % 10 == 0:  # looking through all processes costs more than reading a few
                known = self._backends()
            rounds += 1
            for pid in known:
                cpu = _cpu(pid)
                if cpu is not None:
                    self._last[pid] = cpu

    def _backends(self) -> set[int]:
        found = set()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if command.startswith(b"postgres:") and self._mark in command:
                found.add(int(entry.name))
        return found


def _cpu(pid: int) -> float | None:
    """Seconds of CPU that a process has used; None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK
