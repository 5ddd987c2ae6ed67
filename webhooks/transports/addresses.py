"""Which addresses may be dialled, and which callback URLs may be set.

Callback URLs are written by strangers, so nothing here trusts a name: the text is judged with the
parser that dials (``urllib3.util.parse_url``), and every address that a name resolves to is judged
by an explicit table. ``ipaddress.is_global`` is never asked: its answers differ between Python
versions. Nothing here opens a connection.

What may be dialled beyond the public internet is the operator's decision alone, in the settings
``ALLOWED_NETWORKS``, ``ALLOWED_PORTS``, ``ALLOW_HTTP`` and ``DENIED_HOSTS``.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from webhooks.conf import DEFAULTS, settings
from webhooks.exceptions import BlockedAddress
from webhooks.transports.lookups import AddressInfo, TooManyLookups, look_up

__all__ = [
    "BlockedAddress",
    "MalformedURL",
    "Target",
    "check_url",
    "is_allowed",
    "is_denied",
    "is_private_name",
    "is_public",
    "judge",
    "resolve",
]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: The IANA IPv4 special-purpose registry, multicast, the former class E, and three ranges that
#: answer inside clouds or at the nearest anycast node: 168.63.129.16, AS112 and 6to4 relays.
NOT_PUBLIC_V4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
#: The only IPv6 block from which global unicast addresses are assigned (RFC 3513) ...
PUBLIC_V6: Final = IPv6Network("2000::/3")
#: ... less its special ranges: protocol assignments, documentation, 6to4, AS112.
NOT_PUBLIC_V6: Final = tuple(
    IPv6Network(text)
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
#: Names that only a private network answers.
PRIVATE_SUFFIXES: Final = (".local", ".internal", ".localhost", ".lan", ".home.arpa")

#: The settings that a policy is made of.
POLICY: Final = ("ALLOW_HTTP", "ALLOWED_PORTS", "ALLOWED_NETWORKS", "DENIED_HOSTS")

MAX_URL_LENGTH: Final = 2048
#: Seconds that ``check_url`` waits for its lookup.
CHECK_SECONDS: Final = 5.0
DEFAULT_PORTS: Final = {"https": 443, "http": 80}

#: One sentence for every refused host, so that it tells nothing about the network we stand in.
BLOCKED: Final = (
    "blocked address: the host must resolve, and to public internet addresses only. "
    "Use a public host name."
)

LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
#: A last label that some resolver reads as a number, so that the host is an address in disguise.
NUMERIC: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


class MalformedURL(BlockedAddress):
    """The text is no URL that a callback could have; no policy would allow it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A callback URL that passed the check of its text.

    scheme: ``http`` or ``https``.
    host: lower-case ASCII as the parser gave it; an IPv6 literal has its brackets.
    port: 1-65535, the scheme's default where the URL names none.
    path: what stands in the request line: path and query.
    """

    scheme: str
    host: str
    port: int
    path: str


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """The operator's settings; the same object for the same settings, so it is hashed as such.

    ports: None means any. ports_bind_networks: whether they bind hosts of ``networks`` as well.
    """

    allow_http: bool
    ports: frozenset[int] | None
    ports_bind_networks: bool
    networks: tuple[Network, ...]
    denied: tuple[str, ...]


def is_public(ip: str | Address) -> bool:
    """Is this address on the public internet?

    ip: an address or its text. Text that is no address, and scoped addresses, are not public.
    An IPv4-mapped IPv6 address is judged as the IPv4 address that it reaches.
    """
    address = parse_address(ip)
    if address is None:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_V4)
    return address in PUBLIC_V6 and not any(address in network for network in NOT_PUBLIC_V6)


def is_allowed(ip: str | Address) -> bool:
    """May this address be dialled: is it public, or inside ``ALLOWED_NETWORKS``, and not denied?"""
    return _may_dial(ip, current_policy())


def check_url(url: str, resolve: bool = True) -> None:
    """Refuse a callback URL that may not be dialled.

    url: the absolute URL as it was given.
    resolve: also look the host up, once, for at most 5 s. A single answer that may not be dialled
        refuses the URL, and so does a host that has none.

    Raises BlockedAddress. The message never holds an address; it is fit for the client.
    """
    policy = current_policy()
    target = judge(url, policy)
    host = target.host.strip("[]")
    if not resolve:
        if is_private_name(host) and not _loopback_name_allowed(host, policy):
            raise BlockedAddress(BLOCKED)
        return
    try:
        resolve_host(host, target.port, CHECK_SECONDS)
    except (OSError, TooManyLookups):  # gaierror, TimeoutError: where it leads is not known
        raise BlockedAddress(BLOCKED) from None


def judge(url: str, policy: Policy | None = None) -> Target:
    """Judge the text of a URL and take it apart. Nothing is looked up.

    A name of a private network passes here: ``resolve`` lets it through only when every address
    behind it is in ``ALLOWED_NETWORKS``.

    Raises MalformedURL for what is no callback URL at all, BlockedAddress for what the settings or
    the address table refuse.
    """
    return _judge(url, policy or current_policy())


@lru_cache(maxsize=1024)
def _judge(url: str, policy: Policy) -> Target:
    if len(url) > MAX_URL_LENGTH:
        raise MalformedURL(f"The URL is too long. Use at most {MAX_URL_LENGTH} characters.")
    if not url.isprintable() or " " in url or "\\" in url:
        # isprintable() is false for control characters, every other white space, format
        # characters (zero width, right-to-left) and lone surrogates.
        raise MalformedURL(
            "The URL holds a space, a backslash or an invisible character. "
            "Remove it or percent-encode it."
        )
    schemes = "https:// or http://" if policy.allow_http else "https://"
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in DEFAULT_PORTS:
        raise MalformedURL(f"The URL's scheme is not usable. Begin the URL with {schemes}.")
    if scheme == "http" and not policy.allow_http:
        raise BlockedAddress("Plain http is not allowed here. Use an https:// URL.")
    if "#" in url:
        raise MalformedURL("The URL has a fragment, which is never sent. Remove '#' and the rest.")
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    if "@" in authority:
        raise MalformedURL(
            "The URL holds a user name or password. Remove it and use basic authentication."
        )
    if "%" in authority:
        raise MalformedURL("The URL's host is percent-encoded. Write it out.")
    try:
        parsed = parse_url(url)
    except LocationParseError:
        raise MalformedURL("The URL cannot be parsed. Check its host and port.") from None
    if parsed.scheme != scheme or not parsed.host or parsed.auth is not None:
        raise MalformedURL("The URL has no host. Write it as https://host/path.")
    port = DEFAULT_PORTS[scheme] if parsed.port is None else parsed.port
    if not 0 < port < 65536:
        raise MalformedURL("The URL's port is not usable. Leave it out or use 1-65535.")
    bound = policy.ports_bind_networks or not _is_in_networks(parsed.host, policy)
    if policy.ports is not None and port not in policy.ports and bound:
        raise BlockedAddress(
            f"Port {port} is not allowed. Use one of: "
            f"{', '.join(str(number) for number in sorted(policy.ports))}."
        )
    _judge_host(parsed.host, policy)
    return Target(scheme, parsed.host, port, parsed.request_uri)


def _judge_host(host: str, policy: Policy) -> None:
    """Refuse hosts by their text alone: literals that may not be dialled, names that are none."""
    if is_denied(host, policy.denied):
        raise BlockedAddress(BLOCKED)
    if host.startswith("["):
        if not _may_dial(host.strip("[]"), policy):
            raise BlockedAddress(BLOCKED)
        return
    labels = host.removesuffix(".").split(".")
    if NUMERIC.fullmatch(labels[-1]):
        # "127.1", "2130706433", "0x7f.1" and "127.0.0.1." reach 127.0.0.1 through some resolvers.
        # Only the canonical dotted quad is an address that means the same everywhere.
        if not _may_dial(host, policy):
            raise BlockedAddress(BLOCKED)
        return
    if len(host) > 253 or not all(LABEL.fullmatch(label) for label in labels):
        raise MalformedURL("The URL's host is no valid host name. Check its spelling.")


def _may_dial(ip: str | Address, policy: Policy) -> bool:
    if is_denied(str(ip), policy.denied):
        return False
    return is_public(ip) or _in_allowed_networks(ip, policy)


def is_denied(host: str, entries: tuple[str, ...]) -> bool:
    """Is this host, or address, one of these entries of ``DENIED_HOSTS``?

    An entry that begins with a dot stands for a domain and all below it, as in ``ALLOWED_HOSTS``.
    """
    names, domains = _denied(entries)
    name = _canonical(host)
    return name in names or f".{name}".endswith(domains)


@lru_cache(maxsize=16)
def _denied(entries: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Names and addresses, and domains with their leading dots."""
    return (
        frozenset(_canonical(entry) for entry in entries if not entry.startswith(".")),
        tuple(entry.lower().rstrip(".") for entry in entries if entry.startswith(".")),
    )


def _canonical(host: str) -> str:
    """One spelling for each host: addresses have many, names a case and a trailing dot."""
    name = host.strip("[]").rstrip(".").lower()
    address = parse_address(name)
    return name if address is None else str(address)


def is_private_name(host: str) -> bool:
    """Is this a name, not an address, that only a private network can answer?"""
    name = host.rstrip(".").lower()
    if parse_address(name) is not None:
        return False
    return "." not in name or name.endswith(PRIVATE_SUFFIXES)


def _is_in_networks(host: str, policy: Policy) -> bool:
    """Is this, by its text alone, a host of the operator's own networks?"""
    literal = host.strip("[]")
    return _in_allowed_networks(literal, policy) or _loopback_name_allowed(literal, policy)


def _loopback_name_allowed(host: str, policy: Policy) -> bool:
    name = host.rstrip(".").lower()
    is_loopback = name == "localhost" or name.endswith(".localhost")  # RFC 6761, section 6.3
    return is_loopback and _in_allowed_networks("127.0.0.1", policy)


def resolve(host: str, port: int, timeout: float) -> list[AddressInfo]:
    """Look a host up once and give the addresses that may be dialled, in the resolver's order.

    host: a name or an address, without brackets. port: 1-65535. timeout: seconds for the lookup.

    Raises BlockedAddress if *any* answer may not be dialled, ``socket.gaierror`` if there is none,
    TimeoutError if none came in time, TooManyLookups if it could not be asked.
    """
    policy = current_policy()
    if is_denied(host, policy.denied):
        raise BlockedAddress(BLOCKED)
    only_networks = is_private_name(host)
    if only_networks and not policy.networks:
        raise BlockedAddress(BLOCKED)  # no answer would do, and whether there is one is not told
    literal = parse_address(host)
    if literal is not None:
        answers = [_address_info(literal, port)]
    else:
        answers = look_up(host, port, timeout)
    for answer in answers:
        ip = str(answer[4][0])
        if not _may_dial(ip, policy) or (only_networks and not _in_allowed_networks(ip, policy)):
            raise BlockedAddress(BLOCKED)
    return answers


# ``check_url`` has a parameter named ``resolve`` (public contract) that hides the function.
resolve_host = resolve


def _address_info(address: Address, port: int) -> AddressInfo:
    """An address as ``getaddrinfo`` would answer it; literals need no lookup."""
    if isinstance(address, IPv4Address):
        return (socket.AF_INET, socket.SOCK_STREAM, 0, "", (str(address), port))
    return (socket.AF_INET6, socket.SOCK_STREAM, 0, "", (str(address), port, 0, 0))


def parse_address(ip: str | Address) -> Address | None:
    """The address, IPv4 where it is IPv4-mapped; None for garbage and for scoped addresses."""
    if not isinstance(ip, str | IPv4Address | IPv6Address):
        return None  # ip_address() would read integers and bytes as addresses
    try:
        address = ip_address(ip)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def _in_allowed_networks(ip: str | Address, policy: Policy) -> bool:
    address = parse_address(ip) if policy.networks else None
    return address is not None and any(address in network for network in policy.networks)


def current_policy() -> Policy:
    """The settings as they are now. Raises ValueError for a network that is no CIDR text."""
    given = settings.given()  # one look at them: this runs for each POST
    allow_http, ports, networks, denied = [given.get(key, DEFAULTS[key]) for key in POLICY]
    return _policy(
        bool(allow_http),
        None if ports == "any" else tuple(ports),
        "ALLOWED_PORTS" in given,
        tuple(networks),
        tuple(denied),
    )


@lru_cache(maxsize=16)
def _policy(
    allow_http: bool,
    ports: Iterable[int] | None,
    ports_bind_networks: bool,
    networks: Iterable[str],
    denied: Iterable[str],
) -> Policy:
    return Policy(
        allow_http=allow_http,
        ports=None if ports is None else frozenset(ports),
        ports_bind_networks=ports_bind_networks,
        networks=tuple(ip_network(text, strict=False) for text in networks),
        denied=tuple(denied),
    )
