"""Where a request came from: the client's network for limits, and whether the client runs on this machine."""

from starlette.requests import Request
from starlette.types import Scope

from worker.core.security.ip_addresses import client_network, is_loopback

# Headers that proxies add. Behind a proxy on this machine every client seems to be local.
_PROXY_HEADERS = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
_UNKNOWN = "unknown"


def network_of(request: Request) -> str:
    """Return the network that limits count: an IPv4 address, or the /64 of an IPv6 address.

    Without a readable address it is one name for all, so that an invented address evades no limit. `X-Forwarded-For`
    counts only when a proxy of TRUSTED_PROXIES sent it: the server has then replaced the client's address.
    """
    return (client_network(request.client.host) if request.client else None) or _UNKNOWN


def is_on_this_machine(request: Request) -> bool:
    """Return whether a program on this machine sent the request itself, not a proxy for somebody else."""
    if request.client is None or any(name in request.headers for name in _PROXY_HEADERS):
        return False
    return is_loopback(request.client.host)


def forwarded_scheme(scope: Scope) -> str:
    """Return the scheme of the links in this answer: the one that a proxy on this machine reports, else the request's.

    Needs no trust: it changes nothing but the answer to this request. Addresses need TRUSTED_PROXIES.
    """
    stated = next((value for name, value in scope["headers"] if name == b"x-forwarded-proto"), b"").decode("latin-1")
    client = scope.get("client")
    if stated in {"http", "https"} and client is not None and is_loopback(client[0]):
        return stated
    return str(scope.get("scheme", "http"))
