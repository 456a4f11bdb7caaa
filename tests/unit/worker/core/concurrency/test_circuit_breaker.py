"""Callers of a server that is away do not wait for it one after the other."""

from worker.core.concurrency import circuit_breaker
from worker.core.concurrency.circuit_breaker import CircuitBreaker


def test_one_caller_per_pause_tries() -> None:
    breaker = CircuitBreaker()
    assert breaker.may_call()
    assert breaker.may_call()
    breaker.record(success=False)
    assert not breaker.may_call()
    breaker._skip_until = 1.0  # the pause is over
    assert breaker.may_call()
    assert not breaker.may_call()  # while the first caller tries
    breaker.record(success=True)
    assert breaker.may_call()
    assert breaker.may_call()


def test_pauses_grow_to_a_limit_and_begin_anew() -> None:
    breaker = CircuitBreaker()
    pauses = []
    for _ in range(5):
        breaker.record(success=False)
        pauses.append(breaker._pause)
    assert pauses == [2.0, 4.0, 4.0, 4.0, 4.0]
    breaker.record(success=True)
    assert breaker._pause == circuit_breaker.PAUSE_SECONDS


def test_a_caller_that_never_reports_is_not_waited_for_forever() -> None:
    breaker = CircuitBreaker()
    breaker.record(success=False)
    breaker._skip_until = 1.0
    assert breaker.may_call()
    assert breaker._skip_until > 1.0
    breaker._skip_until = 1.0
    assert breaker.may_call()
