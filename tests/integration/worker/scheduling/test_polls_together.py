"""Accounts that are polled at the same time: their claims and their news are written together, and stay apart."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.integration.worker.tasks.test_batches import add_jobs
from tests.support.engine import Engine
from worker.core.concurrency.event_loop import run
from worker.providers.base import Record
from worker.tasks import poll as poll_task
from worker.tasks.stages.polling import claimed_poll, settle_record, write_news
from worker.tasks.submit import submit_batch


def test_polls_of_many_accounts_are_written_together(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [add_jobs(engine, 3) for _ in range(4)]
    for account, _ in found:
        submit_batch(account_id=account)
    engine.finish_upstream()
    engine.make_due()
    transactions = count_transactions(monkeypatch, write_news, claimed_poll, poll_task)

    async def poll_all() -> list[str]:
        return list(await asyncio.gather(*(poll_task.poll_account(account) for account, _ in found)))

    lines = run(poll_all())
    assert all(line.endswith("3 left the account") for line in lines)
    assert {engine.job_row(job).state for _, jobs in found for job in jobs} == {"saving"}
    # The first claim finds nothing to wait for; the others share the next one. A poll ends in one transaction.
    assert transactions["claimed_poll"] <= 2
    assert transactions["write_news"] <= len(found)
    assert transactions["poll"] == 0
    assert all(engine.account_row(account).poll_due_at is None for account, _ in found)


def test_bad_record_of_one_account_leaves_the_polls_of_the_others_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [add_jobs(engine, 2) for _ in range(3)]
    for account, _ in found:
        submit_batch(account_id=account)
    engine.finish_upstream()
    engine.make_due()
    bad = found[1][1][0]
    real = settle_record.refs
    keys = {str(engine.job_row(bad).submit_key)}

    def refs(record: Record) -> list[dict[str, Any]]:
        if record.submit_key in keys:
            raise ValueError("a record that cannot be written")
        return real(record)

    monkeypatch.setattr(settle_record, "refs", refs)

    async def poll_all() -> None:
        await asyncio.gather(*(poll_task.poll_account(account) for account, _ in found))

    run(poll_all())
    states = {job: engine.job_row(job).state for _, jobs in found for job in jobs}
    assert states.pop(bad) == "running"
    assert set(states.values()) == {"saving"}


def count_transactions(monkeypatch: pytest.MonkeyPatch, *modules: Any) -> Counter[str]:
    """Count the transactions that these modules begin, by their last name."""
    counts: Counter[str] = Counter()

    def counting(name: str, real: Any) -> Any:
        def begin(*args: Any, **values: Any) -> Any:
            counts[name] += 1
            return real(*args, **values)

        return begin

    for module in modules:
        name = module.__name__.rpartition(".")[2]
        monkeypatch.setattr(module, "transaction", counting(name, module.transaction))
    return counts
