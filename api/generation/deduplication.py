"""Finds the earlier request that a new one repeats. The repeat joins its jobs and creates none (openai-compat 8).

A request marked as a retry (`x-stainless-retry-count`) joins an earlier one whose HTTP request has ended. A request
without the mark joins only one that was never answered: the wait timed out or the connection was cut. A request that is
still open is not joined.

Some clients repeat a request although its failure forbids that. An identical request shortly after its own failure gets
the same failure again (`find_repeated_failure`); a caller who wants another try changes the request.
"""

from dataclasses import dataclass
from operator import itemgetter
from typing import Literal

from api.http.request_tracker import LEASE_SECONDS, TrackedRequest
from worker.core.settings import Settings, get_settings
from worker.db.engine import Transaction
from worker.db.jobs import idempotency
from worker.db.jobs.idempotency import EarlierRequest, Failure, NewRequest

# How long after an unanswered request the same request without a mark counts as its repeat.
UNMARKED_SECONDS = 300.0
# How long a marked repeat waits for the open request to end: a disconnect may be noticed late.
_MARKED_WAIT_SECONDS = 2.0
# How long any repeat waits to learn whether another process is alive.
_LIVENESS_WAIT_SECONDS = LEASE_SECONDS + 1.0
# Clients double their pauses, so each repeat of a failure extends its time to four times the age of the repeat, and
# together to at most five times the setting. LangChain's seven attempts take up to 126 seconds.
_REPEAT_FACTOR = 4
_MAX_REPEAT_FACTOR = 5

State = Literal["open", "unsure", "answered", "failed", "timeout", "cut"]


@dataclass(frozen=True, slots=True)
class _EarlierState:
    """State of an earlier request: `open`, `unsure` (check again), or how it ended and how long ago."""

    earlier: EarlierRequest
    state: State
    age: float = 0.0


class DuplicateUndecidedError(Exception):
    """It is not known yet whether this request is a repeat: check again in a moment."""


def join_earlier_request(tx: Transaction, request: NewRequest, tracked: TrackedRequest) -> EarlierRequest | None:
    """Take over and return the request that this one repeats; None for a new request.

    Call it in the accepting transaction, after `lock_duplicates`. Raises DuplicateUndecidedError.
    """
    # Measured before the ages are read: a heartbeat from before our arrival must not seem newer than it.
    waited = tracked.waited
    similar = _classify_all(idempotency.find_similar_requests(tx, request), tracked, waited)
    if not tracked.wants_new_jobs and (failed := find_repeated_failure(similar, tracked, get_settings())):
        # Not taken over: its answer is known, and two repeats at the same time get it both.
        idempotency.record_repeated_failure(tx, failed.group_id)
        return failed
    found = select_original(similar, tracked)
    if found is None:
        return None
    tracked.group_id = found.group_id
    if found.holder == tracked.id or idempotency.take_over(tx, found, tracked.holder):
        return found
    raise DuplicateUndecidedError


def are_new(tx: Transaction, requests: list[tuple[NewRequest, TrackedRequest]]) -> list[bool]:
    """Return for each of these requests without a key of one caller whether it certainly repeats no earlier request.

    Call it in the accepting transaction, after `lock_all_duplicates`. Takes over nothing.
    """
    waited = [tracked.waited for _, tracked in requests]
    similar = idempotency.find_all_similar_requests(tx, [request for request, _ in requests])
    return [
        _is_new(_classify_all(similar[request], tracked, seconds), tracked)
        for (request, tracked), seconds in zip(requests, waited, strict=True)
    ]


def _is_new(similar: list[_EarlierState], tracked: TrackedRequest) -> bool:
    if not tracked.wants_new_jobs and find_repeated_failure(similar, tracked, get_settings()):
        return False
    try:
        return select_original(similar, tracked) is None
    except DuplicateUndecidedError:
        return False


def _classify_all(found: list[EarlierRequest], tracked: TrackedRequest, waited: float) -> list[_EarlierState]:
    return [_classify(earlier, tracked, waited) for earlier in found]


def _classify(earlier: EarlierRequest, tracked: TrackedRequest, waited: float) -> _EarlierState:
    """Return the state of an earlier HTTP request, from its row, this process or the heartbeat of its process."""
    if earlier.ended_how is not None:
        return _EarlierState(earlier, _ended_state(earlier.ended_how, failed=earlier.failed), earlier.ended_age or 0.0)
    if earlier.client_timeout_age is not None and earlier.client_timeout_age > 0:
        return _EarlierState(earlier, "cut", earlier.client_timeout_age)
    if earlier.process == tracked.tracker.process:
        return _EarlierState(earlier, _state_in_this_process(tracked.tracker.find(earlier.holder)))
    return _state_in_other_process(earlier, waited)


def _state_in_this_process(known: TrackedRequest | None) -> State:
    if known is None:
        return "unsure"  # the row was read before its end was written
    if known.ended is not None:
        return _ended_state(known.ended, failed=known.failed)
    return "cut" if known.disconnected.is_set() else "open"


def _state_in_other_process(earlier: EarlierRequest, waited: float) -> _EarlierState:
    if earlier.seen_age is None:
        return _EarlierState(earlier, "cut", earlier.held_age)
    if earlier.seen_age > LEASE_SECONDS:
        return _EarlierState(earlier, "cut", earlier.seen_age)
    # A heartbeat is written together with all earlier ends, so one after our arrival proves that it is open.
    return _EarlierState(earlier, "open" if earlier.seen_age < waited else "unsure")


def _ended_state(how: str, *, failed: bool) -> State:
    if how == "answered":
        return "failed" if failed else "answered"
    return "timeout" if how == "timeout" else "cut"


def find_repeated_failure(
    candidates: list[_EarlierState], tracked: TrackedRequest, settings: Settings
) -> EarlierRequest | None:
    """Return the newest request with the same body whose failure was its answer a short while ago; None = none.

    The whole body counts, also fields without an effect: a caller who changes anything wants another try.
    """
    failures = [
        (one.earlier.failure.age, one.earlier)
        for one in candidates
        if one.state == "failed"
        and one.earlier.body_digest == tracked.body_digest
        and one.earlier.failure is not None
        and _is_repeated(one.earlier.failure, settings)
    ]
    return min(failures, key=itemgetter(0))[1] if failures else None


def _is_repeated(failure: Failure, settings: Settings) -> bool:
    if failure.content:
        return failure.age < settings.repeat_content_refusal_seconds
    seconds = settings.repeat_failure_seconds
    return failure.age < min(max(seconds, _REPEAT_FACTOR * failure.repeated_at), _MAX_REPEAT_FACTOR * seconds)


def select_original(candidates: list[_EarlierState], tracked: TrackedRequest) -> EarlierRequest | None:
    """Return the request to join. Raises DuplicateUndecidedError when that is not known yet."""
    if own := next((one for one in candidates if one.earlier.holder == tracked.id), None):
        return own.earlier  # joined by our own transaction whose commit was not answered
    unanswered = [one for one in candidates if one.state in {"timeout", "cut"}]
    unsure = any(one.state == "unsure" for one in candidates)
    if tracked.retries == 0:
        # A request after a cancelled job asks for a new job.
        fresh = [one for one in unanswered if one.age <= UNMARKED_SECONDS and not one.earlier.cancelled]
        if not fresh and unsure and tracked.waited < _LIVENESS_WAIT_SECONDS:
            raise DuplicateUndecidedError
        return _newest(fresh)
    if unanswered:
        return _newest(unanswered)
    # The first request has ended and a repeat of it is open.
    repeated = [one for one in candidates if one.state in {"open", "unsure"} and one.earlier.joins > 0]
    if repeated:
        return min(repeated, key=lambda one: one.earlier.joins).earlier
    if (unsure and tracked.waited < _LIVENESS_WAIT_SECONDS) or (
        any(one.state == "open" for one in candidates) and tracked.waited < _MARKED_WAIT_SECONDS
    ):
        raise DuplicateUndecidedError
    return _newest([one for one in candidates if one.state in {"answered", "failed"}])


def _newest(candidates: list[_EarlierState]) -> EarlierRequest | None:
    return min(candidates, key=lambda one: one.age).earlier if candidates else None
