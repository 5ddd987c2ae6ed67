"""The API: ``path("webhooks/", include("webhooks.urls"))``.

Whatever lies below and is none of these is answered as JSON, too.
"""

from __future__ import annotations

from django.urls import path, re_path

from webhooks.api.views import (
    actions,
    deliveries,
    event_types,
    events,
    replays,
    service,
    subscriptions,
)
from webhooks.documentation.openapi import SchemaView

app_name = "webhooks"

_ONE = "subscriptions/<str:id>/"

urlpatterns = [
    path("subscriptions/", subscriptions.SubscriptionsView.as_view(), name="subscriptions"),
    path(_ONE, subscriptions.SubscriptionView.as_view(), name="subscription"),
    path(f"{_ONE}ping/", actions.PingView.as_view(), name="ping"),
    path(f"{_ONE}suspend/", actions.SuspendView.as_view(), name="suspend"),
    path(f"{_ONE}resume/", actions.ResumeView.as_view(), name="resume"),
    path(f"{_ONE}rotate-secret/", actions.RotateSecretView.as_view(), name="rotate-secret"),
    path(f"{_ONE}health/", actions.HealthView.as_view(), name="health"),
    path(f"{_ONE}replay/", replays.ReplayView.as_view(), name="replay"),
    path(f"{_ONE}replays/", replays.ReplaysView.as_view(), name="replays"),
    path(
        f"{_ONE}replays/<str:replay_id>/", replays.ReplayDetailView.as_view(), name="replay-detail"
    ),
    path(
        f"{_ONE}replays/<str:replay_id>/cancel/",
        replays.CancelReplayView.as_view(),
        name="replay-cancel",
    ),
    path("event-types/", event_types.EventTypesView.as_view(), name="event-types"),
    path("event-types/<str:name>/", event_types.EventTypeView.as_view(), name="event-type"),
    path("event-types/<str:name>/samples/", event_types.SamplesView.as_view(), name="samples"),
    path("events/", events.EventsView.as_view(), name="events"),
    path("events/<str:id>/", events.EventView.as_view(), name="event"),
    path("deliveries/", deliveries.DeliveriesView.as_view(), name="deliveries"),
    path("deliveries/<str:id>/", deliveries.DeliveryView.as_view(), name="delivery"),
    path("deliveries/<str:id>/attempts/", deliveries.AttemptsView.as_view(), name="attempts"),
    path("deliveries/<str:id>/redeliver/", deliveries.RedeliverView.as_view(), name="redeliver"),
    path("status/", service.StatusView.as_view(), name="status"),
    path("schema/", SchemaView.as_view(), name="schema"),
    re_path(r"[\s\S]*", service.NothingView.as_view(), name="nothing"),
]
