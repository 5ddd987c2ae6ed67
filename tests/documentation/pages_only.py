"""A project that has the public pages, and neither the API nor an authorization server."""

from django.urls import include, path

urlpatterns = [path("docs/", include("webhooks.documentation.urls"))]
