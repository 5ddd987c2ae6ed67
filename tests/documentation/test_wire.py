"""What the documents show as sent is what is sent, byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.conf import settings as project_settings

from tests.documentation.wire import BLOCK, DOCS, PAGES, SECRET, SETTINGS, examples, written
from webhooks.formats.signing import decode_secret, digests


@pytest.fixture(autouse=True)
def _known(settings: Any) -> None:
    settings.WEBHOOKS = {**project_settings.WEBHOOKS, **SETTINGS}


@pytest.mark.parametrize("page", PAGES)
def test_the_documents_show_what_is_sent(page: str) -> None:
    text = (DOCS / page).read_text()
    assert written(text) == text, "python -m tests.documentation.wire writes them anew"


def test_each_example_is_shown() -> None:
    shown = [name for page in PAGES for _, name, *_ in BLOCK.findall((DOCS / page).read_text())]
    assert sorted(shown) == sorted(examples())


@pytest.mark.parametrize("name", ["standard", "daily", "cloudevents batch"])
def test_the_examples_verify(name: str) -> None:
    head, _, body = examples()[name].rstrip("\n").partition("\n\n")
    headers = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    json.loads(body)
    [expected] = digests(
        [decode_secret(SECRET)],
        headers["webhook-id"],
        int(headers["webhook-timestamp"]),
        body.encode(),
    )
    import base64

    assert headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()
