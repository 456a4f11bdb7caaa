"""Authentication: an API key, a console session or upstream session ids become a `Caller`; permission dependencies."""

import asyncio
import hashlib
import hmac
import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Request
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from api.auth import account_choice
from api.auth.caller_checks import CallerChecks, OpenCaller
from api.auth.console_session import check_csrf, read_session_cookie
from api.auth.failed_login_limits import FailedLoginLimiter
from api.auth.known_keys import Tokens, resolve_tokens
from api.auth.session_tokens import encrypt_session_token
from api.http.clients.interruption import Interruption
from api.http.own_file_links import set_request_origin
from api.http.responses import base_url
from worker.core.catalog.money import CostLimit
from worker.core.concurrency.keyed_batches import KeyedBatches, Left
from worker.core.errors import DreameryError
from worker.core.quotas import REQUESTS, Limit, OwnLimits, effective_limits
from worker.core.security.session_tokens import SessionToken
from worker.core.settings import get_settings
from worker.db.accounts import accounts
from worker.db.engine import Transaction, is_database_away, transaction
from worker.db.jobs.queries import Viewer
from worker.db.users import api_keys, console_sessions
from worker.db.users.api_keys import KeyOwner
from worker.db.users.audit_log import Actor
from worker.db.users.permissions import KeyRights
from worker.db.users.quotas import Subject
from worker.messaging.rate_limits import RequestLimits

# Used only for the OpenAPI document and the Authorize button of /docs.
_BEARER = HTTPBearer(auto_error=False, description="`sk-dreamery-...`, or upstream session ids where they are enabled")

# Words before a key: OpenAI's, and those of fal, Replicate and other gateways. Clients send `Bearer Bearer KEY` too.
_SCHEME = re.compile(r"(?:bearer|token|key|api-?key)(?:\s+|$)", re.IGNORECASE)
_KEY_HEADERS = ("api-key", "x-api-key")


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated caller. With `tokens`, jobs run only on these accounts; otherwise on the account pool."""

    owner: str
    user_id: UUID | None = None
    api_key_id: UUID | None = None
    role: str = "member"
    name: str = ""
    scopes: frozenset[str] | None = None  # None = everything the role allows
    models: frozenset[str] | None = None  # public ids; None = all
    account_choice: str = "any"  # see `worker.db.accounts.eligibility.CHOICES`
    providers: frozenset[str] | None = None  # whose accounts may be used; None = all
    tokens: tuple[tuple[str, SessionToken], ...] = field(default=(), repr=False)  # (lookup hash, token)
    key_root: UUID | None = None  # the first key of a rotation chain; rotated keys count as one
    user_limits: OwnLimits = field(default_factory=OwnLimits)
    key_limits: OwnLimits = field(default_factory=OwnLimits)
    max_cost: CostLimit | None = None  # the most that this request may cost, by its header

    @property
    def scope(self) -> str:
        """The scope of idempotency keys and deduplication: the API key, or the set of session ids."""
        return f"key:{self.api_key_id}" if self.api_key_id is not None else self.owner

    def has_scope(self, scope: str) -> bool:
        """Whether the caller has the scope `generate`, `read` or `admin`. Denied by default."""
        if self.scopes is not None and scope not in self.scopes:
            return False
        if scope == "admin":
            return self.role == "admin"
        return scope == "read" or self.role in {"admin", "member"}

    def require_scope(self, scope: str) -> None:
        """Raise `forbidden` (403) unless the caller has the scope."""
        if not self.has_scope(scope):
            message = (
                f"This key lacks permission: it needs the scope `{scope}`, and its user needs a role with that scope."
            )
            raise DreameryError("forbidden", message)

    @property
    def chosen_accounts(self) -> str:
        """The choice of accounts of this request as text, "" = all of the caller."""
        names = sorted(self.providers or ())
        return ",".join([*([] if self.account_choice == "any" else [self.account_choice]), *names])

    @property
    def limits(self) -> list[Limit]:
        """The limits that apply to this caller."""
        return effective_limits(self.user_limits, self.key_limits, get_settings())

    @property
    def subject(self) -> Subject:
        """The user and key whose quotas this caller uses."""
        return Subject(owner=self.owner, user_id=self.user_id, key_root=self.key_root)

    def require_model(self, model_id: str) -> None:
        """Raise `model_not_allowed` (403) when the key is limited to other models."""
        if self.models is not None and model_id not in self.models:
            allowed = ", ".join(sorted(self.models)) or "none"
            message = f"This key may not use model {model_id!r}; it may use: {allowed}."
            raise DreameryError("model_not_allowed", message, param="model")

    def require_providers(self, providers: Collection[str] | None) -> None:
        """Raise `forbidden` (403) when the key is limited to accounts of other providers; None = of all."""
        if self.providers is not None and not (providers is not None and self.providers.issuperset(providers)):
            names = " or ".join(sorted(self.providers))
            raise DreameryError("forbidden", f"This key may only use accounts of {names}.")

    def viewer(self, tx: Transaction) -> Viewer:
        """The jobs that this caller may see. Reading never creates account rows.

        A key without `read` still sees its own jobs, so that it can fetch its results.
        """
        if self.user_id is not None:
            return Viewer(user_id=self.user_id, key_root=None if self.has_scope("read") else self.key_root)
        return Viewer(account_ids=list(accounts.find_tokens(tx, [h for h, _ in self.tokens]).values()))

    def account_ids(self, tx: Transaction) -> list[UUID]:
        """Ids of the accounts that new jobs may use; empty = the pool. Creates rows for unknown session ids."""
        found = accounts.lock_tokens(tx, [h for h, _ in self.tokens]) if self.tokens else {}
        # Sorted, because two callers with the same new session ids could deadlock on each other's rows.
        new_tokens = sorted(
            ((h, token) for h, token in self.tokens if h not in found or token.proxy is not None), key=itemgetter(0)
        )
        if new_tokens:
            encrypted = [encrypt_session_token(h, token) for h, token in new_tokens]
            found |= dict(zip((h for h, _ in new_tokens), accounts.ensure_tokens(tx, encrypted), strict=True))
        return [found[h] for h, _ in self.tokens]


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
    return _caller(found)


def _find_together(keys: list[str]) -> list[KeyOwner | Left | None]:
    with transaction() as tx:
        found = api_keys.find_keys(tx, keys)
    return [found.get(key) for key in keys]


def _find_alone(key: str) -> KeyOwner | None:
    with transaction() as tx:
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
    return _caller(found)


def _caller(found: KeyOwner) -> Caller:
    return Caller(
        owner=f"user:{found.user_id}",
        user_id=found.user_id,
        api_key_id=found.api_key_id,
        role=found.role,
        name=found.name,
        scopes=found.scopes,
        models=found.models,
        providers=found.providers,
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
