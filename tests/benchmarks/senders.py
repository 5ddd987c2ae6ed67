"""What does a POST cost in each HTTP client, without any webhook around it?

Each sends the same signed 1 KB body to the same receiver, in a process of its own on one core. The
reference is what most projects would write: a loop over ``requests.Session.post``. Good: our
transports, which check addresses and bound the time of each POST, cost less than that loop
(requests: no more than it), and curl's a fifth.
"""

from __future__ import annotations

import http.client
import io
import json
from collections import defaultdict
from typing import Any
from urllib.parse import urlsplit

from tests.benchmarks.child import call
from tests.benchmarks.harness import DATA, Figure, Meter, Options, compared, left_out, worker_core
from tests.benchmarks.receiver import fastest
from tests.benchmarks.sending import TRANSPORTS, missing

BODY = json.dumps({"id": "evt_" + "0" * 32, "type": "order.paid", "data": DATA}).encode()
HEADERS = {
    "content-type": "application/json",
    "webhook-id": "evt_" + "0" * 32,
    "webhook-timestamp": "1700000000",
    "webhook-signature": "v1," + "0" * 44,
}
#: Function here -> the case, and how many times as fast as the loop it is to be.
SENDERS = {
    "session_without_environment": ("requests.Session, trust_env=False", None),
    "by_urllib3": ("urllib3.PoolManager", None),
    "by_http_client": ("http.client", None),
    "by_pycurl": ("pycurl, multi, 128 in flight", None),
    "by_requests_transport": ("our RequestsTransport, 32 in flight", 1.0),
    "by_curl_transport": ("our CurlTransport, 128 in flight", 5.0),
}


def measure(options: Options) -> list[Figure]:
    count = 1000 if options.quick else 5000
    figures = []
    with fastest() as receiver:
        found: dict[str, list[dict[str, float]]] = defaultdict(list)
        skipped: dict[str, str] = {}
        for _ in range(options.rounds):
            for name in ("session", *SENDERS):
                if why := skipped.get(name) or _missing(name):
                    skipped[name] = why
                    continue
                function = f"tests.benchmarks.senders:{name}"
                arguments = {"url": receiver.url, "count": count}
                found[name].append(call(function, core=worker_core(), **arguments))
        note = f"reference: requests.Session.post in a loop; receiver: {receiver.kind}"
    loop = found["session"]
    for name, (case, at_least) in SENDERS.items():
        if name in skipped:
            figures.append(left_out(case, skipped[name]))
            continue
        own = found[name]
        rates, references = (
            [count / each["seconds"] for each in own],
            [count / each["seconds"] for each in loop],
        )
        figures.append(compared(case, "POSTs/s", rates, references, at_least=at_least, note=note))
        costs, references = (
            [each["cpu"] / count * 1000 for each in own],
            [each["cpu"] / count * 1000 for each in loop],
        )
        figures.append(compared(case, "CPU ms each", costs, references))
    return figures


def _missing(name: str) -> str:
    if name == "by_curl_transport":
        return missing("curl")
    if name == "by_pycurl":
        try:
            import pycurl  # noqa: F401
        except ImportError as error:
            return str(error)
    return ""


# Each in a process of its own


def session(url: str, count: int, *, trust_env: bool = True) -> dict[str, float]:
    """The loop that everything is compared with."""
    import requests

    with requests.Session() as session:
        session.trust_env = trust_env
        session.post(url, data=BODY, headers=HEADERS, timeout=15)
        with Meter() as meter:
            for _ in range(count):
                session.post(url, data=BODY, headers=HEADERS, timeout=15).raise_for_status()
    return {"seconds": meter.seconds, "cpu": meter.cpu}


def session_without_environment(url: str, count: int) -> dict[str, float]:
    return session(url, count, trust_env=False)


def by_urllib3(url: str, count: int) -> dict[str, float]:
    import urllib3

    pool = urllib3.PoolManager()
    pool.request("POST", url, body=BODY, headers=HEADERS)
    with Meter() as meter:
        for _ in range(count):
            answer = pool.request("POST", url, body=BODY, headers=HEADERS, timeout=15)
            assert answer.status == 200
    return {"seconds": meter.seconds, "cpu": meter.cpu}


def by_http_client(url: str, count: int) -> dict[str, float]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=15)
    connection.connect()
    with Meter() as meter:
        for _ in range(count):
            connection.request("POST", parts.path, BODY, HEADERS)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
    connection.close()
    return {"seconds": meter.seconds, "cpu": meter.cpu}


def by_pycurl(url: str, count: int, in_flight: int = 128) -> dict[str, float]:
    import pycurl

    headers = [f"{name}: {value}" for name, value in HEADERS.items()]
    multi = pycurl.CurlMulti()

    def begin(handle: Any) -> None:
        handle.setopt(pycurl.URL, url)
        handle.setopt(pycurl.HTTPHEADER, headers)
        handle.setopt(pycurl.POSTFIELDS, BODY)
        handle.setopt(pycurl.WRITEDATA, io.BytesIO())
        multi.add_handle(handle)

    idle = [pycurl.Curl() for _ in range(in_flight)]
    begun = ended = 0
    with Meter() as meter:
        while ended < count:
            while idle and begun < count:
                begin(idle.pop())
                begun += 1
            multi.perform()
            _, done, failed = multi.info_read()
            assert not failed, failed
            for handle in done:
                assert handle.getinfo(pycurl.RESPONSE_CODE) == 200
                multi.remove_handle(handle)
                idle.append(handle)
            ended += len(done)
            if not done:
                multi.select(1.0)
    return {"seconds": meter.seconds, "cpu": meter.cpu}


def by_requests_transport(url: str, count: int) -> dict[str, float]:
    return _by_transport("requests", url, count)


def by_curl_transport(url: str, count: int) -> dict[str, float]:
    return _by_transport("curl", url, count)


def _by_transport(name: str, url: str, count: int) -> dict[str, float]:
    from tests.benchmarks.database import setup

    setup()
    from django.utils.module_loading import import_string

    from webhooks.transports.base import Request

    path, concurrency = TRANSPORTS[name]
    transport = import_string(path)(concurrency=concurrency)
    begun = ended = 0
    with Meter() as meter:
        while ended < count:
            while begun < count and begun - ended < concurrency:
                request = Request("sub_0", url, HEADERS, BODY, timeout=15.0)
                transport.start(begun, request)
                begun += 1
            for _, response in transport.finished(15.0):
                assert response.status_code == 200, response
                ended += 1
    transport.close()
    return {"seconds": meter.seconds, "cpu": meter.cpu}
