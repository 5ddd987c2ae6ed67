"""The wheel, built once for a test run, and the environments it is installed into."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.documents import ROOT

#: What a test run may hand down and a stranger's machine would not have.
OURS = ("DJANGO_SETTINGS_MODULE", "PYTHONPATH", "PYTHONWARNINGS", "VIRTUAL_ENV")


def clean_environment(home: Path) -> dict[str, str]:
    """The environment of somebody who knows nothing of this checkout; HOME is empty."""
    home.mkdir(exist_ok=True)
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in OURS and not name.startswith(("PYTEST_", "WEBHOOKS_"))
    }
    return {**kept, "HOME": str(home), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def need_an_index() -> None:
    """Skip, or in CI fail, where pip finds nothing to install from."""
    ask = "install --dry-run --ignore-installed --no-deps --quiet --timeout=20 --retries=1"
    asked = subprocess.run(
        [sys.executable, "-m", "pip", *ask.split(), "hatchling"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode:
        message = f"pip reaches no package index: {asked.stderr.strip()[-300:]}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def build_wheel(into: Path) -> Path:
    """The wheel of this checkout, built in an isolated environment, as a release is."""
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(into), str(ROOT))
    [wheel] = into.glob("*.whl")
    return wheel


def run(
    *command: str,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    text: str = "",
    timeout: float = 300,
) -> str:
    """Run a command to its end and return what it printed; fails the test if it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        input=text,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def listens(port: int) -> bool:
    """Whether something answers on this port of the loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
