"""Unexpected exceptions in polls: the account is polled again, and one bad record leaves the others alone."""

from typing import Any

import pytest

from tests.integration.worker.faults.test_faults_of_jobs import (
    FAULTS,
    SECRET,
    fault_of,
    faults_in,
    raises,
    raises_async,
)
from tests.integration.worker.tasks.test_killed_tasks import charged_once
from tests.support.engine import Engine
from worker.db.jobs import state_machine
from worker.providers.base import OpenOrder
from worker.providers.registry import PROVIDERS
from worker.tasks import poll as poll_task
from worker.tasks.poll import poll
from worker.tasks.stages.polling import settle_record
from worker.tasks.submit import submit_batch


@pytest.mark.parametrize("kind", FAULTS)
def test_fault_of_a_poll_is_noted_and_the_account_is_polled_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    account = engine.add_account()
    job = engine.add_job(account)
    engine.submit(job)
    engine.finish_upstream()
    monkeypatch.setattr(PROVIDERS["dreamina"](), "fetch_records", raises_async(fault_of(kind)))
    pauses = []
    for _ in range(3):
        engine.poll(account)
        pauses.append(engine.sql("SELECT extract(epoch FROM poll_due_at - now()) AS s FROM accounts")[0].s)
    assert engine.job_row(job).state == "running"
    assert len(faults_in(engine, job)) == 1, "the same fault is noted once"
    assert 0 < pauses[0] < pauses[1] < pauses[2] < 20
    monkeypatch.undo()
    charged_once(engine, job)


def test_record_that_breaks_the_answer_is_found_and_asked_for_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = engine.add_account(max_images=100)
    jobs = [engine.add_job(account, prompt=f"boat {n}") for n in range(20)]
    submit_batch(account_id=account)
    engine.finish_upstream()
    engine.make_due()
    bad = jobs[7]
    key = str(engine.job_row(bad).submit_key)
    provider, calls = PROVIDERS["dreamina"](), list[int]()
    real = provider.fetch_records

    async def fetch(row: Any, orders: list[OpenOrder]) -> Any:
        calls.append(len(orders))
        if key in {order.submit_key for order in orders}:
            raise AttributeError(SECRET)
        return await real(row, orders)

    monkeypatch.setattr(provider, "fetch_records", fetch)
    poll(account_id=account)
    states = dict(zip(jobs, engine.states(jobs), strict=True))
    assert states.pop(bad) == "running"
    assert set(states.values()) == {"saving"}
    assert len(faults_in(engine, bad)) == 1
    assert len(calls) <= 11
    more = [engine.add_job(account, prompt=f"ship {n}") for n in range(5)]
    engine.make_due()
    submit_batch(account_id=account)
    calls.clear()
    engine.poll(account)
    assert sorted(calls) == [1, len(more)], "the next poll keeps it apart"
    monkeypatch.undo()
    charged_once(engine, *jobs, *more)


@pytest.mark.parametrize("kind", [AttributeError, RecursionError, MemoryError])
def test_news_that_cannot_be_settled_leave_the_others_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    """Failed jobs are settled one by one, finished ones together: one of each kind breaks."""
    account = engine.add_account(max_images=100)
    failing = [engine.add_job(account, prompt=f"[[fail:2038]] {n}") for n in range(3)]
    good = [engine.add_job(account, prompt=f"boat {n}") for n in range(3)]
    submit_batch(account_id=account)
    running = [job for job in failing if engine.job_row(job).state == "running"]
    engine.finish_upstream()
    engine.make_due()
    settle, mark = settle_record._fail, state_machine.mark_saving_many
    monkeypatch.setattr(
        settle_record, "_fail", raises(fault_of(kind), lambda _tx, job, **_: job.id == failing[0], settle)
    )
    monkeypatch.setattr(
        state_machine,
        "mark_saving_many",
        raises(fault_of(kind), lambda _tx, done, **_: any(one.job_id == good[0] for one in done), mark),
    )
    poll(account_id=account)
    assert engine.states(good) == ["running", "saving", "saving"]
    if running:
        assert engine.states(running) == ["running", *["failed"] * (len(running) - 1)]
    assert len(faults_in(engine, good[0])) == 1
    monkeypatch.undo()
    assert engine.run_until_final(*good) == ["succeeded"] * 3


def test_fault_in_the_claim_of_a_poll_waits_longer_each_time(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    account = engine.add_account()
    job = engine.add_job(account)
    engine.submit(job)
    monkeypatch.setattr(poll_task.polling, "open_jobs", raises(KeyError(SECRET)))
    for _ in range(2):
        assert "KeyError" in engine.poll(account)
        assert engine.sql("SELECT poll_due_at > now() AS later FROM accounts")[0].later
    monkeypatch.undo()
    charged_once(engine, job)
