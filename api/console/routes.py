"""The web console: its page and files, signing in with an API key, signing out.

The page is plain ES modules without a build step. It calls the same API as everybody, with a session cookie instead of
a key (`api/auth/dependencies.py`).
"""

import hashlib
import mimetypes
from functools import lru_cache
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.console_session import check_site, csrf_token, drop_cookie, session_of, set_cookie
from api.auth.dependencies import Caller, CallerDep, actor_of, caller_of_key, get_bearer
from api.console.schemas import ConsoleSession, ConsoleSignedOut
from api.http.errors import error_responses
from api.http.responses import base_url, json_response
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.settings import get_settings
from worker.db.engine import transaction
from worker.db.users import audit_log, console_sessions
from worker.messaging.rate_limits import RequestLimits

router = APIRouter(prefix="/console", tags=["console"])

# Guessing a key is hopeless; this keeps whoever tries from filling the audit log.
_FAILURES_PER_MINUTE = 20
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
_TYPES = {".js": "text/javascript", ".svg": "image/svg+xml", ".css": "text/css", ".json": "application/json"}


def _answer(caller: Caller, session_id: str, version: str) -> dict[str, Any]:
    return {
        "object": "console.session",
        "user": caller.name,
        "role": caller.role,
        "scopes": [scope for scope in ("admin", "generate", "read") if caller.may(scope)],
        "models": None if caller.models is None else sorted(caller.models),
        "csrf_token": csrf_token(session_id),
        "version": version,
    }


async def _note_failure(request: Request, error: DreameryError) -> None:
    """Write a failure down, unless there were too many of this address. The key is never noted."""
    limits: RequestLimits | None = getattr(request.app.state, "limits", None)
    actor = actor_of(request, Caller(owner="", name="unknown"))
    if limits:
        if await limits.is_over("sign_in", actor.address, per_minute=_FAILURES_PER_MINUTE):
            message = "Too many attempts to sign in from this address. Wait a minute."
            raise DreameryError("rate_limit_exceeded", message, retry_after=60)
        await limits.note("sign_in", actor.address, per_minute=_FAILURES_PER_MINUTE)

    def note() -> None:
        with transaction() as tx:
            audit_log.note_act(tx, actor, "console.sign_in_failed", "console", code=error.kind.code)

    await run_in_threadpool(note)


def _open_session(request: Request, caller: Caller) -> str:
    if caller.api_key_id is None:
        raise DreameryError("invalid_api_key")
    with transaction() as tx:
        session_id = console_sessions.open_session(tx, caller.api_key_id, hours=get_settings().console_session_hours)
        audit_log.note_act(
            tx, actor_of(request, caller), "console.sign_in", public_id("key", caller.api_key_id), role=caller.role
        )
    return session_id


@router.post(
    "/session",
    summary="Sign in to the console",
    status_code=201,
    responses={201: {"model": ConsoleSession, "description": "Signed in."}, **error_responses(401, 403, 429)},
)
async def sign_in(request: Request, bearer: Annotated[str, Depends(get_bearer)]) -> Response:
    """Takes an API key as every call does (`Authorization: Bearer ...`) and answers with a session cookie.

    The session ends when it is not used for `DREAMERY_CONSOLE_SESSION_HOURS`, after 30 days, or with its key.
    """
    base = base_url(request)
    check_site(request, base)
    if not bearer:
        raise DreameryError("missing_api_key")
    try:
        caller = await caller_of_key(request, bearer)
        session_id = await run_in_threadpool(_open_session, request, caller)
    except DreameryError as error:
        await _note_failure(request, error)
        raise
    response = json_response(_answer(caller, session_id, request.app.version), status=201, headers=_NO_STORE)
    set_cookie(response, base, session_id)
    return response


_NO_STORE = {"Cache-Control": "no-store"}


@router.get(
    "/session",
    summary="Ask who is signed in",
    responses={200: {"model": ConsoleSession, "description": "The session."}, **error_responses(401, 403)},
)
async def get_session(request: Request, caller: CallerDep) -> Response:
    """The user of the session cookie, with the token that changing requests need."""
    session_id = session_of(request, base_url(request))
    return json_response(_answer(caller, session_id, request.app.version), headers=_NO_STORE)


def _sign_out(request: Request, caller: Caller, session_id: str) -> None:
    with transaction() as tx:
        if console_sessions.close_session(tx, session_id):
            audit_log.note_act(tx, actor_of(request, caller), "console.sign_out", "console")


@router.delete(
    "/session",
    summary="Sign out of the console",
    responses={200: {"model": ConsoleSignedOut, "description": "The session is over."}, **error_responses(401, 403)},
)
async def sign_out(request: Request, caller: CallerDep) -> Response:
    """Ends the session of the cookie; the API key stays as it is."""
    base = base_url(request)
    await run_in_threadpool(_sign_out, request, caller, session_of(request, base))
    response = json_response({"object": "console.session.deleted", "deleted": True})
    drop_cookie(response, base)
    return response


# --- the page and its files ---


@lru_cache(maxsize=1)
def _assets() -> tuple[str, dict[str, bytes]]:
    """Every file of the console by its path, and a word that changes with any of them."""
    found: dict[str, bytes] = {}

    def gather(folder: Traversable, prefix: str) -> None:
        for item in folder.iterdir():
            if item.is_dir():
                gather(item, f"{prefix}{item.name}/")
            elif not item.name.endswith(".md"):
                found[prefix + item.name] = item.read_bytes()

    gather(files("api.console") / "static", "")
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(name.encode() + b"\0" + found[name])
    return digest.hexdigest()[:12], found


@router.get("/static/{version}/{path:path}", include_in_schema=False)
async def static_file(version: str, path: str) -> Response:
    """A file of the page. The address changes with the files, so browsers keep them for ever."""
    current, found = await run_in_threadpool(_assets)
    content = found.get(path)
    if content is None or path == "index.html":
        raise DreameryError("unknown_url")
    kept = "public, max-age=31536000, immutable" if version == current else "no-cache"
    suffix = path[path.rfind(".") :]
    kind = _TYPES.get(suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream"
    return Response(content, media_type=kind, headers={"Cache-Control": kept})


@router.get("", include_in_schema=False)
@router.get("/{path:path}", include_in_schema=False)
async def page(request: Request) -> Response:
    """The page, for each address of the console: it reads the rest of the path itself."""
    version, found = await run_in_threadpool(_assets)
    base = base_url(request)
    # Told by the server, so that the page need not ask and be refused when nobody is signed in.
    session = "yes" if session_of(request, base) else "no"
    text = found["index.html"].decode().replace("{version}", version).replace("{session}", session)
    text = text.replace("{root}", escape(urlsplit(base).path.rstrip("/")))
    return Response(text, media_type="text/html", headers=_PAGE_HEADERS)
