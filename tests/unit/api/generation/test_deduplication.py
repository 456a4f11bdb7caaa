"""Which earlier request a new one joins, by the state of each."""

import time
from typing import Any
from uuid import uuid4

import pytest

from api.generation.deduplication import DuplicateUndecidedError, _EarlierState, select_original
from api.http.request_tracker import RequestTracker, TrackedRequest
from worker.db.jobs.idempotency import EarlierRequest


def earlier_state(state: Any, age: float = 0.0, *, joins: int = 0, cancelled: bool = False) -> _EarlierState:
    earlier = EarlierRequest(
        group_id=uuid4(), holder=uuid4(), process=uuid4(), joins=joins, ended_how=None, ended_age=None, held_age=age,
        client_timeout_age=None, seen_age=None, cancelled=cancelled,
    )  # fmt: skip
    return _EarlierState(earlier, state, age)


def tracked(retries: int = 0, *, waited: float = 0.0) -> TrackedRequest:
    return TrackedRequest(tracker=RequestTracker(), retries=retries, arrived=time.monotonic() - waited)


def test_unmarked_request_joins_unanswered_request():
    cut = earlier_state("cut", 20)
    assert (
        select_original(
            [earlier_state("timeout", 30), cut, earlier_state("answered"), earlier_state("open")], tracked()
        )
        is cut.earlier
    )
    assert select_original([earlier_state("answered"), earlier_state("open")], tracked()) is None
    assert select_original([earlier_state("cut", 301)], tracked()) is None
    assert select_original([earlier_state("cut", cancelled=True)], tracked()) is None
    assert select_original([], tracked()) is None


def test_unmarked_request_waits_only_for_liveness():
    with pytest.raises(DuplicateUndecidedError):
        select_original([earlier_state("unsure")], tracked())
    assert select_original([earlier_state("unsure")], tracked(waited=6.1)) is None
    cut = earlier_state("cut")
    assert select_original([earlier_state("unsure"), cut], tracked()) is cut.earlier


def test_marked_retry_joins_any_ended_request():
    for state in ("cut", "timeout", "answered"):
        over = earlier_state(state, 1000)
        assert select_original([over], tracked(1)) is over.earlier
    cut = earlier_state("cut", 500, cancelled=True)
    assert select_original([earlier_state("answered", 1), cut], tracked(1)) is cut.earlier


def test_marked_retry_waits_briefly_for_open_request():
    answered = earlier_state("answered", 100)
    with pytest.raises(DuplicateUndecidedError):
        select_original([earlier_state("open"), answered], tracked(1))
    assert select_original([earlier_state("open"), answered], tracked(1, waited=2.1)) is answered.earlier
    assert select_original([earlier_state("open")], tracked(1, waited=2.1)) is None


def test_marked_retry_joins_open_request_with_fewest_joins():
    repeated = earlier_state("open", joins=1)
    assert (
        select_original([earlier_state("open"), earlier_state("open", joins=3), repeated], tracked(2))
        is repeated.earlier
    )


def test_own_commit_with_lost_answer_is_found():
    own, other = tracked(), earlier_state("cut")
    held = earlier_state("open")
    earlier = EarlierRequest(
        **{**{name: getattr(held.earlier, name) for name in EarlierRequest.__slots__}, "holder": own.id}
    )
    assert select_original([other, _EarlierState(earlier, "open")], own) is earlier
