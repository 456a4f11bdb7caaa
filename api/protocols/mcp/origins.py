"""Which web pages may call `/mcp`: protection against DNS rebinding, as the specification of the transport demands.

A page of an attacker can let its own host name point to this server and then call it as its own origin. Such a request
names the attacker's host in `Host`, and browsers add `Origin` or `Sec-Fetch-Site` to it, which programs do not send.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from fastapi import Request

from worker.core.errors import DreameryError
from worker.core.settings import get_settings


def check_origin(request: Request) -> None:
    """Raise `forbidden` (403) for web pages that may not call `/mcp`."""
    settings = get_settings()
    require_known_page(request.headers, [settings.public_url, *settings.mcp_origins.split(",")])


def require_known_page(headers: Mapping[str, str], known_urls: Iterable[str]) -> None:
    """Raise `forbidden` (403) for a page of an unknown origin, and for a browser that names an unknown host.

    Known are pages on this machine, the origins of `known_urls`, and addresses as host names.
    """
    origin = headers.get("origin")
    if origin is None and "sec-fetch-site" not in headers:
        return
    known = {found for one in known_urls if (found := _origin(one))}
    if origin is not None and _origin(origin) not in known and not _is_local(_host(origin)):
        message = "Web pages of this origin may not call `/mcp`. An operator can add it to `DREAMERY_MCP_ORIGINS`."
        raise DreameryError("forbidden", message, param="origin")
    host = _host(f"//{headers.get('host', '')}")
    if not _is_address(host) and not _is_local(host) and host not in {_host(one) for one in known}:
        message = "Browsers may call `/mcp` only at the address in `DREAMERY_PUBLIC_URL`."
        raise DreameryError("forbidden", message, param="host")


def _origin(url: str) -> str:
    """Return scheme, host and port in one spelling; empty for `null` and other texts that are no URL."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return ""
    standard = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{parts.hostname}:{port or standard}"


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_local(host: str) -> bool:
    """Whether only programs of the same machine can have this host."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
