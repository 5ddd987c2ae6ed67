"""The libraries by which subscribers verify: other people's, in Python and for Node.

A message is what a subscriber received: its headers and its raw body.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from svix.webhooks import Webhook as SvixWebhook

SCRIPT = Path(__file__).with_name("verify.js")


def by_standardwebhooks(secret: str, headers: Mapping[str, str], body: bytes) -> Any:
    """The parsed body; raises WebhookVerificationError when the message is not authentic."""
    return Webhook(secret).verify(body, dict(headers))


def is_authentic(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether two libraries for Python, ``standardwebhooks`` and ``svix``, both say so."""
    said = []
    for verify in (Webhook(secret).verify, SvixWebhook(secret).verify):
        try:
            verify(body, dict(headers))
        except WebhookVerificationError:
            said.append(False)
        else:
            said.append(True)
    assert said[0] == said[1], "the two libraries do not agree"
    return said[0]


@dataclass
class NodeSvix:
    """``svix`` from npm, run by Node. missing: why it cannot be; "" when it can."""

    place: Path
    missing: str = ""
    verified: int = field(default=0, init=False)

    @classmethod
    def install(cls, place: Path) -> NodeSvix:
        """Install it into a directory of its own."""
        node, npm = shutil.which("node"), shutil.which("npm")
        if not (node and npm):
            return cls(place, "node or npm is not installed")
        place.mkdir(exist_ok=True)
        install = ["install", "--prefix", str(place), "--no-audit", "--no-fund", "svix@1"]
        try:
            done = subprocess.run(
                [npm, *install], cwd=place, capture_output=True, text=True, timeout=60, check=False
            )
        except subprocess.TimeoutExpired:
            return cls(place, "the npm registry did not answer")
        if done.returncode:
            return cls(place, f"npm could not install svix: {done.stderr.strip()[-300:]}")
        return cls(place)

    def verify(self, secret: str, headers: Mapping[str, str], body: bytes) -> Any:
        """The parsed body, as ``svix`` returns it; fails the test when it refuses the message."""
        done = subprocess.run(
            ["node", str(SCRIPT)],
            env={**os.environ, "NODE_PATH": str(self.place / "node_modules")},
            input=json.dumps({"secret": secret, "headers": dict(headers), "body": body.decode()}),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        self.verified += 1
        return json.loads(done.stdout)
