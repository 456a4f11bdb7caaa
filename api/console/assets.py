"""The files of the console, and its page with what the server knows about it."""

import hashlib
from functools import lru_cache
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from urllib.parse import urlsplit

from fastapi import Request, Response

from api.http.responses import base_url
from worker.core.settings import get_settings

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; manifest-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'self'; "
    "frame-ancestors 'none'"
)
_PAGE_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-cache",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@lru_cache(maxsize=1)
def console_assets() -> tuple[str, dict[str, bytes]]:
    """Return a version hash of all console files, and their contents by path."""
    contents: dict[str, bytes] = {}

    def collect(folder: Traversable, prefix: str) -> None:
        for item in folder.iterdir():
            if item.is_dir():
                collect(item, f"{prefix}{item.name}/")
            elif not item.name.endswith(".md"):
                contents[prefix + item.name] = item.read_bytes()

    collect(files("api.console") / "static", "")
    digest = hashlib.sha256()
    for name in sorted(contents):
        digest.update(name.encode() + b"\0" + contents[name])
    return digest.hexdigest()[:12], contents


def console_root(request: Request) -> str:
    """The path of the platform without a slash at the end, such as `/studio`; `""` at the root of its host."""
    return urlsplit(base_url(request)).path.rstrip("/")


def render_page(request: Request, session: str) -> Response:
    """The console's page. `session` = yes, no, or unknown (the page that is shown without a connection)."""
    version, contents = console_assets()
    settings = get_settings()
    label = settings.oidc_label if settings.oidc_issuer else ""
    text = contents["index.html"].decode().replace("{version}", version).replace("{session}", session)
    text = text.replace("{root}", escape(console_root(request))).replace("{oidc}", escape(label))
    return Response(text, media_type="text/html", headers=_PAGE_HEADERS)
