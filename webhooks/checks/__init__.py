"""System checks: every misconfiguration that can be seen without a connection, each with its id.

``values`` judges each key of ``WEBHOOKS``, ``encryption`` the keys that seal secrets, ``project``
what stands around us, ``database`` the outbox's; ``deploy`` comes with ``check --deploy``.
``docs/checks.md`` lists every id with its reason and its remedy.
Nothing here opens a connection, shows a secret, or fails on a value that makes no sense.
"""

from webhooks.checks.database import check_database
from webhooks.checks.deploy import check_addresses, check_reach, check_traffic
from webhooks.checks.encryption import check_encryption_keys
from webhooks.checks.project import check_apps, check_cluster, check_scopes, check_time_zones
from webhooks.checks.values import check_keys, check_relations, check_values, check_wide_networks

__all__ = [
    "check_addresses",
    "check_apps",
    "check_cluster",
    "check_database",
    "check_encryption_keys",
    "check_keys",
    "check_reach",
    "check_relations",
    "check_scopes",
    "check_time_zones",
    "check_traffic",
    "check_values",
    "check_wide_networks",
]
