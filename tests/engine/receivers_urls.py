"""URLs of receivers that others wrote: django-anymail's view for Mandrill."""

from anymail.webhooks.mandrill import MandrillCombinedWebhookView
from django.urls import include, path

urlpatterns = [
    path("anymail/mandrill/", MandrillCombinedWebhookView.as_view()),
    path("webhooks/", include("webhooks.urls")),
]
