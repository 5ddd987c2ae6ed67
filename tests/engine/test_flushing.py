"""When results are written: many together, also where a receiver answers at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.world import Receiver, deliver, emit_orders, states, subscribe
from webhooks.engine.flushing import Flusher
from webhooks.engine.recorder import Recorder
from webhooks.models import Lane

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def backlog(receiver: Receiver, settings: Any) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "CONCURRENCY": 8, "FLUSH_MAX": 40}
    subscribe(receiver)
    Lane.objects.update(latency_ms=20)
    emit_orders(200)


@pytest.mark.usefixtures("backlog")
def test_a_quick_receivers_answers_are_not_a_transaction_for_each_round(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    plain = Recorder.write

    def write(recorder: Recorder, results: Sequence[Any], *lanes: Any) -> Any:
        written.append(len(results))
        return plain(recorder, results, *lanes)

    monkeypatch.setattr(Recorder, "write", write)
    monkeypatch.setattr("webhooks.engine.flushing.FLUSH_SECONDS", 30.0)
    # As if everything that begins were answered before the round is over.
    monkeypatch.setattr("webhooks.engine.drain.Drain.take_in", _all_of_it)
    deliver()
    assert states() == {"delivered": 200}
    assert max(written) <= 40 + 8
    assert len([size for size in written if size]) <= 6  # 200 / 40, and what is left


def _all_of_it(drain: Any, wait: float) -> None:
    while drain.in_flight:
        for job, response in drain.transport.finished(1.0):
            drain.end(job, response)


@pytest.mark.usefixtures("backlog")
def test_what_is_open_is_in_flight_or_counts_as_unwritten(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    plain = Flusher.flush

    def watch(flusher: Flusher, **named: Any) -> None:
        nonlocal most
        lanes = flusher._holdings.lanes.values()
        open_ = sum(len(lane.open) for lane in lanes)
        assert open_ == sum(lane.in_flight for lane in lanes) + flusher.unwritten
        most = max(most, open_)
        plain(flusher, **named)

    monkeypatch.setattr(Flusher, "flush", watch)
    deliver()
    assert 8 < most <= 8 + 40
