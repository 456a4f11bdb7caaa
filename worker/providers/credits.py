"""Credits of an account, and the history of what it was charged, for upstreams that tell them."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Credits:
    """Credits left on an account. `parts`: by kind, under the names that callers know from this upstream."""

    total: int
    parts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CreditRecord:
    """One line of an account's history: credits charged for a submit, or refunded (with the opposite sign)."""

    submit_key: str  # "" = not for a submit
    amount: int
    at: float  # unix seconds


@dataclass(frozen=True, slots=True)
class CreditHistory:
    """A page of an account's history, newest first. It lags behind the submits."""

    total: int | None  # credits left; None = not reported
    records: tuple[CreditRecord, ...]
    cursor: str  # of the next page
    more: bool
    complete: bool  # False: some lines could not be read
