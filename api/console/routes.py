"""The web console: its page and static files, sign-in with an API key, sign-out.

The page consists of plain ES modules without a build step. It calls the same API as other clients, with a session
cookie instead of a key (`api/auth/dependencies.py`).
"""

import hashlib
import mimetypes
import re
from functools import lru_cache
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Body, Depends, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.convertors import PathConvertor, register_url_convertor

from api.auth.console_session import (
    check_origin,
    clear_session_cookie,
    read_session_cookie,
)
from api.auth.dependencies import Caller, CallerDep, audit_actor, caller_from_key, read_credential
from api.console import sessions
from api.console.schemas import DO_NOT_KEEP, ConsoleSession, ConsoleSignedOut, KeepSignedIn
from api.http.errors import error_responses
from api.http.responses import base_url, json_response
from worker.core.errors import DreameryError
from worker.core.settings import get_settings
from worker.db.engine import transaction
from worker.db.users import audit_log, console_sessions
from worker.messaging import pubsub

router = APIRouter(prefix="/console", tags=["console"])

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'self'; frame-ancestors 'none'"
)
_PAGE_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-cache",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}
# Below these paths are calls, not pages.
_CALLS = ("session/", "sign-in")
_MEDIA_TYPES = {".js": "text/javascript", ".svg": "image/svg+xml", ".css": "text/css", ".json": "application/json"}


@router.post(
    "/session",
    summary="Sign in to the console",
    status_code=201,
    responses={201: {"model": ConsoleSession, "description": "Signed in."}, **error_responses(401, 403, 429)},
)
async def sign_in(
    request: Request,
    bearer: Annotated[str, Depends(read_credential)],
    body: Annotated[KeepSignedIn, Body()] = DO_NOT_KEEP,
) -> Response:
    """Send an API key (`Authorization: Bearer ...`); the response sets a session cookie.

    The session ends after `DREAMERY_CONSOLE_SESSION_HOURS` without use, after 30 days, or when its key is revoked.
    With `keep` the browser keeps it: it ends after 30 days without use, or after 180 days.
    """
    check_origin(request, base_url(request))
    if not bearer:
        raise DreameryError("missing_api_key")
    try:
        caller = await caller_from_key(request, bearer)
    except DreameryError as error:
        await sessions.record_failure(request, error)
        raise

    def begin() -> str:
        with transaction() as tx:
            return sessions.begin(tx, request, caller, method="key", persistent=body.keep)

    session_id = await run_in_threadpool(begin)
    return sessions.answer(request, caller, session_id, persistent=body.keep)


@router.get(
    "/session",
    summary="Get the current session",
    responses={200: {"model": ConsoleSession, "description": "The session."}, **error_responses(401, 403)},
)
async def get_session(request: Request, caller: CallerDep) -> Response:
    """Returns the signed-in user and the CSRF token that requests with changes need."""
    session_id = read_session_cookie(request, base_url(request))
    return json_response(sessions.session_object(caller, session_id, request.app.version), headers=sessions.NO_STORE)


def _sign_out(request: Request, caller: Caller, session_id: str) -> None:
    with transaction() as tx:
        if console_sessions.close_session(tx, session_id):
            audit_log.record_action(tx, audit_actor(request, caller), "console.sign_out", "console")
            tx.on_commit(pubsub.publish_permissions_change)


@router.delete(
    "/session",
    summary="Sign out of the console",
    responses={200: {"model": ConsoleSignedOut, "description": "Signed out."}, **error_responses(401, 403)},
)
async def sign_out(request: Request, caller: CallerDep) -> Response:
    """Ends the session of the cookie; the API key stays valid."""
    base = base_url(request)
    await run_in_threadpool(_sign_out, request, caller, read_session_cookie(request, base))
    response = json_response({"object": "console.session.deleted", "deleted": True})
    clear_session_cookie(response, base)
    return response


@lru_cache(maxsize=1)
def _assets() -> tuple[str, dict[str, bytes]]:
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


@router.get("/static/{version}/{path:path}", include_in_schema=False)
async def static_file(version: str, path: str) -> Response:
    """A file of the page. The URL contains a version hash, so browsers may cache it permanently."""
    current, contents = await run_in_threadpool(_assets)
    content = contents.get(path)
    if content is None or path == "index.html":
        raise DreameryError("unknown_url")
    cache = "public, max-age=31536000, immutable" if version == current else "no-cache"
    suffix = path[path.rfind(".") :]
    media_type = _MEDIA_TYPES.get(suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream"
    return Response(content, media_type=media_type, headers={"Cache-Control": cache})


class _PagePath(PathConvertor):
    """A path that is not below the calls, so that a call with another method is answered as such."""

    regex = rf"(?!{'|'.join(map(re.escape, _CALLS))}).*"


register_url_convertor("console_page", _PagePath())


@router.get("", include_in_schema=False)
@router.get("/{path:console_page}", include_in_schema=False)
async def page(request: Request) -> Response:
    """The console page, for every console URL; its router reads the rest of the path."""
    version, contents = await run_in_threadpool(_assets)
    base = base_url(request)
    # Set by the server, so that the page need not send a request that fails without a session.
    session = "yes" if read_session_cookie(request, base) else "no"
    text = contents["index.html"].decode().replace("{version}", version).replace("{session}", session)
    settings = get_settings()
    label = settings.oidc_label if settings.oidc_issuer else ""
    text = text.replace("{root}", escape(urlsplit(base).path.rstrip("/"))).replace("{oidc}", escape(label))
    return Response(text, media_type="text/html", headers=_PAGE_HEADERS)
