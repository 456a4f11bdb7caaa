"""Who calls: an API key, a console session or upstream session ids -> `Caller`. And what a request prefers."""

import hashlib
import hmac
import math
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Depends, Header, Request
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from api.auth.console_session import check_page, session_of
from api.auth.failed_login_limits import FailedKeys
from api.auth.session_tokens import presented, read_tokens
from api.http.own_file_links import note_origin
from api.http.responses import base_url
from worker.core.errors import DreameryError
from worker.core.quotas import REQUESTS, Limit, OwnLimits, limits_of
from worker.core.security.session_tokens import SessionToken
from worker.core.settings import get_settings
from worker.db.accounts import accounts
from worker.db.engine import Transaction, transaction
from worker.db.jobs.queries import Viewer
from worker.db.users import api_keys, console_sessions
from worker.db.users.audit_log import Actor
from worker.db.users.quotas import Subject
from worker.messaging.rate_limits import RequestLimits

# Only for the OpenAPI document and the Authorize button of /docs.
_BEARER = HTTPBearer(
    auto_error=False, description="`sk-dreamery-...`, or upstream session ids where they are switched on"
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. With `tokens` each job runs on one of exactly these accounts; else on the platform's pool."""

    owner: str
    user_id: UUID | None = None
    api_key_id: UUID | None = None
    role: str = "member"
    name: str = ""
    scopes: frozenset[str] | None = None  # None = all that the role allows
    models: frozenset[str] | None = None  # public ids; None = all
    account_choice: str = "any"  # see `worker.db.accounts.eligibility.CHOICES`
    tokens: tuple[tuple[str, SessionToken], ...] = field(default=(), repr=False)  # (lookup hash, token)
    key_root: UUID | None = None  # the first key of this key's line: what was rotated counts as one
    user_limits: OwnLimits = field(default_factory=OwnLimits)
    key_limits: OwnLimits = field(default_factory=OwnLimits)

    @property
    def scope(self) -> str:
        """Within what Idempotency-Keys and repeats count: the API key, or the set of session ids."""
        return f"key:{self.api_key_id}" if self.api_key_id is not None else self.owner

    def may(self, scope: str) -> bool:
        """Whether the caller may do such things: `generate`, `read` or `admin`. Deny by default."""
        if self.scopes is not None and scope not in self.scopes:
            return False
        if scope == "admin":
            return self.role == "admin"
        return scope == "read" or self.role in {"admin", "member"}

    def need(self, scope: str) -> None:
        """Raises `forbidden` (403) unless the caller may."""
        if not self.may(scope):
            message = f"This key may not do that: it needs the scope `{scope}`, and its user a role that has it."
            raise DreameryError("forbidden", message)

    @property
    def limits(self) -> list[Limit]:
        """The limits in force for this caller."""
        return limits_of(self.user_limits, self.key_limits, get_settings())

    @property
    def subject(self) -> Subject:
        """Whose budget this caller uses."""
        return Subject(owner=self.owner, user_id=self.user_id, key_root=self.key_root)

    def need_model(self, model_id: str) -> None:
        """Raises `model_not_allowed` (403) when the key is limited to other models."""
        if self.models is not None and model_id not in self.models:
            allowed = ", ".join(sorted(self.models)) or "none"
            message = f"This key may not use model {model_id!r}; it may use: {allowed}."
            raise DreameryError("model_not_allowed", message, param="model")

    def viewer(self, tx: Transaction) -> Viewer:
        """Whose jobs this caller may see. Reading never makes account rows.

        A key without `read` sees what it made itself, or whoever may only generate could not fetch the results.
        """
        if self.user_id is not None:
            return Viewer(user_id=self.user_id, key_root=None if self.may("read") else self.key_root)
        return Viewer(account_ids=list(accounts.find_tokens(tx, [h for h, _ in self.tokens]).values()))

    def account_ids(self, tx: Transaction) -> list[UUID]:
        """The accounts a new job of this caller may use; empty = the pool. Unknown session ids get a row."""
        found = accounts.hold_tokens(tx, [h for h, _ in self.tokens]) if self.tokens else {}
        # In one order for everybody, or two callers with the same new session ids could wait for each other's rows.
        news = sorted(
            ((h, token) for h, token in self.tokens if h not in found or token.proxy is not None), key=itemgetter(0)
        )
        if news:
            sealed = [presented(h, token) for h, token in news]
            found |= dict(zip((h for h, _ in news), accounts.ensure_tokens(tx, sealed), strict=True))
        return [found[h] for h, _ in self.tokens]


def get_bearer(request: Request) -> str:
    """The credential of a request's headers, or an empty text."""
    header = request.headers.get("authorization", "").strip()
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return request.headers.get("api-key", "").strip()


def _from_tokens(bearer: str) -> Caller:
    hashed = read_tokens(bearer)
    digest = hashlib.sha256(",".join(sorted(h for h, _ in hashed)).encode()).hexdigest()
    return Caller(owner=f"tokens:{digest[:40]}", tokens=hashed)


async def caller_of_key(request: Request, bearer: str) -> Caller:
    """The owner of an API key, for signing in to the console. Raises `invalid_api_key`, also for session ids."""
    if _is_key(bearer):
        return await _by_key(request, bearer)
    message = "Sign in with an API key (`sk-dreamery-...`) of a user; upstream session ids cannot sign in."
    raise DreameryError("invalid_api_key", message)


def _from_key(key: str) -> Caller:
    with transaction() as tx:
        found = api_keys.find_key(tx, key)
    if found is None:
        raise DreameryError("invalid_api_key")
    return _caller(found)


def _from_session(session_id: str) -> Caller:
    with transaction() as tx:
        found = console_sessions.find_session(tx, session_id, hours=get_settings().console_session_hours)
    if found is None:
        raise DreameryError("invalid_api_key", "The console session is over. Sign in again.")
    return _caller(found)


def _caller(found: api_keys.KeyOwner) -> Caller:
    return Caller(
        owner=f"user:{found.user_id}",
        user_id=found.user_id,
        api_key_id=found.api_key_id,
        role=found.role,
        name=found.name,
        scopes=found.scopes,
        models=found.models,
        key_root=found.root_id,
        user_limits=found.user_limits,
        key_limits=found.key_limits,
    )


async def get_caller(request: Request, _scheme: Annotated[object, Depends(_BEARER)] = None) -> Caller:
    """The caller of a request, counted. Raises missing_api_key or invalid_api_key (401), rate_limit_exceeded (429).

    Dependencies are solved before a route reads its body, so none of this costs the reading of an upload.
    """
    caller = await _who_calls(request)
    _count_open(request, caller)
    await _count(request, caller)
    return caller


def _count_open(request: Request, caller: Caller) -> None:
    """Until its answer has been sent. A route that asks twice who calls is one request."""
    if getattr(request.state, "open_of", None) is None:
        request.state.open_requests.begin_of(caller.owner)
        request.state.open_of = caller.owner


async def _count(request: Request, caller: Caller) -> None:
    """Count requests that create or change something; reading and cancelling are free, or polling would use it up."""
    limits: RequestLimits | None = getattr(request.app.state, "limits", None)
    if limits is None or request.method != "POST" or request.url.path.endswith("/cancel"):
        return
    standing = await limits.count(request_rules(caller))
    if standing is None:
        return
    request.state.standing = standing
    if not standing.allowed:
        message = f"More than {standing.limit} requests in a minute. Wait a little and go on more slowly."
        raise DreameryError("rate_limit_exceeded", message, retry_after=math.ceil(standing.reset_seconds))


def request_rules(caller: Caller) -> list[tuple[str, int]]:
    """What requests per minute are counted by: whose they are, and how many are allowed."""
    of = {"user": caller.owner, "key": f"key:{caller.key_root}"}
    return [(of[one.scope], one.hard) for one in caller.limits if one.name == REQUESTS and one.hard is not None]


async def _who_calls(request: Request) -> Caller:
    base = base_url(request)
    note_origin(base)
    bearer = get_bearer(request)
    if not bearer:
        return await _who_is_signed_in(request, base)
    if get_settings().session_tokens and not _is_key(bearer):
        return _from_tokens(bearer)
    return await _by_key(request, bearer)


async def _by_key(request: Request, bearer: str) -> Caller:
    failed: FailedKeys | None = getattr(request.app.state, "failed_keys", None)
    if failed is None:  # an app that was not started
        return await run_in_threadpool(_from_key, bearer)
    await failed.admit(request, bearer)
    try:
        caller = await run_in_threadpool(_from_key, bearer)
    except DreameryError:
        await failed.note(request, bearer, right=False)
        raise
    await failed.note(request, bearer, right=True)
    return caller


async def _who_is_signed_in(request: Request, base: str) -> Caller:
    session_id = session_of(request, base)
    if not session_id:
        raise DreameryError("missing_api_key")
    check_page(request, base, session_id)
    return await run_in_threadpool(_from_session, session_id)


def _is_key(bearer: str) -> bool:
    # The bootstrap key is the operator's own text and may not carry our prefix.
    return bearer.startswith(api_keys.KEY_PREFIX) or _is_admin_key(bearer)


def _is_admin_key(bearer: str) -> bool:
    return hmac.compare_digest(bearer.encode(), get_settings().admin_key.get_secret_value().encode())


CallerDep = Annotated[Caller, Depends(get_caller)]


_ACCOUNTS = (
    "an API key's jobs run on: `own` = only your own accounts, `pool` = only the platform's, `any` = your own first"
)
AccountChoice = Literal["any", "own", "pool"]


async def get_maker(
    caller: CallerDep, x_accounts: Annotated[AccountChoice, Header(description=_ACCOUNTS)] = "any"
) -> Caller:
    """A caller who may start jobs; for every creating route."""
    caller.need("generate")
    return replace(caller, account_choice=x_accounts)


async def get_reader(caller: CallerDep) -> Caller:
    """A caller who may read jobs: all of its own, or with `generate` alone those that its key made."""
    if not caller.may("generate"):
        caller.need("read")
    return caller


async def get_full_reader(caller: CallerDep) -> Caller:
    """A caller who may read all that is its user's; for what no single key made, such as webhooks."""
    caller.need("read")
    return caller


async def get_keeper(caller: CallerDep) -> Caller:
    """A caller who may say where the events of all of its user's jobs go: it makes things, and reads all."""
    caller.need("generate")
    caller.need("read")
    return caller


async def get_admin(caller: CallerDep) -> Caller:
    """A caller who may administer the platform."""
    caller.need("admin")
    return caller


MakerDep = Annotated[Caller, Depends(get_maker)]
ReaderDep = Annotated[Caller, Depends(get_reader)]
FullReaderDep = Annotated[Caller, Depends(get_full_reader)]
KeeperDep = Annotated[Caller, Depends(get_keeper)]
AdminDep = Annotated[Caller, Depends(get_admin)]


def actor_of(request: Request, caller: Caller) -> Actor:
    """Who acts and from where, for the audit log."""
    address = request.client.host if request.client else ""
    return Actor(name=caller.name or "session tokens", user_id=caller.user_id, address=address)
