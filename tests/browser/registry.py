"""The routes of the admin that a superuser may use; run within the example project's processes."""

from __future__ import annotations

import re
from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.test import RequestFactory
from django.urls import URLPattern

from tests.browser.routes import APPS


def routes() -> list[str]:
    """Each of them: ``/admin/webhooks/event/*/change/``."""
    request = RequestFactory().get("/")
    request.user = get_user_model().objects.filter(is_superuser=True)[0]
    found = set()
    for model, page in admin.site._registry.items():
        meta = model._meta
        if meta.app_label not in APPS:
            continue
        refused = {
            f"{meta.app_label}_{meta.model_name}_{name}"
            for name in ("add", "delete")
            if not _may(page, name, request)
        }
        for pattern in page.get_urls():
            if isinstance(pattern, URLPattern) and pattern.name and pattern.name not in refused:
                path = re.sub(r"<[^>]+>", "*", str(pattern.pattern))
                found.add(f"/admin/{meta.app_label}/{meta.model_name}/{path}")
    return sorted(found)


def _may(page: Any, name: str, request: Any) -> bool:
    if name == "add":
        return bool(page.has_add_permission(request))
    rows = page.model._default_manager.all()[:20]
    return any(page.has_delete_permission(request, row) for row in rows)
