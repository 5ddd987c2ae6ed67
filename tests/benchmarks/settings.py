"""The test project's settings, with a queue that no other run reads."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import Q_CLUSTER

Q_CLUSTER = Q_CLUSTER | {
    "name": os.environ.setdefault("WEBHOOKS_BENCHMARK_QUEUE", f"benchmark-{os.getpid()}"),
    "log_level": "WARNING",
}
