"""The example's subscriber, over real HTTP, in its own process."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from example_project.receiver.temper import Answer, Temper
from tests.example.running import ROOT, environment

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
BODY = '{"id": "evt_1", "type": "push.sent", "data": {}}'


class Running:
    """A receiver process and a client's view of it."""

    def __init__(self, home: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "example_project.receiver", "--port", "0", *options],
            cwd=ROOT,
            env=environment(home),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.fullmatch(r"listening on http://127\.0\.0\.1:(\d+)/\n", line)
        assert found, line or self.process.communicate()
        self.port = int(found[1])
        self._connections: list[http.client.HTTPConnection] = []

    def connect(self, timeout: float = 10) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        self._connections.append(connection)
        return connection

    def post(
        self,
        message_id: str = "evt_1",
        body: str = BODY,
        *,
        connection: http.client.HTTPConnection | None = None,
        **changed: str,
    ) -> http.client.HTTPResponse:
        connection = connection or self.connect()
        connection.request("POST", "/webhooks", body, signed(message_id, body, **changed))
        response = connection.getresponse()
        response.read()
        return response

    def get(self, path: str) -> str:
        connection = self.connect()
        connection.request("GET", path)
        return connection.getresponse().read().decode()

    @property
    def figures(self) -> dict[str, Any]:
        return json.loads(self.get("/figures"))

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.get("/messages").splitlines()]

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Its exit status and what it wrote to stderr."""
        for connection in self._connections:
            connection.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            _, errors = self.process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return self.process.returncode, errors


def signed(message_id: str, body: str, *, secret: str = SECRET, **changed: str) -> dict[str, str]:
    """Headers as a sender makes them; ``changed`` replaces some, with _ for -."""
    at = datetime.now(UTC) - timedelta(seconds=int(changed.pop("age", "0")))
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, at, body),
    }
    return headers | {name.replace("_", "-"): value for name, value in changed.items()}


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(*options: str) -> Running:
        started.append(Running(tmp_path / "home", "--secret", SECRET, *options))
        return started[-1]

    yield start
    for running in started:
        status, errors = running.end()
        assert status == 0
        assert errors == ""


def test_a_signed_message_is_accepted_and_kept(receiver):
    running = receiver()
    response = running.post()
    assert response.status == 204
    assert running.figures == {
        "received": 1,
        "verified": 1,
        "rejected": 0,
        "accepted": 1,
        "duplicates": 0,
        "body_mismatch": 0,
        "failed": 0,
        "hung": 0,
        "rate_limited": 0,
        "by_type": {"push.sent": 1},
    }
    [message] = running.messages
    assert (message["id"], message["type"], message["seen"]) == ("evt_1", "push.sent", 1)
    assert message["accepted"] is True
    assert abs(message["received_at"] - time.time()) < 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"secret": OTHER},
        {"webhook_id": "evt_2"},
        {"age": "600"},
        {"age": "-600"},
        {"webhook_timestamp": "yesterday"},
        {"webhook_signature": ""},
        {"webhook_signature": "v1"},
        {"webhook_signature": "v1,not base64"},
        {"webhook_signature": "v1a,AAAA"},
    ],
)
def test_what_is_not_authentic_is_rejected_and_not_kept(receiver, wrong):
    running = receiver()
    assert running.post(**wrong).status == 400
    assert (running.figures["received"], running.figures["rejected"]) == (1, 1)
    assert running.figures["verified"] == running.figures["accepted"] == 0
    assert running.messages == []
    assert running.post().status == 204


def test_a_body_that_was_changed_on_the_way_is_rejected(receiver):
    running = receiver()
    connection = running.connect()
    connection.request("POST", "/webhooks", BODY.replace("sent", "Sent"), signed("evt_1", BODY))
    assert connection.getresponse().status == 400


@pytest.mark.parametrize("body", ["[1, 2]", '{"data": 1}'])
def test_a_body_without_a_type_is_kept_without_one(receiver, body):
    running = receiver()
    assert running.post(body=body).status == 204
    assert running.messages[0]["type"] == ""


def test_any_of_several_secrets_will_do(receiver):
    running = receiver("--secret", OTHER)
    assert running.post("evt_1").status == 204
    assert running.post("evt_2", secret=OTHER).status == 204


def test_a_message_that_was_acknowledged_before_is_a_duplicate(receiver):
    running = receiver()
    assert [running.post().status for _ in range(3)] == [204, 204, 204]
    assert (running.figures["accepted"], running.figures["duplicates"]) == (1, 2)
    assert running.figures["by_type"] == {"push.sent": 1}
    assert running.messages[0]["seen"] == 3


def test_a_retry_after_a_failure_is_no_duplicate(receiver):
    running = receiver("--fail", "0.5")
    for number in range(40):
        while running.post(f"evt_{number}").status != 204:
            pass
    figures = running.figures
    assert (figures["accepted"], figures["duplicates"]) == (40, 0)
    assert figures["failed"] == figures["verified"] - 40 > 5


def test_another_body_under_the_same_id_is_counted(receiver):
    running = receiver()
    running.post()
    running.post(body=BODY.replace("push.sent", "push.clicked"))
    assert running.figures["body_mismatch"] == 1
    running.post()
    assert running.figures["body_mismatch"] == 1


def test_one_connection_serves_many_posts(receiver):
    running = receiver("--fail", "0.3")
    connection = running.connect()
    connection.connect()
    ours = connection.sock
    for number in range(20):
        running.post(f"evt_{number}", connection=connection)
        assert connection.sock is ours
    assert running.figures["received"] == 20


def test_a_rate_limited_post_is_told_when_to_come_again(receiver):
    running = receiver("--rate-limit", "1")
    response = running.post()
    assert response.status == 429
    assert response.headers["Retry-After"] == "1"
    assert (running.figures["rate_limited"], running.figures["accepted"]) == (1, 0)


def test_a_hanging_post_gets_no_answer_delays_no_other_and_keeps_nobody_from_stopping(receiver):
    running = receiver("--hang", "1")
    connection = running.connect(timeout=0.5)
    with pytest.raises(TimeoutError):
        running.post(connection=connection)
    began = time.monotonic()
    assert running.figures["hung"] == 1
    status, errors = running.end()
    assert (status, errors) == (0, "")
    assert time.monotonic() - began < 3


def test_a_hanging_post_is_dropped_in_the_end(receiver):
    running = receiver("--hang", "1", "--hang-seconds", "0.2")
    with pytest.raises(http.client.RemoteDisconnected):
        running.post()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Transfer-Encoding": "chunked"}, 411),
        ({"Content-Length": "-1"}, 411),
        ({"Content-Length": str(10**9)}, 413),
    ],
)
def test_a_body_of_unknown_or_absurd_length_is_refused_unread(receiver, headers, status):
    connection = receiver().connect()
    connection.putrequest("POST", "/webhooks")
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == status


def test_the_log_has_a_line_for_each_post(receiver, tmp_path):
    log = tmp_path / "receiver.ndjson"
    running = receiver("--log", str(log))
    running.post()
    running.post(webhook_signature="v1,AAAA")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["answer"] for line in lines] == ["accepted", 400]


def test_it_ends_cleanly_when_interrupted(receiver):
    assert receiver().end(signal.SIGINT) == (0, "")


def test_shares_that_make_no_sense_are_refused(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "example_project.receiver", "--port", "0"),
            *("--secret", SECRET, "--fail", "0.7", "--hang", "0.7"),
        ],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "at most 1" in done.stderr


def test_a_temper_keeps_its_shares_and_repeats_itself():
    temper = Temper(fail=0.1, hang=0.05, rate_limit=0.2, seed=7)
    answers = [temper.answer(f"evt_{number}", 1) for number in range(20_000)]
    for answer, share in ((Answer.FAIL, 0.1), (Answer.HANG, 0.05), (Answer.RATE_LIMIT, 0.2)):
        assert abs(answers.count(answer) / 20_000 - share) < 0.01
    assert answers == [temper.answer(f"evt_{number}", 1) for number in range(20_000)]
    assert answers != [temper.answer(f"evt_{number}", 2) for number in range(20_000)]


def test_a_batch_is_one_message_and_its_events_are_counted(receiver):
    running = receiver()
    events = [{"id": f"evt_{number}", "type": "push.sent"} for number in range(3)]
    body = json.dumps({"id": "msg_1", "type": "batch", "events": events})
    assert [running.post("msg_1", body).status for _ in range(2)] == [204, 204]
    empty = json.dumps({"id": "msg_2", "type": "batch", "events": []})
    assert running.post("msg_2", empty).status == 204
    assert (running.figures["accepted"], running.figures["duplicates"]) == (2, 1)
    assert running.figures["by_type"] == {"batch": 2, "push.sent": 3}


def digest(
    hour: int, counts: dict[str, int], events: list[dict[str, str]] | None = None, page: int = 1
) -> str:
    """The body of an hourly digest of counts, as docs/digests.md has it."""
    return json.dumps(
        {
            "id": f"msg_{hour}",
            "type": "batch",
            "timestamp": f"2027-01-01T{hour + 1:02}:00:02.000000Z",
            "window": {
                "from": f"2027-01-01T{hour:02}:00:00.000000Z",
                "to": f"2027-01-01T{hour + 1:02}:00:00.000000Z",
                "trigger": "hourly",
            },
            "page": page,
            "pages": page,
            "counts": counts,
            "events": events or [],
        }
    )


def single(number: int, moment: str, event_type: str = "push.sent") -> str:
    return json.dumps({"id": f"evt_{number}", "type": event_type, "timestamp": moment, "data": {}})


def test_digests_stand_beside_what_was_counted_from_single_events(receiver):
    running = receiver()
    assert json.loads(running.get("/digests"))["together"] is None
    assert "No digest has come yet" in running.get("/")
    moments = ["2027-01-01T10:00:00Z", "2027-01-01T10:59:59.999999Z", "2027-01-01T11:00:00Z"]
    for number, moment in enumerate(moments):
        running.post(f"evt_{number}", single(number, moment))
    batch = [json.loads(single(9, "2027-01-01T11:29:00+00:30", "push.clicked"))]
    running.post("msg_b", json.dumps({"id": "msg_b", "type": "batch", "events": batch}))
    for _retry in range(2):
        running.post("msg_10", digest(10, {"push.sent": 2, "push.clicked": 1}))
    told = json.loads(running.get("/digests"))
    [window] = told["windows"]
    assert (window["from"], window["trigger"]) == ("2027-01-01T10:00:00+00:00", "hourly")
    assert window["told"] == {"push.clicked": 1, "push.sent": 2}
    assert window["counted"] == {"push.clicked": 1, "push.sent": 2}
    assert window["agrees"] is True
    assert window["ids"] == ["msg_10"]


def test_a_batch_counts_singly_and_what_a_digest_carries_does_not(receiver):
    running = receiver()
    event = json.loads(single(1, "2027-01-01T10:30:00Z"))
    running.post("msg_b", json.dumps({"id": "msg_b", "type": "batch", "events": [event]}))
    running.post("msg_10", digest(10, {"push.sent": 1}, [event]))
    running.post("msg_p2", digest(10, {"push.sent": 1}, page=2))
    [window] = json.loads(running.get("/digests"))["windows"]
    assert (window["told"], window["counted"]) == ({"push.sent": 1}, {"push.sent": 1})


def test_what_is_astray_at_the_edge_of_a_window_cancels_in_the_next(receiver):
    running = receiver()
    for number, moment in enumerate(("10:20:00", "10:59:59", "11:10:00")):
        running.post(f"evt_{number}", single(number, f"2027-01-01T{moment}Z"))
    running.post("msg_11", digest(11, {"push.sent": 2}))
    running.post("msg_10", digest(10, {"push.sent": 1}))
    told = json.loads(running.get("/digests"))
    assert [each["agrees"] for each in told["windows"]] == [False, False]
    assert [each["from"][11:13] for each in told["windows"]] == ["11", "10"]
    assert told["together"]["agrees"] is True
    assert told["together"]["told"] == {"push.sent": 3}
    page = running.get("/")
    assert page.count("Digest and single events differ.") == 2
    assert page.count("Digest and single events agree.") == 1
    assert "<td>2</td><td>1</td><td>-1</td>" in page


def test_a_forged_digest_is_not_shown(receiver):
    running = receiver()
    forged = running.post("msg_10", digest(10, {"push.sent": 2}), secret=OTHER)
    assert forged.status == 400
    assert json.loads(running.get("/digests"))["windows"] == []
    assert "1 POSTs with" in running.get("/")


def test_the_dashboard_is_a_page_without_scripts_that_shows_texts_as_texts(receiver):
    running = receiver()
    evil = "<script>alert(1)</script>"
    running.post("msg_10", digest(10, {evil: 1}))
    connection = running.connect()
    connection.request("GET", "/")
    response = connection.getresponse()
    html = response.read().decode()
    assert response.headers["Content-Security-Policy"] == "default-src 'self'"
    assert "<script" not in html
    assert "style=" not in html
    assert "&lt;script&gt;" in html
    assert "max-inline-size" in running.get("/style.css")


def test_a_handshake_is_answered_with_its_secret_where_the_post_is_authentic(receiver):
    running = receiver()
    agreed = running.post(X_Hook_Secret="a1b2")
    assert (agreed.status, agreed.headers["X-Hook-Secret"]) == (204, "a1b2")
    forged = running.post(X_Hook_Secret="a1b2", webhook_signature="v1,AAAA")
    assert (forged.status, forged.headers["X-Hook-Secret"]) == (400, None)
    assert running.post().headers["X-Hook-Secret"] is None


def test_it_needs_no_django_and_of_the_sender_only_what_is_made_for_subscribers(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, example_project.receiver.__main__; "
            "print('django' in sys.modules, 'standardwebhooks' in sys.modules, "
            "{name.split('.')[1] for name in sys.modules if name.startswith('webhooks.')} "
            "- {'receiving', 'formats', 'exceptions'})",
        ],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "False True set()\n"
