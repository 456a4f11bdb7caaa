"""Which earlier request is joined, by what is known of each."""

import time
from typing import Any
from uuid import uuid4

import pytest

from api.generation.deduplication import DuplicateUndecidedError, _EarlierState, select_original
from api.http.request_tracker import RequestTracker, TrackedRequest
from worker.db.jobs.idempotency import Earlier


def seen(state: Any, age: float = 0.0, *, joins: int = 0, cancelled: bool = False) -> _EarlierState:
    earlier = Earlier(
        group_id=uuid4(), holder=uuid4(), process=uuid4(), joins=joins, ended_how=None, ended_age=None, held_age=age,
        given_up_age=None, seen_age=None, cancelled=cancelled,
    )  # fmt: skip
    return _EarlierState(earlier, state, age)


def visit(retries: int = 0, *, waited: float = 0.0) -> TrackedRequest:
    return TrackedRequest(tracker=RequestTracker(), retries=retries, arrived=time.monotonic() - waited)


def test_a_first_request_joins_what_was_never_answered():
    cut = seen("cut", 20)
    assert select_original([seen("timeout", 30), cut, seen("answered"), seen("open")], visit()) is cut.earlier
    assert select_original([seen("answered"), seen("open")], visit()) is None
    assert select_original([seen("cut", 301)], visit()) is None
    assert select_original([seen("cut", cancelled=True)], visit()) is None
    assert select_original([], visit()) is None


def test_a_first_request_waits_only_for_a_sign_of_life():
    with pytest.raises(DuplicateUndecidedError):
        select_original([seen("unsure")], visit())
    assert select_original([seen("unsure")], visit(waited=6.1)) is None
    cut = seen("cut")
    assert select_original([seen("unsure"), cut], visit()) is cut.earlier


def test_a_marked_repeat_joins_whatever_is_over():
    for state in ("cut", "timeout", "answered"):
        over = seen(state, 1000)
        assert select_original([over], visit(1)) is over.earlier
    cut = seen("cut", 500, cancelled=True)
    assert select_original([seen("answered", 1), cut], visit(1)) is cut.earlier


def test_a_marked_repeat_waits_a_moment_for_the_end_of_what_it_repeats():
    answered = seen("answered", 100)
    with pytest.raises(DuplicateUndecidedError):
        select_original([seen("open"), answered], visit(1))
    assert select_original([seen("open"), answered], visit(1, waited=2.1)) is answered.earlier
    assert select_original([seen("open")], visit(1, waited=2.1)) is None


def test_a_marked_repeat_joins_beside_another_repeat():
    repeated = seen("open", joins=1)
    assert select_original([seen("open"), seen("open", joins=3), repeated], visit(2)) is repeated.earlier


def test_a_commit_whose_answer_was_lost_is_found_again():
    mine, other = visit(), seen("cut")
    held = seen("open")
    earlier = Earlier(**{**{name: getattr(held.earlier, name) for name in Earlier.__slots__}, "holder": mine.id})
    assert select_original([other, _EarlierState(earlier, "open")], mine) is earlier
