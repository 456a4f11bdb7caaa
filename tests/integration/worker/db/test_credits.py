"""Credits with the real sandbox: learned prices, reservation at the claim, settlement, refunds, daily credits."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from starlette.responses import Response

from tests.support.engine import Engine
from worker.db.credits import learned_prices
from worker.db.credits.balances import credit_summary, delete_old_readings, readings, record_credits
from worker.db.engine import transaction
from worker.db.jobs import claims, state_machine
from worker.tasks.dispatch import sweep
from worker.tasks.submit import submit
from worker.tasks.sync_credits import sync_credits

SPENT = "/user_credit_history"
RECEIVE = "/credit_receive"


def sync(engine: Engine) -> str:
    """Run the task once, with an up-to-date upstream history and every account due."""
    engine.sql("UPDATE accounts SET ledger_due_at = NULL")
    engine.sql("UPDATE jobs SET finished_at = finished_at - interval '1 minute' WHERE finished_at IS NOT NULL")
    return sync_credits()


def set_credits(engine: Engine, account: UUID, left: int, *, ago: float = 0.0) -> None:
    with transaction() as tx:
        record_credits(tx, account, left, seconds_ago=ago)


def left(account: UUID) -> int | None:
    with transaction() as tx:
        found = credit_summary(tx, account)
    return None if found is None or found.left is None else int(found.left)


def price(model: str, params: dict[str, Any], place: str, kind: str = "image") -> tuple[int, str] | None:
    with transaction() as tx:
        found = learned_prices.PriceList(tx, user_id=None, choice="any").price_of(
            kind=kind, model=model, params=params, places=[place]
        )
    return (found.credits, found.source) if found else None


def charge(engine: Engine, job: UUID) -> tuple[int | None, bool]:
    row = engine.job_row(job)
    return row.charged, row.settled_at is not None


def calls(engine: Engine, path: str) -> int:
    return sum(called.endswith(path) for called in engine.interceptor.calls)


# --- prices ---


def test_prices_are_learned_from_the_credit_history(engine: Engine) -> None:
    account = engine.add_account(session="us-prices-of-images-1", region="us")
    wide = {"order": {"resolution": "2k", "count": 3, "prompt": ""}}
    assert price("jimeng-4.0", wide, "us") is None, "an unknown region has no starting price"
    order = {"resolution": "2k", "width": 2048, "height": 2048}
    done = engine.add_succeeded_job(account, order=order, count=3)
    video_job = engine.add_succeeded_job(account, kind="video", order={"seconds": 10})
    assert charge(engine, done) == (None, False), "the price was unknown, so nothing is charged yet"
    assert "settled 2 jobs" in sync(engine)
    assert (charge(engine, done), charge(engine, video_job)) == ((6, True), (50, True))
    assert price("jimeng-4.0", wide, "us") == (6, "learned")
    assert price("jimeng-4.0", {"order": {"resolution": "2k", "count": 5, "prompt": ""}}, "us") == (10, "scaled")
    assert price("jimeng-4.0", {"order": {"resolution": "4k", "count": 3, "prompt": ""}}, "us") is None
    assert price("jimeng-4.0", wide, "cn") is None, "another region may have other prices"
    video = {"order": {"resolution": "720p", "seconds": 10}}
    assert price("jimeng-video-3.0", video, "us", "video") == (50, "learned")
    assert engine.account_row(account).credits == 10_000 - 56, "the history contains the balance"
    assert calls(engine, SPENT) == 1
    sync(engine)
    assert calls(engine, SPENT) == 1, "nothing is unsettled, so no account is read"


def test_newest_price_wins_over_older_records(engine: Engine) -> None:
    account = engine.add_account(region="us")
    first = engine.add_succeeded_job(account)
    sync(engine)
    shape = {"order": {"resolution": "1k", "count": 1, "prompt": ""}}
    assert price("jimeng-4.0", shape, "us") == (1, "learned")
    engine.sql("UPDATE credit_prices SET credits = 9, at = now() + interval '1 hour'")
    engine.sql("UPDATE jobs SET settled_at = NULL WHERE id = :id", id=first)
    sync(engine)
    assert price("jimeng-4.0", shape, "us") == (9, "learned")


def test_partly_refunded_job_does_not_change_the_price(engine: Engine) -> None:
    account = engine.add_account(region="us")
    order = {"resolution": "2k", "width": 2048, "height": 2048}
    engine.add_succeeded_job(account, order=order, count=3)
    sync(engine)
    shape = {"order": {"resolution": "2k", "count": 3, "prompt": ""}}
    assert price("jimeng-4.0", shape, "us") == (6, "learned")
    refunded = engine.add_succeeded_job(account, order=order, count=3)
    [holder] = engine.sandbox.accounts.values()
    holder.schedule_refund(time.time(), 2, str(engine.job_row(refunded).submit_key))
    sync(engine)
    assert charge(engine, refunded) == (4, True)
    assert price("jimeng-4.0", shape, "us") == (6, "learned")


# --- reservation, settlement, refund ---


def test_account_with_insufficient_credits_does_not_claim_job(engine: Engine) -> None:
    poor, rich = engine.add_account(), engine.add_account()
    set_credits(engine, poor, 3), set_credits(engine, rich, 100)
    expensive = engine.add_job(poor, rich, price=4)
    with transaction() as tx:
        assert claims.claim_next(tx, account_id=poor) is None
    cheap = engine.add_job(poor, price=3)
    with transaction() as tx:
        claim = claims.claim_next(tx, account_id=poor)
    assert claim is not None
    assert claim.id == cheap, "an expensive job does not block a cheap one"
    engine.submit(expensive)
    assert engine.job_row(expensive).account_id == rich


def test_job_fails_at_once_if_no_account_has_the_credits(engine: Engine) -> None:
    account = engine.add_account()
    set_credits(engine, account, 3)
    job = engine.add_job(account, price=4)
    assert engine.submit(job)
    row = engine.job_row(job)
    assert (row.state, row.error_code, row.charged) == ("failed", "insufficient_quota", 0)
    assert engine.submits() == [], "nothing was sent upstream"


def test_job_waits_while_open_jobs_may_give_credits_back(engine: Engine) -> None:
    account = engine.add_account()
    set_credits(engine, account, 10)
    running = engine.add_running_job(account, price=8)
    job = engine.add_job(account, price=5)
    engine.submit(job), sweep()
    row = engine.job_row(job)
    assert (row.state, row.attempt) == ("queued", 0), "the running job may still fail and be refunded"
    with transaction() as tx:
        assert state_machine.mark_saving(tx, job_id=running, attempt=1, refs=[{"url": "x"}])
    engine.submit(job), sweep()
    assert engine.job_row(job).state == "queued", "until it has ended"
    with transaction() as tx:
        assert state_machine.mark_failed(
            tx, job_id=running, attempt=1, code="upstream_error", message="x", actor="test"
        )
    engine.submit(job)
    row = engine.job_row(job)
    assert (row.state, row.error_code) == ("failed", "insufficient_quota")


def test_stale_balance_is_refreshed_before_a_job_fails(engine: Engine) -> None:
    account = engine.add_account()
    set_credits(engine, account, 3, ago=7200)
    job = engine.add_job(account, price=4)
    engine.submit(job), sweep()
    assert engine.job_row(job).state == "queued"
    sync(engine)
    assert left(account) == 10_000
    assert engine.run_until_final(job) == ["succeeded"]


def test_concurrent_claims_do_not_exceed_the_balance(engine: Engine) -> None:
    account = engine.add_account(max_images=8)
    set_credits(engine, account, 10)
    waiting = [engine.add_job(account, price=4) for _ in range(6)]
    engine.make_due()

    def claim(_: int) -> UUID | None:
        with transaction() as tx:
            taken = claims.claim_next(tx, account_id=account)
        engine.sql("UPDATE accounts SET next_submit_at = now() - interval '1 second'")
        return taken.id if taken else None

    with ThreadPoolExecutor(6) as pool:
        taken = [found for found in pool.map(claim, range(12)) if found]
    assert len(taken) == 2
    assert left(account) == 2
    # One job is refused at submit: its reservation ends without an explicit release.
    with transaction() as tx:
        state_machine.requeue(tx, job_id=taken[0], attempt=1, actor="submit", reason="a test", delay=0.0)
    assert left(account) == 6
    assert set(engine.states(waiting)) == {"queued", "submitting"}


def test_balance_follows_the_jobs_without_upstream_calls(engine: Engine) -> None:
    account = engine.add_account(session="plain-moves-with-jobs")
    set_credits(engine, account, 10_000)
    for number in range(3):
        engine.add_succeeded_job(account, price=number + 1, count=number + 1)
    assert left(account) == 10_000 - 6
    assert engine.account_row(account).credits == 10_000
    assert calls(engine, "/user_credit") == 0
    name = engine.submits()[0]["account"]
    assert engine.ledger()["accounts"][name]["credits"] == left(account)
    sync(engine)
    assert (engine.account_row(account).credits, left(account)) == (9_994, 9_994)


def test_job_refused_at_submit_costs_nothing(engine: Engine) -> None:
    account = engine.add_account()
    set_credits(engine, account, 100)
    job = engine.add_job(account, price=4, prompt="a boat [[refuse:2038]]")
    engine.submit(job)
    assert engine.job_row(job).state == "failed"
    assert charge(engine, job) == (0, True)
    assert left(account) == 100


@pytest.mark.parametrize(("script", "cost"), [("[[fail:2038]]", 1), ("[[fail:2038]] [[refund]]", 0)])
def test_job_failed_after_submit_is_charged_until_upstream_refunds_it(engine: Engine, script: str, cost: int) -> None:
    account = engine.add_account()
    set_credits(engine, account, 100)
    job = engine.add_job(account, price=1, prompt=f"a boat {script}")
    engine.submit(job), engine.poll(account)
    row = engine.job_row(job)
    assert (row.state, row.error_code) == ("failed", "content_policy_violation")
    assert charge(engine, job) == (1, False), "charged, not yet confirmed"
    assert left(account) == 99
    sync(engine)
    assert charge(engine, job) == (cost, cost == 0), "a refund is still possible"
    engine.sql("UPDATE jobs SET finished_at = finished_at - interval '1 hour'")
    sync(engine)
    assert charge(engine, job) == (cost, True)
    assert engine.account_row(account).credits == 10_000 - cost
    assert bool(engine.sql("SELECT 1 FROM credit_prices")) is (cost > 0)


def test_job_missing_in_the_credit_history_was_free(engine: Engine) -> None:
    account = engine.add_account()
    free = engine.add_succeeded_job(account, price=3)
    paid = engine.add_succeeded_job(account, price=3)
    [holder] = engine.sandbox.accounts.values()
    # A free model leaves no record.
    holder.spent = type(holder.spent)(
        (line for line in holder.spent if line["submit_id"] != str(engine.job_row(free).submit_key)), maxlen=500
    )
    sync(engine)
    assert (charge(engine, paid), charge(engine, free)) == ((1, True), (3, False)), "the record may still appear"
    engine.sql("UPDATE jobs SET finished_at = finished_at - interval '1 hour'")
    sync(engine)
    assert charge(engine, free) == (0, True)
    lost = engine.add_succeeded_job(account, price=3)
    engine.sql("UPDATE jobs SET finished_at = finished_at - interval '1 hour'")
    engine.interceptor.before[SPENT] = lambda *_: Response('{"ret": "0", "data": {"records": []}}')
    sync(engine)
    assert charge(engine, lost) == (3, False), "an empty history proves nothing"


@pytest.mark.parametrize("seed", [1, 2])
def test_duplicate_and_lost_messages_settle_each_job_once(engine: Engine, seed: int) -> None:
    accounts = [engine.add_account(), engine.add_account(session="flaky-settles-once")]
    for account in accounts:
        set_credits(engine, account, 10_000)
    made = [engine.add_job(*accounts, price=1, prompt=f"a boat {n} {'[[fail:2038]]' * (n % 3 == 0)}") for n in range(9)]
    engine.run_worker(*made, rng=random.Random(seed), loss=0.2, duplication=0.5)
    with ThreadPoolExecutor(3) as pool:
        engine.sql("UPDATE jobs SET finished_at = finished_at - interval '1 hour' WHERE finished_at IS NOT NULL")
        list(pool.map(lambda _: sync_credits(), range(3)))
    for _ in range(20):  # reading the flaky account's history fails sometimes
        if not engine.sql("SELECT 1 FROM jobs WHERE settled_at IS NULL"):
            break
        engine.sql("UPDATE accounts SET ledger_due_at = NULL")
        sync_credits()
    by_key = {line["submit_id"]: line["amount"] for line in engine.ledger()["charges"]}
    for job in made:
        row = engine.job_row(job)
        assert row.charged == by_key.get(str(row.submit_key), 0), row.state
    charged = sum(engine.job_row(job).charged for job in made)
    assert charged == sum(line["amount"] for line in engine.ledger()["charges"])
    assert sum(engine.account_row(a).credits for a in accounts) == 20_000 - charged


def test_killed_task_holds_no_credits(engine: Engine) -> None:
    account = engine.add_account(session="plain-killed-task")
    set_credits(engine, account, 5)
    job = engine.add_job(account, price=4, prompt="a boat [[latency:20]]")
    engine.make_due()
    process = engine.start_process("submit", job_id=job)
    for _ in range(400):
        if engine.submits("a boat [[latency:20]]"):
            break
        process.join(0.05)
    process.kill()
    process.join()
    assert left(account) == 1, "reserved while the outcome is unknown"
    assert engine.run_until_final(job) == ["succeeded"]
    assert engine.charge_count() == 1
    assert left(account) == 1
    sync(engine)
    assert (charge(engine, job), left(account)) == ((1, True), 9_999)


def test_insufficient_credits_refusal_of_an_affordable_model_does_not_cool_down_the_account(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_job(account, price=4, prompt="a boat [[refuse:1006]]")
    engine.submit(job)
    assert engine.job_row(job).error_code == "insufficient_quota"
    assert engine.account_row(account).rest_until is None, "its balance, refreshed at once, covers the price"
    poor = engine.add_account(session="broke-and-refused")
    other = engine.add_job(poor, price=4)
    engine.submit(other)
    assert engine.job_row(other).error_code == "insufficient_quota"
    assert (engine.account_row(poor).rest_code, engine.account_row(poor).credits) == ("insufficient_quota", 0)


# --- readings and daily credits ---


def test_balance_readings_are_thinned_with_age(engine: Engine) -> None:
    account = engine.add_account()
    set_credits(engine, account, 50), set_credits(engine, account, 50), set_credits(engine, account, 40)
    set_credits(engine, account, 70, ago=3600)
    with transaction() as tx:
        assert [point.credits for point in readings(tx, account, since=None, limit=9)] == [50, 40]
    assert engine.account_row(account).credits == 40, "an older reading that arrives late is ignored"
    engine.sql(
        """INSERT INTO credit_readings (account_id, at, credits)
           SELECT :id, date_trunc('day', now()) - interval '9 days' + make_interval(hours => h), h
           FROM generate_series(1, 5) h""",
        id=account,
    )
    engine.sql("INSERT INTO credit_readings VALUES (:id, now() - interval '500 days', 9)", id=account)
    with transaction() as tx:
        assert delete_old_readings(tx, limit=100) == 5
        assert [point.credits for point in readings(tx, account, since=None, limit=9)] == [5, 50, 40]


def test_daily_credits_are_claimed_once_a_day_when_enabled(engine: Engine) -> None:
    gift, other = engine.add_account(session="gift-daily-000001", pool=True), engine.add_account(pool=True)
    sync(engine)
    assert calls(engine, RECEIVE) == 0, "disabled by default"
    engine.configure(DAILY_RECEIVE="on")
    engine.sql("UPDATE accounts SET daily_receive = false WHERE id = :id", id=other)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: sync_credits(), range(4)))
    assert calls(engine, RECEIVE) == 1
    assert engine.account_row(gift).credits == 60
    [row] = engine.sql("SELECT * FROM credit_receives")
    assert (row.account_id, row.how, row.gained, row.error_code) == (gift, "daily", 60, None)
    # If a worker dies between its claim and its call, that day is not retried.
    engine.sql("UPDATE credit_receives SET gained = NULL")
    sync(engine)
    assert calls(engine, RECEIVE) == 1
    engine.sql("UPDATE credit_receives SET day = day - 1")
    sync(engine)
    assert calls(engine, RECEIVE) == 2


def test_daily_credits_can_be_enabled_for_one_account(engine: Engine) -> None:
    wanted, shark = (
        engine.add_account(session="gift-alone-00001", pool=True),
        engine.add_account(session="shark-gift-00001"),
    )
    engine.add_account(pool=True)
    engine.sql("UPDATE accounts SET daily_receive = true, pool = true WHERE id = ANY(:ids)", ids=[wanted, shark])
    sync_credits(), sync_credits()
    assert calls(engine, RECEIVE) == 2
    found = {row.account_id: row for row in engine.sql("SELECT * FROM credit_receives")}
    assert (found[wanted].gained, found[shark].gained) == (60, None)
    assert found[shark].error_code == "upstream_risk_control"


def test_waiting_job_makes_an_empty_account_claim_its_daily_credits(engine: Engine) -> None:
    account = engine.add_account(session="gift-for-waiting-1")
    set_credits(engine, account, 0, ago=7200)
    job = engine.add_job(account, price=4)
    engine.make_due()
    submit(job_id=job)
    assert engine.job_row(job).state == "queued"
    sync(engine)
    assert left(account) == 60
    assert engine.run_until_final(job) == ["succeeded"]
    assert calls(engine, RECEIVE) == 1
