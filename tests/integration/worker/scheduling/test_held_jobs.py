"""Jobs before the queue: times, idle accounts, the limit of a key; and what they must not do to others."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.support import factories
from tests.support.engine import Engine
from worker.core.ids import new_id
from worker.db.batches import held_jobs
from worker.db.batches.held_jobs import HeldGroup
from worker.db.engine import transaction
from worker.db.users import api_keys, quotas, users
from worker.db.users.api_keys import NewKey
from worker.tasks.dispatch import sweep, tick

OWNER = "tokens:test"


def hold(account: UUID, kind: str = held_jobs.TIME, **changes: Any) -> UUID:
    """Accept a job that is held."""
    with transaction() as tx:
        return factories.make_job(tx, [account], hold=kind, **changes)


def release(kind: str, owner: str = OWNER) -> int:
    with transaction() as tx:
        return len(held_jobs.release(tx, HeldGroup(owner, kind)))


def test_job_waits_for_its_time(engine: Engine) -> None:
    account = engine.add_account()
    job = hold(account, not_before=datetime.now(UTC) + timedelta(hours=1))
    tick()
    assert engine.states([job]) == ["held"]
    assert engine.submit(job) != ""
    assert engine.states([job]) == ["held"]
    engine.sql("UPDATE jobs SET due_at = now() - interval '1 second'")
    tick()
    assert engine.states([job]) == ["queued"]
    assert engine.run_until_final(job) == ["succeeded"]
    assert engine.state_history(job)[:2] == ["held", "queued"]


def test_job_that_nobody_began_in_time_fails_as_expired(engine: Engine) -> None:
    account = engine.add_account()
    held = hold(account, not_before=datetime.now(UTC) + timedelta(hours=1))
    queued = hold(account, expires_at=datetime.now(UTC) + timedelta(hours=1))
    tick()
    engine.sql("UPDATE jobs SET deadline_at = now() - interval '1 second', expires_at = now() - interval '1 second'")
    sweep()
    rows = engine.sql("SELECT error_code, charged FROM jobs WHERE id = ANY(:ids)", ids=[held, queued])
    assert {(row.error_code, row.charged) for row in rows} == {("job_expired", 0)}


def test_idle_job_runs_only_while_nobody_waits_for_its_accounts(engine: Engine) -> None:
    account = engine.add_account(max_images=1)
    normal = engine.add_job(account)
    idle = hold(account, held_jobs.IDLE, lane="idle", owner="tokens:other")
    assert release(held_jobs.IDLE, "tokens:other") == 0  # somebody waits in the queue
    engine.submit(normal)
    assert release(held_jobs.IDLE, "tokens:other") == 0  # the slot is taken
    assert engine.run_until_final(normal) == ["succeeded"]
    engine.make_due()
    assert release(held_jobs.IDLE, "tokens:other") == 1
    assert engine.run_until_final(idle) == ["succeeded"]


def test_idle_jobs_take_no_more_than_the_free_slots(engine: Engine) -> None:
    account = engine.add_account(max_images=2)
    for _ in range(5):
        hold(account, held_jobs.IDLE, lane="idle")
    assert release(held_jobs.IDLE) == 2
    assert release(held_jobs.IDLE) == 0  # those two wait for the account now


def test_idle_job_goes_on_in_turn_once_it_is_old(engine: Engine) -> None:
    account = engine.add_account(max_images=1)
    engine.add_job(account)
    hold(account, held_jobs.IDLE, lane="idle", owner="tokens:other")
    engine.sql(
        "UPDATE jobs SET created_at = now() - make_interval(hours => :hours) WHERE state = 'held'",
        hours=held_jobs.AGEING_HOURS + 1,
    )
    assert release(held_jobs.IDLE, "tokens:other") == 1


def test_held_jobs_do_not_take_turns_of_their_owner(engine: Engine) -> None:
    account = engine.add_account()
    for _ in range(50):
        hold(account, not_before=datetime.now(UTC) + timedelta(hours=1))
    first, other = engine.add_job(account), engine.add_job(account, owner="tokens:other")
    turns = {row.id: row.turn for row in engine.sql("SELECT id, turn FROM jobs WHERE state = 'queued'")}
    assert turns[first] == pytest.approx(turns[other], abs=1.0)


def add_key(user: UUID, **limits: int) -> UUID:
    with transaction() as tx:
        key_id, _ = api_keys.create_key(tx, NewKey(user_id=user, name="key"))
        quotas.set_limits(tx, "api_keys", key_id, hard=limits, soft={})
    return key_id


def test_key_has_at_most_its_number_of_jobs_at_work(engine: Engine) -> None:
    with transaction() as tx:
        user = users.ensure_admin(tx)
    owner, limited = f"user:{user}", add_key(user, concurrent_jobs=2)
    account = engine.add_account(max_images=10)
    engine.sql("UPDATE accounts SET pool = true")
    kind = held_jobs.key_hold(limited)
    jobs = [hold(account, kind, owner=owner, user_id=user, api_key_id=limited) for _ in range(5)]
    assert release(kind, owner) == 2
    assert release(kind, owner) == 0
    first = [job for job, state in zip(jobs, engine.states(jobs), strict=True) if state == "queued"]
    assert engine.run_until_final(*first) == ["succeeded", "succeeded"]
    assert release(kind, owner) == 2
    # A limit that is taken away lets all others go on.
    with transaction() as tx:
        quotas.set_limits(tx, "api_keys", limited, hard={"concurrent_jobs": None}, soft={})
    assert release(kind, owner) == 1


def test_batch_keeps_a_window_of_its_jobs_in_the_queue(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_jobs, "WINDOW", 3)
    account, batch = engine.add_account(), new_id()
    with transaction() as tx:
        user = users.ensure_admin(tx)
        tx.run(
            text(
                """INSERT INTO batches (id, owner, user_id, endpoint, state, input_file_id, options, digest, expires_at)
                   VALUES (:id, :owner, :user, '*', 'in_progress', :id, '{}', '', now() + interval '1 day')"""
            ),
            {"id": batch, "owner": OWNER, "user": user},
        )
    kind = held_jobs.batch_hold(batch, "image")
    jobs = [hold(account, kind, batch_id=batch) for _ in range(7)]
    assert release(kind) == 3
    assert release(kind) == 0
    assert engine.states(jobs).count("held") == 4
    assert engine.run_until_final(*[j for j, s in zip(jobs, engine.states(jobs), strict=True) if s == "queued"])
    assert release(kind) == 3
