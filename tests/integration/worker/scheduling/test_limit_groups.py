"""Accounts of one customer share pace, slots and rests; sizes with fewer slots; an account alone pays nothing for it."""

import re
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event

from tests.integration.worker.scheduling.test_claim import run_in_threads
from tests.support.ark_jobs import VIDEO_MODEL, ArkJobs
from tests.support.engine import Engine
from worker.db.accounts import accounts, limit_groups
from worker.db.accounts.accounts import PresentedToken
from worker.db.engine import get_engine, transaction
from worker.db.jobs import claims
from worker.db.jobs.claims import Claim, ClaimRequest

GROUP = "customer"


@pytest.fixture
def ark(engine: Engine) -> ArkJobs:
    return ArkJobs(engine)


def claim(account: UUID, **changes: Any) -> list[Claim]:
    with transaction() as tx:
        return claims.claim_batch(tx, account, ClaimRequest(**changes)).claims


def two(ark: ArkJobs, **columns: Any) -> list[UUID]:
    return [ark.add_account(limit_group=GROUP, **columns) for _ in range(2)]


def test_pace_is_shared(engine: Engine, ark: ArkJobs) -> None:
    first, second = two(ark, submits_per_minute=30, max_videos=9)
    alone = ark.add_account(submits_per_minute=30)
    for account in (first, second, alone):
        ark.add_video(account)
    engine.make_due()
    assert len(claim(first)) == 1
    assert claim(second) == []
    assert len(claim(alone)) == 1
    [wait] = engine.sql(
        "SELECT extract(epoch FROM next_submit_at - now())::float8 AS s FROM accounts WHERE id = :i", i=second
    )
    assert 1.0 < wait.s <= 2.0


def test_slots_are_shared(engine: Engine, ark: ArkJobs) -> None:
    accounts = two(ark, max_videos=2)
    jobs = [ark.add_video(*accounts) for _ in range(4)]
    for job in jobs:
        engine.submit(job)
    assert engine.states(jobs).count("running") == 2
    assert engine.states(jobs).count("queued") == 2
    ark.finish()
    assert engine.run_until_final(*jobs, each_round=ark.finish) == ["succeeded"] * 4


def test_claims_of_one_customer_at_the_same_time_keep_its_slots(engine: Engine, ark: ArkJobs) -> None:
    accounts = two(ark, max_videos=3)
    for account in accounts * 5:
        ark.add_video(account)
    engine.make_due()

    def work(number: int) -> None:
        account = accounts[number % 2]
        if number % 5 == 4:
            with transaction() as tx:
                locked = limit_groups.lock(tx, account, GROUP)
                limit_groups.rest_model(tx, locked, "another model", seconds=1.0, code="c", detail="d")
        else:
            claim(account)

    for _ in range(4):
        engine.make_due()
        run_in_threads(10, work)
    assert engine.sql("SELECT count(*) AS n FROM jobs WHERE holds_slot")[0].n == 3


def test_claim_that_does_not_wait_leaves_a_locked_customer_alone(engine: Engine, ark: ArkJobs) -> None:
    first, second = two(ark)
    ark.add_video(second)
    engine.make_due()
    with transaction() as tx:
        limit_groups.lock(tx, first, None)
        tx.run(limit_groups._LOCK, {"name": "nobody", "id": first})
        assert claim(second, wait_for_lock=False) == []
    assert len(claim(second, wait_for_lock=False)) == 1


def test_large_size_has_one_slot_and_others_pass_it(engine: Engine, ark: ArkJobs) -> None:
    accounts = two(ark, max_videos=5)
    large = [ark.add_video(*accounts, model="seedance-2.0") for _ in range(3)]
    engine.sql("""UPDATE jobs SET params = jsonb_set(params, '{order,resolution}', '"4k"')""")
    small = ark.add_video(*accounts, model="seedance-2.0")
    other = ark.add_video(*accounts)
    for job in (*large, small, other):
        engine.submit(job)
    assert engine.states(large) == ["running", "queued", "queued"]
    assert engine.states([small, other]) == ["running", "running"]
    assert engine.run_until_final(*large, rounds=20, each_round=ark.finish) == ["succeeded"] * 3


def test_success_of_a_slowed_customer_raises_its_pace_slowly() -> None:
    slowed = {"slowed": {"per_minute": 10.0, "at": 1000.0}}
    assert limit_groups.pace_of({}, 60.0, 1000.0) == 60.0
    assert limit_groups.pace_of(slowed, 60.0, 1000.0) == 10.0
    assert limit_groups.pace_of(slowed, 60.0, 1180.0) == pytest.approx(12.0)
    assert limit_groups.pace_of(slowed, 60.0, 1000.0 + 180 * 10) == 60.0
    assert limit_groups.pace_of(slowed, 60.0, 1e12) == 60.0
    assert limit_groups.pace_of(slowed, 60.0, 0.0) == 10.0


def test_rest_of_a_model_never_becomes_shorter(engine: Engine, ark: ArkJobs) -> None:
    account = ark.add_account()
    for seconds in (float("inf"), 30.0):
        with transaction() as tx:
            limit_groups.rest_model(tx, [account], VIDEO_MODEL, seconds=seconds, code="c", detail="d")
    assert engine.account_row(account).model_rests[VIDEO_MODEL]["until"] == "Infinity"
    with transaction() as tx:
        limit_groups.end_model_rests(tx, {(account, VIDEO_MODEL)})
    assert list(engine.account_row(account).model_rests) == [VIDEO_MODEL]


def test_account_alone_claims_with_the_the_same_three_statements(engine: Engine) -> None:
    account = engine.add_account(max_images=5)
    for _ in range(3):
        engine.add_job(account)
    engine.make_due()
    names: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        names.extend(re.findall(r"/\* (\w+) \*/", statement)[:1] or [statement.split(maxsplit=1)[0]])

    event.listen(get_engine(), "before_cursor_execute", note)
    try:
        taken = claim(account)
    finally:
        event.remove(get_engine(), "before_cursor_execute", note)
    assert len(taken) == 1
    assert [name for name in names if name not in {"SET", "BEGIN", "SELECT"}] == ["lock_ready", "pick", "claim"]


def test_new_account_has_the_limits_of_its_provider(engine: Engine) -> None:
    found = {}
    for provider in ("dreamina", "ark"):
        with transaction() as tx:
            token = PresentedToken(f"hash of {provider}", "sandbox", provider, secret="", provider=provider)
            account = accounts.add_account(tx, token, pool=False)
        row = engine.account_row(account)
        found[provider] = (row.max_images, row.max_videos, row.submits_per_minute)
    assert found == {"dreamina": (None, None, None), "ark": (3, 3, 60.0)}
