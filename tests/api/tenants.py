"""A project that mounts the API once for each of its tenants."""

from django.urls import include, path

urlpatterns = [path("<slug:tenant>/webhooks/", include("webhooks.urls"))]
