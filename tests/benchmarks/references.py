"""How do others do the same work? django-webhook, and the task that one writes oneself.

* ``django-webhook`` with its default settings: a Celery task a POST, broker Redis, one worker
  process of one child (prefork); it looks the webhook up, signs, stores the event, and updates it.
* ``async_task("requests.post", …)`` of django-q2, on Redis and on the ORM broker: one worker
  process; nothing is signed, and nothing but django-q2's own result is stored.

They are installed from the default index into an environment of their own, and run on the same
core, against the same receiver, with a body of the same size. ``ours`` does its whole work: it
signs, bounds, paces and records each attempt. Their CPU is that of all their processes on that
core; the database's and Redis's are not counted for anybody. The figures are ratios to the bare
``requests.Session.post`` loop. Good: ours makes at least three times as many as any of them.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

from tests.benchmarks.child import call
from tests.benchmarks.database import own_database
from tests.benchmarks.drain import deliver
from tests.benchmarks.harness import (
    ROOT,
    Figure,
    Options,
    alone,
    children_of,
    compared,
    cpu_of,
    left_out,
    worker_core,
)
from tests.benchmarks.latency import redis_listens
from tests.benchmarks.processes import program
from tests.benchmarks.receiver import Receiver
from tests.benchmarks.sending import missing

PACKAGES = (
    *("django-webhook==0.0.15", "celery[redis]>=5.4,<6", "django>=5.2,<5.3", "django-q2>=1.8,<2"),
    *("redis>=5", "requests>=2.32,<3", "psycopg[binary]>=3.2"),
)
REFERENCES = ("django-webhook", "django-q2 on Redis", "django-q2 on the ORM broker")
PROJECT = "tests.benchmarks.reference_project"
#: Seconds for all of a reference's POSTs.
PATIENCE = 90.0


def measure(options: Options) -> list[Figure]:
    if not redis_listens():
        return [left_out("references", "django-webhook's broker is Redis, and none listens")]
    python, why = _environment()
    if python is None:
        return [left_out("references", why)]
    count = 300 if options.quick else 3000
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with own_database(), Receiver() as receiver:
        for _ in range(options.rounds):
            loop = call("tests.benchmarks.senders:session", **_where(receiver, count))
            found["loop"].append((count / loop["seconds"], loop["cpu"] / count * 1000))
            for transport in ("requests", "curl"):
                if not missing(transport):
                    own = deliver(options, transport, receiver.url, 1, count)
                    found[f"ours, {transport}"].append((1 / own["seconds"], own["cpu"] * 1000))
            for name in REFERENCES:
                found[name].append(_reference(python, name, receiver, count))
    best = max(median(each[0] for each in found[name]) for name in REFERENCES)
    figures = []
    for name, each in found.items():
        if name != "loop":
            for place, measured in enumerate(("POSTs/s", "worker CPU ms each")):
                values, references = (
                    [one[place] for one in rounds] for rounds in (each, found["loop"])
                )
                figures.append(compared(name, measured, values, references))
        if name.startswith("ours"):
            rates = [one[0] / best for one in each]
            figures.append(alone(name, "times the best reference", rates, at_least=3))
    return figures


def _where(receiver: Receiver, count: int) -> dict[str, object]:
    return {"core": worker_core(), "url": receiver.url, "count": count}


def _environment() -> tuple[str | None, str]:
    """The Python of the references' environment, which later runs find again; or why not."""
    key = hashlib.sha256(f"{sys.version}{PACKAGES}".encode()).hexdigest()[:12]
    place = Path(tempfile.gettempdir()) / f"webhooks-benchmark-references-{os.getuid()}-{key}"
    python, done = place / "bin" / "python", place / "complete"
    if done.exists():
        return str(python), ""
    try:
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, timeout=120)
        command = [str(python), "-m", "pip", "install", "--quiet", *PACKAGES]
        subprocess.run(command, check=True, timeout=600, stdout=subprocess.DEVNULL)
    except (subprocess.SubprocessError, OSError) as error:
        return None, f"their environment cannot be made: {error}"
    done.touch()
    return str(python), ""


def _reference(python: str, name: str, receiver: Receiver, count: int) -> tuple[float, float]:
    """POSTs a second of its worker, and the worker's CPU in ms for each, from first to last."""
    with tempfile.TemporaryDirectory(prefix="webhooks-reference-") as place:
        environ = {
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": PROJECT,
            "REFERENCE_PLACE": place,
            "REFERENCE_BROKER": "orm" if "ORM" in name else "redis",
            "REFERENCE_DATABASE": os.environ["WEBHOOKS_TEST_DB"],
            "REFERENCE_QUEUE": f"benchmark-{os.getpid()}",
        }
        celery = name == "django-webhook"
        ask = [python, "-W", "ignore", "-m", PROJECT]
        queue = [*ask, "celery" if celery else "q2", receiver.url, str(count)]
        _run([*ask, "prepare"], environ)
        try:
            _run(queue, environ)
            receiver.forget()
            if celery:
                worker = [python, "-m", "celery", "-A", PROJECT, "worker", "--concurrency", "1"]
            else:
                worker = [python, "-m", "django", "qcluster"]
            with program(*worker, environ=environ, core=worker_core()) as process:
                return _watch(process.pid, receiver, count)
        finally:
            _run([*ask, "remove"], environ)


def _run(command: list[str], environ: dict[str, str]) -> None:
    subprocess.run(command, cwd=ROOT, env=os.environ | environ, check=True, timeout=300)


def _watch(pid: int, receiver: Receiver, count: int) -> tuple[float, float]:
    """Wait for the first POST and for the last, and see what lies between them."""
    began = used = 0.0
    first = 0
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        posts = receiver.posts()
        if posts and not first:
            first, began, used = posts, time.monotonic(), _cpu(pid)
        if posts >= count:
            made = posts - first
            if made <= 0:
                raise RuntimeError("it was done before it could be watched: take more")
            took = time.monotonic() - began
            return made / took, (_cpu(pid) - used) / made * 1000
        time.sleep(0.02)
    raise TimeoutError(f"{posts} of {count} POSTs came within {PATIENCE} s")


def _cpu(pid: int) -> float:
    return sum(cpu_of(each) or 0.0 for each in children_of(pid))
