"""The public pages: the same types in each form, everything escaped, nothing from elsewhere."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import markdown_it
import pytest
from django.contrib.staticfiles import finders
from django.test import Client

from tests.documentation.validation import check
from webhooks import catalog
from webhooks.documentation import pages
from webhooks.documentation.schemas import documented_message, message_schema
from webhooks.receiving import verify

pytestmark = pytest.mark.urls("tests.documentation.urls")

HOSTILE = "<script>alert(1)</script> `x` | *a* [b](javascript:c) \"d\" 'e' & \n# f"


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.headings: list[int] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def hostile(register: Any) -> catalog.EventType:
    made: catalog.EventType = register(
        "order.hostile",
        title=HOSTILE,
        description=HOSTILE,
        schema={
            "type": "object",
            "properties": {
                "a": {"type": "string", "description": HOSTILE},
                "</code>": {"enum": [HOSTILE]},
            },
        },
        example={"a": "```\n" + HOSTILE, "</code>": HOSTILE},
    )
    return made


class TestTheCatalogue:
    def test_lists_the_same_types_in_each_form(
        self, client: Client, every_type: list[catalog.EventType]
    ) -> None:
        names = [each.name for each in every_type]
        data = client.get("/webhooks/docs/events.json").json()
        assert [each["name"] for each in data["types"]] == names
        html = Page(client.get("/webhooks/docs/").content.decode())
        assert [each["id"] for each in html.all("h2") if "." in str(each.get("id"))] == names
        markdown = client.get("/webhooks/docs/events.md").content.decode()
        assert re.findall(r"^## `(.+)`$", markdown, re.MULTILINE) == names

    @pytest.mark.parametrize(
        ("path", "accept", "expected"),
        [
            ("", "text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
            ("", "*/*", "text/html; charset=utf-8"),
            ("", "text/markdown", "text/markdown; charset=utf-8"),
            ("", "application/json", "application/json"),
            ("", "image/png", "text/html; charset=utf-8"),
            ("?format=md", "*/*", "text/markdown; charset=utf-8"),
            ("?format=json", "text/html", "application/json"),
            ("?format=no", "*/*", "text/html; charset=utf-8"),
            ("events.md", "text/html", "text/markdown; charset=utf-8"),
            ("events.json", "text/html", "application/json"),
        ],
    )
    def test_comes_in_the_form_that_is_asked_for(
        self, client: Client, path: str, accept: str, expected: str
    ) -> None:
        answer = client.get(f"/webhooks/docs/{path}", headers={"accept": accept})
        assert answer.status_code == 200
        assert answer["Content-Type"] == expected
        assert "Accept" in answer["Vary"]
        assert set(answer["Cache-Control"].split(", ")) == {"max-age=300", "public"}

    def test_is_read_only(self, client: Client) -> None:
        assert client.post("/webhooks/docs/").status_code == 405

    def test_says_of_each_type_what_a_receiver_gets(
        self, client: Client, every_type: list[catalog.EventType]
    ) -> None:
        data = client.get("/webhooks/docs/events.json").json()
        html = Page(client.get("/webhooks/docs/").content.decode()).text
        markdown = client.get("/webhooks/docs/events.md").content.decode()
        for each, told in zip(every_type, data["types"], strict=True):
            assert told["message_schema"] == message_schema(each)
            assert told["example"] == documented_message(each)
            body, headers, secret = told["body"], told["headers"], told["secret"]
            assert verify(body, headers, secret, tolerance=None) == told["example"]
            check(told["message_schema"], told["example"])
            shown = json.dumps(told["example"], indent=2, ensure_ascii=False)
            for text in (html, markdown):
                assert shown in text
                assert headers["webhook-signature"] in text
                for code in told["snippets"].values():
                    assert code.rstrip() in text

    def test_says_what_the_settings_say(self, client: Client, settings: Any) -> None:
        settings.WEBHOOKS = {
            **settings.WEBHOOKS,
            "TIMEOUT": 7,
            "RETRY_SCHEDULE": (5, 90, 7200),
            "SOURCE_IPS": ("192.0.2.0/24",),
        }
        for path in ("", "events.md"):
            text = client.get(f"/webhooks/docs/{path}").content.decode()
            for said in ("within 7 seconds", "4 times in all", "5 s, 90 s, 2 h", "192.0.2.0/24"):
                assert said in text
        data = client.get("/webhooks/docs/events.json").json()
        assert (data["timeout_s"], data["tries"]) == (7, 4)

    def test_without_types_says_so(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(catalog, "_types", {})
        for path in ("", "events.md"):
            text = client.get(f"/webhooks/docs/{path}").content.decode()
            assert "There are no public event types yet." in text

    def test_escapes_everything_in_html(self, client: Client, hostile: catalog.EventType) -> None:
        text = client.get("/webhooks/docs/").content.decode()
        assert "<script" not in text
        assert "alert(1)" in Page(text).text
        assert not any("javascript:" in str(each.get("href")) for each in Page(text).all("a"))

    def test_escapes_everything_in_markdown(
        self, client: Client, hostile: catalog.EventType
    ) -> None:
        text = client.get("/webhooks/docs/events.md").content.decode()
        html = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
        page = Page(html)
        assert not page.all("script")
        assert not [each for each in page.all("a") if not str(each["href"]).startswith("#")]
        assert not page.all("em")
        # The examples' backticks do not end their code.
        assert json.dumps(documented_message(hostile), indent=2, ensure_ascii=False) in page.text
        assert page.headings.count(1) == 1
        assert len(page.all("td")) % 4 == 0

    def test_tables_tell_of_nested_fields(self, register: Any) -> None:
        register(
            "order.nested",
            schema={
                "type": "object",
                "required": ["lines"],
                "properties": {
                    "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
                    "to": {
                        "type": ["object", "null"],
                        "properties": {"zip": {"type": "string", "description": "Digits."}},
                        "required": ["zip"],
                    },
                    "at": {"type": "string", "format": "date-time"},
                    "kind": {"enum": ["a", 1]},
                    "v": {"const": 2},
                    "w": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                },
                "$defs": {
                    "line": {
                        "type": "object",
                        "properties": {
                            "sku": {"type": "string"},
                            "parts": {"type": "array", "items": {"$ref": "#/$defs/line"}},
                        },
                    }
                },
            },
            example={"lines": []},
        )
        [entry] = [each for each in pages.entries() if each.name == "order.nested"]
        rows = {row.path: row for row in entry.rows}
        assert rows["lines"] == pages.Row("lines", "array of object", True, "")
        assert rows["lines[].sku"] == pages.Row("lines[].sku", "string", False, "")
        assert rows["to.zip"] == pages.Row("to.zip", "string", True, "Digits.")
        assert rows["to"].kind == "object or null"
        assert rows["at"].kind == "string (date-time)"
        assert rows["kind"].description == 'One of "a", 1.'
        assert rows["v"].description == "Always 2."
        assert rows["w"].kind == "string or null"
        assert len(rows) < 40  # a schema that refers to itself comes to an end


class TestBothPages:
    @pytest.fixture(params=["", "reference/"])
    def page(self, request: Any, client: Client, settings: Any, hostile: Any) -> Page:
        settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "drf_spectacular_sidecar"]
        return Page(client.get(f"/webhooks/docs/{request.param}").content.decode())

    def test_hold_no_inline_script_or_style_and_nothing_from_elsewhere(self, page: Page) -> None:
        for attributes in page.all("script"):
            assert str(attributes["src"]).startswith("/static/")
        for attributes in page.all("link"):
            assert str(attributes["href"]).startswith("/static/")
        assert not page.all("style")
        assert not page.all("img")
        for _tag, attributes in page.tags:
            assert "style" not in attributes
            assert not [name for name in attributes if name.startswith("on")]

    def test_can_be_read_with_a_screen_reader(self, page: Page) -> None:
        assert page.all("html")[0]["lang"] == "en"
        assert page.headings[0] == 1
        assert page.headings.count(1) == 1
        for before, after in zip(page.headings, page.headings[1:], strict=False):
            assert after <= before + 1
        assert all(each["scope"] for each in page.all("th"))
        ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        for attributes in page.all("a"):
            target = str(attributes["href"])
            assert not target.startswith("#") or target[1:] in ids
        assert all(each["aria-label"] for each in page.all("pre"))
        assert page.all("meta")[1]["content"] == "width=device-width, initial-scale=1"


class TestTheReference:
    def test_names_where_the_description_is_for_the_script(
        self, client: Client, settings: Any
    ) -> None:
        settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "drf_spectacular_sidecar"]
        page = Page(client.get("/webhooks/docs/reference/").content.decode())
        [place] = [each for each in page.all("div") if each.get("id") == "reference"]
        assert place["data-url"] == "/webhooks/docs/openapi.json"
        assert client.get(str(place["data-url"])).status_code == 200

    def test_takes_all_its_files_from_installed_apps(self, client: Client, settings: Any) -> None:
        settings.STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.AppDirectoriesFinder"]
        settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "drf_spectacular_sidecar"]
        finders.get_finder.cache_clear()
        page = Page(client.get("/webhooks/docs/reference/").content.decode())
        files = [str(each["src"]) for each in page.all("script")]
        files += [str(each["href"]) for each in page.all("link")]
        assert len(files) == 4
        for file in files:
            assert finders.find(file.removeprefix("/static/"))

    @pytest.mark.parametrize(
        ("has_extra", "said"),
        [(False, "pip install"), (True, "add &#x27;drf_spectacular_sidecar&#x27;")],
    )
    def test_says_what_to_install_where_something_is_missing(
        self, client: Client, monkeypatch: pytest.MonkeyPatch, has_extra: bool, said: str
    ) -> None:
        monkeypatch.setattr("webhooks.documentation.views.HAS_EXTRA", has_extra)
        text = client.get("/webhooks/docs/reference/").content.decode()
        assert said in text
        assert not Page(text).all("script")
