"""What the poll remembers of jobs whose news cannot be handled."""

import asyncio
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from worker.core.errors import DreameryError
from worker.db.accounts.accounts import AccountRow
from worker.db.accounts.polling import OpenJob
from worker.providers.base import Record, RecordState
from worker.tasks.stages.polling.fetch_apart import KnownFaults, fetch_apart, known_faults


def test_pauses_grow_to_a_limit_and_begin_anew() -> None:
    faults, account, other = KnownFaults(), uuid4(), uuid4()
    assert [faults.next_pause(account) for _ in range(8)] == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert faults.next_pause(other) == 2.0
    faults.reset_pause(account)
    assert faults.next_pause(account) == 2.0


def test_jobs_are_forgotten_when_they_are_not_open_any_more() -> None:
    faults, account, first, second = KnownFaults(), uuid4(), uuid4(), uuid4()
    faults.remember(account, {first})
    faults.remember(account, {second})
    assert faults.of(account) == {first, second}
    faults.keep(account, {second, uuid4()})
    assert faults.of(account) == {second}
    faults.keep(account, set())
    assert faults.of(account) == set()


async def _fetch_apart(refused: int) -> tuple[list[int], set[str]]:
    """Ask for two jobs, the second one apart; upstream refuses the call for one of them. Return what is known then."""
    account: Any = SimpleNamespace(id=uuid4(), label="a")
    jobs: Any = [SimpleNamespace(id=uuid4(), submit_key=f"key {number}") for number in range(2)]
    known_faults.remember(account.id, {jobs[1].id})

    async def fetch(_account: AccountRow, group: list[OpenJob]) -> dict[str, Record]:
        if jobs[refused] in group:
            raise DreameryError("upstream_unreachable")
        return {str(job.submit_key): Record(str(job.submit_key), "1", RecordState.RUNNING, expected=1) for job in group}

    try:
        answered, records = await fetch_apart(account, jobs, fetch)
    finally:
        known_faults.keep(account.id, set())
    return [jobs.index(job) for job in answered], set(records)


def test_refused_call_keeps_the_answers_before_it() -> None:
    assert asyncio.run(_fetch_apart(refused=1)) == ([0], {"key 0"})
    with pytest.raises(DreameryError):
        asyncio.run(_fetch_apart(refused=0))
