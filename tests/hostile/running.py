"""The hostile receiver's process, and the URL of each of its modes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.modes import CASES, MODES
from tests.hostile.ports import PORTS

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Case:
    """One thing that a receiver does, under ``name``, and what must come of it."""

    name: str
    url: str
    status: int | None
    error_code: str
    truncated: bool | None
    excerpt: str
    timeout: float


@dataclass(frozen=True)
class Hostile:
    """Where the process listens. good: base URLs by scheme, whose ``normal`` behaves."""

    ca_file: str
    good: dict[str, str]
    ports: dict[str, str]

    def cases(self) -> list[Case]:
        """Everything that it does."""
        return [self.case(name) for name in NAMES]

    def case(self, name: str) -> Case:
        kind, _, mode_name = name.partition(":")
        if kind == "port":
            port = PORTS[mode_name]
            url = self.ports[mode_name]
            return Case(name, url, None, port.error_code, None, "", port.timeout)
        mode = MODES[mode_name]
        return Case(
            name,
            self.good[kind] + mode_name,
            mode.status,
            mode.error_code,
            mode.truncated,
            mode.excerpt,
            mode.timeout,
        )


#: ``http:normal``, ``https:normal``, ..., ``port:refuses``, ...
NAMES = (*(f"{scheme}:{mode}" for scheme, mode in CASES), *(f"port:{name}" for name in PORTS))


@contextmanager
def running(folder: Path) -> Iterator[Hostile]:
    """Start it, and end it afterwards. folder: for its certificates."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hostile.receiver", str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        where = json.loads(process.stdout.readline())
        yield Hostile(
            where["ca_file"], {name: where[name] for name in ("http", "https")}, where["ports"]
        )
    finally:
        process.kill()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()
