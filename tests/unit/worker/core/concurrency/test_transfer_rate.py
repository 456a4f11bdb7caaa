"""The lowest rate of a transfer over a sliding window."""

import pytest

from tests.support.servers.fake_clock import use_clock
from worker.core.concurrency import transfer_rate
from worker.core.concurrency.transfer_rate import SlowTransferError, TransferRate


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1000.0]
    use_clock(monkeypatch, clock, transfer_rate)
    return clock


def receive(rate: TransferRate, now: list[float], *, seconds: int, size: int) -> None:
    for _ in range(seconds):
        now[0] += 1
        rate.add(size)


def test_a_trickle_ends_with_the_first_window(now: list[float]) -> None:
    rate = TransferRate(100)
    receive(rate, now, seconds=9, size=1)
    with pytest.raises(SlowTransferError, match="fewer than 100 bytes per second"):
        receive(rate, now, seconds=1, size=1)


def test_a_trickle_after_a_quick_beginning_ends_too(now: list[float]) -> None:
    rate = TransferRate(100)
    rate.add(10_000_000)
    with pytest.raises(SlowTransferError):
        receive(rate, now, seconds=11, size=1)
    assert now[0] <= 1011


def test_the_lowest_rate_and_short_pauses_are_allowed(now: list[float]) -> None:
    rate = TransferRate(100)
    receive(rate, now, seconds=100, size=100)
    receive(rate, now, seconds=20, size=300)
    now[0] += 5
    receive(rate, now, seconds=60, size=300)


def test_zero_allows_any_rate(now: list[float]) -> None:
    receive(TransferRate(0), now, seconds=100, size=1)
