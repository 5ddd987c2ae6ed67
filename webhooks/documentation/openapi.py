"""The API and its deliveries as one OpenAPI 3.1 document, served as JSON or YAML.

It needs the extra ``schema``; without it the views say what to install. Each client is told of the
event types that it may see, the public of those that need no scope.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, Final

from django.conf import settings as django_settings
from django.urls import NoReverseMatch, reverse
from rest_framework import renderers, serializers
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response

from webhooks import __version__, catalog
from webhooks.access import READ, WRITE, Client
from webhooks.api.operations import operation
from webhooks.api.renderers import JSONRenderer
from webhooks.api.serializers.strict import QuerySerializer
from webhooks.api.views.base import APIView
from webhooks.documentation import callbacks, problems
from webhooks.documentation.naming import TAGS

HAS_EXTRA: Final = find_spec("drf_spectacular") is not None
EXTRA: Final = (
    "The description of the API needs drf-spectacular. Install it on the server: "
    "pip install 'django-webhook-delivery[schema]'."
)
_ABOUT: Final = """\
Subscribe to events, and get each as a signed POST.

Get an access token with the scopes `webhooks:read` and `webhooks:write`, see `event-types/`,
then POST your `callback_url` and `event_types` to `subscriptions/`. Errors are
`application/problem+json`; ids are a prefix and 32 hex digits; times are UTC. Lists come in
pages: follow `next` until it is null.
"""


def document(types: Iterable[catalog.EventType], mount: str) -> dict[str, Any]:
    """The whole document. types: those that are told of. mount: absolute URL of the API.

    Needs the extra ``schema``.
    """
    from webhooks.documentation.generator import operations

    told = list(types)
    made = operations()
    components = made["components"]
    components.setdefault("schemas", {}).update(callbacks.schemas(told), Problem=problems.SCHEMA)
    components["responses"] = problems.responses()
    components["securitySchemes"] = security_schemes(mount)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Webhooks", "version": __version__, "description": _ABOUT},
        "servers": [{"url": mount.rstrip("/") or "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": made["paths"],
        "webhooks": callbacks.section(told),
        "components": components,
    }


def security_schemes(mount: str) -> dict[str, Any]:
    """How clients prove who they are: OAuth 2; staff of the host, with their session too."""
    scopes = {READ: "See everything.", WRITE: "Subscribe, change, send again, unsubscribe."}
    session = {
        "type": "apiKey",
        "in": "cookie",
        "name": django_settings.SESSION_COOKIE_NAME,
        "description": "The session of a member of staff. Changes need the CSRF token, too.",
    }
    try:
        token, authorize = (
            _absolute(reverse(f"oauth2_provider:{name}"), mount) for name in ("token", "authorize")
        )
    except NoReverseMatch:
        # The tokens come from elsewhere.
        return {"oauth2": {"type": "http", "scheme": "bearer"}, "session": session}
    flows = {
        "clientCredentials": {"tokenUrl": token, "scopes": scopes},
        "authorizationCode": {
            "authorizationUrl": authorize,
            "tokenUrl": token,
            "refreshUrl": token,
            "scopes": scopes,
        },
    }
    return {"oauth2": {"type": "oauth2", "flows": flows}, "session": session}


def _absolute(path: str, mount: str) -> str:
    scheme, separator, rest = mount.partition("://")
    return f"{scheme}{separator}{rest.split('/')[0]}{path}" if separator else path


class NotInstalled(APIException):
    """The extra is not there."""

    status_code = 501
    default_detail = EXTRA
    default_code = "not_installed"


class YAMLRenderer(renderers.BaseRenderer):
    """YAML (RFC 9512), without anchors."""

    media_type = "application/yaml"
    format = "yaml"
    charset = "utf-8"

    def render(self, data: Any, *args: Any) -> bytes:
        import yaml

        # The one in C, where there is one, takes a sixth of the time.
        class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
            def ignore_aliases(self, data: Any) -> bool:
                return True

        text: str = yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True)
        return text.encode()


class DocumentSerializer(serializers.Serializer[Any]):
    """An OpenAPI document."""

    openapi = serializers.CharField()
    info = serializers.DictField()
    paths = serializers.DictField()
    webhooks = serializers.DictField()


class SchemaQuery(QuerySerializer):
    """In which form the document comes."""

    format = serializers.ChoiceField(
        ["json", "yaml"], required=False, help_text="In place of `Accept`."
    )


class SchemaView(APIView):
    """This document."""

    renderer_classes = (JSONRenderer, YAMLRenderer)  # type: ignore[assignment]

    @operation(answer=DocumentSerializer, query=SchemaQuery, problems=(501,))
    def get(self, request: Request, **kwargs: Any) -> Response:
        """Get this document, with the event types that you may see.

        JSON, or YAML where `Accept` or `format` asks for it.
        """
        return self.told(self.parameters.get("format"))

    def mount(self) -> str:
        """The absolute URL of the API: this view lies right below it."""
        path = self.request.path.removesuffix("/").rpartition("/")[0]
        return self.request.build_absolute_uri(f"{path}/")

    def told(self, form: str | None) -> Response:
        """The document in the form that was asked for, or that ``Accept`` prefers."""
        if not HAS_EXTRA:
            raise NotInstalled
        if form is not None:
            renderer: Any = YAMLRenderer() if form == "yaml" else JSONRenderer()
            self.request.accepted_renderer = renderer
            self.request.accepted_media_type = renderer.media_type
        return Response(document(catalog.visible(self.client.scopes), self.mount()))


class PublicSchemaView(SchemaView):
    """The document for everybody: only the event types that need no scope."""

    authentication_classes = ()  # type: ignore[assignment,misc]
    permission_classes = ()  # type: ignore[assignment,misc]

    @operation(answer=DocumentSerializer, query=SchemaQuery, problems=(501,))
    def get(self, request: Request, form: str = "json", **kwargs: Any) -> Response:
        """Get the description of the API."""
        response = self.told(form)
        response.headers["Cache-Control"] = "public, max-age=300"
        return response

    @property
    def client(self) -> Client:
        return Client("", None, None, frozenset())

    def mount(self) -> str:
        try:
            path = reverse("webhooks:schema")
        except NoReverseMatch:
            path = "/schema/"  # the API is not mounted in this project, or under another namespace
        return self.request.build_absolute_uri(path.removesuffix("schema/"))
