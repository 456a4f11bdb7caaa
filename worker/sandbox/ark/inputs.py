"""Fetches the inputs of a call as upstream does. Links to other machines are believed: no test may reach them."""

import asyncio
import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

import httpx

from worker.sandbox.ark.refusals import RefusedError

_SECONDS = 10.0


async def fetch_links(links: Iterable[tuple[str, str]]) -> int:
    """Fetch the links that lead to this machine; return how many. A link comes with its kind: image, video or audio.

    Raises RefusedError for one that cannot be read.
    """
    local = [(link, kind) for link, kind in links if _is_local(link)]
    if local:
        async with httpx.AsyncClient(timeout=_SECONDS, trust_env=False, follow_redirects=True) as client:
            await asyncio.gather(*(_fetch(client, link, kind) for link, kind in local))
    return len(local)


def _is_local(link: str) -> bool:
    host = urlsplit(link).hostname if link.startswith("http") else None
    try:
        return host == "localhost" or (host is not None and ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return False


async def _fetch(client: httpx.AsyncClient, link: str, kind: str) -> None:
    try:
        async with client.stream("GET", link) as response:
            first = await anext(response.aiter_raw(), b"")
            good = response.status_code == 200 and response.headers.get("content-type", "").startswith(f"{kind}/")
    except httpx.HTTPError:
        first, good = b"", False
    if good and first:
        return
    if kind == "image":
        raise RefusedError("InvalidImageURL.InvalidFormat", "the image cannot be downloaded", param="image")
    raise RefusedError("InvalidParameter", f"the {kind} is no valid web url", param="content")
