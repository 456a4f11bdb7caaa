"""The claim: which job an account takes, and that slots and pace hold with concurrent claims."""

import random
import threading
from collections import Counter
from itertools import pairwise

from tests.support.engine import Engine
from worker.db.accounts import polling
from worker.db.engine import transaction
from worker.db.jobs import claims, state_machine
from worker.db.scheduling import account_scoring
from worker.tasks.poll import poll
from worker.tasks.submit import submit


def claim(account):
    with transaction() as tx:
        return claims.claim_next(tx, account_id=account)


def run_in_threads(number, work) -> None:
    """Run `work(i)` in `number` threads at once; fail if one of them raises."""
    failures, barrier = [], threading.Barrier(number)

    def run(index: int) -> None:
        barrier.wait()
        try:
            work(index)
        except Exception as failure:  # noqa: BLE001 - asserted below
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_oldest_job_is_claimed_first_and_priority_precedes_age(engine: Engine) -> None:
    account = engine.add_account(max_images=3)
    first, second, third = (engine.add_job(account) for _ in range(3))
    engine.sql("UPDATE jobs SET priority = 1 WHERE id = :id", id=third)
    order = []
    for _ in range(3):
        engine.make_due()
        order.append(claim(account).id)
    assert order == [third, first, second]


def test_each_claim_has_a_new_submit_key(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_job(account)
    first = claim(account)
    with transaction() as tx:
        state_machine.requeue(tx, job_id=job, attempt=first.attempt, actor="submit", reason="test", delay=0)
    engine.make_due()
    second = claim(account)
    assert (first.id, first.attempt, second.attempt) == (second.id, 1, 2)
    assert first.submit_key != second.submit_key
    assert engine.job_row(job).submit_key == second.submit_key


def test_account_claims_only_jobs_that_may_use_it(engine: Engine) -> None:
    named, other, pooled = engine.add_account(), engine.add_account(), engine.add_account(pool=True)
    own, common = engine.add_job(named), engine.add_job()
    assert claim(other) is None
    assert claim(named).id == own
    assert claim(named) is None
    assert claim(pooled).id == common


def test_unavailable_account_claims_nothing(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_job(account)
    for change in (
        "state = 'paused'",
        "rest_until = now() + interval '1 hour'",
        "next_submit_at = now() + interval '1 hour'",
    ):
        engine.sql(f"UPDATE accounts SET {change}")
        assert claim(account) is None, change
        engine.sql("UPDATE accounts SET state = 'ok', rest_until = NULL, next_submit_at = now()")
    engine.sql("UPDATE jobs SET avoid_accounts = ARRAY[CAST(:id AS uuid)]", id=account)
    assert claim(account) is None
    engine.sql("UPDATE jobs SET avoid_accounts = '{}', cancel_requested_at = now()")
    assert claim(account) is None
    engine.sql("UPDATE jobs SET cancel_requested_at = NULL, due_at = now() + interval '1 hour'")
    assert claim(account) is None
    engine.make_due()
    assert claim(account).id == job


def test_least_loaded_account_is_chosen(engine: Engine) -> None:
    busy, free = engine.add_account(max_images=3), engine.add_account(max_images=3)
    engine.add_running_job(busy)
    engine.make_due()
    job = engine.add_job(busy, free)
    with transaction() as tx:
        assert account_scoring.find_best_account(tx, job) == free


def test_sixteen_threads_never_exceed_three_slots(engine: Engine) -> None:
    engine.configure(DB_POOL_SIZE="16")
    account = engine.add_account(max_images=3)
    for _ in range(40):
        engine.add_job(account)
    dice = random.Random(5)
    for _ in range(10):
        run_in_threads(16, lambda _i: [claim(account) for _ in range(3)])
        held = engine.sql("SELECT id, attempt FROM jobs WHERE holds_slot")
        assert len(held) == 3, "every slot is used, none twice"
        with transaction() as tx:
            for row in dice.sample(held, dice.randint(1, 3)):
                state_machine.mark_failed(
                    tx, job_id=row.id, attempt=row.attempt, code="upstream_error", message="x", actor="test"
                )


def test_slot_limit_holds_while_slots_are_released(engine: Engine) -> None:
    """Real tasks against the sandbox, whose ledger counts concurrent jobs."""
    engine.configure(DB_POOL_SIZE="16", POLL_MIN_SECONDS="0.01", POLL_MAX_SECONDS="0.02")
    account = engine.add_account(max_images=3)
    all_jobs = [engine.add_job(account, prompt=f"boat {n} [[seconds:0.03]]") for n in range(40)]

    def work(index: int) -> None:
        for _ in range(40):
            if index % 4:
                submit(account_id=account)
            else:
                poll(account_id=account)

    for _ in range(6):
        run_in_threads(12, work)
        if "queued" not in engine.states(all_jobs):
            break
    [seen] = engine.ledger()["accounts"].values()
    assert seen["submits"] >= 15
    assert seen["max_in_flight"] <= 3
    keys = Counter(line["submit_id"] for line in engine.submits())
    assert set(keys.values()) == {1}


def test_submit_pace_is_respected(engine: Engine) -> None:
    engine.configure(DB_POOL_SIZE="16")
    account = engine.add_account(max_images=100, submits_per_minute=2000)
    for _ in range(30):
        engine.add_job(account)
    run_in_threads(8, lambda _i: [claim(account) for _ in range(40)])
    rows = engine.sql("SELECT due_at FROM jobs WHERE state = 'submitting' ORDER BY due_at")
    assert len(rows) >= 3
    gaps = [(b.due_at - a.due_at).total_seconds() for a, b in pairwise(rows)]
    assert min(gaps) >= 60 / 2000 - 0.001


def test_no_job_is_claimed_by_two_accounts(engine: Engine) -> None:
    engine.configure(DB_POOL_SIZE="16")
    pool = [engine.add_account(max_images=50) for _ in range(8)]
    for _ in range(60):
        engine.add_job(*pool)
    taken, lock = [], threading.Lock()

    def grab(index: int) -> None:
        for _ in range(12):
            got = claim(pool[index])
            if got is not None:
                with lock:
                    taken.append(got.id)

    run_in_threads(8, grab)
    assert len(taken) == len(set(taken))


def test_claim_schedules_a_poll_before_its_lease_expires(engine: Engine) -> None:
    """So that the submit of a dead worker is looked up even if the account has no other open job."""
    account = engine.add_account()
    engine.add_job(account)
    claim(account)
    row = engine.account_row(account)
    assert row.poll_due_at is not None


def test_polling_is_not_disabled_during_a_claim(engine: Engine) -> None:
    account = engine.add_account(max_images=200)
    for _ in range(60):
        engine.add_job(account)
    engine.sql("UPDATE accounts SET poll_due_at = now()")

    def work(index: int) -> None:
        for _ in range(15):
            if index % 2:
                with transaction() as tx:
                    polling.end_polls(tx, {account: None})
            else:
                claim(account)

    run_in_threads(8, work)
    assert engine.sql("SELECT 1 FROM jobs WHERE holds_slot")
    assert engine.account_row(account).poll_due_at is not None
