"""Untrusted host names and IP addresses: resolve them within a deadline, and tell public from private ones."""

import ipaddress
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as LookupTimeoutError
from typing import Any

# Prefixes with an embedded IPv4 address in the last 32 bits, which a gateway or this machine may connect to: NAT64
# (RFC 6052), IPv4-translated (RFC 2765), IPv4-compatible (RFC 4291).
_EMBEDDING_NETWORKS = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::ffff:0:0:0/96", "::/96")))
# Not public, although `is_global` of this Python says so: local NAT64 (RFC 8215), site-local, documentation, segment
# routing.
_PRIVATE_NETWORKS = tuple(map(ipaddress.IPv6Network, ("64:ff9b:1::/48", "fec0::/10", "3fff::/20", "5f00::/16")))
_RELAYS = ipaddress.IPv4Network("192.88.99.0/24")
# The interface part of an ISATAP address (RFC 5214): 0:5efe or 200:5efe, then an IPv4 address.
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})

# The argument of the error when the name server is too slow.
NOT_IN_TIME = "not resolved in time"

_Rows = list[tuple[Any, ...]]
# Threads start on demand. A deliberately slow name server can only fill this pool.
_resolvers = ThreadPoolExecutor(max_workers=64, thread_name_prefix="resolve")


def resolve(host: str, port: int, *, seconds: float) -> list[str]:
    """Return the distinct addresses of a name in the resolver's order. Raises OSError on failure or timeout.

    The system resolver has no deadline, and the owner of a name can make its name server arbitrarily slow.
    """
    future = start_lookup(host, port)
    try:
        return addresses_of(future.result(timeout=seconds))
    except LookupTimeoutError:
        future.cancel()
        raise OSError(NOT_IN_TIME) from None
    except UnicodeError as error:
        raise OSError("not a name") from error


def start_lookup(host: str, port: int) -> "Future[_Rows]":
    """Start a look-up in a thread of its own pool."""
    return _resolvers.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)


def addresses_of(rows: _Rows) -> list[str]:
    """Return the distinct addresses that a look-up found."""
    return list(dict.fromkeys(str(row[4][0]) for row in rows))


def is_public(address: str) -> bool:
    """Return whether an IP address is public: not loopback, private, link-local or otherwise special."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast and ip not in _RELAYS
    if any(ip in network for network in _PRIVATE_NETWORKS):
        return False
    embedded = ip.ipv4_mapped or ip.sixtofour or _embedded_ipv4(ip)
    if embedded is not None:
        return is_public(str(embedded))
    return ip.is_global and not ip.is_multicast


def _embedded_ipv4(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    number = int(ip)
    isatap = (number >> 32) & 0xFFFF_FFFF in _ISATAP
    if isatap or any(ip in network for network in _EMBEDDING_NETWORKS):
        return ipaddress.IPv4Address(number & 0xFFFF_FFFF)
    return None


def client_network(address: str) -> str | None:
    """Return the network of one client: its IPv4 address, or the /64 of its IPv6 address. None = not an address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.IPv6Network((ip, 64), strict=False))


def is_loopback(address: str) -> bool:
    """Return whether the address is one of this machine; False also for a text that is no address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def is_allowed_private(host: str, port: int, allow: str) -> bool:
    """Return whether `DREAMERY_FETCH_ALLOW` (`allow`: comma-separated host or host:port) contains this host."""
    allowed = {item.strip().lower() for item in allow.split(",") if item.strip()}
    return host.lower() in allowed or f"{host.lower()}:{port}" in allowed
