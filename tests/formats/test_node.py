"""What we sign, verified under node by the npm packages ``standardwebhooks`` and ``svix``."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from webhooks.formats import EventRecord, get_format
from webhooks.formats.signing import decode_secret, generate_secret

SCRIPT = Path(__file__).with_name("verify_messages.mjs")
PACKAGES = ("standardwebhooks", "svix")
SECRET, OLD, FOREIGN = generate_secret(), generate_secret(), generate_secret()
EVENT = EventRecord(
    id="evt_" + "a" * 32,
    type="push.clicked",
    occurred_at=datetime(2027, 3, 4, 5, 6, 7, 89, tzinfo=UTC),
    data='{"url":"https://example.com/?a=1&b=2","title":"L\u00e4den \U0001f514","amount":1.10}',
)

pytestmark = pytest.mark.parametrize("package", PACKAGES)

Verify = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the npm packages are installed."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    place = tmp_path_factory.mktemp("node")
    install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(place), *PACKAGES]
    try:
        done = subprocess.run(
            install, cwd=place, capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip("needs the npm registry, which did not answer")
    if done.returncode:
        pytest.skip(f"needs the npm registry: {done.stderr.strip()[-200:]}")
    return place


@pytest.fixture
def verify(place: Path, package: str) -> Verify:
    """Verifies one message with the package; ``{payload}`` or ``{error}``."""

    def ask(body: bytes, headers: dict[str, str], secret: str = SECRET) -> dict[str, Any]:
        message = {
            "package": package,
            "secret": secret,
            "headers": headers,
            "body": body.decode(),
        }
        done = subprocess.run(
            ["node", str(SCRIPT)],
            cwd=place,
            input=json.dumps([message]),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        [answer] = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer

    return ask


def signed(*secrets: str, age: int = 0) -> tuple[bytes, dict[str, str]]:
    """Body and headers of one attempt, so many seconds ago."""
    standard = get_format("standard")
    body = standard.body(EVENT)
    keys = [decode_secret(secret) for secret in secrets]
    return body, standard.headers(EVENT.id, int(time.time()) - age, body, keys)


def test_what_we_sign_verifies(verify: Verify) -> None:
    body, headers = signed(SECRET)
    assert verify(body, headers) == {"payload": json.loads(body)}


def test_while_a_rotation_lasts_the_new_secret_and_the_old_one_verify(verify: Verify) -> None:
    body, headers = signed(SECRET, OLD)
    for secret in (SECRET, OLD):
        assert verify(body, headers, secret) == {"payload": json.loads(body)}


def test_what_we_did_not_sign_does_not(verify: Verify) -> None:
    body, headers = signed(SECRET)
    early, late = signed(SECRET, age=-900), signed(SECRET, age=900)
    cases = [
        (body.replace(b"clicked", b"Clicked"), headers, SECRET),
        (body, headers, FOREIGN),
        (body, headers | {"webhook-id": "evt_" + "b" * 32}, SECRET),
        (body, headers | {"webhook-timestamp": str(int(time.time()) + 7)}, SECRET),
        (*early, SECRET),
        (*late, SECRET),
    ]
    for case in cases:
        assert verify(*case).get("error") == "WebhookVerificationError", case
