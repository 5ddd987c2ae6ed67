"""The recorder: results become rows, in bulk, one transaction for each flush.

Attempts are always written. An acknowledgement is applied whoever holds the lane by now: a delivery
that is still pending becomes delivered, so none is thrown away. Everything else (failures, new due
times, pacing, release) is applied only where the lane's token is still ours, under its lock.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from webhooks import notices, signals
from webhooks.clock import Clock
from webhooks.conf import settings
from webhooks.engine import following
from webhooks.engine.lanes import HeldLane, Job
from webhooks.engine.outcome import Outcome, Verdict, judge
from webhooks.engine.parcels import members_of, waits
from webhooks.engine.retries import DELIVERED, Decision, decide
from webhooks.engine.transactions import atomically
from webhooks.models import Delivery, DeliveryAttempt, DeliveryStats, Lane
from webhooks.models.attempt import storable
from webhooks.models.delivery import State
from webhooks.models.fields import new_attempt_id
from webhooks.models.lane import PACING
from webhooks.models.parcel import Member
from webhooks.models.stats import Tally
from webhooks.models.subscription import ON_HOLD
from webhooks.transports.base import Response


@dataclass(slots=True, eq=False)  # one for each POST, as a Job
class Result:
    """A finished POST, judged and decided upon.

    answered_at: database time. next_try_at: when the next one begins, the lane's rest included.
    """

    job: Job
    response: Response
    outcome: Outcome
    decision: Decision
    answered_at: datetime
    next_try_at: datetime | None = None

    @property
    def is_acknowledged(self) -> bool:
        return self.decision.state is State.DELIVERED


@dataclass(frozen=True, slots=True)
class Written:
    """What one flush wrote. applied: those results among them that count for their deliveries.
    lost: lanes that somebody else holds by now. busy: lanes that somebody has locked; what needs
    them was left for the next flush."""

    results: Sequence[Result]
    applied: Sequence[Result]
    lost: set[str]
    busy: set[str]


def conclude(
    lane: HeldLane, job: Job, response: Response, clock: Clock, rng: random.Random
) -> Result:
    """Judge an answer and decide what follows for the delivery and, in memory, for its lane."""
    now = clock.now()
    outcome = judge(response, now)
    if outcome.verdict is Verdict.DELIVERED:
        lane.ended(job, response.elapsed_ms)
        lane.succeeded(job, now)
        return Result(job, response, outcome, DELIVERED, now)
    # What another endpoint answers, which was left meanwhile, says nothing of this one.
    moved = job.url != lane.subscription.callback_url
    if moved:
        outcome = replace(outcome, verdict=Verdict.FAILED, retry_after=None, overloaded=False)
    decision = decide(
        outcome,
        attempts=job.number - job.delivery.retries_from,
        age=lane.age(job.delivery, now),
        now=now,
        schedule=lane.retry_schedule,
        max_age=settings.MAX_AGE,
        rng=rng,
    )
    lane.ended(job, response.elapsed_ms)
    if not moved:
        lane.failed(job, outcome, now, rng)
    if outcome.verdict is Verdict.GONE:
        lane.leave()
        return Result(job, response, outcome, decision, now)
    next_try_at = decision.due_at
    parked = lane.pacing.is_parked
    if job.probe:
        # It told of the endpoint; of the delivery it says nothing, whatever its age.
        decision = Decision(State.PENDING, due_at=job.delivery.due_at)
        next_try_at = max(job.delivery.due_at, lane.row.paused_until or now)
    elif decision.due_at is not None and lane.subscription.ordered:
        # The head keeps its due time, and with it its place before all others; the lane waits.
        if parked:  # for a probe, which is the head
            next_try_at = lane.row.paused_until
        else:
            lane.rest(decision.due_at, "ordered", now)
        decision = replace(decision, due_at=job.delivery.due_at)
    if outcome.retry_after is not None and not parked:
        lane.rest(now + timedelta(seconds=outcome.retry_after), "retry_after", now)
    return Result(job, response, outcome, decision, now, next_try_at)


class Recorder:
    """Writes results for one worker."""

    def __init__(self, using: str, token: UUID) -> None:
        self._using = using
        self._token = token

    def write(
        self, results: Sequence[Result], lanes: Sequence[HeldLane], releasing: Sequence[HeldLane]
    ) -> Written:
        """Write results, the lanes' pacing, and free those of ``releasing``; one transaction. Then
        tell the host's receivers.

        Raises DatabaseError or InterfaceError where the database does not take it; then nothing
        was written.
        """
        concerned = {lane.id: lane for lane in lanes if lane.paced}
        concerned.update((lane.id, lane) for lane in releasing)
        ids = set(concerned) | {
            result.job.lane_id for result in results if not result.is_acknowledged
        }
        free = {lane.id for lane in releasing}
        written = atomically(self._using, lambda: self._write(results, concerned, ids, free))
        for pk in concerned.keys() - written.busy:
            concerned[pk].paced = False
        # A failure that was not applied, because the lane was lost, did not happen.
        _tell(written.applied)
        return written

    def _write(
        self,
        results: Sequence[Result],
        concerned: dict[str, HeldLane],
        ids: set[str],
        free: set[str],
    ) -> Written:
        lanes = Lane.objects.using(self._using)
        locked = lanes.held_by(self._token, ids) if ids else []
        mine = {row.pk for row in locked}
        missing = ids - mine
        held = lanes.filter(token=self._token, pk__any=missing)
        busy = set(held.values_list("pk", flat=True)) if missing else set()
        # Acknowledgements need no lane; failures wait for theirs, and nobody waits with them.
        results = [each for each in results if each.is_acknowledged or each.job.lane_id not in busy]
        DeliveryAttempt.objects.using(self._using).append(_attempt(result) for result in results)
        acknowledged = [each for each in results if each.is_acknowledged]
        self._settle(acknowledged)
        failed = self._unchanged(
            [each for each in results if not each.is_acknowledged and each.job.lane_id in mine]
        )
        self._settle([each for each in failed if each.decision.state is not State.PENDING])
        self._reschedule([each for each in failed if each.decision.state is State.PENDING])
        if dead := [each for each in failed if _is_given_up(each)]:
            given_up = [told for each in dead for told in _given_up(each)]
            notices.record_given_up(self._using, given_up)
        if results:
            tally = _tally(results, {id(each) for each in (*acknowledged, *failed)})
            DeliveryStats.objects.using(self._using).add(tally)
        unheard = set()
        for row in locked:
            lane = concerned.get(row.pk)
            if lane is None:
                continue
            if row.control != lane.control:
                unheard.add(row.pk)  # what a person changed stands as it is
                continue
            row.held = lane.subscription.status in ON_HOLD
            for column in PACING:
                setattr(row, column, getattr(lane.row, column))
        lanes.let_go([row for row in locked if row.pk in free], at_once=unheard)
        lanes.pace([row for row in locked if row.pk in concerned and row.pk not in free])
        return Written(results, acknowledged + failed, missing - busy, busy)

    def _unchanged(self, failures: list[Result]) -> list[Result]:
        """Those whose deliveries nobody has asked for again since their attempts began.

        An attempt that was under way by then must not end, or put off, what was asked for. Asking
        takes the lane's lock, which is ours.
        """
        if not failures:
            return failures
        pending = Delivery.objects.using(self._using).pending()
        # Whoever asks for a member of a batch changes the one that stands for them as well.
        rows = pending.filter(pk__any=[each.job.delivery.id for each in failures])
        # Each way to ask leaves a trace in one of these.
        columns = ("due_at", "retries_from", "trigger", "message_id")
        stored = {pk: row for pk, *row in rows.values_list("pk", *columns)}
        return [
            each
            for each in failures
            if stored.get(each.job.delivery.id)
            == [getattr(each.job.delivery, column) for column in columns]
        ]

    def _settle(self, results: Sequence[Result]) -> None:
        groups: dict[tuple[State, str, int, str | None], list[Result]] = defaultdict(list)
        deliveries = Delivery.objects.using(self._using)
        for result in results:
            decision, job = result.decision, result.job
            if job.delivery.parcel is not None:
                following.settle(
                    self._using,
                    job.delivery,
                    decision.state,
                    now=result.answered_at,
                    reason=decision.reason,
                    attempts=job.number,
                )
                continue
            key = (decision.state, decision.reason, job.number, job.delivery.message_id)
            groups[key].append(result)
        # Under the message that was sent: an answer to the old id says nothing of a new one.
        for (state, reason, number, message_id), group in groups.items():
            ids = sorted(each.job.delivery.id for each in group)
            deliveries.filter(pk__any=ids, message=message_id).settle(
                state, now=group[-1].answered_at, reason=reason, attempts=number
            )

    def _reschedule(self, results: Sequence[Result]) -> None:
        rows = []
        for result in results:
            if result.job.probe:
                continue  # it changed nothing
            decision, delivery = result.decision, result.job.delivery
            assert decision.due_at is not None
            if delivery.parcel is not None:
                following.reschedule(self._using, delivery, decision.due_at, result.job.number)
                continue
            rows.append((delivery.id, decision.due_at, result.job.number))
        Delivery.objects.using(self._using).reschedule(sorted(rows))


def _attempt(result: Result) -> tuple[object, ...]:
    """A row in the order of ``attempt.APPENDED``."""
    job, response = result.job, result.response
    return (
        new_attempt_id(),
        job.lane_id,
        job.delivery.webhook_id,
        job.number,
        job.trigger,
        job.due_at,
        job.started_at,
        response.status_code,
        result.outcome.code,
        storable(response.error_detail)[:200],
        round(response.elapsed_ms),
        storable(response.excerpt),
        response.truncated,
        1 if job.delivery.parcel is None else job.delivery.parcel.events,
    )


def _is_given_up(result: Result) -> bool:
    return result.decision.state in (State.DEAD, State.EXPIRED)


def _given_up(result: Result) -> list[notices.GivenUp]:
    return [
        notices.GivenUp(
            delivery_id=member.delivery_id,
            subscription_id=result.job.lane_id,
            requester=result.job.requester,
            event_id=member.event_id,
            event_type=member.event_type,
            state=result.decision.state.value,
            attempts=result.job.number,
            error_code=result.outcome.code,
            status_code=result.response.status_code,
            ended_at=result.answered_at,
        )
        for member in members_of(result.job.delivery)
    ]


def _tally(results: Sequence[Result], applied: set[int]) -> Tally:
    tally = Tally()
    for result in results:
        job = result.job
        delivered = result.is_acknowledged
        if job.delivery.parcel is not None:
            tally.count_batch(
                job.delivery.parcel.types,
                subscription_id=job.lane_id,
                at=result.answered_at,
                code=result.outcome.code,
                elapsed_ms=result.response.elapsed_ms,
                first_try=job.number == 1,
                dead=id(result) in applied and _is_given_up(result),
                ack_ms=waits(job.delivery, result.answered_at) if delivered else None,
            )
            continue
        # What was asked for again is as late as it comes after that, not after the event.
        asked = job.delivery.trigger
        since = result.answered_at - (
            job.delivery.first_due_at if asked else job.delivery.recorded_at
        )
        tally.count(
            subscription_id=job.lane_id,
            event_type=job.delivery.event_type,
            at=result.answered_at,
            code=result.outcome.code,
            elapsed_ms=result.response.elapsed_ms,
            first_try=job.number == 1,
            dead=id(result) in applied and _is_given_up(result),
            ack_ms=since.total_seconds() * 1000 if delivered else None,
        )
    return tally


def _tell(results: Sequence[Result]) -> None:
    """Tell the host's receivers what was written."""
    for result in results:
        state = result.decision.state
        if state is State.DELIVERED:
            signal = signals.delivery_succeeded
        elif state is State.PENDING:
            signal = signals.delivery_failed
        else:
            signal = signals.delivery_dead
        if not signal.has_listeners(Delivery):
            continue
        for member in members_of(result.job.delivery):
            signal.send_robust(sender=Delivery, **_said(result, member))


def _said(result: Result, member: Member) -> dict[str, object]:
    """What a receiver of the host's is told of one delivery."""
    job, state = result.job, result.decision.state
    said: dict[str, object] = {
        "delivery_id": member.delivery_id,
        "subscription_id": job.lane_id,
        "event_id": member.event_id,
        "event_type": member.event_type,
        "attempts": job.number,
        "status_code": result.response.status_code,
    }
    if state is State.PENDING:
        said |= {"error_code": result.outcome.code, "due_at": result.next_try_at}
    elif state is not State.DELIVERED:
        said |= {"error_code": result.outcome.code, "state": state.value}
    return said
