"""Fixtures of the admin's tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client


@pytest.fixture
def staff() -> Callable[..., Client]:
    """A client of a staff user with these permissions of ours; with none given, a superuser."""

    def login(*codenames: str) -> Client:
        user = User.objects.create_user(
            f"user{User.objects.count()}", is_staff=True, is_superuser=not codenames
        )
        ours = Permission.objects.filter(content_type__app_label="webhooks")
        found = ours.filter(codename__in=codenames)
        assert len(found) == len(codenames)
        user.user_permissions.set(found)
        client = Client()
        client.force_login(user)
        return client

    return login
