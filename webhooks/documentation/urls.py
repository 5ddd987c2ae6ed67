"""Public pages for subscribers: ``path("webhooks/docs/", include("webhooks.documentation.urls"))``.

They need no login. Without the extra ``schema`` the reference says what to install.
"""

from __future__ import annotations

from django.urls import path

from webhooks.documentation import views
from webhooks.documentation.openapi import PublicSchemaView

app_name = "webhooks-docs"

urlpatterns = [
    path("", views.events, name="events"),
    path("events.md", views.events, {"form": "md"}, name="events-md"),
    path("events.json", views.events, {"form": "json"}, name="events-json"),
    path("reference/", views.reference, name="reference"),
    path("openapi.json", PublicSchemaView.as_view(), {"form": "json"}, name="openapi-json"),
    path("openapi.yaml", PublicSchemaView.as_view(), {"form": "yaml"}, name="openapi-yaml"),
]
