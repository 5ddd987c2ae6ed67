"""Programs that the benchmarks start, and stop by their own process group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.benchmarks.harness import ROOT


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A manage command, as :func:`program`."""
    with program(sys.executable, "-W", "ignore", "-m", "django", *arguments) as process:
        yield process


@contextmanager
def program(
    *command: str, environ: dict[str, str] | None = None, core: set[int] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a process group of its own; at the end all of it is stopped.

    core: where it and all that it starts run.
    """
    verbose = None if os.environ.get("WEBHOOKS_TEST_VERBOSE") else subprocess.DEVNULL
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | (environ or {}),
        stdin=subprocess.DEVNULL,
        stdout=verbose,
        stderr=verbose,
        start_new_session=True,
        preexec_fn=(lambda: os.sched_setaffinity(0, core)) if core else None,
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
