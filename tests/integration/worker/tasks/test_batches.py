"""Batches: they die halfway, hold one bad job among fifty, meet a second worker, and lose the answer to their commit."""

from bisect import bisect_left
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from uuid import UUID

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from starlette.responses import Response

from tests.integration.worker.scheduling.test_claim import run_in_threads
from tests.integration.worker.tasks.test_killed_tasks import charged_once, kill
from tests.support.engine import GENERATE, HISTORY, MEDIA, Engine
from tests.support.platform import eventually
from tests.support.servers.http_servers import RequestPause
from worker.core.concurrency import continuations, event_loop
from worker.db.engine import get_engine, transaction
from worker.db.jobs import claims
from worker.providers.base import OpenOrder, Record
from worker.providers.registry import PROVIDERS
from worker.tasks import poll as poll_task
from worker.tasks import save as save_task
from worker.tasks import submit as submit_task
from worker.tasks.poll import poll
from worker.tasks.save import save_batch
from worker.tasks.stages import claim as claim_stage
from worker.tasks.stages.polling import write_news
from worker.tasks.stages.polling.claimed_poll import ClaimedPoll, claim_polls
from worker.tasks.stages.polling.next_poll import schedule_looks
from worker.tasks.submit import submit_batch


def add_jobs(engine: Engine, count: int, **account: object) -> tuple[UUID, list[UUID]]:
    account_id = engine.add_account(**{"max_images": 100, **account})
    return account_id, [engine.add_job(account_id, prompt=f"boat {n}") for n in range(count)]


def test_one_message_submits_fifty_jobs_side_by_side(engine: Engine) -> None:
    account, jobs = add_jobs(engine, 50)
    submit_batch(account_id=account)
    assert set(engine.states(jobs)) == {"running"}
    assert engine.charge_count() == 50
    assert engine.ledger()["totals"]["duplicate_submit_ids"] == 0


def test_claim_of_nothing_waits_for_no_disk(engine: Engine) -> None:
    account, _ = add_jobs(engine, 0)
    ends: list[str] = []
    listeners = [(end, partial(lambda end, _: ends.append(end), end)) for end in ("commit", "rollback")]
    for listener in listeners:
        event.listen(get_engine(), *listener)
    try:
        assert claim_stage.claim_batch(claim_stage.ClaimOptions(), account).claims == []
        assert ends == ["rollback"]
        engine.add_job(account)
        ends.clear()
        assert len(claim_stage.claim_batch(claim_stage.ClaimOptions(), account).claims) == 1
        assert ends == ["commit"]
    finally:
        for listener in listeners:
            event.remove(get_engine(), *listener)


def test_slots_hold_at_every_instant_with_batches(engine: Engine) -> None:
    account, jobs = add_jobs(engine, 40, max_images=7)
    for _ in range(30):
        submit_batch(account_id=account)
        assert engine.sql("SELECT count(*) AS n FROM jobs WHERE holds_slot")[0].n <= 7
        engine.finish_upstream()
        engine.make_due()
        poll(account_id=account)
        engine.make_due()
        save_batch(job_ids=[row.id for row in engine.sql("SELECT id FROM jobs WHERE state = 'saving'")])
        if set(engine.states(jobs)) == {"succeeded"}:
            break
    assert set(engine.states(jobs)) == {"succeeded"}
    assert max(view["max_in_flight"] for view in engine.ledger()["accounts"].values()) <= 7


def test_two_workers_on_one_account_share_its_slots(engine: Engine) -> None:
    account, jobs = add_jobs(engine, 30, max_images=9)
    stop = engine.interceptor.after[GENERATE] = RequestPause()
    other = engine.start_process("submit_batch", account_id=account)
    stop.wait()
    run_in_threads(4, lambda _: submit_batch(account_id=account))
    stop.release()
    other.join(30)
    assert sorted(engine.states(jobs)).count("running") == 9
    assert engine.charge_count() == 9
    engine.interceptor.clear()
    for _ in range(4):
        engine.run_until_final(*jobs)
    charged_once(engine, *jobs)
    assert max(view["max_in_flight"] for view in engine.ledger()["accounts"].values()) <= 9


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_submit_of_many_jobs_charges_each_once(engine: Engine, moment: str) -> None:
    account, jobs = add_jobs(engine, 12)
    stop = RequestPause(nth=5)
    getattr(engine.interceptor, moment)[GENERATE] = stop
    process = engine.start_process("submit_batch", account_id=account)
    stop.wait()
    kill(process)
    stop.release()
    assert "queued" not in engine.states(jobs), "all were claimed together"
    charged_once(engine, *jobs)


@pytest.mark.parametrize("nth", [1, 4])
def test_killed_save_of_many_jobs_saves_each(engine: Engine, nth: int) -> None:
    account, jobs = add_jobs(engine, 6)
    submit_batch(account_id=account)
    engine.finish_upstream()
    engine.make_due()
    poll(account_id=account)
    assert set(engine.states(jobs)) == {"saving"}
    engine.make_due()
    stop = engine.interceptor.before[MEDIA] = RequestPause(nth=nth)
    process = engine.start_process("save_batch", job_ids=jobs)
    stop.wait()
    kill(process)
    stop.release()
    charged_once(engine, *jobs)


def test_one_bad_record_among_fifty_does_not_stop_the_others(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that Postgres refuses: the batch is written again one by one."""
    account, jobs = add_jobs(engine, 50)
    submit_batch(account_id=account)
    engine.finish_upstream()
    engine.make_due()
    bad = jobs[17]
    key = str(engine.job_row(bad).submit_key)
    provider = PROVIDERS["dreamina"]()
    real = provider.fetch_records

    async def with_one_bad(account_row: object, orders: list[OpenOrder]) -> dict[str, Record]:
        records = await real(account_row, orders)
        ref = records[key].results[0]
        records[key] = replace(records[key], results=(replace(ref, url=f"{ref.url}\x00"),))
        return records

    monkeypatch.setattr(provider, "fetch_records", with_one_bad)
    poll(account_id=account)
    states = dict(zip(jobs, engine.states(jobs), strict=True))
    assert states.pop(bad) == "running"
    assert set(states.values()) == {"saving"}
    monkeypatch.undo()
    charged_once(engine, *jobs)


def test_one_unreachable_result_among_many_is_tried_again_alone(engine: Engine) -> None:
    account, jobs = add_jobs(engine, 8)
    submit_batch(account_id=account)
    engine.finish_upstream()
    engine.make_due()
    poll(account_id=account)
    engine.make_due()
    answers = iter([True])
    engine.interceptor.before[MEDIA] = lambda *_: Response(status_code=503) if next(answers, False) else None
    save_batch(job_ids=jobs)
    assert sorted(engine.states(jobs)) == ["saving", *["succeeded"] * 7]
    charged_once(engine, *jobs)


class LostAnswer:
    """Makes the next commits succeed in the database and fail in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: object, times: int = 1, after: int = 0) -> None:
        self.left, self.spared = times, after
        real = transaction

        @contextmanager
        def losing(**options: bool) -> Iterator[object]:
            with real(**options) as tx:
                yield tx
                if not self.spared and self.left:
                    tx._after.clear()
            if self.spared:
                self.spared -= 1
            elif self.left:
                self.left -= 1
                raise OperationalError("COMMIT", {}, Exception("the connection was lost"))

        monkeypatch.setattr(module, "transaction", losing)


def test_claims_whose_commit_was_not_answered_are_found_by_their_keys(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, jobs = add_jobs(engine, 5)
    lost = LostAnswer(monkeypatch, claim_stage)
    submit_batch(account_id=account)
    assert lost.left == 0
    assert set(engine.states(jobs)) == {"running"}, "none waits for its lease"
    assert {engine.job_row(job).attempt for job in jobs} == {1}
    charged_once(engine, *jobs)


def test_running_jobs_whose_commit_was_not_answered_stay_running(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, jobs = add_jobs(engine, 5)
    lost = LostAnswer(monkeypatch, submit_task)
    submit_batch(account_id=account)
    assert lost.left == 0
    assert set(engine.states(jobs)) == {"running"}
    assert [engine.state_history(job) for job in jobs] == [["queued", "submitting", "running"]] * 5
    charged_once(engine, *jobs)


def test_poll_whose_commit_was_not_answered_is_completed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    account, jobs = add_jobs(engine, 5)
    submit_batch(account_id=account)
    engine.finish_upstream()
    engine.make_due()
    lost = LostAnswer(monkeypatch, write_news, times=1)
    poll(account_id=account)
    assert lost.left == 0
    assert set(engine.states(jobs)) == {"saving"}
    assert [engine.state_history(job) for job in jobs] == [["queued", "submitting", "running", "saving"]] * 5
    charged_once(engine, *jobs)


def test_second_message_of_an_account_is_left_to_the_first(engine: Engine) -> None:
    """Wake-ups that come while an account is served are not lost: the first message looks again."""
    account, jobs = add_jobs(engine, 3)
    stop = engine.interceptor.before[HISTORY] = RequestPause()
    stop.release()
    run_in_threads(8, lambda _: submit_batch(account_id=account))
    assert set(engine.states(jobs)) == {"running"}
    assert engine.charge_count() == 3


def test_jobs_of_one_message_do_not_wait_for_each_others_orders(engine: Engine) -> None:
    """Two accounts with one slot each: the order on the first hangs, the one on the second goes on."""
    accounts = [engine.add_account(max_images=1) for _ in range(2)]
    jobs = [engine.add_job(*accounts, prompt=f"boat {n}") for n in range(2)]
    stop = engine.interceptor.before[GENERATE] = RequestPause()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(submit_batch, job_ids=jobs)
        stop.wait()
        eventually(lambda: sorted(engine.states(jobs)) == ["running", "submitting"], what="the other one runs")
        stop.release()
        work.result(30)
    assert engine.states(jobs) == ["running", "running"]


def test_early_claimer_waits_for_the_pace_instead_of_the_tick(engine: Engine) -> None:
    """Two hundred a second: batches of fifty, each after the gaps of the one before, in one message."""
    account, jobs = add_jobs(engine, 100, max_images=200, submits_per_minute=12_000.0)
    submit_batch(account_id=account)
    eventually(lambda: set(engine.states(jobs)) == {"running"}, what="all are submitted without a tick")
    times = sorted(row.at for row in engine.sql("SELECT at FROM job_events WHERE to_state = 'submitting'"))
    batches = sorted({at.timestamp() for at in times})
    assert len(batches) >= 2
    assert min(b - a for a, b in pairwise(batches)) >= 0.24, "fifty gaps of 5 ms"


@pytest.mark.parametrize("pace", [1.0, 7.5, 20.0, 59.0, 240.0, 1000.0, 2500.0, 12_345.0])
def test_no_minute_has_more_submits_than_the_pace(pace: float) -> None:
    """Batches at full speed, simulated for five minutes."""
    at, times = 0.0, []
    most = claims.most_claims(pace)
    while at < 300:
        times += [at] * most
        at += claims.pause_after(most, pace)
    worst = max(bisect_left(times, start + 60 - 1e-6) - n for n, start in enumerate(times))
    assert worst <= max(pace, 1)
    assert len(times) / 300 >= 0.9 * pace / 60, "and it is used"


@pytest.fixture
def continuing(engine: Engine) -> Iterator[Engine]:
    """Continue polls, saves and claims in this process, as a worker does."""
    continuations.register(poll=poll_task.poll_account, submit=submit_task.serve, save_claimed=save_task.save_claimed)
    continuations.register(poll_claimed=poll_task.poll_claimed)
    yield engine
    continuations.clear()
    assert event_loop.drain(30)


def test_worker_finishes_jobs_without_further_messages(continuing: Engine) -> None:
    account, jobs = add_jobs(continuing, 30, max_images=12)
    continuing.take_messages()
    submit_batch(account_id=account)
    eventually(lambda: set(continuing.states(jobs)) == {"succeeded"}, what="all are saved, 12 at a time")
    assert continuing.take_messages("dreamery.poll", "dreamery.save", "dreamery.submit") == []
    assert {row.save_tries for row in continuing.sql("SELECT save_tries FROM jobs")} == {1}
    assert max(view["max_in_flight"] for view in continuing.ledger()["accounts"].values()) <= 12
    assert continuing.charge_count() == 30


def test_first_look_is_claimed_with_the_submit(engine: Engine) -> None:
    """A job alone that may be done already is looked at at once, and only by one process (I6)."""
    account = engine.add_account()
    job = engine.add_running_job(account)
    claimed: list[ClaimedPoll] = []

    async def note(poll: ClaimedPoll) -> None:
        claimed.append(poll)

    continuations.register(poll_claimed=note)
    try:
        look_at_once(account)
        assert claim_polls([account]) == [None], "the poll is claimed"
        eventually(lambda: claimed, what="this process makes it")
        assert [one.id for one in claimed[0].jobs] == [job]
    finally:
        continuations.clear()
    engine.take_messages()
    look_at_once(account)
    assert engine.take_messages("dreamery.poll"), "another process does not poll by itself"


def look_at_once(account: UUID) -> None:
    with transaction() as tx:
        tx.run(text("UPDATE accounts SET poll_due_at = NULL WHERE id = :id"), {"id": account})
        schedule_looks(tx, {account: 0.0})


def test_freed_slots_are_filled_only_while_jobs_wait(continuing: Engine) -> None:
    """A claim costs as much as a poll, and with few jobs it would mostly find nothing."""
    account, jobs = add_jobs(continuing, 3)
    submit_batch(account_id=account)
    claims_made: list[UUID] = []

    async def note(account_id: UUID) -> None:
        claims_made.append(account_id)

    continuations.register(submit=note)
    eventually(lambda: set(continuing.states(jobs)) == {"succeeded"}, what="all are saved")
    assert claims_made == []


def test_job_that_comes_while_slots_are_freed_gets_one(continuing: Engine) -> None:
    """Its own message found no free slot; the poll that frees it sees the job, and nobody waits for the tick."""
    account, (first,) = add_jobs(continuing, 1, max_images=1)
    continuations.clear()
    submit_batch(account_id=account)
    continuing.finish_upstream()
    continuing.make_due()
    continuations.register(submit=submit_task.serve, save_claimed=save_task.save_claimed)
    called = continuing.interceptor.after[HISTORY] = RequestPause()
    with ThreadPoolExecutor(1) as pool:
        polling = pool.submit(poll, account_id=account)
        called.wait()
        with transaction() as tx:
            tx.run(text("SELECT 1 FROM accounts WHERE id = :id FOR NO KEY UPDATE"), {"id": account})
            called.release()
            eventually(lambda: continuing.sql(_WAITS_TO_END), what="the poll has written its news and waits to end")
            second = continuing.add_job(account, prompt="the second")
        polling.result(20)
    eventually(lambda: continuing.states([second]) != ["queued"], what="the second is claimed")
    assert continuing.states([first]) != ["running"]


_WAITS_TO_END = """SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
    AND query LIKE '%set_next_poll%'"""


def test_copy_that_fails_in_the_worker_is_tried_again_by_a_message(continuing: Engine) -> None:
    account, jobs = add_jobs(continuing, 4)
    answers = iter([True])
    continuing.interceptor.before[MEDIA] = lambda *_: Response(status_code=503) if next(answers, False) else None
    submit_batch(account_id=account)
    eventually(lambda: sorted(continuing.states(jobs)) == ["saving", *["succeeded"] * 3], what="three are saved")
    continuations.clear()
    charged_once(continuing, *jobs)
