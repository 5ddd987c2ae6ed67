"""The API's operations as OpenAPI 3.1, by drf-spectacular: import it with the extra ``schema``.

What a method takes and answers is read from its ``@operation``. Nothing that the host says of
drf-spectacular or of REST framework counts here.
"""

from __future__ import annotations

import copy
import inspect
import re
import threading
from typing import Any, Final

from django.utils import translation
from drf_spectacular.generators import EndpointEnumerator, SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.settings import SPECTACULAR_DEFAULTS, patched_settings
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.permissions import SAFE_METHODS

from webhooks.access import READ, WRITE
from webhooks.api.operations import Operation, operation_of
from webhooks.documentation import extensions, problems
from webhooks.documentation.examples import EXAMPLES
from webhooks.documentation.naming import NAMES, parameter_schema

assert extensions  # its classes register themselves

#: Every setting of drf-spectacular, as this document needs it. Those that only its own views read
#: cannot be patched, and are not read.
SETTINGS: Final[dict[str, Any]] = {
    **{
        name: value
        for name, value in SPECTACULAR_DEFAULTS.items()
        if not name.startswith("SERVE_") and name != "DEFAULT_GENERATOR_CLASS"
    },
    "OAS_VERSION": "3.1.0",
    "COMPONENT_SPLIT_REQUEST": True,
    "COMPONENT_SPLIT_PATCH": False,  # the body of a PATCH has a serializer of its own
    "POSTPROCESSING_HOOKS": [],
    "SORT_OPERATIONS": False,
    "SORT_OPERATION_PARAMETERS": False,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
}

_lock = threading.Lock()
_made: dict[str, Any] = {}


def operations() -> dict[str, Any]:
    """``paths`` and ``components`` of the API, for the caller to change as it likes.

    They are made once for each process. drf-spectacular has one set of settings for all threads,
    so a schema of the host's that is made in that very moment could see ours: hence only once.
    """
    with _lock:
        if not _made:
            # In English, whoever asks first: the document is one for all.
            with translation.override("en"), patched_settings(SETTINGS):
                from webhooks.urls import urlpatterns

                generator: Any = Generator(patterns=urlpatterns)  # type: ignore[no-untyped-call]
                made = generator.get_schema(request=None, public=True)
            _made.update(paths=_clean(made["paths"]), components=_clean(made["components"]))
        return copy.deepcopy(_made)


class Endpoints(EndpointEnumerator):  # type: ignore[misc]
    """All views there are. They hide from other generators with ``schema = None``."""

    def should_include_endpoint(self, path: str, callback: Any) -> bool:
        return any(operation_of(callback.cls, method) for method in callback.cls.http_method_names)


class Generator(SchemaGenerator):  # type: ignore[misc]
    """Describes each view by its operations."""

    endpoint_inspector_cls = Endpoints

    def create_view(self, callback: Any, method: str, request: Any = None) -> Any:
        view: Any = super().create_view(callback, method, request)  # type: ignore[no-untyped-call]
        schema = OperationSchema()
        schema.view = view
        view.schema = schema
        return view


class OperationSchema(AutoSchema):  # type: ignore[misc]
    """One method of one view, read from its ``@operation``."""

    @property
    def declared(self) -> Operation:
        found = operation_of(self.view, self.method)
        assert found is not None, f"{self.method} {self.path} lacks its @operation"
        return found

    def get_operation(self, *args: Any) -> Any:
        operation: Any = super().get_operation(*args)
        if created := operation["responses"].get("201"):
            created["headers"] = {
                "Location": {
                    "description": "Where it can be read.",
                    "schema": {"type": "string", "format": "uri"},
                }
            }
        for status in self._problems():
            operation["responses"].setdefault(str(status), problems.reference(status))
        if self.declared.body is not None and "requestBody" in operation:
            operation["requestBody"]["required"] = _takes_something(self.declared.body())
        if example := EXAMPLES.get(operation["operationId"]):
            operation["requestBody"]["content"]["application/json"]["examples"] = example
        return operation

    def _problems(self) -> list[int]:
        found = {400, 401, 403, 406, *self.declared.problems}
        if "{" in self.path:
            found.add(404)
        if self.method not in SAFE_METHODS:
            found |= {413, 415}
        if self.declared.throttle:
            found.add(429)
        return sorted(found)

    # What drf-spectacular asks

    def get_operation_id(self) -> str:
        return NAMES[self.method, self.path.lstrip("/")]

    def get_tags(self) -> list[str]:
        return [self.path.lstrip("/").split("/")[0]]

    def get_summary(self) -> str:
        return self._told()[0].rstrip(".")

    def get_description(self) -> str:  # type: ignore[override]
        return self._told()[1]

    def _told(self) -> list[str]:
        """The first sentence of the handler's docstring, and the rest."""
        handler = getattr(self.view, self.method.lower())
        text = inspect.cleandoc(handler.__doc__ or type(self.view).__doc__ or "")
        return [*re.split(r"(?<=[.?!])\s+", text, maxsplit=1), ""][:2]

    def get_auth(self) -> list[dict[str, list[str]]]:
        scope = READ if self.method in SAFE_METHODS else WRITE
        return [{"oauth2": [scope]}, {"session": []}]

    def get_override_parameters(self) -> list[Any]:
        found: list[Any] = [
            OpenApiParameter(name, parameter_schema(place), OpenApiParameter.PATH, required=True)
            for place, name in re.findall(r"([\w-]+)/\{(\w+)\}", self.path)
        ]
        if self.declared.query is not None:
            found.append(self.declared.query)
        return found

    def _get_format_parameters(self) -> list[Any]:
        return []

    def get_request_serializer(self) -> Any:
        return self.declared.body

    def get_response_serializers(self) -> Any:
        declared = self.declared
        if declared.answer is None:
            shown = OpenApiResponse(description="Done.")
        elif declared.page:
            shown = OpenApiResponse(self._page(declared.answer), "A page of the list.")
        else:
            shown = _described(declared.answer, many=declared.many)
        others = {status: _described(answer) for status, answer in declared.also}
        return {**others, declared.status: shown}

    def _page(self, serializer: Any) -> dict[str, Any]:
        link = {"type": ["string", "null"], "format": "uri"}
        shown = self.resolve_serializer(serializer, "response").ref
        return {
            "type": "object",
            "properties": {
                "next": {**link, "description": "The next page; null at the end."},
                "previous": {**link, "description": "The page before; null at the start."},
                "results": {"type": "array", "items": shown},
            },
            "required": ["next", "previous", "results"],
        }


def _takes_something(body: Any) -> bool:
    """Whether an empty body is refused."""
    return not body.partial and any(field.required for field in body.fields.values())


def _described(serializer: Any, *, many: bool = False) -> OpenApiResponse:
    return OpenApiResponse(serializer(many=many), inspect.cleandoc(serializer.__doc__ or ""))


def _clean(part: Any) -> Any:
    """Without the marks that drf-spectacular leaves for hooks of its own."""
    if isinstance(part, dict):
        return {name: _clean(each) for name, each in part.items() if name != "x-spec-enum-id"}
    return [_clean(each) for each in part] if isinstance(part, list) else part
