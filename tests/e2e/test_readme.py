"""The README's lines for a terminal, by which a client subscribes, do what it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.endpoint import Endpoint
from tests.e2e.project import WORKER, ExampleProject
from tests.packaging.documents import ROOT, blocks


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_a_client_subscribes_with_curl(tmp_path: Path, endpoints: Callable[[], Endpoint]) -> None:
    endpoint = endpoints()
    [block] = [
        each for each in blocks((ROOT / "README.md").read_text()) if each.marker == "api: terminal"
    ]
    with ExampleProject(tmp_path / "project", deliveries=WORKER) as project:
        # The only liberties: where the project and the endpoint listen.
        code = block.code.replace("http://127.0.0.1:8000", project.origin)
        code = code.replace("http://127.0.0.1:8901/", endpoint.url)
        assert project.origin in code
        assert endpoint.url in code
        python = str(Path(sys.executable).parent)
        done = subprocess.run(
            ["bash", "-euc", code],
            cwd=ROOT,  # where manage.py is
            env=project.environment | {"PATH": os.pathsep.join([python, os.environ["PATH"]])},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout[done.stdout.index("{") :])
        assert (told["requester"], told["status"]) == ("app:acme", "subscribed")
        endpoint.secrets.append(told["secret"])
        project.manage("campaign", "--devices", "1", "--requester", "app:acme")
        types = {message.type for message in endpoint.take(2)}
        assert types == {"push.sent", "push.delivered"}
