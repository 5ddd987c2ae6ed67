"""The README's quickstart, followed to the letter by somebody with Python and a shell."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.documents import ROOT, Block, blocks
from tests.packaging.installing import clean_environment, listens, run
from tests.world import until

PORT = 8901  # the README's


class Reader:
    """Does in a directory what the quickstart says, block by block."""

    def __init__(self, place: Path, env: dict[str, str]) -> None:
        self.place = place
        self.env = env
        self.secret = ""
        self.expected = ""
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def follow(self, block: Block) -> None:
        instruction, _, target = block.marker.removeprefix("quickstart: ").partition(" ")
        match instruction, target:
            case "terminal", "":
                self.terminal(block.code)
            case "second" | "third", "terminal":
                self.start(instruction, block.code)
            case "shell", "":
                self.shell(block.code)
            case "append", _:
                with (self.place / target.removeprefix("to ")).open("a") as file:
                    file.write(block.code)
            case "write", _:
                (self.place / target).write_text(block.code)
            case "receiver", "says":
                self.expected = block.code.strip()
            case _:
                pytest.fail(f"README.md:{block.line}: what is {block.marker!r}?")

    def terminal(self, code: str) -> None:
        # One terminal: what an earlier block activated is still active.
        active = "if [ -e .venv/bin/activate ]; then . .venv/bin/activate; fi\n"
        run("bash", "-ec", active + code, cwd=self.place, env=self.env)

    def shell(self, code: str) -> None:
        python = str(self.place / ".venv/bin/python")
        said = run(python, "manage.py", "shell", cwd=self.place, env=self.env, text=code)
        shown = re.search(r"whsec_\S+", said)
        if shown:
            self.secret = shown[0]

    def start(self, name: str, code: str) -> None:
        if "whsec_..." in code:
            assert self.secret, "no secret was shown before it is needed"
            code = code.replace("whsec_...", self.secret)
        with (self.place / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                ["bash", "-ec", code],
                cwd=self.place,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self, name: str) -> str:
        return (self.place / f"{name}.log").read_text()

    def close(self) -> None:
        for process in self.running.values():
            _signal(process, signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


@pytest.fixture
def reader(tmp_path: Path, wheel: Path) -> Iterator[Reader]:
    env = clean_environment(tmp_path / "home")
    # The only liberty: "pip install django-webhook-delivery" gets this wheel, not a release.
    constraint = tmp_path / "constraint.txt"
    constraint.write_text(f"django-webhook-delivery @ {wheel.as_uri()}\n")
    env["PIP_CONSTRAINT"] = str(constraint)
    place = tmp_path / "work"
    place.mkdir()
    made = Reader(place, env)
    yield made
    made.close()


@pytest.mark.timeout(420)
def test_the_quickstart_delivers_an_event(reader: Reader) -> None:
    assert not listens(PORT), f"something else listens on the quickstart's port {PORT}"
    steps = [
        block
        for block in blocks((ROOT / "README.md").read_text())
        if block.marker.startswith("quickstart: ")
    ]
    assert len(steps) >= 10

    for step in steps:
        reader.follow(step)
        if step.marker == "quickstart: second terminal":
            until(lambda: listens(PORT), what="the receiver's start")

    until(
        lambda: reader.expected in reader.said("second"),
        timeout=60,
        what=f"{reader.expected!r} at the receiver",
    )
    assert "Traceback" not in reader.said("third")
    python = str(reader.place / ".venv/bin/python")
    where = run(
        python, "-c", "import webhooks; print(webhooks.__file__)", cwd=reader.place, env=reader.env
    )
    assert Path(where.strip()).is_relative_to(reader.place / ".venv")
    ask = "from webhooks.models import Delivery; print(*Delivery.objects.values_list('state'))"
    until(
        lambda: (
            "('delivered',)"
            in run(python, "manage.py", "shell", "-c", ask, cwd=reader.place, env=reader.env)
        ),
        what="the delivery's end",
    )
    run(python, "manage.py", "check", "--fail-level", "WARNING", cwd=reader.place, env=reader.env)
