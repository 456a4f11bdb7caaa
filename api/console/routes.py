"""The web console: its page and static files, sign-in with an API key, sign-out.

The page consists of plain ES modules without a build step. It calls the same API as other clients, with a session
cookie instead of a key (`api/auth/dependencies.py`).
"""

import mimetypes
import re
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.convertors import PathConvertor, register_url_convertor

from api.auth.caller import Caller
from api.auth.console_session import (
    check_origin,
    clear_session_cookie,
    read_session_cookie,
)
from api.auth.dependencies import CallerDep, audit_actor, caller_from_key, read_credential
from api.console import installable, sessions
from api.console.assets import console_assets, render_page
from api.console.schemas import DO_NOT_KEEP, ConsoleSession, ConsoleSignedOut, KeepSignedIn
from api.http.errors import error_responses
from api.http.responses import base_url, json_response
from worker.core.errors import DreameryError
from worker.db.engine import transaction
from worker.db.users import audit_log, console_sessions
from worker.messaging import pubsub

router = APIRouter(prefix="/console", tags=["console"])

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


@router.get("/static/{version}/{path:path}", include_in_schema=False)
async def static_file(version: str, path: str) -> Response:
    """A file of the page. The URL contains a version hash, so browsers may cache it permanently."""
    current, contents = await run_in_threadpool(console_assets)
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
router.include_router(installable.router)  # before the page, which takes every other path


@router.get("", include_in_schema=False)
@router.get("/{path:console_page}", include_in_schema=False)
async def page(request: Request) -> Response:
    """The console page, for every console URL; its router reads the rest of the path."""
    # Set by the server, so that the page need not send a request that fails without a session.
    session = "yes" if read_session_cookie(request, base_url(request)) else "no"
    return await run_in_threadpool(render_page, request, session)
