"""The push dashboard in German. Run by ``test_campaigns.py``, under the example's settings."""

from __future__ import annotations

import pytest
from django.urls import reverse

from example_project.campaigns import counting
from example_project.campaigns.models import CampaignStats, Device, Push
from tests.catalogues import english
from tests.example.world import deliver, sent, staff, subscriber, url_of

pytestmark = pytest.mark.django_db


def test_the_dashboard_speaks_the_language_that_the_browser_asks_for():
    campaign = sent(20, name="Herbst")
    deliver(subscriber(), "pending", type="push.sent")
    counting.count(campaign)
    CampaignStats.objects.add(campaign.pk, campaign.created_at, 0, sent=12_980)
    push, device = Push.objects.all()[0], Device.objects.all()[0]
    client = staff()
    pages = [
        url_of("changelist"),
        url_of("add"),
        url_of("change", campaign.pk),
        *(reverse(f"admin:campaigns_{name}_changelist") for name in ("push", "device")),
        reverse("admin:campaigns_push_change", args=[push.pk]),
        reverse("admin:campaigns_device_change", args=[device.pk]),
    ]
    for url in pages:
        html = client.get(url, headers={"accept-language": "de-AT,de;q=0.9"}).content.decode()
        assert '<html lang="de"' in html
        assert english(html) == [], url
    assert "13.000" in client.get(pages[2], headers={"accept-language": "de"}).content.decode()
    html = client.get(pages[2], headers={"accept-language": "fr"}).content.decode()
    assert english(html)
    assert "13,000" in html
