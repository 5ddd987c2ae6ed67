"""The documented example of an event type, signed as a delivery is, and code that verifies it.

The secret and the time are fixed: the pages stay the same from one hour to the next. Hence the
snippets check the example at any age, and say that a receiver must not.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from webhooks.catalog import EventType
from webhooks.documentation.schemas import EXAMPLE_ID, EXAMPLE_TIME, documented_body
from webhooks.formats import get_format
from webhooks.formats.signing import decode_secret

#: The secret of Standard Webhooks' own examples: nobody can mistake it for a real one.
SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105
TIMESTAMP: Final = int(EXAMPLE_TIME.timestamp()) + 1


@dataclass(frozen=True, slots=True)
class SignedExample:
    """One delivery of the example. body: the very bytes that are signed; headers: all that vary."""

    body: bytes
    headers: Mapping[str, str]
    secret: str = SECRET

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def indented(self) -> str:
        """The body for the eye. It is sent, and signed, without these line breaks."""
        return json.dumps(json.loads(self.body), indent=2, ensure_ascii=False)


def signed_example(event_type: EventType) -> SignedExample:
    """The type's example as a receiver gets it."""
    body = documented_body(event_type)
    headers = get_format("standard").headers(EXAMPLE_ID, TIMESTAMP, body, [decode_secret(SECRET)])
    return SignedExample(body, headers)


def snippets(example: SignedExample) -> dict[str, str]:
    """Code by language: ``python``, ``node``, ``curl``."""
    return {
        "python": _PYTHON.format(
            secret=json.dumps(example.secret),
            headers=_indented(example.headers),
            body=repr(example.text),
        ),
        "node": _NODE.format(
            secret=json.dumps(example.secret),
            headers=_indented(example.headers),
            body=json.dumps(example.text, ensure_ascii=False),
        ),
        "curl": _CURL.format(
            secret=shlex.quote(example.secret),
            id=shlex.quote(example.headers["webhook-id"]),
            content_type=shlex.quote(f"Content-Type: {example.headers['Content-Type']}"),
            body=shlex.quote(example.text),
        ),
    }


def _indented(headers: Mapping[str, str]) -> str:
    lower = {name.lower(): value for name, value in headers.items()}
    lines = [f"    {json.dumps(name)}: {json.dumps(value)},\n" for name, value in lower.items()]
    return "{\n" + "".join(lines) + "}"


# Only the standard libraries: nothing to install, nothing to trust.

_PYTHON: Final = """\
import base64
import hmac
import json
import time


def verify(body, headers, secret, tolerance=300):
    \"\"\"The message, if the secret signed it; else ValueError.

    body: the raw bytes, as received. headers: lower-case names. tolerance: seconds; None: any age.
    \"\"\"
    message_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    if tolerance is not None and abs(time.time() - int(timestamp)) > tolerance:
        raise ValueError("too old, or from the future")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{{message_id}}.{{timestamp}}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    for signature in headers["webhook-signature"].split(" "):
        if hmac.compare_digest(signature.encode(), expected.encode()):
            return json.loads(body)
    raise ValueError("no signature matches")


# The example. In your receiver, leave the tolerance as it is.
secret = {secret}
headers = {headers}
body = {body}.encode()
event = verify(body, headers, secret, tolerance=None)
print(event["type"], event["data"])
"""

_NODE: Final = """\
import {{ createHmac, timingSafeEqual }} from "node:crypto";

// The message, if the secret signed it; else an Error. body: the raw text, as received.
// headers: lower-case names, as node gives them. tolerance: seconds; null: any age.
function verify(body, headers, secret, tolerance = 300) {{
  const id = headers["webhook-id"];
  const timestamp = headers["webhook-timestamp"];
  const age = Math.abs(Date.now() / 1000 - Number(timestamp));
  if (tolerance !== null && !(age <= tolerance)) throw new Error("too old, or from the future");
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const signed = `${{id}}.${{timestamp}}.${{body}}`;
  const digest = createHmac("sha256", key).update(signed).digest("base64");
  const expected = Buffer.from(`v1,${{digest}}`);
  for (const text of headers["webhook-signature"].split(" ")) {{
    const given = Buffer.from(text);
    const matches = given.length === expected.length && timingSafeEqual(given, expected);
    if (matches) return JSON.parse(body);
  }}
  throw new Error("no signature matches");
}}

// The example. In your receiver, leave the tolerance as it is.
const secret = {secret};
const headers = {headers};
const body = {body};
const event = verify(body, headers, secret, null);
console.log(event.type, event.data);
"""

_CURL: Final = """\
# Sends the example to your endpoint, signed now, so that it verifies with the secret below.
url=https://example.com/webhooks
secret={secret}
id={id}
body={body}
timestamp=$(date +%s)
key=$(printf %s "${{secret#whsec_}}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \\n')
signature=$(printf %s "$id.$timestamp.$body" |
  openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)
curl -i "$url" -H {content_type} \\
  -H "webhook-id: $id" -H "webhook-timestamp: $timestamp" \\
  -H "webhook-signature: v1,$signature" --data-binary "$body"
"""
