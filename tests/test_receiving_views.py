"""Subscribers written in Python: the view, the dispatcher, and their core without Django."""

from __future__ import annotations

import inspect
import json
import pickle
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.cache import cache, caches
from django.db import IntegrityError, connection, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import Client, RequestFactory
from django.urls import path

from tests.packaging.documents import ROOT, blocks
from tests.shop.models import Order
from webhooks.formats.signing import generate_secret, sign
from webhooks.receiving import (
    CacheSeen,
    Dispatched,
    Dispatcher,
    Handlers,
    InvalidSignature,
    Message,
    Seen,
    echo_hook_secret,
    receive,
    verify,
    webhook_view,
)

SECRET, OTHER = generate_secret(), generate_secret()
EXAMPLE_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
AT = "2027-03-04T05:06:07.000089Z"
MOMENT = datetime(2027, 3, 4, 5, 6, 7, 89, tzinfo=UTC)


def body_of(event_type: str = "push.clicked", event_id: str = "evt_1", **data: Any) -> bytes:
    return json.dumps({"id": event_id, "type": event_type, "timestamp": AT, "data": data}).encode()


def batch_of(*types: str) -> bytes:
    events = [json.loads(body_of(name, f"evt_{i}")) for i, name in enumerate(types)]
    return json.dumps({"id": "msg_1", "type": "batch", "timestamp": AT, "events": events}).encode()


def signed(
    body: bytes, message_id: str = "evt_1", *, secret: str = SECRET, age: int = 0, **more: str
) -> dict[str, str]:
    now = int(time.time()) - age
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": sign([secret], message_id, now, body),
        **{name.replace("_", "-"): value for name, value in more.items()},
    }


def post(view: Any, body: bytes | None = None, message_id: str = "evt_1", **how: Any) -> Any:
    body = body_of() if body is None else body
    request = RequestFactory().post(
        "/hooks/",
        body,
        content_type="application/json",
        headers=how.pop("headers", None) or signed(body, message_id, **how),
    )
    return view(request)


def message(event_type: str = "push.clicked", message_id: str = "evt_1") -> Message:
    body = body_of(event_type)
    return Message.of(message_id, json.loads(body), body)


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    cache.clear()


class TestMessage:
    def test_it_says_what_came(self) -> None:
        body = body_of(url="/a")
        got = receive(body, signed(body, "evt_9"), SECRET)
        assert (got.id, got.type, got.timestamp) == ("evt_9", "push.clicked", MOMENT)
        assert (got.data, got.body, got.raw) == ({"url": "/a"}, body, json.loads(body))
        assert list(got.events) == [got]

    def test_text_comes_as_the_bytes_that_were_signed(self) -> None:
        body = body_of(name="é")
        assert receive(body.decode(), signed(body), SECRET).body == body

    def test_what_is_not_authentic_is_no_message(self) -> None:
        with pytest.raises(InvalidSignature):
            receive(body_of(), signed(body_of(), secret=OTHER), SECRET)

    def test_the_events_of_a_batch_are_messages_of_their_own(self) -> None:
        body = batch_of("push.sent", "push.clicked")
        got = receive(body, signed(body, "msg_1"), SECRET)
        assert (got.id, got.type, got.data) == ("msg_1", "batch", None)
        events = [(each.id, each.type, each.timestamp) for each in got.events]
        assert events == [("evt_0", "push.sent", MOMENT), ("evt_1", "push.clicked", MOMENT)]

    @pytest.mark.parametrize("events", [None, 1, "ab", {}, [1, None, "x"]])
    def test_a_batch_without_events_has_none(self, events: Any) -> None:
        assert list(Message.of("msg_1", {"type": "batch", "events": events}).events) == []

    @pytest.mark.parametrize("raw", [[], None, {}, {"type": 5, "timestamp": 7}, {"timestamp": "x"}])
    def test_what_is_not_told_is_empty(self, raw: Any) -> None:
        got = Message.of("evt_1", raw)
        assert (got.type, got.timestamp, got.data) == ("", None, None)

    def test_its_repr_shows_no_data_and_it_can_be_handed_to_another_process(self) -> None:
        body = body_of(email="ada@example.com")
        got = receive(body, signed(body), SECRET)
        assert "ada@" not in repr(got)
        assert pickle.loads(pickle.dumps(got)) == got


class TestView:
    @staticmethod
    def view(answer: Any = None, **options: Any) -> tuple[Any, list[Message]]:
        got: list[Message] = []

        @webhook_view(**{"secret": SECRET, **options})
        def hooks(request: HttpRequest, message: Message) -> Any:
            got.append(message)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return hooks, got

    def test_an_authentic_message_is_handed_on_and_acknowledged(self) -> None:
        view, got = self.view()
        response = post(view)
        assert (response.status_code, response.content) == (204, b"")
        assert [each.id for each in got] == ["evt_1"]

    def test_an_answer_is_passed_on(self) -> None:
        view, _got = self.view(JsonResponse({"gone": True}, status=410))
        response = post(view)
        assert (response.status_code, json.loads(response.content)) == (410, {"gone": True})

    def test_an_error_is_raised_so_that_the_message_comes_again(self) -> None:
        view, _got = self.view(RuntimeError("no disk"))
        with pytest.raises(RuntimeError, match="no disk"):
            post(view)

    @pytest.mark.parametrize(
        "headers",
        [
            {"a": "b"},
            signed(body_of(), secret=OTHER),
            signed(body_of(), age=900),
            signed(body_of(), age=-3600),
            signed(body_of()) | {"webhook-id": "evt_2"},
            signed(body_of() + b" "),
        ],
        ids=["unsigned", "another secret", "old", "early", "another id", "another body"],
    )
    def test_what_is_not_authentic_is_told_so_and_goes_no_further(self, headers: Any) -> None:
        view, got = self.view()
        response = post(view, headers=headers)
        assert response.status_code == 401
        assert json.loads(response.content)["error"] == "invalid_signature"
        assert response["WWW-Authenticate"] == "StandardWebhooks"
        assert got == []

    def test_the_tolerance_is_the_subscribers(self) -> None:
        view, got = self.view(tolerance=None)
        assert post(view, age=10**6).status_code == 204
        assert len(got) == 1

    @pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete", "options"])
    def test_any_method_but_post_is_refused(self, method: str) -> None:
        view, got = self.view()
        body = body_of()
        response = view(RequestFactory().generic(method.upper(), "/", body, headers=signed(body)))
        assert (response.status_code, response["Allow"]) == (405, "POST")
        assert got == []

    def test_a_body_that_is_too_large_is_refused_before_it_is_read(self) -> None:
        view, got = self.view(max_bytes=len(body_of()))
        assert post(view).status_code == 204
        large = body_of() + b" "
        request = RequestFactory().post(
            "/", large, content_type="application/json", headers=signed(large)
        )
        assert view(request).status_code == 413
        assert not hasattr(request, "_body")
        assert len(got) == 1

    def test_one_without_a_length_is_refused_as_well(self) -> None:
        view, _got = self.view(max_bytes=10)
        request = RequestFactory().post("/", body_of(), content_type="application/json")
        assert request.body  # read already, as an ASGI server's is
        del request.META["CONTENT_LENGTH"]
        assert view(request).status_code == 413

    def test_djangos_own_limit_is_told_as_413_too(self, settings: Any) -> None:
        settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
        view, _got = self.view()
        assert post(view).status_code == 413

    @pytest.mark.parametrize(
        "secret",
        [
            [OTHER, SECRET],
            (SECRET,),
            lambda request: SECRET,
            lambda request: [OTHER, SECRET],
            lambda request: {"/hooks/": SECRET}[request.path],
        ],
    )
    def test_the_secret_may_be_several_or_be_asked_for(self, secret: Any) -> None:
        view, got = self.view(secret=secret)
        assert post(view).status_code == 204
        assert len(got) == 1

    def test_a_handshake_is_answered_with_its_secret(self) -> None:
        view, _got = self.view()
        assert post(view, X_Hook_Secret="abc-123")["X-Hook-Secret"] == "abc-123"
        assert "X-Hook-Secret" not in post(view)
        unsigned = post(view, headers={"X-Hook-Secret": "abc"})
        assert (unsigned.status_code, unsigned.has_header("X-Hook-Secret")) == (401, False)
        refusing, _got = self.view(HttpResponse(status=503))
        assert not post(refusing, X_Hook_Secret="abc").has_header("X-Hook-Secret")

    @pytest.mark.parametrize("value", ["", "a b", "é", "x" * 1025, "a\r\n b"])
    def test_what_is_no_token_is_not_echoed(self, value: str) -> None:
        assert echo_hook_secret({"x-hook-secret": value}) == {}

    def test_it_needs_no_csrf_token_and_url_arguments_are_passed_on(self, settings: Any) -> None:
        settings.ROOT_URLCONF = __name__
        body = body_of()
        client = Client(enforce_csrf_checks=True)
        headers = signed(body)
        answer = client.post("/of/7/", body, content_type="application/json", headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"tenant": 7, "type": "push.clicked"})

    def test_an_asynchronous_function_is_refused_where_it_is_written(self) -> None:
        async def hooks(request: HttpRequest, message: Message) -> None: ...

        with pytest.raises(TypeError, match="plain function"):
            webhook_view(secret=SECRET)(hooks)  # type: ignore[arg-type]


class TestCloudEventsHandshake:
    @staticmethod
    def ask(origin: str | None = "hooks.example.com", **options: Any) -> Any:
        dispatcher = Dispatcher(SECRET, **options)
        headers = {"WebHook-Request-Rate": "120"}
        if origin is not None:
            headers["WebHook-Request-Origin"] = origin
        return dispatcher.view(RequestFactory().options("/hooks/", headers=headers))

    @pytest.mark.parametrize("allowed", [["a.b", "Hooks.Example.com"], "hooks.example.com", "*"])
    def test_an_allowed_sender_gets_consent(self, allowed: Any) -> None:
        response = self.ask(allowed_origins=allowed)
        assert 200 <= response.status_code < 300
        assert response["WebHook-Allowed-Origin"] == "hooks.example.com"
        assert response["WebHook-Allowed-Rate"] == "*"
        assert response["Allow"] == "POST, OPTIONS"

    def test_the_rate_is_the_subscribers(self) -> None:
        response = self.ask(allowed_origins="*", allowed_rate=60)
        assert response["WebHook-Allowed-Rate"] == "60"

    @pytest.mark.parametrize("origin", ["evil.example.com", "", None])
    def test_others_get_none(self, origin: str | None) -> None:
        response = self.ask(origin, allowed_origins=["hooks.example.com"])
        assert response.status_code == 403
        assert not response.has_header("WebHook-Allowed-Origin")

    def test_without_allowed_origins_there_is_no_handshake(self) -> None:
        assert self.ask().status_code == 405


class TestHandlers:
    @pytest.mark.parametrize(
        ("pattern", "event_type", "wanted"),
        [
            ("push.clicked", "push.clicked", True),
            ("push.clicked", "push.click", False),
            ("push.*", "push.clicked", True),
            ("push.*", "push.a.b", True),
            ("push.*", "pushed.a", False),
            ("push.*", "push", False),
            ("*", "push.clicked", True),
            ("*", "", True),
        ],
    )
    def test_patterns(self, pattern: str, event_type: str, wanted: bool) -> None:
        handlers, got = Handlers(), []
        handlers.on(pattern)(got.append)
        outcome = handlers.dispatch(message(event_type))
        assert outcome is (Dispatched.HANDLED if wanted else Dispatched.UNWANTED)
        assert len(got) == wanted

    @pytest.mark.parametrize("patterns", [(), ("",), ("push*",), ("*.sent",), ("a b",), (print,)])
    def test_what_is_no_pattern_is_refused(self, patterns: Any) -> None:
        with pytest.raises(ValueError, match=r"push\.clicked"):
            Handlers().on(*patterns)

    def test_a_handler_is_called_once_however_many_of_its_patterns_match(self) -> None:
        handlers, got = Handlers(), []
        handlers.on("push.*", "push.clicked", "*")(got.append)
        handlers.dispatch(message())
        assert len(got) == 1

    def test_handlers_are_called_in_the_order_of_their_registration(self) -> None:
        handlers, got = Handlers(), []
        handlers.on("push.*")(lambda message: got.append("first"))
        handlers.on("push.clicked")(lambda message: got.append("second"))
        handlers.dispatch(message())
        assert got == ["first", "second"]

    def test_a_batch_goes_whole_to_who_asks_for_it_and_event_by_event_to_the_others(self) -> None:
        handlers, whole, clicks, every = Handlers(), [], [], []
        handlers.on("batch")(whole.append)
        handlers.on("push.clicked")(clicks.append)
        handlers.on("*")(every.append)
        body = batch_of("push.sent", "push.clicked", "push.clicked")
        handlers.dispatch(Message.of("msg_1", json.loads(body), body))
        assert [each.id for each in whole] == ["msg_1"]
        assert [each.id for each in clicks] == ["evt_1", "evt_2"]
        assert [each.id for each in every] == ["evt_0", "evt_1", "evt_2"]

    def test_another_may_do_the_calling(self) -> None:
        queue: list[Any] = []
        handlers = Handlers(run=lambda handler, message: queue.append((handler, message)))

        @handlers.on("push.*")
        def clicked(message: Message) -> None:
            raise AssertionError("called at once")

        assert inspect.isfunction(clicked)  # as it was: a task queue finds it by its name
        handlers.dispatch(message())
        assert queue == [(clicked, message())]

    def test_an_asynchronous_handler_without_somebody_to_await_it_is_refused(self) -> None:
        async def clicked(message: Message) -> None: ...

        with pytest.raises(TypeError, match="await"):
            Handlers().on("*")(clicked)
        Handlers(run=lambda handler, message: None).on("*")(clicked)


class Remembered(Seen):
    """The least that a store of seen ids needs."""

    def __init__(self) -> None:
        self.ids: set[str] = set()

    def remember(self, message_id: str) -> bool:
        new = message_id not in self.ids
        self.ids.add(message_id)
        return new

    def forget(self, message_id: str) -> None:
        self.ids.discard(message_id)


class TestDispatcher:
    def test_each_message_is_handled_once_and_every_copy_acknowledged(self) -> None:
        dispatcher, got = Dispatcher(secret=SECRET), []
        dispatcher.on("push.*")(got.append)
        assert [post(dispatcher.view).status_code for _ in range(3)] == [204] * 3
        assert post(dispatcher.view, message_id="evt_2").status_code == 204
        assert [each.id for each in got] == ["evt_1", "evt_2"]

    @pytest.mark.parametrize("seen", [None, Remembered(), CacheSeen(seconds=5)])
    def test_after_an_error_the_next_copy_is_taken(self, seen: Seen | None) -> None:
        dispatcher, tries = Dispatcher(SECRET, seen=seen), []

        @dispatcher.on("*")
        def fails_once(message: Message) -> None:
            tries.append(message.id)
            if len(tries) == 1:
                raise RuntimeError("no disk")

        with pytest.raises(RuntimeError):
            post(dispatcher.view)
        assert [post(dispatcher.view).status_code for _ in range(2)] == [204, 204]
        assert tries == ["evt_1", "evt_1"]

    def test_what_nobody_wants_is_acknowledged_and_not_remembered(self) -> None:
        seen = Remembered()
        dispatcher = Dispatcher(SECRET, seen=seen)
        dispatcher.on("order.*")(lambda message: None)
        response = post(dispatcher.view, X_Hook_Secret="abc")
        assert (response.status_code, response["X-Hook-Secret"]) == (204, "abc")
        assert seen.ids == set()

    def test_a_forged_message_is_neither_handled_nor_remembered(self) -> None:
        seen, got = Remembered(), []
        dispatcher = Dispatcher(SECRET, seen=seen)
        dispatcher.on("*")(got.append)
        assert post(dispatcher.view, secret=OTHER).status_code == 401
        assert (seen.ids, got) == (set(), [])

    def test_a_copy_of_what_is_being_handled_is_not_acknowledged(self) -> None:
        dispatcher = Dispatcher(SECRET)
        entered, leave = threading.Event(), threading.Event()

        @dispatcher.on("*")
        def slow(message: Message) -> None:
            entered.set()
            assert leave.wait(10)

        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(post, dispatcher.view)
            assert entered.wait(10)
            # It may fail yet, or its process may die: then this copy is all that is left.
            assert post(dispatcher.view).status_code == 409
            leave.set()
            assert first.result().status_code == 204
        assert post(dispatcher.view).status_code == 204

    def test_a_crash_in_the_middle_loses_nothing(self) -> None:
        dispatcher, got = Dispatcher(SECRET, seen=CacheSeen(busy_seconds=1)), []
        dispatcher.on("*")(got.append)
        assert CacheSeen(busy_seconds=1).remember("evt_1")  # the process that died
        assert post(dispatcher.view).status_code == 409
        time.sleep(1.1)
        assert post(dispatcher.view).status_code == 204
        assert len(got) == 1

    def test_of_many_copies_at_once_one_is_handled(self) -> None:
        dispatcher, got = Dispatcher(SECRET), []
        dispatcher.on("*")(got.append)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: post(dispatcher.view).status_code, range(32)))
        assert len(got) == 1
        assert set(answers) <= {204, 409}
        assert 204 in answers

    def test_two_endpoints_are_each_given_what_both_are_sent(self) -> None:
        got = []
        for place in ("a", "b"):
            dispatcher = Dispatcher(SECRET)
            dispatcher.on("*")(lambda message, place=place: got.append(place))
            request = RequestFactory().post(
                f"/{place}/", body_of(), content_type="application/json", headers=signed(body_of())
            )
            assert dispatcher.view(request).status_code == 204
        assert got == ["a", "b"]

    def test_the_work_may_be_handed_to_a_task(self) -> None:
        queue: list[Any] = []
        dispatcher = Dispatcher(SECRET, run=lambda handler, message: queue.append(message))
        dispatcher.on("*")(print)
        assert [post(dispatcher.view).status_code for _ in range(2)] == [204, 204]
        assert [each.id for each in queue] == ["evt_1"]

    def test_it_stands_in_a_url_conf_as_it_is(self, settings: Any) -> None:
        settings.ROOT_URLCONF = __name__
        clicks.clear()
        body = body_of()
        client = Client(enforce_csrf_checks=True)
        headers = signed(body)
        for url in ("/hooks/", "/hooks/7/"):
            answer = client.post(url, body, content_type="application/json", headers=headers)
            assert answer.status_code == 204
        assert [each.type for each in clicks] == ["push.clicked"] * 2

    @pytest.mark.django_db
    def test_a_task_of_django_q_can_be_made_of_it(self) -> None:
        from django_q.models import OrmQ
        from django_q.tasks import async_task

        dispatcher = Dispatcher(SECRET, run=async_task)
        dispatcher.on("*")(task)
        assert post(dispatcher.view).status_code == 204
        queued = OrmQ.objects.get().task
        assert (queued["func"], queued["args"]) == (task, (message(),))


@pytest.mark.django_db(transaction=True)
class TestAtomicRequests:
    @pytest.fixture(autouse=True)
    def _atomic_requests(self, settings: Any) -> Any:
        settings.ROOT_URLCONF = __name__
        connection.settings_dict["ATOMIC_REQUESTS"] = True
        yield
        connection.settings_dict["ATOMIC_REQUESTS"] = False

    def send(self) -> Any:
        body = body_of("push.opened")
        client = Client(raise_request_exception=False)
        return client.post(
            "/hooks/", body, content_type="application/json", headers=signed(body)
        ).status_code

    def test_a_handlers_work_is_rolled_back_with_it_and_done_at_the_retry(self) -> None:
        opened.update(fail=True)
        assert self.send() == 500
        assert not Order.objects.exists()
        opened.update(fail=False)
        assert [self.send(), self.send()] == [204, 204]
        assert Order.objects.count() == 1

    def test_a_commit_that_fails_does_not_lose_the_message(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened.update(fail=False)
        with monkeypatch.context() as patch:
            patch.setattr(connection, "commit", broken_commit)
            assert self.send() == 500
        assert self.send() == 204
        assert Order.objects.count() == 1


class TestCacheSeen:
    def test_a_handled_id_is_kept_for_its_seconds(self) -> None:
        seen = CacheSeen(seconds=1)
        assert seen.remember("evt_1")
        seen.confirm("evt_1")
        assert not seen.remember("evt_1")
        assert seen.is_handled("evt_1")
        time.sleep(1.1)
        assert seen.remember("evt_1")

    def test_any_id_makes_a_key_and_names_set_stores_apart(self) -> None:
        for message_id in ("evt 1", "x" * 400, "é\n"):
            assert CacheSeen().remember(message_id)
            assert not CacheSeen().remember(message_id)
            assert CacheSeen(name="other").remember(message_id)

    def test_the_cache_is_the_one_that_is_named(self, settings: Any) -> None:
        local = "django.core.cache.backends.locmem.LocMemCache"
        settings.CACHES = {
            "default": {"BACKEND": local, "LOCATION": "a"},
            "hooks": {"BACKEND": local, "LOCATION": "b"},
        }
        assert CacheSeen("hooks").remember("evt_1")
        assert not caches["hooks"].add(CacheSeen()._key("evt_1"), 1)
        assert CacheSeen("default").remember("evt_1")


class TestWithoutDjango:
    def test_verifying_and_dispatching_need_neither_django_nor_settings(self) -> None:
        code = (
            "import sys, json\n"
            "from webhooks.receiving import Handlers, Message, receive, verify\n"
            "body, headers, secret = json.loads(sys.stdin.read())\n"
            "handlers, got = Handlers(), []\n"
            "handlers.on('push.*')(got.append)\n"
            "handlers.dispatch(receive(body, headers, secret))\n"
            "print(got[0].id, verify(body, headers, secret)['id'], 'django' in sys.modules)\n"
        )
        body = body_of()
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps([body.decode(), signed(body), SECRET]),
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
        )
        assert (done.stdout, done.stderr) == ("evt_1 evt_1 False\n", "")


class TestDocument:
    TEXT = (ROOT / "docs" / "receiving.md").read_text(encoding="utf-8")

    def test_the_example_of_what_arrives_verifies(self) -> None:
        [example] = [block for block in blocks(self.TEXT) if block.language == "http"]
        head, body = example.code.strip().split("\n\n")
        headers = dict(line.split(": ") for line in head.splitlines()[1:])
        assert verify(body, headers, EXAMPLE_SECRET, tolerance=None)["id"] == headers["webhook-id"]
        with pytest.raises(InvalidSignature):
            verify(body + " ", headers, EXAMPLE_SECRET, tolerance=None)

    def test_its_views_receive(self, settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
        settings.HOOK_SECRET = SECRET
        received = 0
        for block in blocks(self.TEXT):
            if block.language == "python" and not re.search("flask|async_task|urls.py", block.code):
                names: dict[str, Any] = {}
                exec(block.code.replace(EXAMPLE_SECRET, SECRET), names)
                if "dispatcher" in names:
                    assert post(names["dispatcher"].view).status_code == 204
                elif "hooks" in names:
                    assert post(names["hooks"]).status_code == 202
                else:
                    names["take"](body_of(), signed(body_of()), Remembered())
                assert capsys.readouterr().out
                received += 1
        assert received == 3


# What the URL conf of these tests holds.

clicks: list[Message] = []
opened = {"fail": False}
dispatcher = Dispatcher(secret=lambda request: [OTHER, SECRET])


@dispatcher.on("push.clicked")
def clicked(message: Message) -> None:
    clicks.append(message)


@dispatcher.on("push.opened")
def note_opened(message: Message) -> None:
    Order.objects.create(number=1)
    if opened["fail"]:
        raise RuntimeError("after the write")


@webhook_view(secret=SECRET)
def of_tenant(request: HttpRequest, message: Message, tenant: int) -> HttpResponse:
    return JsonResponse({"tenant": tenant, "type": message.type})


def task(message: Message) -> None:
    """A handler that a task queue calls."""


def broken_commit() -> None:
    transaction.rollback()
    raise IntegrityError("a deferred constraint")


urlpatterns = [
    path("hooks/", dispatcher.view),
    path("hooks/<int:tenant>/", dispatcher.view),
    path("of/<int:tenant>/", of_tenant),
]
