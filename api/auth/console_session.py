"""The web console's session cookie and its CSRF protection.

The cookie holds a random session id. Requests that change something must also send the CSRF token, which is derived
from that id and given only to the console page; `Origin` and `Sec-Fetch-Site` must match if the browser sends them.
"""

import hashlib
import hmac
from urllib.parse import urlsplit

from fastapi import Request, Response

from worker.core.errors import DreameryError
from worker.db.users.console_sessions import PERSISTENT_DAYS

CSRF_HEADER = "x-csrf-token"
_SAFE = {"GET", "HEAD", "OPTIONS"}
_OWN_SITES = {"same-origin", "none"}  # `none` = typed or bookmarked


def _cookie_name(base: str) -> str:
    # `__Host-` binds the cookie to this host and to https; browsers reject the prefix over plain http.
    return "__Host-dreamery" if base.startswith("https:") else "dreamery_session"


def read_session_cookie(request: Request, base: str) -> str:
    """Return the session id from the request's cookie, or an empty string."""
    return request.cookies.get(_cookie_name(base), "")[:200]


def csrf_token(session_id: str) -> str:
    """Derive the CSRF token of a session. Another site cannot read the cookie, so it cannot compute the token."""
    return hmac.new(session_id.encode(), b"dreamery console csrf", hashlib.sha256).hexdigest()


def check_origin(request: Request, base: str) -> None:
    """Raise `csrf_failed` if the browser reports another site, `invalid_http` for an unreadable origin."""
    origin = request.headers.get("origin")
    hosts = {request.headers.get("host", ""), urlsplit(base).netloc}
    if origin is not None and _origin_host(origin) not in hosts:
        raise DreameryError("csrf_failed")
    if request.headers.get("sec-fetch-site", "none") not in _OWN_SITES:
        raise DreameryError("csrf_failed")


def _origin_host(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        raise DreameryError("invalid_http", "The header `Origin` is not an address.") from None


def check_csrf(request: Request, base: str, session_id: str) -> None:
    """Raise `csrf_failed` unless the console's own page sent this cookie-authenticated request."""
    check_origin(request, base)
    if request.method in _SAFE:
        return
    token = request.headers.get(CSRF_HEADER, "")
    if not hmac.compare_digest(token.encode(), csrf_token(session_id).encode()):
        raise DreameryError("csrf_failed")


def set_session_cookie(response: Response, base: str, session_id: str, *, persistent: bool = False) -> None:
    """Set the session cookie; the browser drops it when it closes, unless it is `persistent`."""
    response.set_cookie(
        _cookie_name(base),
        session_id,
        max_age=PERSISTENT_DAYS * 24 * 3600 if persistent else None,
        path="/",
        httponly=True,
        samesite="lax",
        secure=base.startswith("https:"),
    )


def clear_session_cookie(response: Response, base: str) -> None:
    """Delete the session cookie."""
    response.delete_cookie(
        _cookie_name(base), path="/", httponly=True, samesite="lax", secure=base.startswith("https:")
    )
