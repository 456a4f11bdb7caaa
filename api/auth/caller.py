"""The authenticated caller of a request: whose it is, what it may do, and which accounts its jobs may use."""

from collections.abc import Collection
from dataclasses import dataclass, field
from operator import itemgetter
from uuid import UUID

from api.auth.schedule import NOW, Schedule
from api.auth.session_tokens import encrypt_session_token
from worker.core.catalog.money import CostLimit
from worker.core.errors import DreameryError
from worker.core.quotas import Limit, OwnLimits, effective_limits
from worker.core.security.session_tokens import SessionToken
from worker.core.settings import get_settings
from worker.db.accounts import accounts
from worker.db.engine import Transaction
from worker.db.jobs.queries import Viewer
from worker.db.users.quotas import Subject


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
    accounts: frozenset[UUID] | None = None  # that may be used, beside those of `account_groups`; both None = all
    account_groups: frozenset[str] | None = None
    schedule: Schedule = NOW
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
        of_key = [*sorted(str(one) for one in self.accounts or ()), *sorted(self.account_groups or ())]
        return ",".join([*([] if self.account_choice == "any" else [self.account_choice]), *names, *of_key])

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
