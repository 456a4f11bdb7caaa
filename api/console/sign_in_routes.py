"""Sign-in to the console with a name and a password, or with a one-time invitation."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.auth.console_session import check_origin
from api.auth.dependencies import caller_of_key
from api.console import sessions
from api.console.schemas import ConsoleSession, Invitation, InvitationToken, InvitationUse, PasswordSignIn
from api.http.errors import error_responses
from api.http.responses import base_url, json_response, unix_seconds
from worker.core.errors import DreameryError
from worker.core.security.passwords import hash_password, is_password
from worker.db.engine import transaction
from worker.db.users import sign_in

router = APIRouter(prefix="/console", tags=["console"])

_SIGNED_IN: dict[int | str, dict[str, Any]] = {201: {"model": ConsoleSession, "description": "Signed in."}}
# A check takes 19 MiB and a core: more of them wait, and after a while they are refused.
_CHECKS_AT_ONCE = 2
_WAIT_SECONDS = 5
_checks = asyncio.Semaphore(_CHECKS_AT_ONCE)


@asynccontextmanager
async def place_for_check() -> AsyncIterator[None]:
    """Wait for a place to compute the hash of a password. Raises `overloaded`."""
    try:
        async with asyncio.timeout(_WAIT_SECONDS):
            await _checks.acquire()
    except TimeoutError:
        raise DreameryError("overloaded", retry_after=_WAIT_SECONDS) from None
    try:
        yield
    finally:
        _checks.release()


@router.post(
    "/session/password",
    summary="Sign in to the console with a password",
    status_code=201,
    responses={**_SIGNED_IN, **error_responses(401, 403, 429, 503)},
)
async def sign_in_with_password(request: Request, body: PasswordSignIn) -> Response:
    """Sets a session cookie. The session ends without use after `DREAMERY_CONSOLE_SESSION_HOURS`, with `keep` after
    30 days, and when the user is disabled or ends it.
    """
    check_origin(request, base_url(request))
    await sessions.check_attempts(request, body.name)
    async with place_for_check():
        caller = await run_in_threadpool(_check_password, body)
    if caller is None:
        error = DreameryError("invalid_credentials", param="password")
        await sessions.record_failure(request, error, body.name)
        raise error
    return await _begin(request, caller, method="password", keep=body.keep)


def _check_password(body: PasswordSignIn) -> Caller | None:
    with transaction() as tx:
        owner = sign_in.find_password(tx, name=body.name)
    # Also without such a user, so that the time tells nothing.
    if not is_password(body.password, owner.password_hash if owner else None) or owner is None:
        return None
    with transaction() as tx:
        return caller_of_key(sign_in.console_key(tx, owner.id))


async def _begin(request: Request, caller: Caller, *, method: str, keep: bool) -> Response:
    def begin() -> str:
        with transaction() as tx:
            return sessions.begin(tx, request, caller, method=method, persistent=keep)

    return sessions.answer(request, caller, await run_in_threadpool(begin), persistent=keep)


@router.post(
    "/session/invitation/look",
    summary="Look at an invitation",
    responses={200: {"model": Invitation, "description": "The invitation."}, **error_responses(403, 410, 429)},
)
async def look_at_invitation(request: Request, body: InvitationToken) -> Response:
    """Returns for whom an invitation is, without using it."""
    check_origin(request, base_url(request))
    await sessions.check_attempts(request)

    def find() -> Response | None:
        with transaction() as tx:
            row = sign_in.find_invitation(tx, body.token)
        if row is None:
            return None
        found = {
            "object": "invitation",
            "user": row.name,
            "state": row.state,
            "expires_at": unix_seconds(row.expires_at),
        }
        return json_response(found, headers=sessions.NO_STORE)

    response = await run_in_threadpool(find)
    if response is None:
        raise await _refused(request)
    return response


async def _refused(request: Request) -> DreameryError:
    error = DreameryError("invitation_invalid", param="token")
    await sessions.record_failure(request, error)
    return error


@router.post(
    "/session/invitation",
    summary="Sign in to the console with an invitation",
    status_code=201,
    responses={**_SIGNED_IN, **error_responses(400, 403, 410, 429, 503)},
)
async def sign_in_with_invitation(request: Request, body: InvitationUse) -> Response:
    """Uses the invitation: it works once. With `password` the user can sign in with it from then on."""
    check_origin(request, base_url(request))
    await sessions.check_attempts(request)
    async with place_for_check():
        caller = await run_in_threadpool(_use_invitation, body)
    if caller is None:
        raise await _refused(request)
    return await _begin(request, caller, method="invitation", keep=body.keep)


def _use_invitation(body: InvitationUse) -> Caller | None:
    with transaction() as tx:
        row = sign_in.find_invitation(tx, body.token)
    if row is None or row.state != "open":
        return None
    # Before the invitation is used: a refused password must not cost it.
    password_hash = hash_password(body.password, name=row.name) if body.password is not None else None
    with transaction() as tx:
        if not sign_in.use_invitation(tx, body.token):
            return None
        if password_hash is not None:
            sign_in.set_password(tx, row.user_id, password_hash)
        return caller_of_key(sign_in.console_key(tx, row.user_id))
