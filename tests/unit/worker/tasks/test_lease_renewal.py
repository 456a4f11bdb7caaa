"""Leases of work on the event loop: a renewal that fails ends the work; one that nobody waits for any more is quiet."""

import asyncio
import gc
import threading

import pytest

from worker.core.concurrency import event_loop
from worker.tasks.stages import lease_renewal
from worker.tasks.stages.lease_renewal import LeaseLostError, keep_lease


@pytest.fixture(autouse=True)
def renewal_at_once(monkeypatch):
    monkeypatch.setattr(lease_renewal, "LEASE_EVERY_SECONDS", 0.001)


def test_lost_lease_ends_the_work():
    def renew():
        raise LeaseLostError

    with pytest.raises(LeaseLostError):
        event_loop.run(keep_lease(asyncio.sleep(60), renew))


def test_renewal_that_fails_after_the_end_of_its_work_is_no_fault(monkeypatch):
    """The work itself ended the lease, by its last transaction, while a renewal was on its way."""
    found: list[str] = []
    monkeypatch.setattr(event_loop.log, "error", lambda event, **_: found.append(event))
    event_loop._process.get().set_exception_handler(lambda _, context: found.append(context["message"]))
    renewing, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def renew():
        renewing.set()
        may_end.wait(10)
        ended.set()
        raise LeaseLostError

    async def work():
        assert await event_loop.in_files_thread(renewing.wait, 10)
        return "done"

    try:
        assert event_loop.run(keep_lease(work(), renew)) == "done"
        may_end.set()
        assert ended.wait(10)
        # The threads are free again, and the loop has seen their results.
        event_loop.run(event_loop.in_thread(lambda: None))
        event_loop.run(asyncio.sleep(0.05))
        gc.collect()
        event_loop.run(asyncio.sleep(0))
    finally:
        event_loop._process.get().set_exception_handler(None)
    assert found == []
