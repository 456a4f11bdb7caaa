"""Who calls: an API key or upstream session ids -> `Caller`. And what a request prefers."""

import hashlib
from dataclasses import dataclass, field
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from worker.core.crypto import lookup_hash, seal_secret
from worker.core.errors import DreameryError
from worker.core.settings import get_settings
from worker.core.tokens import SessionToken, parse_tokens
from worker.db import accounts, people
from worker.db.accounts import PresentedToken
from worker.db.engine import Transaction, transaction
from worker.db.reports import Viewer


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. With `tokens` each job runs on one of exactly these accounts; else on the platform's pool."""

    owner: str
    user_id: UUID | None = None
    api_key_id: UUID | None = None
    role: str = "member"
    tokens: tuple[tuple[str, SessionToken], ...] = field(default=(), repr=False)  # (lookup hash, token)

    def viewer(self, tx: Transaction) -> Viewer:
        """Whose jobs this caller may see. Reading never makes account rows."""
        if self.user_id is not None:
            return Viewer(user_id=self.user_id)
        return Viewer(account_ids=list(accounts.find_tokens(tx, [h for h, _ in self.tokens]).values()))

    def account_ids(self, tx: Transaction) -> list[UUID]:
        """The accounts a new job of this caller may use; empty = the pool. Unknown session ids get a row."""
        found = accounts.find_tokens(tx, [h for h, _ in self.tokens]) if self.tokens else {}
        missing = [(h, token) for h, token in self.tokens if h not in found]
        if missing:
            sealed = [
                PresentedToken(
                    lookup_hash=h,
                    region=token.region,
                    label=f"session-{h[:8]}",
                    secret=seal_secret(token.session, context=accounts.secret_context(h)),
                )
                for h, token in missing
            ]
            found |= dict(zip((h for h, _ in missing), accounts.ensure_tokens(tx, sealed), strict=True))
        return [found[h] for h, _ in self.tokens]


def _bearer(request: Request) -> str:
    header = request.headers.get("authorization", "").strip()
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return request.headers.get("api-key", "").strip()


def token_hash(token: SessionToken) -> str:
    """How a session id is found again: with its region, for the same text may live in two worlds."""
    return lookup_hash(f"{token.region}:{token.session}")


def _from_tokens(bearer: str) -> Caller:
    tokens = parse_tokens(bearer, get_settings().default_region)
    if any(t.region == "sandbox" for t in tokens) and not get_settings().sandbox_url:
        raise DreameryError("invalid_api_key", "Region `sandbox` needs DREAMERY_SANDBOX_URL, which is not set here.")
    hashed = tuple((token_hash(token), token) for token in tokens)
    digest = hashlib.sha256(",".join(sorted(h for h, _ in hashed)).encode()).hexdigest()
    return Caller(owner=f"tokens:{digest[:40]}", tokens=hashed)


def _from_key(key: str) -> Caller:
    with transaction() as tx:
        found = people.find_key(tx, key)
    if found is None:
        raise DreameryError("invalid_api_key")
    return Caller(owner=f"user:{found.user_id}", user_id=found.user_id, api_key_id=found.api_key_id, role=found.role)


async def get_caller(request: Request) -> Caller:
    """The caller of a request. Raises missing_api_key or invalid_api_key (401)."""
    bearer = _bearer(request)
    if not bearer:
        raise DreameryError("missing_api_key")
    # The bootstrap key is the operator's own text and may not carry our prefix.
    if bearer.startswith(people.KEY_PREFIX) or bearer == get_settings().admin_key.get_secret_value():
        return await run_in_threadpool(_from_key, bearer)
    if not get_settings().session_tokens:
        raise DreameryError("invalid_api_key")
    return _from_tokens(bearer)


CallerDep = Annotated[Caller, Depends(get_caller)]


@dataclass(frozen=True, slots=True)
class Preference:
    """How the caller wants to wait: not at all (`wait_seconds` 0), or so long; then 202 or 504."""

    respond_async: bool
    wait_seconds: float
    applied: str | None = None


def get_preference(request: Request) -> Preference:
    """Read RFC 7240 `Prefer` and the SDKs' own read timeout; unknown preferences are ignored."""
    settings = get_settings()
    longest = settings.sync_wait_seconds
    read_timeout = request.headers.get("x-stainless-read-timeout", "")
    try:
        # Answer before the SDK gives up, or it repeats a request that is still running.
        longest = min(longest, max(float(read_timeout) - 5, 1.0))
    except ValueError:
        pass
    respond_async, wait = False, None
    for part in ",".join(request.headers.getlist("prefer")).split(","):
        name, _, value = part.partition(";")[0].strip().lower().partition("=")
        if name == "respond-async":
            respond_async = True
        elif name == "wait" and value.strip('"').isdigit():
            wait = min(float(value.strip('"')), longest)
    if respond_async:
        return Preference(respond_async=True, wait_seconds=wait or 0.0, applied="respond-async")
    return Preference(
        respond_async=False,
        wait_seconds=longest if wait is None else wait,
        applied=None if wait is None else f"wait={int(wait)}",
    )


PreferenceDep = Annotated[Preference, Depends(get_preference)]


def clean_idempotency_key(value: str | None) -> str | None:
    """The key of an `Idempotency-Key` header: a quoted structured string or a bare token, at most 255 characters."""
    if value is None:
        return None
    key = value.strip()
    if len(key) >= 2 and key.startswith('"') and key.endswith('"'):
        key = key[1:-1]
    if not 0 < len(key) <= 255 or not key.isprintable():
        message = "`Idempotency-Key` must have 1 to 255 printable characters."
        raise DreameryError("invalid_value", message, param="Idempotency-Key")
    return key
