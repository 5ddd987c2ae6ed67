"""The transports that the benchmarks know, and the settings under which each is measured."""

from __future__ import annotations

import json
import os
from importlib import import_module
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from tests.benchmarks.harness import Options

#: Dotted path, and POSTs in flight: threads pay for many of them, curl does not.
TRANSPORTS = {
    "requests": ("webhooks.transports.requests.RequestsTransport", 32),
    "curl": ("webhooks.transports.curl.CurlTransport", 128),
}
NULL = "tests.benchmarks.null.NullTransport"


def missing(transport: str) -> str:
    """Why a transport cannot be measured here; "" where it can."""
    path, _ = TRANSPORTS[transport]
    module, _, name = path.rpartition(".")
    try:
        getattr(import_module(module), name)
    except (ImportError, AttributeError, ImproperlyConfigured) as error:
        return f"{path} cannot be imported: {error}"
    return ""


def environ(options: Options, *, transport: str = "", **settings: Any) -> dict[str, str]:
    """The environment of a worker with this transport, and with WEBHOOKS keys of the caller's."""
    path, concurrency = TRANSPORTS[transport or options.transport]
    chosen = {"TRANSPORT": path, "CONCURRENCY": concurrency, "WAKER": None} | settings
    given = json.loads(os.environ.get("WEBHOOKS_TEST_SETTINGS") or "{}")
    return {"WEBHOOKS_TEST_SETTINGS": json.dumps(given | chosen)}
