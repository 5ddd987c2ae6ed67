"""A project that has the public pages, and the API."""

from django.urls import include, path

urlpatterns = [
    path("webhooks/docs/", include("webhooks.documentation.urls")),
    path("webhooks/", include("webhooks.urls")),
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
]
