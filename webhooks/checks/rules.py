"""What the value of each key must be: every rule says what is wrong with one, or "".

Rules are asked about whatever a project wrote, so none of them raises.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from ipaddress import IPv6Network, ip_network
from typing import Any, Final
from urllib.parse import urlsplit

from django.db import connections
from django.utils.module_loading import import_string

from webhooks.conf import DEFAULTS
from webhooks.formats import FORMATS, Format
from webhooks.transports.addresses import LABEL, NUMERIC, parse_address
from webhooks.transports.base import Transport

#: As Django REST framework reads them.
_RATE: Final = re.compile(r"[1-9][0-9]{0,8}/(s|m|h|d|sec|min|hour|day|second|minute)")
#: Addresses of these are judged as the IPv4 addresses that they reach.
_MAPPED: Final = IPv6Network("::ffff:0:0/96")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _list_of(value: Any, accepts: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and all(accepts(each) for each in value)


def is_count(value: Any) -> str:
    return "" if _is_whole(value) and value > 0 else "must be a whole number above 0"


def is_optional_count(value: Any) -> str:
    return "" if value is None else is_count(value)


def is_duration(value: Any) -> str:
    return "" if _is_number(value) and 0 < value < 1e9 else "must be a number of seconds above 0"


def is_optional_duration(value: Any) -> str:
    return "" if value is None else is_duration(value)


def is_alias(value: Any) -> str:
    if value is None or (isinstance(value, str) and value in connections.settings):
        return ""
    return f"must be None or an alias of DATABASES ({', '.join(connections.settings)})"


def is_base_url(value: Any) -> str:
    try:
        split = urlsplit(value) if isinstance(value, str) else None
    except ValueError:
        split = None
    if value == "" or (split and split.scheme in ("http", "https") and split.netloc):
        return ""
    return "must be '' or an absolute URL, e.g. 'https://example.com'"


def is_proxy(value: Any) -> str:
    """None, or ``http://[user:password@]host:port``."""
    if value is None:
        return ""
    try:
        split = urlsplit(value) if isinstance(value, str) else None
        usable = (
            split is not None
            and value.isprintable()
            and " " not in value
            and split.scheme == "http"
            and bool(split.hostname)
            and bool(split.port)  # raises ValueError above 65535
            and split.path in ("", "/")
            and not split.query
            and not split.fragment
        )
    except ValueError:
        usable = False
    return "" if usable else "must be None or 'http://host:port', with 'user:password@' before host"


def is_dotted_path(value: Any) -> str:
    if not isinstance(value, str):
        return "must be the dotted path of something that can be imported"
    try:
        found = import_string(value)
    except Exception as error:  # noqa: BLE001  (a module may raise anything as it is imported)
        return f"cannot be imported ({error})"
    return "" if callable(found) else "can be imported, but cannot be called"


def is_optional_path(value: Any) -> str:
    return "" if value is None else is_dotted_path(value)


def is_transport(value: Any) -> str:
    return is_dotted_path(value) or _implements(value, Transport)


def _implements(path: str, base: type) -> str:
    """path: of something that can be imported."""
    found = import_string(path)
    if isinstance(found, type) and issubclass(found, base) and not inspect.isabstract(found):
        return ""
    return f"must be a class that implements {base.__module__}.{base.__name__}"


def is_formats(value: Any) -> str:
    if not isinstance(value, Mapping):
        return "must be a dict: names of formats, each with the dotted path of its class"
    for name, path in value.items():
        if not isinstance(name, str) or not 0 < len(name) <= 32 or name in FORMATS:
            return f"must name formats with 1 to 32 characters, and not {', '.join(FORMATS)}"
        if wrong := is_dotted_path(path) or _implements(path, Format):
            return f"has a class for {name!r} that {wrong}"
    return ""


def is_source(value: Any) -> str:
    """ "", or a URI reference (CloudEvents 1.0, section 3.1.1): printable ASCII, no spaces."""
    if isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value:
        return ""
    return "must be '' or a URI that stands for this service, e.g. 'https://example.com/shop'"


def is_schedule(value: Any) -> str:
    if _list_of(value, lambda wait: _is_number(wait) and wait > 0):
        return ""
    return "must be a list of numbers of seconds, each above 0"


def is_switch(value: Any) -> str:
    return "" if isinstance(value, bool) else "must be True or False"


def is_port_list(value: Any) -> str:
    ports = _list_of(value, lambda port: _is_whole(port) and 0 < port < 65_536)
    if value == "any" or (ports and value):
        return ""
    return "must be 'any' or a list of at least one port, e.g. (443, 8443)"


def _is_network(value: Any) -> bool:
    try:
        network = ip_network(value, strict=False) if isinstance(value, str) else None
    except ValueError:
        return False
    return network is not None and not (
        isinstance(network, IPv6Network) and network.subnet_of(_MAPPED)
    )


def is_network_list(value: Any) -> str:
    if _list_of(value, _is_network):
        return ""
    return "must be a list of networks, e.g. ['10.1.0.0/16']; IPv4 ones are written as IPv4"


def _is_host(value: Any) -> bool:
    """A name in ASCII, a domain with its leading dot, or an address."""
    if not isinstance(value, str):
        return False
    if parse_address(value.removeprefix("[").removesuffix("]")) is not None:
        return True
    labels = value.lower().removeprefix(".").removesuffix(".").split(".")
    return all(LABEL.fullmatch(label) for label in labels) and not NUMERIC.fullmatch(labels[-1])


def is_host_list(value: Any) -> str:
    if _list_of(value, _is_host):
        return ""
    return (
        "must be a list of host names without scheme, port or path, in ASCII (xn--...), e.g. "
        "['api.example.com', '.internal.example.com']"
    )


def is_cluster_name(value: Any) -> str:
    if value is None or (isinstance(value, str) and value):
        return ""
    return "must be None or the name of a django-q2 cluster"


def is_throttles(value: Any) -> str:
    names = DEFAULTS["THROTTLES"]
    if not isinstance(value, Mapping) or not set(value) <= set(names):
        return f"must be a dict of rates, with some of the keys {', '.join(names)}"
    wrong = [rate for rate in value.values() if rate is not None and not _is_rate(rate)]
    return "must have rates like '60/min' (sec, min, hour, day), or None" if wrong else ""


def _is_rate(value: Any) -> bool:
    return isinstance(value, str) and bool(_RATE.fullmatch(value))


#: What is asked of each key, with the id of its check. ENCRYPTION_KEYS has checks of its own.
RULES: Final[Mapping[str, tuple[str, Callable[[Any], str]]]] = {
    "DATABASE": ("E010", is_alias),
    "BASE_URL": ("E011", is_base_url),
    "TRANSPORT": ("E012", is_transport),
    "CONCURRENCY": ("E013", is_optional_count),
    "FLUSH_MAX": ("E014", is_count),
    "DRAIN_SECONDS": ("E015", is_duration),
    "WORKERS": ("E016", is_count),
    "TIMEOUT": ("E017", is_duration),
    "LEASE_SECONDS": ("E018", is_duration),
    "RETRY_SCHEDULE": ("E019", is_schedule),
    "MAX_AGE": ("E020", is_duration),
    "MAX_PAYLOAD_BYTES": ("E021", is_count),
    "MAX_SUBSCRIPTIONS": ("E022", is_count),
    "ALLOW_HTTP": ("E023", is_switch),
    "ALLOWED_PORTS": ("E024", is_port_list),
    "ALLOWED_NETWORKS": ("E025", is_network_list),
    "DENIED_HOSTS": ("E026", is_host_list),
    "CLUSTER": ("E027", is_cluster_name),
    "WAKER": ("E028", is_optional_path),
    "RETENTION_DAYS": ("E029", is_count),
    "REQUESTER": ("E030", is_dotted_path),
    "ENTITLEMENT": ("E031", is_optional_path),
    "THROTTLES": ("E032", is_throttles),
    "SOURCE_IPS": ("E033", is_network_list),
    "EGRESS_PROXY": ("E035", is_proxy),
    "CLOUDEVENTS_SOURCE": ("E037", is_source),
    "FORMATS": ("E038", is_formats),
    "SUSPENDED_MAX_AGE": ("E039", is_duration),
    "AUTO_SUSPEND_SECONDS": ("E047", is_optional_duration),
    "AUTO_SUSPEND_FAILURES": ("E048", is_count),
    "PROBE_SECONDS": ("E049", is_optional_duration),
}
