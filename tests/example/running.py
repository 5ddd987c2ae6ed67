"""Running the example project from tests, which have other settings: in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARK = "WEBHOOKS_EXAMPLE_TEST"


def environment(home: Path, mark: str = "") -> dict[str, str]:
    """A bare environment: an empty HOME, nothing of the test run's own settings.

    mark: is inherited by every process that is started, so that they can be found again.
    """
    home.mkdir(exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(home),
        "PYTHONPATH": str(ROOT),
        MARK: mark or uuid.uuid4().hex,
    }


def run_cases(module: str, home: Path, *more: str) -> None:
    """Run ``tests/example/<module>``, and more, with pytest under the example project's settings.

    Such modules are not named ``test_*.py``, so the test run itself, which does not install the
    example's apps, does not collect them.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest"),
            *(str(ROOT / "tests" / "example" / each) for each in (module, *more)),
            *("--ds=example_project.settings", "-p", "no:cacheprovider", "--timeout=60", "-q"),
        ],
        cwd=ROOT,
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def processes(mark: str) -> dict[int, str]:
    """Pid and command line of the processes that carry the mark (Linux: read from /proc)."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                command = (entry / "cmdline").read_bytes()
                found[int(entry.name)] = command.replace(b"\0", b" ").decode()
        except OSError:
            continue  # it has ended, or is another user's
    return found


def none_left(mark: str, seconds: float) -> dict[int, str]:
    """Wait until no marked process is left; those that still are when the time is up."""
    deadline = time.monotonic() + seconds
    while (left := processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left
