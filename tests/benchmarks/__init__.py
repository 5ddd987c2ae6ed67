"""Measurements, not tests: each prints one table, and with ``--json`` one JSON object at the end.

    python -m tests.benchmarks.latency
    python -m tests.benchmarks.throughput
    python -m tests.benchmarks.emit

``WEBHOOKS_TEST_DB`` chooses the database vendor, as for the tests. Each script makes a database of
its own and drops it, speaks to loopback only, and ends after a stated number of events.
"""
