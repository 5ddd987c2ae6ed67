"""The code on the pages is run as it stands there."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.world import Receiver
from webhooks import catalog
from webhooks.documentation.schemas import documented_message
from webhooks.documentation.signed import SECRET, signed_example, snippets
from webhooks.formats.signing import sign
from webhooks.receiving import verify

#: What a payload may hold to break out of a literal.
NASTY = {"a": 'it\'s "quoted" \\ `x` $HOME ${HOME} $(id) {b} % \u2028 é 😀 </script>\n'}


@pytest.fixture
def nasty(register: Any) -> catalog.EventType:
    made: catalog.EventType = register("order.nasty", example=NASTY)
    return made


def code(event_type: catalog.EventType, language: str) -> str:
    return snippets(signed_example(event_type))[language]


def test_the_python_verifies_the_documented_example(
    every_type: list[catalog.EventType], nasty: catalog.EventType
) -> None:
    for each in [*every_type, nasty]:
        found: dict[str, Any] = {}
        exec(code(each, "python"), found)
        assert found["event"] == documented_message(each)


def test_the_python_refuses_another_body_signature_and_age(nasty: catalog.EventType) -> None:
    found: dict[str, Any] = {}
    exec(code(nasty, "python"), found)
    verify_, body, headers, secret = (
        found[name] for name in ("verify", "body", "headers", "secret")
    )
    with pytest.raises(ValueError, match="no signature matches"):
        verify_(body + b" ", headers, secret, tolerance=None)
    forged = {**headers, "webhook-signature": "v1,é v2,x"}
    with pytest.raises(ValueError, match="no signature matches"):
        verify_(body, forged, secret, tolerance=None)
    with pytest.raises(ValueError, match="too old"):
        verify_(body, headers, secret)
    two = {**headers, "webhook-signature": f"v1,AAAA {headers['webhook-signature']}"}
    assert verify_(body, two, secret, tolerance=None) == documented_message(nasty)


def test_the_headers_that_are_shown_hold_the_signature_that_is_computed(
    every_type: list[catalog.EventType],
) -> None:
    for each in every_type:
        example = signed_example(each)
        sent = example.headers
        expected = sign([SECRET], sent["webhook-id"], int(sent["webhook-timestamp"]), example.body)
        assert sent["webhook-signature"] == expected
        assert f'"webhook-signature": {json.dumps(expected)}' in code(each, "node")
        assert f'"webhook-signature": {json.dumps(expected)}' in code(each, "python")


def test_node_verifies_the_documented_example_and_refuses_another(
    nasty: catalog.EventType, tmp_path: Path
) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    script = tmp_path / "verify.mjs"
    script.write_text(code(nasty, "node") + "console.log(JSON.stringify(event));\n")
    ran = subprocess.run([node, script], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(ran.stdout.strip().split("\n")[-1]) == documented_message(nasty)
    for call, reason in [
        ("verify(body, headers, secret)", "too old"),
        ('verify(body + " ", headers, secret, null)', "no signature"),
    ]:
        script.write_text(code(nasty, "node").replace("verify(body, headers, secret, null)", call))
        ran = subprocess.run([node, script], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 1
        assert reason in ran.stderr


def test_the_curl_sends_an_example_that_verifies_now(
    nasty: catalog.EventType, receiver: Receiver
) -> None:
    missing = [tool for tool in ("sh", "curl", "openssl", "od") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    script = code(nasty, "curl").replace("https://example.com/webhooks", receiver.url)
    subprocess.run(["sh", "-ec", script], capture_output=True, check=True, timeout=60)
    [post] = receiver.posts
    assert post.body == signed_example(nasty).body
    assert verify(post.body, post.headers, SECRET) == documented_message(nasty)
    expected = sign([SECRET], post.id, int(post.headers["webhook-timestamp"]), post.body)
    assert post.headers["webhook-signature"] == expected
    assert post.headers["content-type"] == "application/json"
