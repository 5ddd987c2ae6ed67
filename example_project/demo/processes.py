"""The demo's child processes: started, watched and ended by pid.

Each child leads a session of its own, so that Ctrl-C in the terminal reaches only the demo, which
then ends its children in order, the youngest first. Their output goes to a log file each.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

#: Seconds that a child has between SIGTERM and SIGKILL. A cluster ends with its running drain.
GRACE = 25.0


class ChildDied(Exception):
    """A child ended that nobody had asked to."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running child, which is also the leader of its own process group."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def ended(self) -> bool:
        """Whether it is gone. It stays a zombie, so that its pid cannot become another's."""
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return self.process.returncode is not None or (
            os.waitid(os.P_PID, self.pid, how) is not None
        )

    def last_words(self, lines: int = 20) -> str:
        """The end of its log."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])


class Children:
    """All children of one demo; none of them outlives its ``with`` block, nor the demo."""

    def __init__(self, root: Path, logs: Path) -> None:
        """root: where they run; ``example_project`` is imported from there. logs: a directory."""
        self.root = root
        self.logs = logs
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "example_project.demo.guard"],
            cwd=self.root,
            env=self._environment({}),
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._guard.communicate()

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        sockets: Sequence[int] = (),
    ) -> Child:
        """Start ``python arguments…``.

        environment: variables beside those of the demo. sockets: descriptors that it inherits.
        """
        log = self.logs / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, *arguments],
                cwd=self.root,
                env=self._environment(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=sockets,
            )
        child = Child(name, process, log)
        self._children.append(child)
        self._tell_guard(f"+{child.pid}")
        return child

    def check(self) -> None:
        """Raises ChildDied if one of them is gone."""
        for child in self._children:
            if child.ended():
                status = child.process.wait()
                raise ChildDied(
                    f"{child.name} (pid {child.pid}) ended with status {status}. "
                    f"Its last words:\n{child.last_words()}"
                )

    def stop(self) -> None:
        """End all of them, the youngest first; returns when they are gone."""
        while self._children:
            child = self._children[-1]
            self._end(child)
            self._children.pop()
            self._tell_guard(f"-{child.pid}")

    def _end(self, child: Child) -> None:
        if not child.ended():
            child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while not child.ended() and time.monotonic() < deadline:
            time.sleep(0.02)
        # The group as well: what a child has left behind when it was killed or has crashed.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.process.wait()

    def _tell_guard(self, line: str) -> None:
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(line.encode() + b"\n")
            self._guard.stdin.flush()

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        path = [str(self.root), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONUNBUFFERED": "1",
            **more,
        }
