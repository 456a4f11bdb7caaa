"""Faults: type and place of an exception, without its text; ends of the process and of a task are none."""

import asyncio
import threading
from typing import Any

import pytest
from sqlalchemy.exc import DataError

from worker.core.concurrency import event_loop
from worker.core.errors import DreameryError
from worker.core.observability.faults import FAULT_PREFIX, UnexpectedError, before_sending
from worker.core.polling import first_look

SECRET = "sessionid=0123456789abcdef"


class PanicError(BaseException):
    pass


def test_fault_names_type_and_place_and_not_the_text() -> None:
    try:
        first_look("not a job")  # type: ignore[arg-type]
    except AttributeError as error:
        fault = UnexpectedError(error)
    assert fault.code == "internal_error"
    assert fault.detail is not None
    assert fault.detail.startswith(f"{FAULT_PREFIX}AttributeError at worker/core/polling.py:")
    assert "not a job" not in f"{fault} {fault.detail} {fault.frames}"


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (KeyError(SECRET), "KeyError"),
        (PanicError(SECRET), "PanicError"),
        (DataError("SELECT 1", {"x": SECRET}, ValueError(SECRET)), "DataError (ValueError)"),
        (asyncio.CancelledError(SECRET), "CancelledError"),
        (type("é" * 3 + "x" * 500, (Exception,), {})(SECRET), "???xxx"),
    ],
)
def test_every_kind_of_exception_has_a_short_safe_detail(error: BaseException, name: str) -> None:
    fault = UnexpectedError(error)
    assert fault.detail is not None
    assert fault.detail.startswith(FAULT_PREFIX + name)
    assert SECRET not in fault.detail
    assert fault.detail.isascii()
    assert len(fault.detail) < 300


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_ends_of_the_process_are_no_faults_in_the_main_thread_only(end: type[BaseException]) -> None:
    with pytest.raises(end):
        UnexpectedError(end())
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(UnexpectedError(end())))
    thread.start()
    thread.join(10)
    assert found[0].code == "internal_error"


def test_cancelled_task_stays_cancelled_but_a_foreign_cancellation_is_a_fault() -> None:
    async def foreign() -> str:
        return UnexpectedError(asyncio.CancelledError()).code

    async def cancelled() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as error:
            UnexpectedError(error)

    async def both() -> tuple[str, bool]:
        task = asyncio.create_task(cancelled())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return await foreign(), task.cancelled()

    assert event_loop.run(both()) == ("internal_error", True)


def test_errors_of_ours_pass_before_sending_and_others_mean_not_sent() -> None:
    with pytest.raises(DreameryError, match="overloaded"), before_sending():
        raise DreameryError("overloaded")
    with pytest.raises(UnexpectedError) as found, before_sending():
        raise RecursionError(SECRET)
    assert found.value.sent is False
    assert found.value.__cause__ is None
