"""Which earlier request a new one repeats: it joins the jobs of that one and no second job is made (openai-compat 8).

A request marked as a repeat (`x-stainless-retry-count`) joins one whose HTTP request is over. One without a mark joins
only what was never answered: the wait ran out or the connection was cut. Whatever is still open is a wish of its own.
"""

from dataclasses import dataclass
from typing import Literal

from api.http.request_tracker import LEASE_SECONDS, Visit
from worker.db.engine import Transaction
from worker.db.jobs import idempotency
from worker.db.jobs.idempotency import Earlier, NewRequest

# How long after an end without an answer the same request without a mark is taken for a repeat.
UNMARKED_SECONDS = 300.0
# How long a marked repeat waits for the end of the open request that it seems to repeat: news of a cut may be late.
_MARKED_PATIENCE = 2.0
# How long any repeat waits to learn whether another process lives.
_LIFE_PATIENCE = LEASE_SECONDS + 1.0


State = Literal["open", "unsure", "answered", "timeout", "cut"]


@dataclass(frozen=True, slots=True)
class _Seen:
    """An earlier request, judged: `open`, `unsure` (ask again), or how it ended and how long ago."""

    earlier: Earlier
    state: State
    age: float = 0.0


class UnsureError(Exception):
    """It cannot be told yet whether this is a repeat: ask again in a moment."""


def joined(tx: Transaction, request: NewRequest, visit: Visit) -> Earlier | None:
    """The request that this one repeats, taken over from; None = it is a new wish. Raises UnsureError.

    Call it in the transaction that accepts, after `lock_twins`.
    """
    waited = visit.waited  # before the ages are read, or a sign of life from before our arrival would seem younger
    found = choose([_judge(earlier, visit, waited) for earlier in idempotency.similar_requests(tx, request)], visit)
    if found is None:
        return None
    visit.group_id = found.group_id
    if found.holder == visit.id or idempotency.take_over(tx, found, visit.holder):
        return found
    raise UnsureError


def _judge(earlier: Earlier, visit: Visit, waited: float) -> _Seen:
    """Whether the HTTP request of `earlier` is over, by the rows, by what this process knows, or by its silence."""
    if earlier.ended_how is not None:
        return _Seen(earlier, _end(earlier.ended_how), earlier.ended_age or 0.0)
    if earlier.given_up_age is not None and earlier.given_up_age > 0:
        return _Seen(earlier, "cut", earlier.given_up_age)
    if earlier.process == visit.attendance.process:
        return _Seen(earlier, _here(visit.attendance.known(earlier.holder)))
    return _elsewhere(earlier, waited)


def _here(known: Visit | None) -> State:
    if known is None:
        return "unsure"  # open in a row that was read before: its end was written in between
    return known.ended or ("cut" if known.gone.is_set() else "open")


def _elsewhere(earlier: Earlier, waited: float) -> _Seen:
    if earlier.seen_age is None:
        return _Seen(earlier, "cut", earlier.held_age)
    if earlier.seen_age > LEASE_SECONDS:
        return _Seen(earlier, "cut", earlier.seen_age)
    # With each sign of life come the ends before it, so one from after our arrival proves that it is open.
    return _Seen(earlier, "open" if earlier.seen_age < waited else "unsure")


def _end(how: str) -> State:
    return "timeout" if how == "timeout" else "answered" if how == "answered" else "cut"


def choose(seen: list[_Seen], visit: Visit) -> Earlier | None:
    """The one to join. Raises UnsureError when that cannot be told yet."""
    if mine := next((one for one in seen if one.earlier.holder == visit.id), None):
        return mine.earlier  # joined by a transaction of ours whose commit was not answered
    unanswered = [one for one in seen if one.state in {"timeout", "cut"}]
    unsure = any(one.state == "unsure" for one in seen)
    if visit.retries == 0:
        # Whoever cancelled a job and asks again wants a new one.
        fresh = [one for one in unanswered if one.age <= UNMARKED_SECONDS and not one.earlier.cancelled]
        if not fresh and unsure and visit.waited < _LIFE_PATIENCE:
            raise UnsureError
        return _newest(fresh)
    if unanswered:
        return _newest(unanswered)
    # Their first request is over, and a repeat of it stands there already.
    repeated = [one for one in seen if one.state in {"open", "unsure"} and one.earlier.joins > 0]
    if repeated:
        return min(repeated, key=lambda one: one.earlier.joins).earlier
    if (unsure and visit.waited < _LIFE_PATIENCE) or (
        any(one.state == "open" for one in seen) and visit.waited < _MARKED_PATIENCE
    ):
        raise UnsureError
    return _newest([one for one in seen if one.state == "answered"])


def _newest(seen: list[_Seen]) -> Earlier | None:
    return min(seen, key=lambda one: one.age).earlier if seen else None
