"""Custom headers and basic auth: what is refused, what is sent, and that no value is shown."""

from __future__ import annotations

import base64
import json
import logging
from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ValidationError
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from tests.world import Answer, deliver, emit_orders, states, subscribe
from webhooks import lifecycle, probing
from webhooks.clock import db_now
from webhooks.crypto import Sealed, seal
from webhooks.exceptions import SecretUnreadable
from webhooks.headers import (
    MASK,
    check_basic_auth,
    check_headers,
    combined,
    headers_of,
    masked,
    open_headers,
    seal_headers,
)
from webhooks.models import DeliveryAttempt, Lane, Subscription
from webhooks.receiving import verify

VALUE = "s3cr3t-header-value"
PASSWORD = "hunter2-p4ssword"

#: As the wire's reference lists them, a name for each prefix.
DENIED = [
    *("Host", "Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding", "TE"),
    *("Trailer", "Connection", "Keep-Alive", "Upgrade", "Expect", "Proxy-Authorization", "Proxy-"),
    *("Cookie", "Set-Cookie", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP"),
    *("Via", "webhook-id", "webhook-signature", "webhook-x", "svix-id", "ce-id", "ce-type"),
    *("X-Hook-Secret", "X-Hook-Signature", "X-Mandrill-Signature", "Metadata", "Metadata-Flavor"),
    *("X-aws-ec2-metadata-token", "X-aws-ec2-metadata-token-ttl-seconds", "X-Metadata-Token"),
    *("Sec-Fetch-Site", "Sec-WebSocket-Key", "Accept-Encoding"),
]


class TestNames:
    @pytest.mark.parametrize("name", DENIED)
    @pytest.mark.parametrize("spelling", [str, str.lower, str.upper])
    def test_what_belongs_to_the_service_or_to_servers_is_refused(
        self, name: str, spelling: Any
    ) -> None:
        with pytest.raises(ValidationError, match="set by the service"):
            check_headers({spelling(name): "x"})

    @pytest.mark.parametrize("name", DENIED)
    @pytest.mark.parametrize("stroke", ["_", ".", "~"])
    def test_what_a_server_would_read_as_one_of_them_is_refused(
        self, name: str, stroke: str
    ) -> None:
        with pytest.raises(ValidationError, match="set by the service"):
            check_headers({name.replace("-", stroke): "x"})

    @pytest.mark.parametrize("name", DENIED)
    @pytest.mark.parametrize("around", ["{} ", " {}", "{}:", "{}\t", "{}\n", "{}\r\n", "{}\0"])
    def test_nor_are_they_hidden_behind_what_is_no_token(self, name: str, around: str) -> None:
        with pytest.raises(ValidationError, match="is no header name"):
            check_headers({around.format(name): "x"})

    @pytest.mark.parametrize("name", ["\u212aeep-Alive", "\u0441ookie", "X-Forwarded\u2010For"])
    def test_nor_behind_letters_that_look_alike(self, name: str) -> None:
        with pytest.raises(ValidationError, match="is no header name"):
            check_headers({name: "x"})

    def test_the_list_is_the_one_that_is_documented_to_the_letter(self) -> None:
        listed = (
            "Host, Content-Length, Content-Type, Content-Encoding, Transfer-Encoding, TE, Trailer, "
            "Connection, Keep-Alive, Upgrade, Expect, Proxy-*, Cookie, Set-Cookie, Forwarded, "
            "X-Forwarded-*, X-Real-IP, Via, webhook-*, svix-*, ce-*, X-Hook-*, X-Mandrill-*, "
            "Metadata, Metadata-Flavor, X-aws-ec2-metadata-token*, X-Metadata-Token, Sec-*"
        )
        names = listed.split(", ")
        assert len(names) == 28
        for name in names:
            for end in ("", "x", "-x") if name.endswith("*") else ("",):
                with pytest.raises(ValidationError, match="set by the service"):
                    check_headers({name.removesuffix("*") + end: "x"})

    @pytest.mark.parametrize(
        "name",
        ["", " ", "X Token", "X-Token:", "X-T\n", "X-T\r\nHost", "X-\xe9", "a" * 65, "(x)", 7],
    )
    def test_what_is_no_token_is_refused(self, name: Any) -> None:
        with pytest.raises(ValidationError, match="is no header name"):
            check_headers({name: "x"})

    @pytest.mark.parametrize(
        "name", ["X-Token", "Authorization", "User-Agent", "a" * 64, "!#$%&'*+-.^_`|~", "Hosted"]
    )
    def test_others_are_accepted(self, name: str) -> None:
        check_headers({name: "x"})

    def test_twice_in_another_case_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="x-token is there twice"):
            check_headers({"X-Token": "a", "x-token": "b"})

    @pytest.mark.parametrize("other", ["X_TOKEN", "x_token", "X.Token"])
    def test_twice_as_a_server_reads_it_is_refused(self, other: str) -> None:
        with pytest.raises(ValidationError, match="is there twice"):
            check_headers({"X-Token": "a", other: "b"})

    def test_twenty_are_accepted_and_no_more(self) -> None:
        check_headers({f"X-{i}": "x" for i in range(20)})
        with pytest.raises(ValidationError, match="At most 20"):
            check_headers({f"X-{i}": "x" for i in range(21)})

    def test_authorization_beside_basic_auth_is_refused(self) -> None:
        check_headers({"authorization": "Bearer x"})
        with pytest.raises(ValidationError, match="one of the two"):
            check_headers({"authorization": "Bearer x"}, basic_auth=True)

    @pytest.mark.parametrize("headers", [None, [], [["X-Token", "x"]], "X-Token: x", 1])
    def test_what_is_no_mapping_is_refused(self, headers: Any) -> None:
        with pytest.raises(ValidationError, match="Headers are an object"):
            check_headers(headers)

    def test_all_faults_are_told_at_once(self) -> None:
        with pytest.raises(ValidationError) as caught:
            check_headers({"Host": "x", "X-Token": "\n", "X Y": "z", "X-Good": "x"})
        assert len(caught.value.messages) == 3


class TestValues:
    @pytest.mark.parametrize(
        "value",
        ["", " x", "x ", "x\r\nHost: y", "x\ny", "x\0", "\x7f", "\xe9", "a" * 1025, 7, None, ["x"]],
    )
    def test_anything_but_visible_ascii_is_refused_without_repeating_it(self, value: Any) -> None:
        with pytest.raises(ValidationError, match="The value of X-Token") as caught:
            check_headers({"X-Token": value})
        assert "a" * 20 not in str(caught.value)

    @pytest.mark.parametrize("value", ["x", "Bearer abc.def", "a  b", "a" * 1024, "~!@"])
    def test_others_are_accepted(self, value: str) -> None:
        check_headers({"X-Token": value})

    @given(st.text(max_size=8))
    def test_what_is_accepted_can_stand_on_one_line(self, value: str) -> None:
        try:
            check_headers({"X-Token": value})
        except ValidationError:
            return
        assert value.isascii()
        assert value.isprintable()
        assert value == value.strip() != ""


class TestBasicAuth:
    @pytest.mark.parametrize(
        "text", ["user:password", "user:", ":token", "a:b:c", "u:" + "p" * 510]
    )
    def test_user_and_password(self, text: str) -> None:
        check_basic_auth(text)

    @pytest.mark.parametrize(
        "text", ["", "user", "u:\n", "u:\xe9", "u:" + "p" * 511, None, 7, b"u:p", ["u", "p"]]
    )
    def test_anything_else_is_refused_without_repeating_it(self, text: Any) -> None:
        with pytest.raises(ValidationError) as caught:
            check_basic_auth(text)
        assert "ppp" not in str(caught.value)


class TestSealing:
    def test_the_way_there_and_back(self) -> None:
        sealed = seal_headers({"X-Token": VALUE})
        assert VALUE not in sealed.ciphertext
        assert open_headers(sealed) == {"X-Token": VALUE}

    def test_none_is_stored_as_nothing(self) -> None:
        assert seal_headers({}) == ""
        assert open_headers(Sealed("")) == {}

    @pytest.mark.parametrize("text", ["nonsense", "[]", '{"X-Token": 1}', "{'X-Token': 'x'}"])
    def test_what_was_stored_past_us_is_never_taken_for_no_headers(self, text: str) -> None:
        with pytest.raises(SecretUnreadable):
            open_headers(Sealed(seal(text)))

    def test_our_own_headers_win_however_a_name_is_spelled(self) -> None:
        custom = {"content-TYPE": "text/html", "WebHook-Id": "forged", "X-Token": "x"}
        custom["WebHook_Id"] = custom["Content.Type"] = "forged"
        own = {"Content-Type": "application/json", "webhook-id": "evt_1"}
        assert combined(custom, own) == {**own, "X-Token": "x"}


class TestAnswers:
    BASIC = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
    SENT = {
        "X-Token": VALUE,
        "X-Quoted": 'with "quotes" in it',
        "X-Short": "short",
        "Authorization": f"Basic {BASIC}",
        "Content-Type": "application/json",
        "webhook-id": "evt_0123456789",
    }

    @pytest.mark.parametrize(
        "said",
        [
            VALUE,
            f"Basic {BASIC}",
            BASIC,
            f"user:{PASSWORD}",
            PASSWORD,
            'with "quotes" in it',
            json.dumps('with "quotes" in it')[1:-1],
        ],
    )
    def test_what_a_receiver_repeats_of_them_is_masked(self, said: str) -> None:
        shown = masked(f"You sent {said}, twice: {said}!", self.SENT)
        assert shown == "You sent ********, twice: ********!"

    @pytest.mark.parametrize("length", [8, 12, len(VALUE) - 1])
    def test_also_where_the_excerpt_ends_in_the_middle(self, length: int) -> None:
        assert masked(f"You sent {VALUE[:length]}", self.SENT) == "You sent ********"

    @pytest.mark.parametrize(
        "said", ["", "fine", "short", "application/json", "evt_0123456789", VALUE[:7]]
    )
    def test_everything_else_stays(self, said: str) -> None:
        assert masked(said, self.SENT) == said
        assert masked(said, {}) == said

    @pytest.mark.parametrize("value", ["Basic", "Basic ", "Basic ===", "Basic /w==", "Basic AAAA"])
    def test_what_is_no_basic_auth_does_no_harm(self, value: str) -> None:
        assert masked("a longer answer", {"Authorization": value}) == "a longer answer"

    @pytest.mark.django_db(transaction=True)
    def test_an_echo_is_stored_without_them(self, receiver) -> None:
        receiver.answer = lambda post: Answer(body=json.dumps(post.headers).encode())
        made = subscribe(receiver, headers={"X-Token": VALUE}, basic_auth=f"user:{PASSWORD}")
        emit_orders(1)
        deliver()
        probing.ping(made)
        assert all(post.headers["x-token"] == VALUE for post in receiver.posts)
        for attempt in DeliveryAttempt.objects.all():
            assert '"x-token": "********"' in attempt.excerpt
            assert '"authorization": "********"' in attempt.excerpt
            assert attempt.message_id in attempt.excerpt


class TestCleaning:
    def made(self, **fields: Any) -> Subscription:
        return Subscription(
            requester="app:a",
            callback_url="http://127.0.0.1:1/",
            event_types=["order.*"],
            **fields,
        )

    def test_what_is_plain_is_sealed_and_then_left_alone(self) -> None:
        made = self.made(headers={"X-Token": VALUE}, basic_auth=f"user:{PASSWORD}")
        made.clean()
        first = (made.headers, made.basic_auth)
        assert all(isinstance(each, Sealed) for each in first)
        made.clean()
        assert (made.headers, made.basic_auth) == first
        encoded = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
        assert headers_of(made) == {"X-Token": VALUE, "Authorization": f"Basic {encoded}"}

    @pytest.mark.parametrize("nothing", [None, "", {}])
    def test_nothing_means_none(self, nothing: Any) -> None:
        made = self.made(headers=nothing, basic_auth=nothing)
        made.clean()
        assert (made.headers, made.basic_auth) == ("", "")
        assert headers_of(made) == {}

    def test_faults_are_told_by_field(self) -> None:
        with pytest.raises(ValidationError) as caught:
            self.made(headers={"Host": "x"}, basic_auth="nobody").clean()
        assert set(caught.value.message_dict) == {"headers", "basic_auth"}

    @pytest.mark.parametrize("later", ["headers", "basic_auth"])
    def test_the_two_authorizations_exclude_each_other_in_either_order(self, later: str) -> None:
        values: dict[str, Any] = {"headers": {"Authorization": "x"}, "basic_auth": "u:p"}
        value = values.pop(later)
        made = self.made(**values)
        made.clean()
        setattr(made, later, value)
        with pytest.raises(ValidationError, match="one of the two") as caught:
            made.clean()
        assert set(caught.value.message_dict) == {later}

    def test_stored_headers_that_cannot_be_read_must_come_again_with_basic_auth(self) -> None:
        made = self.made(headers=Sealed("gAAAA-nonsense"), basic_auth="u:p")
        with pytest.raises(ValidationError, match="Set them again"):
            made.clean()
        made.headers = {"X-Token": "x"}
        made.clean()


@pytest.mark.django_db(transaction=True)
class TestDelivery:
    def test_they_are_sent_with_every_post_and_the_signature_stays_ours(self, receiver) -> None:
        _subscription, secret = lifecycle.subscribe(
            requester="app:a",
            callback_url=receiver.url,
            event_types=["order.*"],
            headers={"X-Token": VALUE, "User-Agent": "shop/1"},
            basic_auth=f"user:{PASSWORD}",
        )
        emit_orders(2)
        deliver()
        assert len(receiver.posts) == 2
        for post in receiver.posts:
            assert post.headers["x-token"] == VALUE
            assert post.headers["user-agent"] == "shop/1"
            scheme, encoded = post.headers["authorization"].split(" ")
            assert (scheme, base64.b64decode(encoded)) == ("Basic", f"user:{PASSWORD}".encode())
            assert post.headers["content-type"] == "application/json"
            assert verify(post.body, post.headers, secret)["id"] == post.id

    def test_a_change_reaches_the_next_post_and_none_takes_them_away(self, receiver) -> None:
        subscription = subscribe(receiver, headers={"X-Token": "old"}, basic_auth="u:p")
        lifecycle.update(subscription, headers={"X-Other": "new"}, basic_auth="")
        emit_orders(1)
        deliver()
        [post] = receiver.posts
        assert post.headers["x-other"] == "new"
        assert not {"x-token", "authorization"} & set(post.headers)

    def test_what_was_written_past_the_checks_never_replaces_ours(self, receiver) -> None:
        _subscription, secret = lifecycle.subscribe(
            requester="app:a", callback_url=receiver.url, event_types=["order.*"]
        )
        forged = {"webhook-SIGNATURE": "v1,AAAA", "content-type": "text/html"}
        Subscription.objects.update(headers=seal_headers(forged))
        emit_orders(1)
        deliver()
        [post] = receiver.posts
        assert verify(post.body, post.headers, secret)
        assert post.headers["content-type"] == "application/json"

    @pytest.mark.parametrize(
        ("field", "stored"),
        [
            ("headers", Fernet(Fernet.generate_key()).encrypt(b'{"X-Token": "x"}').decode()),
            ("headers", "no JSON"),
            ("basic_auth", Fernet(Fernet.generate_key()).encrypt(b"u:p").decode()),
        ],
        ids=["headers under a lost key", "no headers", "basic auth under a lost key"],
    )
    def test_what_cannot_be_read_holds_the_lane_alone_and_goes_out_once_it_can(
        self, receiver, receivers, field: str, stored: str
    ) -> None:
        text = seal(stored) if stored == "no JSON" else stored
        broken, other = receiver, receivers()
        subscription = subscribe(broken)
        subscribe(other)
        Subscription.objects.filter(pk=subscription.pk).update(**{field: Sealed(text)})
        emit_orders(2)
        deliver()
        assert (len(broken.posts), len(other.posts)) == (0, 2)
        assert states() == {"pending": 2, "delivered": 2}
        lane = Lane.objects.get(pk=subscription.pk)
        assert lane.pause_reason == "secret_unreadable"
        assert timedelta(0) < lane.paused_until - db_now("default") < timedelta(seconds=61)
        assert not DeliveryAttempt.objects.filter(subscription=subscription).exists()

        plain: Any = {"X-Token": "x"} if field == "headers" else "u:p"
        subscription.refresh_from_db()
        lifecycle.update(subscription, **{field: plain})
        Lane.objects.filter(pk=subscription.pk).update(
            paused_until=None, pause_reason="", claim_at=db_now("default")
        )
        deliver()
        assert states() == {"delivered": 4}

    def test_the_values_are_nowhere_to_be_read(self, receiver, caplog) -> None:
        caplog.set_level(logging.DEBUG)
        logging.getLogger("urllib3").setLevel(logging.DEBUG)
        with connection.cursor() as cursor:
            subscription = subscribe(
                receiver, headers={"X-Token": VALUE}, basic_auth=f"user:{PASSWORD}"
            )
            receiver.answer.status = 500
            emit_orders(1)
            deliver()
            assert len(receiver.posts) == 1
            shown = []
            for table in connection.introspection.table_names(cursor):
                if table.startswith("webhooks_"):
                    cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
                    shown.append(str(cursor.fetchall()))
        assert any(receiver.posts[0].id.removeprefix("evt_") in each for each in shown)
        stored = Subscription.objects.get()
        for each in (subscription, stored, stored.lane, DeliveryAttempt.objects.get()):
            shown += [repr(each), str(each), str(vars(each))]
        shown.append(json.dumps([record.getMessage() for record in caplog.records]))
        shown.append(caplog.text)
        assert "urllib3" in caplog.text
        encoded = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
        for secret in (VALUE, PASSWORD, encoded):
            assert not [each for each in shown if secret in each]


@pytest.mark.parametrize(
    ("value", "echoed"),
    [
        ("Bearer tok/en-0123456789", '{"token": "tok/en-0123456789"}'),
        ("Bearer tok/en-0123456789", "token=tok%2Fen-0123456789"),
        ("Bearer tok/en-0123456789", '{"token": "tok\\/en-0123456789"}'),
        ("a&b<c>-0123456789", "<td>a&amp;b&lt;c&gt;-0123456789</td>"),
        ("basic dXNlcjpjb3JyZWN0LWhvcnNl", '{"password": "correct-horse"}'),
    ],
)
def test_an_echo_in_another_form_is_masked_too(value: str, echoed: str) -> None:
    shown = masked(echoed, {"X-Token": value})
    assert MASK in shown
    assert "0123456789" not in shown
    assert "correct-horse" not in shown


@pytest.mark.parametrize(
    "name", ["X-HTTP-Method-Override", "X-Original-URL", "CF-Connecting-IP", "x_client_ip", "Date"]
)
def test_no_header_makes_another_request_of_ours(name: str) -> None:
    with pytest.raises(ValidationError):
        check_headers({name: "x"})
