"""URLs of the example project: the webhooks' API, OAuth 2, and the admin to see what happens."""

from django.contrib import admin
from django.contrib.auth.views import LoginView
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    # The admin's own page lets staff in alone; users who grant an application access are not.
    path("accounts/login/", LoginView.as_view(template_name="admin/login.html"), name="login"),
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    path("webhooks/docs/", include("webhooks.documentation.urls")),
    path("webhooks/", include("webhooks.urls")),
]
