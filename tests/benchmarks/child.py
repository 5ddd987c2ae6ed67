"""Functions of the benchmarks, called in processes of their own: with a core, a memory, a Django.

``call("tests.benchmarks.senders:session", core={1}, url=…)`` runs that function there and returns
what it returned. Arguments and answers travel as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.benchmarks.harness import ROOT, pin

#: Seconds that a process has to end by itself when it is told to.
GRACE = 20.0


def call(
    function: str,
    *,
    core: set[int] | None = None,
    timeout: float = 300.0,
    environ: dict[str, str] | None = None,
    **arguments: Any,
) -> Any:
    """Call ``module:function`` in a new process. core: where it runs. timeout: seconds.

    Raises RuntimeError where it fails, TimeoutError where it takes too long.
    """
    with started(function, core=core, environ=environ, **arguments) as process:
        try:
            told, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{function} took more than {timeout:g} s") from None
        if process.returncode:
            raise RuntimeError(f"{function} ended with {process.returncode}")
    return json.loads(told.splitlines()[-1])


@contextmanager
def started(
    function: str,
    *,
    core: set[int] | None = None,
    environ: dict[str, str] | None = None,
    grace: float = GRACE,
    **arguments: Any,
) -> Iterator[subprocess.Popen[str]]:
    """The same while the context lasts: at its end the process is told to stop, by SIGTERM.

    grace: seconds after which it is killed.
    """
    process = subprocess.Popen(
        [
            *(sys.executable, "-W", "ignore", "-m", "tests.benchmarks.child"),
            *(function, json.dumps(arguments), json.dumps(sorted(core or ()))),
        ],
        cwd=ROOT,
        env=os.environ | (environ or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            process.communicate(timeout=grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def main() -> None:
    function, arguments, core = sys.argv[1:]
    if wanted := set(json.loads(core)):
        pin(0, wanted)
    module, _, name = function.partition(":")
    told = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
