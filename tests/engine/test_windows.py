"""Windows of scheduled deliveries tile time, in every zone and over every change of clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from webhooks.engine.windows import window_of

ZONES = [
    "UTC",
    "Asia/Singapore",
    "America/New_York",
    "Asia/Kolkata",  # UTC+5:30
    "Australia/Lord_Howe",  # clocks change by half an hour
    "Pacific/Apia",  # skipped 30 December 2011
    "America/Sao_Paulo",  # changed at midnight until 2019
]


def at(zone: str, *moment: int, fold: int = 0) -> datetime:
    # In UTC: a local time that comes twice equals nothing in another zone.
    return datetime(*moment, tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)


moments = st.datetimes(
    datetime(2011, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC), allow_imaginary=False
)
kinds = st.sampled_from(["hourly", "daily", "monthly"])


@settings(derandomize=True, max_examples=300, deadline=None)
@given(moments, kinds, st.sampled_from(ZONES), st.integers(0, 23), st.integers(1, 31))
@example(datetime(2026, 4, 4, 15, tzinfo=UTC), "hourly", "Australia/Lord_Howe", 0, 1)
@example(datetime(2026, 10, 3, 15, 30, tzinfo=UTC), "hourly", "Australia/Lord_Howe", 0, 1)
@example(datetime(2011, 12, 30, 10, tzinfo=UTC), "daily", "Pacific/Apia", 0, 1)
def test_windows_tile_time(moment, trigger, zone, hour, day):
    window = window_of(moment, trigger, zone, hour, day)
    assert window.begin <= moment < window.end
    last = window_of(window.end - timedelta(microseconds=1), trigger, zone, hour, day)
    assert last == window
    following = window_of(window.end, trigger, zone, hour, day)
    assert following.begin == window.end
    before = window_of(window.begin - timedelta(microseconds=1), trigger, zone, hour, day)
    assert before.end == window.begin


@pytest.mark.parametrize(
    ("trigger", "zone", "moment", "begin", "end"),
    [
        # New York puts its clocks forward on 8 March 2026 at 2:00, and back on 1 November at 2:00.
        ("hourly", "America/New_York", (2026, 3, 8, 1, 30), (2026, 3, 8, 1), (2026, 3, 8, 3)),
        ("daily", "America/New_York", (2026, 3, 8, 12), (2026, 3, 8), (2026, 3, 9)),
        ("daily", "America/New_York", (2026, 11, 1, 12), (2026, 11, 1), (2026, 11, 2)),
        ("daily", "Asia/Singapore", (2026, 5, 1, 7, 59), (2026, 5, 1), (2026, 5, 2)),
        ("monthly", "Asia/Singapore", (2026, 2, 28, 23), (2026, 2, 1), (2026, 3, 1)),
        ("monthly", "UTC", (2024, 2, 29, 23), (2024, 2, 1), (2024, 3, 1)),
    ],
)
def test_local_calendar(trigger, zone, moment, begin, end):
    window = window_of(at(zone, *moment), trigger, zone)
    assert (window.begin, window.end) == (at(zone, *begin), at(zone, *end))


def test_a_day_has_23_or_25_hours_when_clocks_change():
    spring = window_of(at("America/New_York", 2026, 3, 8, 12), "daily", "America/New_York")
    autumn = window_of(at("America/New_York", 2026, 11, 1, 12), "daily", "America/New_York")
    assert spring.end - spring.begin == timedelta(hours=23)
    assert autumn.end - autumn.begin == timedelta(hours=25)


def test_an_hour_that_comes_twice_is_two_windows():
    zone = "America/New_York"
    first = window_of(at(zone, 2026, 11, 1, 1, 30), "hourly", zone)
    second = window_of(at(zone, 2026, 11, 1, 1, 30, fold=1), "hourly", zone)
    assert first.end == second.begin
    assert second.end - first.begin == timedelta(hours=2)


def test_an_hour_that_is_skipped_begins_the_day_behind_the_gap():
    zone = "America/New_York"
    window = window_of(at(zone, 2026, 3, 8, 12), "daily", zone, hour=2)
    assert window.begin == at(zone, 2026, 3, 8, 3)
    assert window.end == at(zone, 2026, 3, 9, 2)


def test_an_hour_that_comes_twice_begins_the_day_the_first_time():
    zone = "America/New_York"
    window = window_of(at(zone, 2026, 11, 1, 12), "daily", zone, hour=1)
    assert window.begin == at(zone, 2026, 11, 1, 1)


@pytest.mark.parametrize(
    ("moment", "begin", "end"),
    [
        ((2026, 1, 31, 5), (2025, 12, 31, 6), (2026, 1, 31, 6)),
        ((2026, 1, 31, 7), (2026, 1, 31, 6), (2026, 2, 28, 6)),
        ((2026, 2, 28, 6), (2026, 2, 28, 6), (2026, 3, 31, 6)),
        ((2024, 2, 29, 5), (2024, 1, 31, 6), (2024, 2, 29, 6)),
    ],
)
def test_a_month_shorter_than_the_day_begins_on_its_last(moment, begin, end):
    window = window_of(at("UTC", *moment), "monthly", "UTC", hour=6, day=31)
    assert (window.begin, window.end) == (at("UTC", *begin), at("UTC", *end))


def test_another_trigger_has_no_windows():
    with pytest.raises(ValueError, match="realtime"):
        window_of(at("UTC", 2026, 1, 1), "realtime", "UTC")
