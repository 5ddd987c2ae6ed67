"""The OpenAPI document: valid, complete, the same as the catalogue, and for whom it is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import drf_spectacular
import jsonschema
import pytest
import yaml
from django.test import Client
from django.urls import URLPattern
from django.utils import timezone
from drf_spectacular.drainage import GENERATOR_STATS
from oauth2_provider.models import AccessToken, Application
from rest_framework.schemas.generators import EndpointEnumerator

from tests.documentation.validation import FORMATS, check
from tests.world import ROOT, Receiver, deliver, subscribe
from webhooks import catalog, emit, urls
from webhooks.api.operations import operation_of
from webhooks.documentation import generator
from webhooks.documentation.openapi import document
from webhooks.documentation.schemas import documented_message, example_of

OPENAPI_31 = json.loads(
    (Path(drf_spectacular.__file__).parent / "validation/openapi_3_1_schema.json").read_text()
)

pytestmark = pytest.mark.urls("tests.documentation.urls")


@pytest.fixture
def told() -> dict[str, Any]:
    """The document as the public gets it."""
    return document(catalog.visible(frozenset()), "https://api.example.com/webhooks/")


@pytest.fixture
def api(db: None, settings: Any) -> Any:
    """A client with a token of these scopes."""
    scopes = ("webhooks:read", "webhooks:write", "audit:read")
    settings.OAUTH2_PROVIDER = {"SCOPES": dict.fromkeys(scopes, "")}

    def make(scope: str = "webhooks:read webhooks:write") -> Client:
        application = Application.objects.create(
            client_type="confidential", authorization_grant_type="client-credentials"
        )
        token = AccessToken.objects.create(
            application=application,
            token=f"token-{application.pk}",
            scope=scope,
            expires=timezone.now() + timedelta(hours=1),
        )
        return Client(headers={"authorization": f"Bearer {token.token}"})

    return make


def operations(told: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in told["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every object within a value."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value:
        if isinstance(each, dict | list):
            yield from parts(each)


def resolve(told: dict[str, Any], reference: str) -> Any:
    place: Any = told
    for step in reference.removeprefix("#/").split("/"):
        place = place[step.replace("~1", "/").replace("~0", "~")]
    return place


def within(told: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of the document that can be used alone."""
    return {**schema, "components": told["components"]}


class TestTheDocument:
    def test_is_valid_openapi_3_1(self, told: dict[str, Any]) -> None:
        jsonschema.Draft202012Validator(OPENAPI_31).validate(told)
        assert told["openapi"] == "3.1.0"
        assert not jsonschema.Draft202012Validator(OPENAPI_31).is_valid({**told, "paths": []})

    def test_was_made_without_a_warning(self, told: dict[str, Any]) -> None:
        generator._made.clear()
        generator.operations()
        assert not GENERATOR_STATS._warn_cache
        assert not GENERATOR_STATS._error_cache

    def test_holds_schemas_that_are_schemas_and_references_that_lead_somewhere(
        self, told: dict[str, Any]
    ) -> None:
        for schema in told["components"]["schemas"].values():
            jsonschema.Draft202012Validator.check_schema(schema)
        references = [part["$ref"] for part in parts(told) if isinstance(part.get("$ref"), str)]
        assert references
        for reference in references:
            resolve(told, reference)

    def test_holds_every_route_and_method(self, told: dict[str, Any]) -> None:
        expected = set()
        for pattern in urls.urlpatterns:
            assert isinstance(pattern, URLPattern)
            path = EndpointEnumerator([]).get_path_from_regex(str(pattern.pattern))
            view = pattern.callback.cls  # type: ignore[attr-defined]
            expected |= {
                (method, f"/{path.lstrip('/')}")
                for method in view.http_method_names
                if method not in ("head", "options") and operation_of(view, method)
            }
        assert len(expected) > 20
        assert {(method, path) for method, path, _ in operations(told)} == expected

    def test_names_each_operation_once_and_says_what_it_is(self, told: dict[str, Any]) -> None:
        described = [operation for _, _, operation in operations(told)]
        described += [item["post"] for item in told["webhooks"].values()]
        names = [operation["operationId"] for operation in described]
        assert len(set(names)) == len(names)
        assert {"listSubscriptions", "createSubscription", "pingSubscription"} <= set(names)
        tags = {tag["name"] for tag in told["tags"]}
        for operation in described:
            assert operation["summary"]
            assert set(operation["tags"]) <= tags
            for answer in operation["responses"].values():
                assert answer.get("$ref") or answer["description"]

    def test_tells_of_the_answers_that_an_operation_can_give(self, told: dict[str, Any]) -> None:
        create = told["paths"]["/subscriptions/"]["post"]
        assert set(create["responses"]) >= {"201", "400", "401", "403", "413", "415", "429"}
        wait = resolve(told, create["responses"]["429"]["$ref"])["headers"]["Retry-After"]
        assert wait["schema"]["type"] == "integer"
        for method, path, operation in operations(told):
            assert {"400", "401", "403"} <= set(operation["responses"])
            assert ("404" in operation["responses"]) == ("{" in path)
            assert ("415" in operation["responses"]) == (method != "get")
            for status, answer in operation["responses"].items():
                if status >= "400":
                    content = resolve(told, answer["$ref"])["content"]
                    assert list(content) == ["application/problem+json"]

    def test_gives_each_id_of_a_path_its_form(self, told: dict[str, Any]) -> None:
        forms = {
            (path, parameter["name"]): parameter["schema"]["pattern"]
            for _, path, operation in operations(told)
            for parameter in operation.get("parameters", [])
            if parameter["in"] == "path"
        }
        assert forms["/subscriptions/{id}/ping/", "id"] == "^sub_[0-9a-f]{32}$"
        assert forms["/deliveries/{id}/", "id"] == "^dlv_[0-9a-f]{32}$"
        assert forms["/events/{id}/", "id"] == "^evt_[0-9a-f]{32}$"
        names = forms["/event-types/{name}/", "name"]
        assert all(re.fullmatch(names, each.name) for each in catalog.all_types())

    def test_tells_of_both_ways_to_log_in(self, told: dict[str, Any]) -> None:
        schemes = told["components"]["securitySchemes"]
        flows = schemes["oauth2"]["flows"]
        assert flows["clientCredentials"]["tokenUrl"] == "https://api.example.com/o/token/"
        assert flows["authorizationCode"]["authorizationUrl"].endswith("/o/authorize/")
        assert set(flows["clientCredentials"]["scopes"]) == {"webhooks:read", "webhooks:write"}
        assert schemes["session"]["name"] == "sessionid"
        scopes = {
            method: operation["security"][0]["oauth2"] for method, _, operation in operations(told)
        }
        assert scopes["get"] == ["webhooks:read"]
        assert scopes["post"] == scopes["delete"] == ["webhooks:write"]

    def test_takes_the_names_of_other_rest_hooks_and_only_one_of_them(
        self, told: dict[str, Any]
    ) -> None:
        schema = within(told, {"$ref": "#/components/schemas/NewSubscriptionRequest"})
        url, types = "https://example.com/", ["order.paid"]
        for name in ("callback_url", "target_url", "url", "hookUrl"):
            check(schema, {name: url, "event_types": types})
        for name in ("event_types", "event", "events"):
            check(schema, {"url": url, name: types})
            check(schema, {"url": url, name: types[0]})
        check(schema, {"url": url, "event": types, "trigger": "daily", "content": "counts"})
        for wrong in (
            {"url": url},
            {"url": url, "target_url": url, "event": types},
            {"url": url, "event": types, "other": 1},
            {"url": url, "event": types, "trigger": "weekly"},
            {"url": url, "event": types, "content": "counts"},
            {"url": url, "event": types, "empty_digests": True, "trigger": "realtime"},
        ):
            with pytest.raises(jsonschema.ValidationError):
                check(schema, wrong)

    def test_says_of_each_time_that_it_is_one(self, told: dict[str, Any]) -> None:
        times = {
            name: schema
            for component in told["components"]["schemas"].values()
            for name, schema in component.get("properties", {}).items()
            if name.endswith("_at") and component.get("required")
        }
        assert {"due_at", "first_due_at", "settled_at", "created_at"} <= set(times)
        assert {name for name, each in times.items() if each.get("format") != "date-time"} == set()
        assert times["due_at"]["type"] == ["string", "null"]

    def test_says_which_metadata_are_taken(self, told: dict[str, Any]) -> None:
        new = told["components"]["schemas"]["NewSubscriptionRequest"]["properties"]["metadata"]
        assert "4 KiB" in new["description"]
        taken = jsonschema.Draft202012Validator(within(told, new))
        assert taken.is_valid({"a": [None, True, "x", -1.5, {"b": 10**15 - 1}]})
        for refused in ([], {"a": 10**15}, {"a": [{"b": -1e308}]}):
            assert not taken.is_valid(refused)

    def test_shows_examples_that_fit(self, told: dict[str, Any]) -> None:
        shown = 0
        for _, _, operation in operations(told):
            for content in operation.get("requestBody", {}).get("content", {}).values():
                for example in content.get("examples", {}).values():
                    check(within(told, content["schema"]), example["value"])
                    shown += 1
        assert shown > 8
        for response in told["components"]["responses"].values():
            for content in response["content"].values():
                check(within(told, content["schema"]), content["example"])


class TestItsWebhooks:
    def test_are_the_catalogue(self, every_type: list[catalog.EventType]) -> None:
        told = document(every_type, "https://api.example.com/")
        assert list(told["webhooks"]) == [*(each.name for each in every_type), "batch", "digest"]
        for each in every_type:
            post = told["webhooks"][each.name]["post"]
            content = post["requestBody"]["content"]["application/json"]
            assert content["example"] == documented_message(each)
            assert post["summary"] == each.title
            schema = resolve(told, content["schema"]["$ref"])
            assert schema["properties"]["type"] == {"type": "string", "const": each.name}
            check(within(told, content["schema"]), content["example"])
            assert {"2XX", "410", "429", "default"} <= set(post["responses"])

    @pytest.mark.django_db(transaction=True)
    def test_describe_what_is_delivered(
        self, every_type: list[catalog.EventType], receiver: Receiver
    ) -> None:
        told = document(every_type, "https://api.example.com/")
        subscribe(receiver, event_types=[each.name for each in every_type])
        for each in every_type:
            requester = "app:a" if each.audience == "requester" else ""
            emit(each.name, example_of(each), requester=requester)
        deliver()
        assert len(receiver.posts) == len(every_type)
        for post in receiver.posts:
            described = told["webhooks"][post.json["type"]]["post"]
            content = described["requestBody"]["content"]
            assert post.headers["content-type"] == "application/json"
            check(within(told, content["application/json"]["schema"]), post.json)
            for parameter in described["parameters"]:
                value = post.headers[parameter["name"]]
                validator = jsonschema.Draft202012Validator(parameter["schema"])
                validator.validate(value)
                assert not validator.is_valid("no; such value") or parameter["name"] == "webhook-id"

    def test_keep_references_within_a_types_schema(self, register: Any) -> None:
        made = register(
            "tree.grown",
            schema={
                "type": "object",
                "properties": {"n": {"$ref": "#/$defs/n"}},
                "$defs": {"n": {"type": "integer"}},
            },
            example={"n": 1},
        )
        told = document([made], "https://api.example.com/")
        schema = within(told, {"$ref": "#/components/schemas/tree.grown"})
        message = documented_message(made)
        check(schema, message)
        with pytest.raises(jsonschema.ValidationError):
            check(schema, {**message, "data": {"n": "x"}})


class TestServed:
    def test_as_json_with_the_urls_of_the_request(self, api: Any) -> None:
        answer = api().get("/webhooks/schema/", headers={"host": "hooks.example.com"})
        assert answer.status_code == 200
        assert answer["Content-Type"] == "application/json"
        told = answer.json()
        jsonschema.Draft202012Validator(OPENAPI_31, format_checker=FORMATS).validate(told)
        assert told["servers"] == [{"url": "http://hooks.example.com/webhooks"}]
        flows = told["components"]["securitySchemes"]["oauth2"]["flows"]
        assert flows["clientCredentials"]["tokenUrl"] == "http://hooks.example.com/o/token/"

    @pytest.mark.parametrize(
        ("path", "accept"),
        [("/webhooks/schema/?format=yaml", "*/*"), ("/webhooks/schema/", "application/yaml")],
    )
    def test_as_yaml(self, api: Any, path: str, accept: str) -> None:
        client = api()
        answer = client.get(path, headers={"accept": accept})
        assert answer["Content-Type"].startswith("application/yaml")
        assert yaml.safe_load(answer.content) == client.get("/webhooks/schema/").json()
        assert b"&id" not in answer.content

    def test_not_in_a_form_that_there_is_not(self, api: Any) -> None:
        answer = api().get("/webhooks/schema/?format=xml")
        assert answer.status_code == 400
        assert answer["Content-Type"] == "application/problem+json"

    def test_to_clients_alone(self, client: Client) -> None:
        assert client.get("/webhooks/schema/").status_code == 401

    def test_without_what_the_scopes_do_not_show(
        self, api: Any, client: Client, register: Any
    ) -> None:
        register("audit.logged", title="Sealed", scope="audit:read", example={"a": 1})
        reader = api("webhooks:read").get("/webhooks/schema/").json()
        assert "audit.logged" not in json.dumps(reader)
        seen = {each.name for each in catalog.visible(frozenset())}
        assert set(reader["webhooks"]) == seen | {"batch", "digest"}
        auditor = api("webhooks:read audit:read").get("/webhooks/schema/").json()
        assert "audit.logged" in auditor["webhooks"]
        for path in ("openapi.json", "openapi.yaml", "events.json", "events.md", ""):
            assert b"audit.logged" not in client.get(f"/webhooks/docs/{path}").content

    def test_to_everybody_on_the_public_pages(self, client: Client) -> None:
        answer = client.get("/webhooks/docs/openapi.json")
        assert answer["Content-Type"] == "application/json"
        told = answer.json()
        assert told["servers"] == [{"url": "http://testserver/webhooks"}]
        again = client.get("/webhooks/docs/openapi.yaml")
        assert again["Content-Type"].startswith("application/yaml")
        assert yaml.safe_load(again.content) == told

    @pytest.mark.urls("tests.documentation.pages_only")
    def test_without_the_api_and_without_an_authorization_server(self, client: Client) -> None:
        told = client.get("/docs/openapi.json").json()
        jsonschema.Draft202012Validator(OPENAPI_31).validate(told)
        oauth2 = told["components"]["securitySchemes"]["oauth2"]
        assert oauth2 == {"type": "http", "scheme": "bearer"}

    def test_the_same_whatever_the_host_says_of_its_own_schema(self, told: dict[str, Any]) -> None:
        script = """
import json, os, sys
import django
from django.conf import settings
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
settings.SPECTACULAR_SETTINGS = {
    "TITLE": "The host", "OAS_VERSION": "3.0.3", "SCHEMA_PATH_PREFIX_INSERT": "/host",
    "COMPONENT_SPLIT_REQUEST": False, "CAMELIZE_NAMES": True, "SORT_OPERATIONS": True,
    "PREPROCESSING_HOOKS": ["tests.documentation.host.no_endpoints"],
}
settings.REST_FRAMEWORK = {
    "DEFAULT_SCHEMA_CLASS": "rest_framework.schemas.openapi.AutoSchema",
    "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.AcceptHeaderVersioning",
    "COERCE_DECIMAL_TO_STRING": False, "URL_FORMAT_OVERRIDE": "f", "UNICODE_JSON": False,
    "SCHEMA_COERCE_PATH_PK": False,
}
settings.LANGUAGE_CODE = "de"
django.setup()
from webhooks import catalog
from webhooks.documentation.openapi import document
from django.urls import set_urlconf
set_urlconf("tests.documentation.urls")
print(json.dumps(document(catalog.visible(frozenset()), "https://api.example.com/webhooks/")))
"""
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
        assert json.loads(ran.stdout) == told

    def test_not_without_the_extra_which_it_names(
        self, api: Any, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("webhooks.documentation.openapi.HAS_EXTRA", False)
        for answer in (
            api().get("/webhooks/schema/"),
            client.get("/webhooks/docs/openapi.json"),
        ):
            assert answer.status_code == 501
            assert answer["Content-Type"] == "application/problem+json"
            assert "pip install 'django-webhook-delivery[schema]'" in answer.json()["detail"]

    def test_the_rest_of_the_package_works_without_the_extra(self) -> None:
        script = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
for name in ("drf_spectacular", "yaml", "jsonschema", "uritemplate", "inflection"):
    sys.modules[name] = None
import django
django.setup()
from django.test import Client
from django.test.utils import override_settings
with override_settings(ROOT_URLCONF="tests.documentation.urls"):
    for path in ("", "events.md", "events.json", "reference/"):
        assert Client().get(f"/webhooks/docs/{path}").status_code == 200, path
    assert "pip install" in Client().get("/webhooks/docs/reference/").content.decode()
    assert Client().get("/webhooks/docs/openapi.json").status_code == 501
"""
        subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=ROOT, check=True)
