"""Sign-in to the console through the OpenID provider of the settings."""

import secrets
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from api.auth.console_session import read_session_cookie, set_session_cookie
from api.auth.dependencies import audit_actor, caller_of_key
from api.auth.oidc import STATE_SECONDS, OpenIdProvider, PendingSignIn, Person, read_pending, role_of
from api.console import sessions
from api.http.responses import base_url
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.settings import get_settings
from worker.db.engine import Transaction, transaction
from worker.db.users import audit_log, console_sessions, sign_in, users
from worker.messaging import pubsub

router = APIRouter(prefix="/console/oidc", include_in_schema=False)

_COOKIE = "dreamery_oidc"
_PATH = "/console/oidc"
# Why a sign-in failed, in words of the console.
_REASONS = frozenset({"failed", "provider", "no_access", "disabled", "name_taken"})


def _provider(request: Request) -> OpenIdProvider:
    settings = get_settings()
    if not settings.oidc_issuer:
        raise DreameryError("unknown_url", "No OpenID provider is set up (DREAMERY_OIDC_ISSUER).")
    found: OpenIdProvider | None = getattr(request.app.state, "oidc", None)
    if found is None:
        found = request.app.state.oidc = OpenIdProvider(settings)
    return found


def _back_to(request: Request, *, error: DreameryError | None = None) -> RedirectResponse:
    base = base_url(request)
    # A reason, not a text: who writes the address must not write on our page.
    reason = error.detail if error is not None and error.detail in _REASONS else "failed"
    query = f"?sign_in_error={reason}" if error is not None else ""
    response = RedirectResponse(f"{base}/console{query}", status_code=303, headers=sessions.NO_STORE)
    response.delete_cookie(_COOKIE, path=_PATH)
    return response


@router.get("/start")
async def start(request: Request) -> Response:
    """Send the browser to the provider."""
    base, provider = base_url(request), _provider(request)
    try:
        await sessions.check_attempts(request)
        url, pending = await provider.start(f"{base}{_PATH}/callback")
    except DreameryError as error:
        return _back_to(request, error=error)
    response = RedirectResponse(url, status_code=303, headers=sessions.NO_STORE)
    response.set_cookie(
        _COOKIE,
        pending.to_cookie(),
        max_age=STATE_SECONDS,
        path=_PATH,
        httponly=True,
        samesite="lax",
        secure=base.startswith("https:"),
    )
    return response


@router.get("/callback")
async def callback(
    request: Request,
    code: Annotated[str, Query(max_length=4000)] = "",
    state: Annotated[str, Query(max_length=200)] = "",
    error: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Take the answer of the provider and open a session."""
    base, provider = base_url(request), _provider(request)
    try:
        await sessions.check_attempts(request)
        pending = _matching(request, state, code="" if error else code)
        person = await provider.finish(f"{base}{_PATH}/callback", code, pending)
        session_id = await run_in_threadpool(_open, request, person)
    except DreameryError as failure:
        if failure.kind.code == "sign_in_failed":
            await sessions.record_failure(request, failure)
        return _back_to(request, error=failure)
    response = _back_to(request)
    set_session_cookie(response, base, session_id, persistent=True)
    return response


def _matching(request: Request, state: str, *, code: str) -> PendingSignIn:
    """Return what the browser kept for this answer. Raises `sign_in_failed`, also for an answer without a code."""
    pending = read_pending(request.cookies.get(_COOKIE, ""))
    if pending is None or not code or not secrets.compare_digest(pending.state.encode(), state.encode()):
        raise DreameryError("sign_in_failed", detail="failed")
    return pending


def _open(request: Request, person: Person) -> str:
    role = role_of(person, get_settings().oidc_roles)
    if role is None:
        raise DreameryError("sign_in_failed", detail="no_access")
    with transaction() as tx:
        user_id = _find_or_add(tx, request, person, role)
        caller = caller_of_key(sign_in.console_key(tx, user_id))
        tx.on_commit(pubsub.publish_permissions_change)
        return sessions.begin(tx, request, caller, method="oidc", persistent=True)


def _find_or_add(tx: Transaction, request: Request, person: Person, role: str) -> UUID:
    """Return the user of the person. Who is signed in already is linked; who is new gets a user."""
    found = sign_in.find_identity(tx, person.issuer, person.subject)
    if found is not None:
        if found.disabled:
            raise DreameryError("sign_in_failed", detail="disabled")
        if get_settings().oidc_roles and found.role != role:
            # The last administrator keeps the role.
            users.change_user(tx, found.id, role=role, disabled=None)
        return UUID(str(found.id))
    signed_in = _signed_in(tx, request)
    if signed_in is None:
        row = users.add_user(tx, name=person.name, role=role)
        if row is None:
            # The owner of that user signs in as it first, and then here: that links the two.
            raise DreameryError("sign_in_failed", detail="name_taken")
        signed_in = UUID(str(row.id))
    sign_in.add_identity(tx, person.issuer, person.subject, signed_in)
    target = public_id("user", signed_in)
    caller = caller_of_key(sign_in.console_key(tx, signed_in))
    audit_log.record_action(
        tx, audit_actor(request, caller), "user.link_identity", target, name=caller.name, issuer=person.issuer
    )
    return signed_in


def _signed_in(tx: Transaction, request: Request) -> UUID | None:
    session_id = read_session_cookie(request, base_url(request))
    if not session_id:
        return None
    owner = console_sessions.find_session(tx, session_id, hours=get_settings().console_session_hours)
    return owner.user_id if owner is not None and sessions.has_all_rights(caller_of_key(owner)) else None
