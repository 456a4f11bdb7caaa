"""Begins console sessions, whatever proved who the user is: a key, a password, an invitation, an OpenID provider."""

from typing import Any

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.auth.console_session import csrf_token, set_session_cookie
from api.auth.dependencies import audit_actor
from api.http.clients.address import network_of
from api.http.responses import base_url, json_response
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.settings import get_settings
from worker.db.engine import Transaction, transaction
from worker.db.users import audit_log, console_sessions
from worker.db.users.console_sessions import SessionStart
from worker.messaging.rate_limits import RequestLimits

NO_STORE = {"Cache-Control": "no-store"}
# Nobody guesses a key; of passwords, this many a minute from one network, and for one name from all of them.
_FAILURES_PER_MINUTE = 20
_FAILURES_OF_A_NAME = 60


def session_object(caller: Caller, session_id: str, version: str) -> dict[str, Any]:
    """Return the signed-in user as the console reads it."""
    return {
        "object": "console.session",
        "user": caller.name,
        "role": caller.role,
        "scopes": [scope for scope in ("admin", "generate", "read") if caller.has_scope(scope)],
        "models": None if caller.models is None else sorted(caller.models),
        "csrf_token": csrf_token(session_id),
        "version": version,
    }


def has_all_rights(caller: Caller) -> bool:
    """Whether the caller may do whatever its user may.

    Ways to sign in belong to such callers only. Otherwise a key that was given few rights, or is revoked later, could
    become a password, or be linked with a person of an OpenID provider, and have all of them.
    """
    restrictions = (caller.scopes, caller.models, caller.providers, caller.accounts, caller.account_groups)
    return caller.user_id is not None and set(restrictions) == {None} and not caller.key_limits.hard


async def check_attempts(request: Request, name: str = "") -> None:
    """Raise `rate_limit_exceeded` after too many failed sign-ins of this network, or for this name."""
    limits: RequestLimits | None = getattr(request.app.state, "limits", None)
    if limits is None:
        return
    for kind, who, most in _counters(request, name):
        if await limits.is_limit_reached(kind, who, per_minute=most):
            message = "Too many failed sign-ins from this address. Wait a minute."
            raise DreameryError("rate_limit_exceeded", message, retry_after=60)


async def record_failure(request: Request, error: DreameryError, name: str = "") -> None:
    """Count a failed sign-in and write it to the audit log, without what was sent.

    Raises `rate_limit_exceeded` after too many.
    """
    await check_attempts(request, name)
    limits: RequestLimits | None = getattr(request.app.state, "limits", None)
    if limits is not None:
        for kind, who, most in _counters(request, name):
            await limits.record(kind, who, per_minute=most)
    actor = audit_actor(request, Caller(owner="", name="unknown"))

    def record() -> None:
        with transaction() as tx:
            audit_log.record_action(tx, actor, "console.sign_in_failed", "console", code=error.kind.code)

    await run_in_threadpool(record)


def _counters(request: Request, name: str) -> list[tuple[str, str, int]]:
    of_network = ("sign_in", network_of(request), _FAILURES_PER_MINUTE)
    return [of_network, ("sign_in_name", name.casefold()[:100], _FAILURES_OF_A_NAME)] if name else [of_network]


def begin(tx: Transaction, request: Request, caller: Caller, *, method: str, persistent: bool) -> str:
    """Open a session in the caller's transaction; return its id."""
    if caller.api_key_id is None:
        raise DreameryError("invalid_api_key")
    actor = audit_actor(request, caller)
    start = SessionStart(
        method=method,
        persistent=persistent,
        device=request.headers.get("user-agent", ""),
        address=actor.address,
    )
    session_id = console_sessions.open_session(
        tx, caller.api_key_id, hours=get_settings().console_session_hours, start=start
    )
    target = public_id("key", caller.api_key_id)
    audit_log.record_action(tx, actor, "console.sign_in", target, role=caller.role, method=method)
    return session_id


def answer(request: Request, caller: Caller, session_id: str, *, persistent: bool) -> Response:
    """Return 201 with the session and its cookie."""
    response = json_response(session_object(caller, session_id, request.app.version), status=201, headers=NO_STORE)
    set_session_cookie(response, base_url(request), session_id, persistent=persistent)
    return response
