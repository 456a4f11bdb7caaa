"""Names and addresses that somebody else chose: resolved within a time, and which of them are out on the Internet."""

import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as LookupTimeoutError

# Well-known prefixes whose last 32 bits are an IPv4 address that a gateway on the way, or this machine, may speak to:
# NAT64 (RFC 6052), IPv4-translated (RFC 2765), IPv4-compatible (RFC 4291).
_CARRIERS = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::ffff:0:0:0/96", "::/96")))
# Not for the Internet, though `is_global` of this Python does not know: NAT64 of one's own network (RFC 8215),
# site-local, documentation, segment routing.
_INSIDE = tuple(map(ipaddress.IPv6Network, ("64:ff9b:1::/48", "fec0::/10", "3fff::/20", "5f00::/16")))
_RELAYS = ipaddress.IPv4Network("192.88.99.0/24")
# The interface part of an ISATAP address (RFC 5214): 0:5efe or 200:5efe, then an IPv4 address.
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})


# Threads are made when they are needed. A name server that is slow on purpose fills them, and nothing else.
_resolvers = ThreadPoolExecutor(max_workers=64, thread_name_prefix="resolve")


def resolve(host: str, port: int, *, seconds: float) -> list[str]:
    """The addresses of a name, each once, in the resolver's order. Raises OSError, also when it takes longer.

    The resolver knows no deadline of ours, and whoever owns a name may let its server answer as slowly as they like.
    """
    future = _resolvers.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        rows = future.result(timeout=seconds)
    except LookupTimeoutError:
        future.cancel()
        raise OSError("not resolved in time") from None
    except UnicodeError as error:
        raise OSError("not a name") from error
    return list(dict.fromkeys(str(row[4][0]) for row in rows))


def is_public(address: str) -> bool:
    """Whether an IP address, as resolved, is out on the Internet: not loopback, private, link-local or special."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast and ip not in _RELAYS
    if any(ip in network for network in _INSIDE):
        return False
    carried = ip.ipv4_mapped or ip.sixtofour or _carried(ip)
    if carried is not None:
        return is_public(str(carried))
    return ip.is_global and not ip.is_multicast


def _carried(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    number = int(ip)
    isatap = (number >> 32) & 0xFFFF_FFFF in _ISATAP
    if isatap or any(ip in network for network in _CARRIERS):
        return ipaddress.IPv4Address(number & 0xFFFF_FFFF)
    return None


def client_network(address: str) -> str | None:
    """What one customer of a network usually has: an IPv4 address, the /64 of an IPv6 one. None = no address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.IPv6Network((ip, 64), strict=False))


def is_allowed_private(host: str, port: int, allow: str) -> bool:
    """Whether `DREAMERY_FETCH_ALLOW` (`allow`: a comma list of host or host:port) names this place."""
    allowed = {item.strip().lower() for item in allow.split(",") if item.strip()}
    return host.lower() in allowed or f"{host.lower()}:{port}" in allowed
