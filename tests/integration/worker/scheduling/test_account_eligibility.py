"""Which accounts may run a job: of the platform, of groups, of the user; working hours and daily caps."""

import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.support.api_client import assert_error
from tests.support.engine import Engine
from worker.core.ids import new_id, parse_public_id
from worker.db.accounts.eligibility import is_open, opens_at
from worker.db.engine import transaction
from worker.db.jobs import claims
from worker.db.scheduling import account_scoring
from worker.tasks.dispatch import sweep, tick
from worker.tasks.submit import submit


def add_user(engine: Engine, *groups: str) -> UUID:
    user_id = new_id()
    engine.sql(
        "INSERT INTO users (id, name, role, groups) VALUES (:id, :name, 'member', CAST(:groups AS text[]))",
        id=user_id, name=f"user {user_id}", groups=list(groups),
    )  # fmt: skip
    return user_id


def add_own_account(engine: Engine, user_id: UUID, **changes: Any) -> UUID:
    account = engine.add_account(**changes)
    engine.sql("UPDATE accounts SET user_id = :user WHERE id = :id", user=user_id, id=account)
    return account


def add_group_account(engine: Engine, *groups: str) -> UUID:
    account = engine.add_account(pool=True)
    engine.sql("UPDATE accounts SET groups = CAST(:groups AS text[]) WHERE id = :id", groups=list(groups), id=account)
    return account


def claim_job(account: UUID) -> UUID | None:
    """Claim a job for the account; return its id, or None."""
    with transaction() as tx:
        claim = claims.claim_next(tx, account_id=account)
    return claim.id if claim else None


def find_best(job: UUID) -> UUID | None:
    with transaction() as tx:
        return account_scoring.find_best_account(tx, job)


def runs_on(engine: Engine, job: UUID, account: UUID) -> tuple[bool, bool, bool]:
    """Return whether the account would take the job: by dispatch, by the job's own message, and by the claim.

    The claim comes last, because it takes the job.
    """
    engine.sql("UPDATE jobs SET nudged_at = NULL")
    tick()
    enqueued = engine.job_row(job).nudged_at is not None
    return enqueued, find_best(job) == account, claim_job(account) == job


# --- owners ---


def test_users_never_run_on_each_others_accounts(engine: Engine) -> None:
    one, other = add_user(engine), add_user(engine)
    own_account = add_own_account(engine, one)
    other_job = engine.add_job(user_id=other, owner="other")
    assert runs_on(engine, other_job, own_account) == (False, False, False)
    # Not even if the job names the account, and not for a caller without a user.
    assert runs_on(engine, engine.add_job(own_account, user_id=other, owner="other"), own_account) == (
        False,
        False,
        False,
    )
    assert runs_on(engine, engine.add_job(), own_account) == (False, False, False)
    assert runs_on(engine, engine.add_job(user_id=one, owner="one"), own_account) == (True, True, True)
    # Jobs without a usable account fail at once instead of waiting for an account of another user.
    sweep()
    assert engine.job_row(other_job).error_code == "no_account_available"


def test_group_account_is_only_for_users_of_the_group(engine: Engine) -> None:
    teacher, pupil = add_user(engine, "teachers", "staff"), add_user(engine, "pupils")
    account = add_group_account(engine, "teachers", "board")
    assert runs_on(engine, engine.add_job(user_id=pupil, owner="pupil"), account) == (False, False, False)
    assert runs_on(engine, engine.add_job(), account) == (False, False, False)
    job = engine.add_job(user_id=teacher, owner="teacher")
    engine.sql("UPDATE users SET groups = '{}' WHERE id = :id", id=teacher)
    assert runs_on(engine, job, account) == (False, False, False), "groups are checked at the claim"
    engine.sql("UPDATE users SET groups = '{board}' WHERE id = :id", id=teacher)
    assert runs_on(engine, job, account) == (True, True, True)


def test_own_accounts_are_preferred_and_the_pool_is_the_fallback(engine: Engine) -> None:
    me = add_user(engine)
    own_account, pooled = add_own_account(engine, me, max_images=1), engine.add_account(pool=True)
    first, second = (engine.add_job(user_id=me, owner="me") for _ in range(2))
    assert find_best(first) == own_account
    assert claim_job(pooled) is None, "left to the own account, which is free"
    assert claim_job(own_account) == first
    assert claim_job(pooled) == second, "the own account is full"
    [note] = [event.note for event in engine.job_events(second) if event.to_state == "submitting"]
    assert note["account"] == engine.account_row(pooled).label
    # A job does not wait for an own account in a cooldown either.
    third = engine.add_job(user_id=me, owner="me")
    engine.sql("UPDATE accounts SET max_images = 5")
    assert claim_job(pooled) is None
    engine.sql("UPDATE accounts SET rest_until = now() + interval '1 minute' WHERE id = :id", id=own_account)
    assert claim_job(pooled) == third


@pytest.mark.parametrize(("choice", "by_own", "by_pool"), [("own", True, False), ("pool", False, True)])
def test_request_can_choose_own_accounts_or_the_pool(
    engine: Engine, choice: str, *, by_own: bool, by_pool: bool
) -> None:
    me = add_user(engine)
    own_account, pooled = add_own_account(engine, me), engine.add_account(pool=True)
    for account, expected in ((own_account, by_own), (pooled, by_pool)):
        job = engine.add_job(user_id=me, owner="me", account_choice=choice)
        assert (claim_job(account) == job) is expected
        engine.sql("DELETE FROM jobs")


def test_impossible_account_choice_is_refused_at_once(engine: Engine) -> None:
    with TestClient(create_app(), raise_server_exceptions=False) as http:
        engine.sql("DELETE FROM accounts")
        key = {"Authorization": f"Bearer {engine.env['DREAMERY_ADMIN_KEY']}"}
        body = {"prompt": "a boat", "n": 1, "async": True}

        def create_image(**headers: str) -> Any:
            return http.post("/v1/images/generations", json=body, headers={**key, **headers})

        pooled = engine.add_account(pool=True)
        assert "of your own" in assert_error(create_image(**{"X-Accounts": "own"}), 503, "no_account_available")
        assert_error(create_image(**{"X-Accounts": "mine"}), 400, "invalid_value", "x-accounts")
        found = parse_public_id("job", create_image(**{"X-Accounts": "pool"}).json()["id"])
        assert isinstance(found, UUID)
        assert engine.job_row(found).account_choice == "pool"
        for state, code in (("needs_login", "accounts_need_login"), ("blocked", "accounts_blocked")):
            engine.sql("UPDATE accounts SET state = :state WHERE id = :id", state=state, id=pooled)
            assert_error(create_image(), 503, code)
            waiting = engine.add_job()
            sweep()
            assert engine.job_row(waiting).error_code == code
        engine.sql("UPDATE accounts SET state = 'ok', groups = '{staff}'")
        assert_error(create_image(), 503, "no_account_available")


# --- working hours ---


def add_account_with_hours(engine: Engine, days: list[int], begins: str, ends: str, zone: str) -> UUID:
    account = engine.add_account(pool=True)
    engine.sql(
        """UPDATE accounts SET hours_days = CAST(:days AS int[]), hours_from = CAST(:begins AS time),
           hours_to = CAST(:ends AS time), hours_zone = :zone WHERE id = :id""",
        days=days, begins=begins, ends=ends, zone=zone, id=account,
    )  # fmt: skip
    return account


EVERY_DAY = [1, 2, 3, 4, 5, 6, 7]
# 2026-03-29 is the Sunday on which Berlin goes from 02:00 to 03:00, 2026-10-25 the one on which 03:00 is 02:00 again.
MOMENTS = [
    ([1], "09:00", "18:00", "Asia/Shanghai", "2026-11-23T09:00+08:00", True),
    ([1], "09:00", "18:00", "Asia/Shanghai", "2026-11-23T18:00+08:00", False),
    ([1], "09:00", "18:00", "Asia/Shanghai", "2026-11-24T12:00+08:00", False),
    # Hours past midnight belong to the day on which they began: Friday night, but not Thursday night.
    ([5], "22:00", "06:00", "Asia/Tokyo", "2026-11-27T23:00+09:00", True),
    ([5], "22:00", "06:00", "Asia/Tokyo", "2026-11-28T05:59+09:00", True),
    ([5], "22:00", "06:00", "Asia/Tokyo", "2026-11-28T06:00+09:00", False),
    ([5], "22:00", "06:00", "Asia/Tokyo", "2026-11-27T05:00+09:00", False),
    ([5], "22:00", "06:00", "Asia/Tokyo", "2026-11-28T23:00+09:00", False),
    # Until the end of the day, and the whole day.
    ([7], "20:00", "00:00", "UTC", "2026-11-29T23:59Z", True),
    ([7], "20:00", "00:00", "UTC", "2026-11-30T00:00Z", False),
    ([7], "00:00", "00:00", "UTC", "2026-11-29T00:00Z", True),
    ([7], "00:00", "00:00", "UTC", "2026-11-30T00:00Z", False),
    # Hours are local time, in winter and in summer.
    (EVERY_DAY, "09:00", "18:00", "Europe/Berlin", "2026-03-28T08:00Z", True),
    (EVERY_DAY, "09:00", "18:00", "Europe/Berlin", "2026-03-28T07:30Z", False),
    (EVERY_DAY, "09:00", "18:00", "Europe/Berlin", "2026-03-29T07:00Z", True),
    (EVERY_DAY, "09:00", "18:00", "Europe/Berlin", "2026-03-29T06:59Z", False),
    # The night that is an hour shorter, and the one that is an hour longer.
    ([6], "22:00", "03:00", "Europe/Berlin", "2026-03-29T00:59Z", True),
    ([6], "22:00", "03:00", "Europe/Berlin", "2026-03-29T01:00Z", False),
    ([6], "22:00", "03:00", "Europe/Berlin", "2026-10-25T01:59Z", True),
    ([6], "22:00", "03:00", "Europe/Berlin", "2026-10-25T02:00Z", False),
]


@pytest.mark.parametrize(("days", "begins", "ends", "zone", "at", "expected"), MOMENTS)
def test_working_hours(
    engine: Engine, *, days: list[int], begins: str, ends: str, zone: str, at: str, expected: bool
) -> None:
    account = add_account_with_hours(engine, days, begins, ends, zone)
    moment = "CAST(:at AS timestamptz)"
    [row] = engine.sql(f"SELECT {is_open('a', moment)} AS open FROM accounts a WHERE a.id = :id", at=at, id=account)
    assert row.open is expected


def test_next_start_of_working_hours(engine: Engine) -> None:
    account = add_account_with_hours(engine, [1, 6], "22:00", "03:00", "Europe/Berlin")
    moment = "CAST(:at AS timestamptz)"
    for at, begins in (
        ("2026-03-28T22:00Z", "2026-03-30T20:00Z"),  # in summer time since
        ("2026-03-24T00:00Z", "2026-03-28T21:00Z"),
        ("2026-03-28T21:00Z", "2026-03-30T20:00Z"),
    ):
        [row] = engine.sql(
            f"""SELECT {opens_at("a", moment)} = CAST(:begins AS timestamptz) AS right FROM accounts a
                WHERE a.id = :id""",
            at=at, begins=begins, id=account,
        )  # fmt: skip
        assert row.right is True, at


def set_closed_hours(engine: Engine, account: UUID) -> None:
    """Working hours that began two hours ago by the database's clock and ended one hour ago."""
    engine.sql(
        """UPDATE accounts SET hours_zone = 'UTC', hours_days = '{1,2,3,4,5,6,7}',
               hours_from = (now() AT TIME ZONE 'UTC' - interval '2 hours')::time,
               hours_to = (now() AT TIME ZONE 'UTC' - interval '1 hour')::time WHERE id = :id""",
        id=account,
    )


def test_account_outside_its_hours_takes_no_job_and_finishes_running_jobs(engine: Engine) -> None:
    account = engine.add_account(pool=True)
    running = engine.add_job(prompt="a boat")
    engine.submit(running)
    set_closed_hours(engine, account)
    waiting = engine.add_job()
    assert runs_on(engine, waiting, account) == (False, False, False)
    assert submit(job_id=waiting) == "waits for a slot"
    sweep()
    assert engine.job_row(waiting).state == "queued", "it waits for the working hours"
    engine.poll(account), engine.save(running)
    assert engine.job_row(running).state == "succeeded"
    other = engine.add_account(pool=True)
    assert claim_job(other) == waiting
    [note] = [event.note for event in engine.job_events(waiting) if event.to_state == "submitting"]
    assert [one["why"] for one in note["passed_over"]] == ["outside its working hours"]


def test_eta_includes_working_hours(engine: Engine) -> None:
    from worker.db.jobs.queries import group_views

    account = engine.add_account(pool=True)
    set_closed_hours(engine, account)
    job = engine.add_job()
    with transaction() as tx:
        [view] = group_views(tx, [job])
    assert view.capacity is not None
    assert (view.capacity.slots, 21 * 3600 < view.capacity.cooldown_seconds <= 22 * 3600) == (0, True)


# --- daily cap ---


def test_daily_cap_counts_jobs_submitted_today(engine: Engine) -> None:
    account = engine.add_account(pool=True, max_images=10)
    engine.sql("UPDATE accounts SET max_jobs_per_day = 2")
    engine.add_succeeded_job(account)
    refused = engine.add_job(account, prompt="a boat [[fail:1000]]")
    engine.submit(refused)
    assert engine.job_row(refused).state == "failed"
    second, third = engine.add_job(), engine.add_job()
    assert claim_job(account) == second, "a job that upstream refused does not count"
    engine.make_due()
    assert runs_on(engine, third, account) == (False, False, False), "a job that is being submitted counts"
    sweep()
    assert engine.job_row(third).state == "queued"
    other = engine.add_account(pool=True)
    assert claim_job(other) == third
    [note] = [event.note for event in engine.job_events(third) if event.to_state == "submitting"]
    assert [one["why"] for one in note["passed_over"]] == ["daily cap reached"]
    fourth = engine.add_job()
    engine.sql("UPDATE jobs SET submitted_at = now() - interval '25 hours' WHERE state = 'succeeded'")
    engine.make_due()
    assert claim_job(account) == fourth, "a new day"


def test_concurrent_claims_respect_the_daily_cap(engine: Engine) -> None:
    account = engine.add_account(pool=True, max_images=50)
    engine.sql("UPDATE accounts SET max_jobs_per_day = 3")
    for _ in range(8):
        engine.add_job()
    barrier, got = threading.Barrier(8), []

    def claim() -> None:
        barrier.wait()
        got.append(claim_job(account))

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(8):
        engine.make_due()
        got.append(claim_job(account))
    assert len([job for job in got if job]) == 3
    assert [r.state for r in engine.sql("SELECT state FROM jobs WHERE holds_slot")] == ["submitting"] * 3


@pytest.fixture(autouse=True)
def _no_messages_left(engine: Engine) -> Iterator[None]:
    yield
    engine.take_messages()
