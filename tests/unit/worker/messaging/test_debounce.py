"""Timer and debounce: order, no lost last request, at most one message per window."""

import threading
import time

from worker.messaging.debounce import Debounce
from worker.messaging.timer import Timer


def test_timer_runs_actions_in_order_and_survives_errors() -> None:
    timer, seen, done = Timer(), [], threading.Event()
    timer.after(0.06, done.set)
    timer.after(0.04, lambda: seen.append("second"))
    timer.after(0.03, lambda: 1 / 0)
    timer.after(0.01, lambda: seen.append("first"))
    assert done.wait(10)
    assert seen == ["first", "second"]


def test_single_request_is_sent_at_once() -> None:
    sent: list[str] = []
    Debounce[str](sent.append, window_seconds=60, timer=Timer()).request("a")
    assert sent == ["a"]


def test_burst_is_sent_at_once_and_after_the_last_request() -> None:
    sent: list[tuple[str, float]] = []
    late = threading.Event()

    def send(key: str) -> None:
        sent.append((key, time.monotonic()))
        if len(sent) == 2:
            late.set()

    debounce = Debounce[str](send, window_seconds=0.1, timer=Timer())
    for _ in range(50):
        debounce.request("a")
    last_request = time.monotonic()
    assert late.wait(10)
    assert [key for key, _ in sent] == ["a", "a"]
    assert sent[1][1] >= last_request


def test_keys_are_debounced_independently() -> None:
    sent: list[str] = []
    debounce = Debounce[str](sent.append, window_seconds=60, timer=Timer())
    debounce.request("a")
    debounce.request("b")
    assert sent == ["a", "b"]
