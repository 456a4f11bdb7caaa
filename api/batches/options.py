"""What the request of a batch asked for, as its row keeps it for the process that works on it."""

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from api.auth.caller import Caller
from api.auth.schedule import Schedule, check_schedule
from api.batches.schemas import ENDPOINTS, MIXED, BatchCreate
from worker.core.catalog.money import CostLimit
from worker.core.errors import DreameryError

_WINDOW = re.compile(r"([1-9][0-9]{0,2})([hd])")
_MOST_WINDOW = timedelta(days=30)
_SHORTEST_KEPT, _LONGEST_KEPT = 3600, 2_592_000


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """`base` = the prefix of links. `choice` and `providers` = whose accounts, as the header `X-Accounts` says."""

    completion_window: str
    base: str
    is_csv: bool = False
    webhook: str | None = None
    max_cost: int | None = None  # thousandths
    max_cost_currency: str | None = None
    max_credits: int | None = None
    choice: str = "any"
    providers: list[str] | None = None
    keep_output_seconds: int | None = None

    def as_row(self) -> dict[str, Any]:
        """Return the options as JSON."""
        return asdict(self)

    @classmethod
    def of_row(cls, options: dict[str, Any]) -> "BatchOptions":
        """Read the options of a row. Names that a newer process wrote are ignored."""
        return cls(**{name: value for name, value in options.items() if name in cls.__dataclass_fields__})

    @property
    def cost_limit(self) -> CostLimit | None:
        """The most money that the batch may cost."""
        return None if self.max_cost is None else CostLimit(self.max_cost, self.max_cost_currency)


def options_of(body: BatchCreate, caller: Caller, base: str, *, is_csv: bool) -> BatchOptions:
    """Return the options of a request. Raises `invalid_value`."""
    limit = body.max_cost or caller.max_cost
    return BatchOptions(
        completion_window=body.completion_window,
        base=base,
        is_csv=is_csv,
        webhook=body.webhook or None,
        max_cost=limit.amount if limit else None,
        max_cost_currency=limit.currency if limit else None,
        max_credits=body.max_credits,
        choice=caller.account_choice,
        providers=None if caller.providers is None else sorted(caller.providers),
        keep_output_seconds=kept_seconds(body.output_expires_after, "output_expires_after"),
    )


def kept_seconds(value: dict[str, Any] | None, param: str) -> int | None:
    """Return the seconds of OpenAI's `expires_after`; None = kept. Raises `invalid_value`."""
    if not value:
        return None
    try:
        seconds = int(str(value.get("seconds")))
    except ValueError:
        seconds = 0
    if value.get("anchor", "created_at") != "created_at" or not _SHORTEST_KEPT <= seconds <= _LONGEST_KEPT:
        message = f"`{param}` has the anchor `created_at` and {_SHORTEST_KEPT} to {_LONGEST_KEPT} `seconds`."
        raise DreameryError("invalid_value", message, param=param)
    return seconds


def checked_endpoint(endpoint: str | None) -> str:
    """Return the endpoint of a batch. Raises `invalid_value`."""
    found = (endpoint or MIXED).strip()
    if found not in {MIXED, *ENDPOINTS}:
        message = f"`endpoint` must be one of {', '.join(ENDPOINTS)}, or `{MIXED}`; got {found[:60]!r}."
        raise DreameryError("invalid_value", message, param="endpoint")
    return found


def batch_times(body: BatchCreate, caller: Caller) -> tuple[Schedule, datetime]:
    """Return the schedule of a batch and its end. The fields of the body come before the headers."""
    headers = caller.schedule
    given = Schedule(
        body.not_before or headers.not_before,
        body.expires_at or headers.expires_at,
        body.priority == "idle" or headers.idle,
    )
    schedule = check_schedule(given, not_before_param="not_before", expires_at_param="expires_at")
    window = _window(body.completion_window)
    return schedule, schedule.expires_at or (schedule.not_before or datetime.now(UTC)) + window


def _window(text: str) -> timedelta:
    match = _WINDOW.fullmatch(text.strip().lower())
    window = timedelta(**{"hours" if match[2] == "h" else "days": int(match[1])}) if match else timedelta()
    if not window or window > _MOST_WINDOW:
        message = f"`completion_window` is `24h`, or another time from `1h` to `30d`; got {text[:20]!r}."
        raise DreameryError("invalid_value", message, param="completion_window")
    return window
