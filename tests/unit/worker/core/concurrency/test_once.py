"""`Once`: however many threads come first, there is one object."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from worker.core.concurrency.once import Once


def test_first_callers_at_the_same_time_get_one_object() -> None:
    second_came = threading.Event()
    created: list[object] = []

    def create() -> object:
        # A second creation begins at once, or never.
        created.append(object())
        if len(created) > 1:
            second_came.set()
        second_came.wait(0.2)
        return created[-1]

    get = Once(create)
    with ThreadPoolExecutor(8) as threads:
        results = {id(future.result()) for future in [threads.submit(get) for _ in range(8)]}
    assert len(created) == 1
    assert len(results) == 1


def test_an_error_is_not_kept() -> None:
    answers = iter([ValueError("not yet"), 7])

    def create() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    get = Once(create)
    with pytest.raises(ValueError, match="not yet"):
        get()
    assert not get.is_created
    assert get() == 7
    assert get() == 7


def test_forgotten_objects_are_created_again() -> None:
    get = Once(object)
    first = get()
    get.forget()
    assert get() is not first
