"""Every callback URL that may not be, by every way in: none is stored, and none is dialled.

The rows are those of ``tests/transports/callback_urls.tsv``. Names are resolved by its zone, and
every connection that a transport would make is recorded and refused: no packet leaves.
"""

from __future__ import annotations

import json
import re
import secrets
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.db import connection
from django.test import Client
from django.utils import timezone
from oauth2_provider.models import AccessToken, Application
from urllib3.util import parse_url

from tests.admin.browsing import submit, url_of
from tests.transports.posting import TRANSPORTS, gather, post, request, transport_named
from tests.transports.zone import POLICY, PUBLIC, Resolver, Row, rows
from tests.world import deliver, emit_orders
from webhooks import lifecycle
from webhooks.models import Delivery, DeliveryAttempt, Subscription
from webhooks.probing import ping
from webhooks.transports import addresses
from webhooks.transports.addresses import BLOCKED, BlockedAddress, Target, check_url, is_public
from webhooks.transports.base import Transport

GOOD = "https://hooks.example.com/in"
ROWS = rows()
REJECTED = [row for row in ROWS if not row.accept]
#: Rows that are refused for what their text is, whatever the policy says.
MALFORMED = {
    "userinfo, public host: still refuse",
    "backslash, other way round",
    "scheme-relative",
    "port 0: urllib3 falls back to 80/443",
    "double port",
    "scheme",
    "raw space",
    "[\\n = LF] trailing newline (DRF strips it silently)",
    "encoded slash in authority",
    "circled l",
    "empty label",
    "URL > 2048 chars",
    "IPvFuture",
    "scoped link-local",
}
ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+|[0-9a-f]*::[0-9a-f]*", re.IGNORECASE)


@pytest.fixture(autouse=True)
def _policy(settings: Any) -> Iterator[None]:
    """The policy of the table, and nothing that gets in the way of fifty subscriptions."""
    kept = {
        name: value
        for name, value in settings.WEBHOOKS.items()
        if name not in ("ALLOWED_NETWORKS", "ALLOWED_PORTS", "ALLOW_HTTP")
    }
    throttles = dict.fromkeys(["create", "ping", "rotate", "replay"])
    settings.WEBHOOKS = {**kept, **POLICY, "THROTTLES": throttles, "RETRY_SCHEDULE": []}
    cache.clear()
    yield
    cache.clear()


@pytest.fixture(autouse=True)
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    fake = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", fake)
    return fake


@pytest.fixture(autouse=True)
def dials(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Address and port of every connection that was tried; none is made but to our database."""
    tried: list[tuple[str, int]] = []
    database = int(connection.settings_dict.get("PORT") or 0)
    connect = socket.socket.connect

    def record(self: socket.socket, where: Any) -> None:
        if database and where[1] == database:
            connect(self, where)
            return
        tried.append(where[:2])
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket.socket, "connect", record, raising=False)
    return tried


@pytest.fixture(params=TRANSPORTS, ids=lambda path: path.rpartition(".")[2])
def kind(request: pytest.FixtureRequest, settings: Any) -> type[Transport]:
    """The class of a transport, which workers and pings use as well."""
    found = transport_named(request.param)
    settings.WEBHOOKS = {**settings.WEBHOOKS, "TRANSPORT": request.param}
    return found


@pytest.fixture
def transport(kind: type[Transport]) -> Iterator[Transport]:
    made = kind(concurrency=8)
    yield made
    made.close()


def words_of(url: str) -> list[str]:
    """What the judge of URLs says; nothing where it accepts one."""
    try:
        check_url(url)
    except BlockedAddress as error:
        return [str(error)]
    return []


def subscribed(url: str = GOOD, **options: Any) -> Subscription:
    made, _secret = lifecycle.subscribe(
        requester="app:a", callback_url=url, event_types=["order.*"], **options
    )
    return made


# Setting a URL. Each way takes one and gives the words with which it is refused, none where it is
# accepted.

Setter = Callable[[str], list[str]]


class Api:
    """The RESThooks API with a token that may write."""

    def __init__(self) -> None:
        application = Application.objects.create(
            client_id="a",
            client_type=Application.CLIENT_CONFIDENTIAL,
            authorization_grant_type=Application.GRANT_CLIENT_CREDENTIALS,
        )
        token = AccessToken.objects.create(
            application=application,
            token=secrets.token_hex(16),
            scope="webhooks:read webhooks:write",
            expires=timezone.now() + timedelta(hours=1),
        )
        self._client = Client(headers={"authorization": f"Bearer {token.token}"})
        self.id = ""

    def send(self, method: str, path: str, body: dict[str, Any]) -> Any:
        data = json.dumps(body)
        return self._client.generic(method, f"/webhooks/{path}", data, "application/json")

    def told(self, answer: Any) -> list[str]:
        if answer.status_code in (200, 201):
            return []
        assert answer.status_code == 400, answer.content
        assert list(answer.json()["errors"]) == ["callback_url"]
        found: list[str] = answer.json()["errors"]["callback_url"]
        return found

    def create(self, name: str = "callback_url") -> Setter:
        body = {"event_types": ["order.*"]}
        return lambda url: self.told(self.send("POST", "subscriptions/", {**body, name: url}))

    def change(self, method: str) -> Setter:
        made = self.send("POST", "subscriptions/", {"callback_url": GOOD, "event_types": ["*"]})
        path = f"subscriptions/{made.json()['id']}/"
        body = {"event_types": ["order.*"]} if method == "PUT" else {}
        return lambda url: self.told(self.send(method, path, {**body, "callback_url": url}))


def admin_form(page: str) -> Setter:
    """The form of a superuser; page: ``add`` or ``change``."""
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    asked = {"requester": "app:a", "event_types": '["order.*"]'} if page == "add" else {}
    pk = None if page == "add" else subscribed().pk

    def put(url: str) -> list[str]:
        answer = submit(client, url_of(Subscription, page, pk), callback_url=url, **asked)
        if answer.status_code == 302 or "adminform" not in answer.context:
            return []  # saved; what was made is shown with its secret
        errors = answer.context["adminform"].form.errors
        assert list(errors) == ["callback_url"]
        return [*errors["callback_url"]]

    return put


def in_python(act: Callable[[str], Any]) -> Setter:
    def put(url: str) -> list[str]:
        try:
            act(url)
        except ValidationError as error:
            found: dict[str, list[str]] = error.message_dict
            assert list(found) == ["callback_url"]
            return found["callback_url"]
        return []

    return put


def ask(url: str) -> dict[str, Any]:
    return {"requester": "app:a", "callback_url": url, "event_types": ["order.*"]}


WAYS: dict[str, Callable[[], Setter]] = {
    "api: POST": lambda: Api().create(),
    "api: POST target_url": lambda: Api().create("target_url"),
    "api: PUT": lambda: Api().change("PUT"),
    "api: PATCH": lambda: Api().change("PATCH"),
    "admin: add": lambda: admin_form("add"),
    "admin: change": lambda: admin_form("change"),
    "subscribe": lambda: in_python(lambda url: lifecycle.subscribe(**ask(url))),
    "manager": lambda: in_python(lambda url: Subscription.objects.subscribe(**ask(url))),
    "update": lambda: in_python(lambda url: lifecycle.update(subscribed(), callback_url=url)),
    "update and move": lambda: in_python(
        lambda url: lifecycle.update_and_move(
            subscribed(), "suspended", reason="client", actor="", callback_url=url
        )
    ),
    "full_clean": lambda: in_python(lambda url: Subscription(**ask(url)).full_clean()),
}


@pytest.mark.django_db
@pytest.mark.parametrize("way", WAYS)
def test_every_row_gets_its_verdict_with_the_same_words(
    way: str, settings: Any, dials: list[Any]
) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "MAX_SUBSCRIPTIONS": 1000}
    put = WAYS[way]()
    for row in ROWS:
        told, expected = put(row.url), words_of(row.url)
        assert bool(told) is not row.accept, (row.why, told)
        if len(row.url) <= addresses.MAX_URL_LENGTH:  # fields have words of their own for longer
            assert told == expected, row.why
    stored = set(Subscription.objects.values_list("callback_url", flat=True))
    assert stored <= {row.url for row in ROWS if row.accept} | {GOOD}
    assert dials == []


# What is in the database already


def put_into_the_database(urls: list[str]) -> dict[str, str]:
    """Subscriptions whose rows hold these URLs, past every check: their ids by URL."""
    made = {url: subscribed().pk for url in urls}
    for url, pk in made.items():
        Subscription.objects.filter(pk=pk).update(callback_url=url)
    return made


def storable(rows: list[Row]) -> list[Row]:
    """Other databases than SQLite refuse more than the column holds."""
    return [row for row in rows if connection.vendor == "sqlite" or len(row.url) <= 2048]


@pytest.mark.django_db(transaction=True)
def test_a_url_written_past_the_checks_is_a_recorded_failure_and_no_dial(
    kind: type[Transport], dials: list[Any]
) -> None:
    bad = storable(REJECTED)
    ids = put_into_the_database([row.url for row in bad])
    emit_orders(1)
    deliver()
    attempts = {each.subscription_id: each for each in DeliveryAttempt.objects.all()}
    assert len(attempts) == DeliveryAttempt.objects.count() == len(bad)
    found = {row.why: attempts[ids[row.url]].error_code for row in bad}
    wanted = {
        row.why: "invalid_request" if row.why in MALFORMED else "blocked_address" for row in bad
    }
    assert found == wanted
    assert {each.status_code for each in attempts.values()} == {None}
    assert set(Delivery.objects.values_list("state", flat=True)) == {"dead"}
    assert dials == []


@pytest.mark.django_db(transaction=True)
def test_what_is_accepted_is_dialled_at_the_address_that_was_judged(
    kind: type[Transport], dials: list[Any], resolver: Resolver
) -> None:
    good = [row for row in ROWS if row.accept]
    put_into_the_database([row.url for row in good])
    resolver.asked.clear()
    emit_orders(1)
    deliver()
    codes = set(DeliveryAttempt.objects.values_list("error_code", flat=True))
    assert codes == {"connection_refused"}
    names = [parse_url(row.url).host or "" for row in good]
    literals = [name for name in names if name[-1].isdigit()]
    # One lookup for each connection, whose answers are all tried: dual.example.com has two.
    assert sorted(resolver.asked) == sorted(name for name in names if name not in literals)
    assert len(dials) == len(good) + 1
    assert {ip for ip, _ in dials} == {PUBLIC, "2606:4700::1111", "11.0.0.1", "1.1.1.1"}
    assert {port for _, port in dials} == {80, 443}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("handshake", ["x-hook-secret", "cloudevents"])
def test_a_handshake_dials_no_blocked_address(
    kind: type[Transport], handshake: str, dials: list[Any]
) -> None:
    bad = [row for row in REJECTED if row.why in ("cloud metadata", "A -> 10.1.2.3", "[::1]")]
    for row in bad:
        made = subscribed(handshake=handshake)
        Subscription.objects.filter(pk=made.pk).update(callback_url=row.url)
    deliver()
    told = DeliveryAttempt.objects.values_list("error_code", "error_detail")
    assert list(told) == [("blocked_address", BLOCKED)] * len(bad)
    assert len(bad) == 2
    assert dials == []


# The transport alone


def believe(url: str, *args: Any) -> Target:
    """Takes a URL apart as it stands: what would be left if no text were ever judged."""
    parsed = parse_url(url)
    scheme = parsed.scheme or "https"
    port = parsed.port or addresses.DEFAULT_PORTS.get(scheme, 443)
    return Target(scheme, parsed.host or "", port, parsed.request_uri)


#: Rows that lead to a public host, were their text believed.
PUBLIC_HOSTS = {
    *("userinfo, public host: still refuse", "port 0: urllib3 falls back to 80/443"),
    *("smtp port", "raw space", "[\\n = LF] trailing newline (DRF strips it silently)"),
    "URL > 2048 chars",
}
#: Rows that urllib3 cannot take apart, or that have no host.
UNREADABLE = {
    *("backslash, other way round", "double port", "encoded slash in authority", "circled l"),
    *("scheme", "IPvFuture"),
}


def test_the_transport_alone_never_dials_what_is_not_public(
    transport: Transport, monkeypatch: pytest.MonkeyPatch, dials: list[tuple[str, int]]
) -> None:
    monkeypatch.setattr(addresses, "judge", believe)
    for row in REJECTED:
        transport.start(row.why, request(row.url, lane=row.url))
    answers = gather(transport, len(REJECTED))
    codes = {why: response.error_code for why, response in answers}
    assert [ip for ip, _ in dials if not is_public(ip)] == []
    assert {why for why, code in codes.items() if code != "blocked_address"} <= (
        PUBLIC_HOSTS | UNREADABLE | {"scheme-relative", "empty label"}
    )
    assert sum(code == "blocked_address" for code in codes.values()) >= 28


#: Zone entries by name: what a name server of the subscriber's may answer.
ANSWERS = {
    "private first": ["10.0.0.5", PUBLIC],
    "private last": [PUBLIC, "10.0.0.5"],
    "private in the middle": [PUBLIC, "192.168.1.1", "1.1.1.1"],
    "loopback in IPv6 last": [PUBLIC, "2606:4700::1111", "::1"],
    "public IPv4, private IPv6": [PUBLIC, "fd00::1"],
    "mapped": ["::ffff:10.0.0.1"],
    "mapped metadata": ["::ffff:a9fe:a9fe"],
    "compatible": ["::10.0.0.1"],
    "NAT64": ["64:ff9b::7f00:1"],
    "local NAT64": ["64:ff9b:1::7f00:1"],
    "6to4": ["2002:7f00:1::"],
    "Teredo": ["2001:0:7f00:1::"],
    "ISATAP in link-local": ["fe80::5efe:7f00:1"],
    "scoped": ["fe80::1%eth0"],
    "scoped public": ["2606:4700::1111%eth0"],
    "unspecified": ["0.0.0.0"],
    "broadcast": ["255.255.255.255"],
    "multicast": ["224.0.0.251"],
    "Azure's metadata": ["168.63.129.16"],
    "Alibaba's metadata": ["100.100.100.200"],
    "Oracle's metadata": ["192.0.0.192"],
    "AWS metadata in IPv6": ["fd00:ec2::254"],
}


@pytest.mark.parametrize("answers", ANSWERS.values(), ids=list(ANSWERS))
def test_one_answer_that_is_not_public_refuses_all(
    transport: Transport, resolver: Resolver, dials: list[Any], answers: list[str]
) -> None:
    resolver.zone["rebound.example.com"] = answers
    response = post(transport, "https://rebound.example.com/")
    assert (response.error_code, response.error_detail) == ("blocked_address", BLOCKED)
    assert resolver.asked == ["rebound.example.com"]
    assert dials == []


def test_a_name_that_is_public_at_the_check_and_private_at_the_connection(
    transport: Transport, resolver: Resolver, dials: list[Any]
) -> None:
    resolver.zone["rebound.example.com"] = [PUBLIC]
    check_url("https://rebound.example.com/")
    resolver.zone["rebound.example.com"] = ["10.0.0.5"]
    assert post(transport, "https://rebound.example.com/").error_code == "blocked_address"
    assert resolver.asked == ["rebound.example.com"] * 2
    assert dials == []


def test_each_connection_is_one_lookup_and_dials_what_that_one_said(
    transport: Transport, resolver: Resolver, dials: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second lookup, by whatever library, would be answered with loopback."""
    answers = iter([PUBLIC, "127.0.0.1", "127.0.0.1"])

    def rebind(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        resolver.asked.append(host)
        return [resolver.answer(next(answers), port)]

    monkeypatch.setattr(socket, "getaddrinfo", rebind)
    assert post(transport, "https://rebound.example.com/").error_code == "connection_refused"
    assert dials == [(PUBLIC, 443)]
    assert resolver.asked == ["rebound.example.com"]


DISGUISES = [
    "http://127\u30020\u30020\u30021/",
    "http://127\uff0e0\uff0e0\uff0e1/",
    "http://\uff11\uff12\uff17.0.0.1/",
    "http://\u2460\u2461\u2466.0.0.1/",
    "http://\u0661\u0662\u0667.0.0.1/",
    "http://\U0001d7cf\U0001d7d0\U0001d7d5.0.0.1/",
    "http://\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54/",
    "http://l\u00adocalhost/",
    "http://localhost\u3002/",
    "http://0177.0.0.1/",
    "http://0177.0.0.01/",
    "http://0x7f.0.0.1/",
    "http://0x7f000001/",
    "http://017700000001/",
    "http://127.0.1/",
    "http://127.1./",
    "http://127.0.0.1.../",
    "http://00000127.0.0.1/",
    "http://0300.0250.0.1/",
    "http://4294967297/",
    "http://%31%32%37.0.0.1/",
    "http://127%2e0.0.1/",
    "http://localhost%00.example.com/",
    "http://[::1%25lo]/",
    "http://[::1%lo]/",
    "http://[fe80::1%251]/",
    "http://[::ffff:7f00:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[0:0:0:0:0:ffff:7f00:0001]/",
    "http://[::7f00:1]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:7f00:1::]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://[::]/",
    "http://[0000::0001]/",
    "http://[::1]:00080/",
    "http://127.0.0.1:0080/",
    "http://127.0.0.1:000080/",
    "http://127.0.0.1:\uff18\uff10/",
    "http://hooks.example.com:+80/",
    "http://hooks.example.com: 80/",
    "http://[127.0.0.1]/",
    "http://[::1/",
    "http://::1/",
    "http://[::1]x/",
    "http://[::1].example.com/",
    f"http://{'a' * 64}.example.com/",
    f"http://{'a' * 5000}.example.com/",
    "http://" + "\u00fc" * 60 + ".example.com/",
    f"http://{'.'.join(['a' * 63] * 4)}/",
    "http://localhost.localdomain.local/",
    "http://LOCALHOST./",
    "http://hook.self.example.com./",
    "http://HOOK.SELF.EXAMPLE.COM:443/",
    "http://xn--/",
    "http://xn--a.local/",
]


@pytest.mark.parametrize("url", DISGUISES, ids=lambda url: ascii(url)[:60])
def test_what_a_host_may_be_disguised_as_is_refused_without_a_lookup(
    transport: Transport, resolver: Resolver, dials: list[Any], url: str
) -> None:
    assert words_of(url)
    resolver.asked.clear()
    response = post(transport, url)
    assert response.error_code in ("blocked_address", "invalid_request")
    assert not ADDRESS.search(response.error_detail)
    assert resolver.asked == []
    assert dials == []


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://m\u00fcnchen.example/", "xn--mnchen-3ya.example", 80),
        ("http://M\u00dcNCHEN.example/", "xn--mnchen-3ya.example", 80),
        ("http://HOOKS.Example.COM/", "hooks.example.com", 80),
        ("http://hooks.example.com./", "hooks.example.com.", 80),
        ("http://hooks.example.com:0080/", "hooks.example.com", 80),
        ("http://hooks.example.com:08080/", "hooks.example.com", 8080),
        ("http://hooks.example.com:/", "hooks.example.com", 80),
        ("http://hooks.example.com?x=@127.0.0.1", "hooks.example.com", 80),
        ("http://hooks.example.com/a/../../@127.0.0.1:25/", "hooks.example.com", 80),
        ("HTTPS://hooks.example.com/", "hooks.example.com", 443),
    ],
)
def test_what_is_judged_is_what_is_looked_up_and_dialled(
    transport: Transport, resolver: Resolver, dials: list[Any], url: str, host: str, port: int
) -> None:
    target = addresses.judge(url)
    assert (target.host, target.port) == (host, port)
    assert post(transport, url).error_code == "connection_refused"
    assert resolver.asked == [host]
    assert dials == [(PUBLIC, port)]


@pytest.mark.parametrize("literal", ["[2606:4700:0:0::1111]", "[2606:4700::1111]"])
def test_a_literal_is_dialled_without_a_lookup(
    transport: Transport, resolver: Resolver, dials: list[Any], literal: str
) -> None:
    assert post(transport, f"http://{literal}/").error_code == "connection_refused"
    assert resolver.asked == []
    assert [(ip_address(ip), port) for ip, port in dials] == [(ip_address("2606:4700::1111"), 80)]


@pytest.mark.parametrize(
    "denied", [PUBLIC, ".example.com", "HOOKS.example.com.", "hooks.example.com"]
)
def test_a_denied_host_is_not_dialled_by_name_domain_or_address(
    transport: Transport, settings: Any, dials: list[Any], denied: str
) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "DENIED_HOSTS": [denied]}
    response = post(transport, GOOD)
    assert (response.error_code, response.error_detail) == ("blocked_address", BLOCKED)
    assert words_of(GOOD) == [BLOCKED]
    assert dials == []


# What is told


BLOCKED_HOSTS = [row for row in REJECTED if row.why not in MALFORMED | {"smtp port"}]


def test_every_blocked_host_has_the_same_words_and_they_hold_no_address() -> None:
    assert len(BLOCKED_HOSTS) >= 26
    told = {row.why: words_of(row.url) for row in BLOCKED_HOSTS}
    assert told == {row.why: [BLOCKED] for row in BLOCKED_HOSTS}
    assert words_of("https://nowhere.example.com/") == [BLOCKED]
    assert words_of("https://hook.self.example.com/") == [BLOCKED]


@pytest.mark.parametrize("row", REJECTED, ids=lambda row: row.why)
def test_no_refusal_repeats_an_address(row: Row) -> None:
    [told] = words_of(row.url)
    assert not ADDRESS.search(told)


@pytest.mark.django_db(transaction=True)
def test_pings_and_attempts_tell_of_every_blocked_host_alike(
    kind: type[Transport], dials: list[Any]
) -> None:
    """What the API answers, less what differs anyway: ids and times."""
    api = Api()
    ids = put_into_the_database([row.url for row in BLOCKED_HOSTS])
    own = {"requester": "app:a", "application": Application.objects.get()}
    Subscription.objects.update(**own)
    emit_orders(1)
    deliver()
    answers = [api.send("POST", f"subscriptions/{pk}/ping/", {}) for pk in ids.values()]
    assert {answer.status_code for answer in answers} == {200}
    pings = {alike(answer.json()) for answer in answers}
    attempts = set()
    for delivery in Delivery.objects.all():
        answer = api.send("GET", f"deliveries/{delivery.pk}/attempts/", {})
        [attempt] = answer.json()["results"]
        attempts.add(alike(attempt))
    assert len(pings) == len(attempts) == 1
    for [text] in (pings, attempts):
        assert '"blocked_address"' in text
        assert not ADDRESS.search(text)
    details = DeliveryAttempt.objects.values_list("error_detail", flat=True)
    assert list(details) == [BLOCKED] * (2 * len(BLOCKED_HOSTS))
    assert dials == []


def alike(answer: dict[str, Any]) -> str:
    """An attempt as the API shows it, without ids, times and how long it took."""
    ids = ("id", "webhook_id", "message", "message_id", "subscription", "delivery", "event")
    times = ("due_at", "started_at", "created_at", "elapsed_ms")
    left = {name: value for name, value in answer.items() if name not in (*ids, *times)}
    return json.dumps(left, sort_keys=True)


@pytest.mark.django_db(transaction=True)
def test_a_name_that_does_not_resolve_is_told_apart_once_it_is_sent_to(dials: list[Any]) -> None:
    """A subscriber has to learn that its name server fails. SECURITY.md says what that gives away.

    When a URL is set, the two have the same words.
    """
    made = subscribed()
    Subscription.objects.filter(pk=made.pk).update(callback_url="https://nowhere.example.com/")
    attempt = ping(made)
    assert attempt.error_code == "dns_error"
    assert not ADDRESS.search(attempt.error_detail)
    assert dials == []
