"""The web console's session: its cookie, and the proof that a request comes from the console's own page.

The cookie holds a random id. Requests that change something must also carry the CSRF token, which is derived from that
id and told only to the page; `Origin` and `Sec-Fetch-Site`, where a browser sends them, must agree.
"""

import hashlib
import hmac
from urllib.parse import urlsplit

from fastapi import Request, Response

from worker.core.errors import DreameryError

CSRF_HEADER = "x-csrf-token"
_SAFE = {"GET", "HEAD", "OPTIONS"}
_OWN_SITES = {"same-origin", "none"}  # `none` = typed in or bookmarked


def _cookie_name(base: str) -> str:
    # `__Host-` binds the cookie to this host and to https; browsers refuse the prefix over plain http.
    return "__Host-dreamery" if base.startswith("https:") else "dreamery_session"


def session_of(request: Request, base: str) -> str:
    """The session id that the request's cookie carries, or an empty text."""
    return request.cookies.get(_cookie_name(base), "")[:200]


def csrf_token(session_id: str) -> str:
    """The token that belongs to a session. Whoever cannot read the cookie cannot make it."""
    return hmac.new(session_id.encode(), b"dreamery console csrf", hashlib.sha256).hexdigest()


def check_site(request: Request, base: str) -> None:
    """Raises `csrf_failed` when the browser says that another site sent the request."""
    origin = request.headers.get("origin")
    hosts = {request.headers.get("host", ""), urlsplit(base).netloc}
    if origin is not None and urlsplit(origin).netloc not in hosts:
        raise DreameryError("csrf_failed")
    if request.headers.get("sec-fetch-site", "none") not in _OWN_SITES:
        raise DreameryError("csrf_failed")


def check_page(request: Request, base: str, session_id: str) -> None:
    """Raises `csrf_failed` unless the console's own page sent this request, which the cookie came with."""
    check_site(request, base)
    if request.method in _SAFE:
        return
    given = request.headers.get(CSRF_HEADER, "")
    if not hmac.compare_digest(given.encode(), csrf_token(session_id).encode()):
        raise DreameryError("csrf_failed")


def set_cookie(response: Response, base: str, session_id: str) -> None:
    """Give the browser its session; it forgets it when it is closed, or the session is over."""
    response.set_cookie(
        _cookie_name(base), session_id, path="/", httponly=True, samesite="lax", secure=base.startswith("https:")
    )


def drop_cookie(response: Response, base: str) -> None:
    """Have the browser forget the session."""
    response.delete_cookie(
        _cookie_name(base), path="/", httponly=True, samesite="lax", secure=base.startswith("https:")
    )
