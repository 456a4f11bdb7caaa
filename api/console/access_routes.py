"""The signed-in user's own access: password, and the browsers in which the user is signed in."""

from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.auth.console_session import read_session_cookie
from api.auth.dependencies import CallerDep, audit_actor
from api.console import sessions
from api.console.schemas import PasswordChange, SignInMethods
from api.console.sign_in_routes import place_for_check
from api.http.errors import error_responses
from api.http.responses import base_url, json_response, unix_seconds
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.core.security.passwords import hash_password, is_password
from worker.db.engine import Transaction, transaction
from worker.db.users import audit_log, console_sessions, sign_in
from worker.messaging import pubsub

router = APIRouter(prefix="/console", tags=["console"], responses=error_responses(401, 403))

_METHODS: dict[int | str, dict[str, Any]] = {200: {"model": SignInMethods, "description": "How the user can sign in."}}


def methods_object(tx: Transaction, user_id: UUID, *, current: str = "") -> dict[str, Any]:
    """Return how a user can sign in and where it is signed in. Raises `user_not_found`."""
    row = sign_in.sign_in_methods(tx, user_id)
    if row is None:
        raise DreameryError("user_not_found")
    return {
        "object": "sign_in",
        "user": row.name,
        "password": row.has_password,
        "invitation_expires_at": unix_seconds(row.invitation_expires_at),
        "identities": list(row.issuers),
        "sessions": [_session(one) for one in console_sessions.list_sessions(tx, user_id, current=current)],
    }


def _session(row: Any) -> dict[str, Any]:
    return {
        "id": public_id("session", row.id),
        "object": "console.sign_in",
        "method": row.method,
        "persistent": row.persistent,
        "device": row.device,
        "address": row.address,
        "key": row.key_name if row.method == "key" else None,
        "current": row.is_current,
        "created_at": unix_seconds(row.created_at),
        "last_used_at": unix_seconds(row.last_used_at),
        "expires_at": unix_seconds(row.expires_at),
    }


def end_sessions(tx: Transaction, user_id: UUID, session: str | None, *, keep: str = "") -> int:
    """End one session by its public id, or all but `keep`. Raises `unknown_url` if there is no such session."""
    session_id = parse_public_id("session", session) if session is not None else None
    if session is not None and session_id is None:
        raise DreameryError("unknown_url", f"There is no session {session[:60]!r}.")
    ended = console_sessions.end_sessions(tx, user_id, session=session_id, keep=keep)
    if session is not None and not ended:
        raise DreameryError("unknown_url", f"There is no session {session[:60]!r}.")
    tx.on_commit(pubsub.publish_permissions_change)
    return ended


async def require_console_user(request: Request, caller: CallerDep) -> Caller:
    """A user in the console. Keys are refused, and sessions of keys with fewer rights than their user."""
    if not sessions.has_all_rights(caller) or not getattr(request.state, "console_session", ""):
        raise DreameryError("forbidden", "This needs a console session with all rights of its user.")
    return caller


ConsoleUserDep = Annotated[Caller, Depends(require_console_user)]


def _user_of(caller: Caller) -> UUID:
    if caller.user_id is None:
        raise DreameryError("forbidden")
    return caller.user_id


async def _respond(request: Request, caller: Caller, change: Callable[[Transaction, UUID], None]) -> Response:
    user_id, current = _user_of(caller), read_session_cookie(request, base_url(request))

    def run() -> dict[str, Any]:
        with transaction() as tx:
            change(tx, user_id)
            return methods_object(tx, user_id, current=current)

    return json_response(await run_in_threadpool(run), headers=sessions.NO_STORE)


@router.get("/sign-in", summary="Get your ways to sign in", responses=_METHODS)
async def get_methods(request: Request, caller: ConsoleUserDep) -> Response:
    """Returns whether you have a password, and the browsers in which you are signed in."""
    return await _respond(request, caller, lambda _tx, _user: None)


@router.put(
    "/sign-in/password",
    summary="Set your password",
    responses={**_METHODS, **error_responses(400, 401, 429, 503)},
)
async def set_password(request: Request, body: PasswordChange, caller: ConsoleUserDep) -> Response:
    """Sets the password. A user who has one sends it as `current`. Other sessions that began with the old one end."""
    user_id = _user_of(caller)
    await sessions.check_attempts(request, caller.name)
    async with place_for_check():
        hashed = await run_in_threadpool(_new_hash, user_id, body)
    if hashed is None:
        error = DreameryError("invalid_credentials", "The present password is wrong.", param="current")
        await sessions.record_failure(request, error, caller.name)
        raise error
    current = read_session_cookie(request, base_url(request))

    def change(tx: Transaction, user: UUID) -> None:
        sign_in.set_password(tx, user, hashed)
        audit_log.record_action(tx, audit_actor(request, caller), "user.set_password", public_id("user", user))
        end_sessions(tx, user, None, keep=current)

    return await _respond(request, caller, change)


def _new_hash(user_id: UUID, body: PasswordChange) -> str | None:
    """Return the hash of the new password; None if the present one is wrong."""
    with transaction() as tx:
        owner = sign_in.find_password(tx, user_id=user_id)
    if owner is None or (owner.password_hash and not is_password(body.current or "", owner.password_hash)):
        return None
    return hash_password(body.password, name=owner.name)


@router.delete("/sign-in/sessions/{session_id}", summary="End one of your sessions", responses=_METHODS)
async def end_session(request: Request, session_id: str, caller: ConsoleUserDep) -> Response:
    """Signs the browser out."""

    def change(tx: Transaction, user: UUID) -> None:
        end_sessions(tx, user, session_id)
        audit_log.record_action(tx, audit_actor(request, caller), "console.end_session", public_id("user", user))

    return await _respond(request, caller, change)


@router.delete("/sign-in/sessions", summary="End all your other sessions", responses=_METHODS)
async def end_other_sessions(request: Request, caller: ConsoleUserDep) -> Response:
    """Signs all other browsers out."""
    current = read_session_cookie(request, base_url(request))

    def change(tx: Transaction, user: UUID) -> None:
        end_sessions(tx, user, None, keep=current)
        audit_log.record_action(tx, audit_actor(request, caller), "console.end_session", public_id("user", user))

    return await _respond(request, caller, change)
