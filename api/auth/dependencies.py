"""Authentication: an API key, a console session or upstream session ids become a `Caller`; permission dependencies."""

import asyncio
import hashlib
import hmac
import math
import re
from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from api.auth import account_choice
from api.auth.caller import Caller
from api.auth.caller_checks import CallerChecks, OpenCaller
from api.auth.console_session import check_csrf, read_session_cookie
from api.auth.failed_login_limits import FailedLoginLimiter
from api.auth.known_keys import Tokens, resolve_tokens
from api.auth.schedule import ScheduleDep
from api.http.clients.interruption import Interruption
from api.http.own_file_links import set_request_origin
from api.http.responses import base_url
from worker.core.concurrency.keyed_batches import KeyedBatches, Left
from worker.core.errors import DreameryError
from worker.core.quotas import REQUESTS
from worker.core.settings import get_settings
from worker.db.engine import is_database_away, transaction
from worker.db.users import api_keys, console_sessions
from worker.db.users.api_keys import KeyOwner
from worker.db.users.audit_log import Actor
from worker.db.users.permissions import KeyRights
from worker.messaging.rate_limits import RequestLimits

# Used only for the OpenAPI document and the Authorize button of /docs.
_BEARER = HTTPBearer(auto_error=False, description="`sk-dreamery-...`, or upstream session ids where they are enabled")

# Words before a key: OpenAI's, and those of fal, Replicate and other gateways. Clients send `Bearer Bearer KEY` too.
_SCHEME = re.compile(r"(?:bearer|token|key|api-?key)(?:\s+|$)", re.IGNORECASE)
_KEY_HEADERS = ("api-key", "x-api-key")


def read_credential(request: Request) -> str:
    """Return the credential from the request headers, or an empty string.

    Accepted are `Authorization: Bearer KEY`, the words of other gateways in place of `Bearer`, the bare key or list of
    session ids, and `api-key` (Azure) or `x-api-key`. Schemes such as `Basic` carry no key of ours.
    """
    header = credential = request.headers.get("authorization", "").strip()
    while (match := _SCHEME.match(credential)) is not None:
        credential = credential[match.end() :].strip()
    # Without a known word: one key, or a list of session ids. Another space means another scheme.
    if credential and (credential != header or all(len(part.split()) <= 1 for part in header.split(","))):
        return credential
    return next((value for name in _KEY_HEADERS if (value := request.headers.get(name, "").strip())), "")


def _from_tokens(hashed: Tokens) -> Caller:
    digest = hashlib.sha256(",".join(sorted(h for h, _ in hashed)).encode()).hexdigest()
    return Caller(owner=f"tokens:{digest[:40]}", tokens=hashed)


_TOKENS_ARE_OFF = (
    "Invalid API key. Send `Authorization: Bearer <key>` with a valid key. Session tokens are off: set "
    "DREAMERY_SESSION_TOKENS=on (for docker compose in `.env`) and restart to accept upstream session ids."
)


async def caller_from_key(request: Request, bearer: str) -> Caller:
    """Authenticate an API key for the console sign-in. Raises `invalid_api_key`, also for session ids."""
    if _is_key(bearer):
        return await _authenticate_key(request, bearer)
    message = "Sign in with an API key (`sk-dreamery-...`) of a user; upstream session ids cannot sign in."
    raise DreameryError("invalid_api_key", message)


async def _from_key(key: str) -> Caller:
    """Look the key up in the database for each request, so that a revoked key is refused at once.

    Requests that arrive during a look-up share the next one.
    """
    found = await _look_ups.add(asyncio.get_running_loop(), key)
    if found is None:
        may_be_token = not get_settings().session_tokens and not _is_key(key)
        raise DreameryError("invalid_api_key", _TOKENS_ARE_OFF if may_be_token else None)
    return caller_of_key(found)


def _find_together(keys: list[str]) -> list[KeyOwner | Left | None]:
    with transaction(plan_once=True) as tx:
        found = api_keys.find_keys(tx, keys)
    return [found.get(key) for key in keys]


def _find_alone(key: str) -> KeyOwner | None:
    with transaction(plan_once=True) as tx:
        return api_keys.find_key(tx, key)


_look_ups: KeyedBatches[asyncio.AbstractEventLoop, str, KeyOwner | None] = KeyedBatches(
    _find_together, alone=_find_alone, is_fatal=is_database_away
)


def _from_session(session_id: str) -> Caller:
    with transaction() as tx:
        found = console_sessions.find_session(tx, session_id, hours=get_settings().console_session_hours)
        disabled = found is None and console_sessions.is_of_disabled_user(tx, session_id)
    if disabled:
        raise DreameryError("invalid_api_key", "This user is disabled. Ask an administrator.")
    if found is None:
        raise DreameryError("invalid_api_key", "The console session has ended. Sign in again.")
    return caller_of_key(found)


def caller_of_key(found: KeyOwner) -> Caller:
    """Return the caller that the owner of a key is."""
    return Caller(
        owner=f"user:{found.user_id}",
        user_id=found.user_id,
        api_key_id=found.api_key_id,
        role=found.role,
        name=found.name,
        scopes=found.scopes,
        models=found.models,
        providers=found.providers,
        accounts=found.accounts,
        account_groups=found.account_groups,
        key_root=found.root_id,
        user_limits=found.user_limits,
        key_limits=found.key_limits,
    )


async def get_caller(request: Request, _scheme: Annotated[object, Depends(_BEARER)] = None) -> Caller:
    """Authenticate and count a request. Raises missing_api_key, invalid_api_key (401) or rate_limit_exceeded (429).

    Dependencies run before the route reads the body, so a rejected upload is not read.
    """
    caller = await _authenticate(request)
    _count_open_request(request, caller)
    _check_while_open(request, caller)
    await _count_rate(request, caller)
    return caller


def _check_while_open(request: Request, caller: Caller) -> None:
    """Let the request end when its caller loses rights. Session ids as keys cannot be revoked here."""
    checks: CallerChecks | None = getattr(request.app.state, "caller_checks", None)
    interruption: Interruption | None = getattr(request.state, "interruption", None)
    if checks is not None and interruption is not None and caller.api_key_id is not None:
        rights = KeyRights(role=caller.role, scopes=caller.scopes, models=caller.models)
        session_id = getattr(request.state, "console_session", "")
        checks.watch(interruption, OpenCaller(caller.api_key_id, rights, session_id))


def _count_open_request(request: Request, caller: Caller) -> None:
    """Count the request as open until its response was sent; a second authentication does not count again."""
    if getattr(request.state, "open_requests_caller", None) is None:
        request.state.open_requests.begin_for_caller(caller.owner)
        request.state.open_requests_caller = caller.owner


async def _count_rate(request: Request, caller: Caller) -> None:
    """Count a POST request towards the rate limit; reading and cancelling are free, so polling does not use it up.

    A message of MCP is free too: what its tool calls within the process is counted as the same call from outside.
    """
    limits: RequestLimits | None = getattr(request.app.state, "limits", None)
    if limits is None or request.method != "POST" or request.url.path.endswith(("/cancel", "/mcp")):
        return
    status = await limits.count(request_rate_rules(caller))
    if status is None:
        return
    request.state.rate_limit_status = status
    if not status.allowed:
        message = f"More than {status.limit} requests per minute. Wait and then send requests more slowly."
        raise DreameryError("rate_limit_exceeded", message, retry_after=math.ceil(status.reset_seconds))


def request_rate_rules(caller: Caller) -> list[tuple[str, int]]:
    """The rate-limit rules of a caller: (counter name, allowed requests per minute)."""
    counters = {"user": caller.owner, "key": f"key:{caller.key_root}"}
    return [
        (counters[limit.scope], limit.hard)
        for limit in caller.limits
        if limit.name == REQUESTS and limit.hard is not None
    ]


async def _authenticate(request: Request) -> Caller:
    base = base_url(request)
    set_request_origin(base)
    bearer = read_credential(request)
    if not bearer:
        return await _authenticate_session(request, base)
    if get_settings().session_tokens and not _is_key(bearer):
        return _from_tokens(await resolve_tokens(bearer))
    return await _authenticate_key(request, bearer)


async def _authenticate_key(request: Request, bearer: str) -> Caller:
    failed: FailedLoginLimiter | None = getattr(request.app.state, "failed_logins", None)
    if failed is None:  # the lifespan of the app did not run
        return await _from_key(bearer)
    await failed.check(request, bearer)
    try:
        caller = await _from_key(bearer)
    except DreameryError:
        await failed.record(request, bearer, valid=False)
        raise
    await failed.record(request, bearer, valid=True)
    return caller


async def _authenticate_session(request: Request, base: str) -> Caller:
    session_id = read_session_cookie(request, base)
    if not session_id:
        raise DreameryError("missing_api_key")
    check_csrf(request, base, session_id)
    request.state.console_session = session_id
    return await run_in_threadpool(_from_session, session_id)


def _is_key(bearer: str) -> bool:
    # The operator chooses the bootstrap key, so it may lack our prefix.
    return bearer.startswith(api_keys.KEY_PREFIX) or _is_admin_key(bearer)


def _is_admin_key(bearer: str) -> bool:
    return hmac.compare_digest(bearer.encode(), get_settings().admin_key.get_secret_value().encode())


CallerDep = Annotated[Caller, Depends(get_caller)]


async def require_generate(
    caller: CallerDep,
    when: ScheduleDep,
    x_accounts: Annotated[str, Header(description=account_choice.DESCRIPTION)] = "any",
    x_max_cost: Annotated[str, Header(description=account_choice.MAX_COST_DESCRIPTION)] = "",
) -> Caller:
    """A caller who may create jobs; for every creating route. Raises `invalid_value` for another choice of accounts."""
    caller.require_scope("generate")
    choice = account_choice.parse_account_choice(x_accounts)
    if choice.providers is not None:
        caller.require_providers(choice.providers)
    tokens = caller.tokens
    if choice.providers is not None:
        tokens = tuple((digest, token) for digest, token in tokens if token.provider in choice.providers)
        if caller.tokens and not tokens:
            message = f"None of your session ids is of {' or '.join(sorted(choice.providers))}, as `X-Accounts` asks."
            raise DreameryError("invalid_value", message, param="x-accounts")
    return replace(
        caller,
        account_choice=choice.owners,
        providers=choice.providers or caller.providers,
        tokens=tokens,
        max_cost=account_choice.parse_max_cost(x_max_cost),
        schedule=when,
    )


async def require_read(caller: CallerDep) -> Caller:
    """A caller who may read jobs: all of its user's, or with `generate` alone those that its key created."""
    if not caller.has_scope("generate"):
        caller.require_scope("read")
    return caller


async def require_full_read(caller: CallerDep) -> Caller:
    """A caller who may read everything of its user; for things that belong to no single key, such as webhooks."""
    caller.require_scope("read")
    return caller


async def require_webhook_management(caller: CallerDep) -> Caller:
    """A caller who may manage webhooks: they receive the events of all jobs of the user, so both scopes are needed."""
    caller.require_scope("generate")
    caller.require_scope("read")
    return caller


async def require_admin(caller: CallerDep) -> Caller:
    """A caller who may administer the platform."""
    caller.require_scope("admin")
    return caller


GenerateDep = Annotated[Caller, Depends(require_generate)]
ReadDep = Annotated[Caller, Depends(require_read)]
FullReadDep = Annotated[Caller, Depends(require_full_read)]
WebhookManagementDep = Annotated[Caller, Depends(require_webhook_management)]
AdminDep = Annotated[Caller, Depends(require_admin)]


def audit_actor(request: Request, caller: Caller) -> Actor:
    """The actor of an audit log entry: user and network address."""
    address = request.client.host if request.client else ""
    return Actor(name=caller.name or "session tokens", user_id=caller.user_id, address=address)
