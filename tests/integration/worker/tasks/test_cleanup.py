"""Cleanup deletes what is past its retention, and nothing else."""

import io
import os
import threading
import time
from pathlib import Path
from uuid import UUID

import pytest

from api.auth.caller import Caller
from api.auth.session_tokens import session_token_hash
from tests.support.engine import Engine
from worker import storage
from worker.core.security.session_tokens import SessionToken
from worker.db.engine import transaction
from worker.tasks.cleanup import clean_up


def move_jobs_back(engine: Engine, days: int, *jobs: UUID) -> None:
    """Make the jobs end that long ago."""
    then = f"now() - interval '{days} days'"
    engine.sql(f"UPDATE jobs SET finished_at = {then} WHERE id = ANY(:ids)", ids=list(jobs))
    engine.sql(f"UPDATE files SET created_at = {then} WHERE job_id = ANY(:ids)", ids=list(jobs))


def test_expired_results_lose_their_bytes_only(engine: Engine) -> None:
    engine.configure(RETENTION_DAYS="7")
    old, young = engine.add_succeeded_job(engine.add_account(), count=2), engine.add_succeeded_job(engine.add_account())
    move_jobs_back(engine, 8, old)
    assert "removed 2 files" in clean_up()
    assert all(row.removed_at for row in engine.files(old))
    for row in engine.files(old):
        with pytest.raises(storage.MissingFileError):
            storage.read_file(row.key)
    [kept] = engine.files(young)
    assert kept.removed_at is None
    assert storage.read_file(kept.key)
    assert engine.job_row(old).state == "succeeded"
    assert "removed 0 files" in clean_up()


def test_cleanup_recovers_from_crash_between_bytes_and_row(engine: Engine) -> None:
    engine.configure(RETENTION_DAYS="7")
    job = engine.add_succeeded_job(engine.add_account())
    move_jobs_back(engine, 8, job)
    storage.delete_file(engine.files(job)[0].key)
    assert "removed 1 files" in clean_up()
    assert engine.files(job)[0].removed_at


def test_without_retention_nothing_is_deleted(engine: Engine) -> None:
    job = engine.add_succeeded_job(engine.add_account())
    move_jobs_back(engine, 9999, job)
    clean_up()
    assert storage.read_file(engine.files(job)[0].key)


# --- orphaned inputs ---


def stored_input(key: str, *, hours_ago: float = 0) -> None:
    """Store a file of that age under the key."""
    storage.put_file(key, io.BytesIO(b"bytes"))
    then = time.time() - hours_ago * 3600
    os.utime(Path(storage._store().prefix) / key, (then, then))


def file_exists(key: str) -> bool:
    try:
        return storage.read_file(key) == b"bytes"
    except storage.MissingFileError:
        return False


def test_inputs_without_jobs_are_deleted_after_a_day(engine: Engine) -> None:
    job = engine.add_job(engine.add_account())
    engine.sql("INSERT INTO job_inputs (job_id, n, key) VALUES (:job, 0, 'inputs/a/0.png')", job=job)
    stored_input("inputs/a/0.png", hours_ago=100)
    stored_input("inputs/b/0.png", hours_ago=25)
    stored_input("inputs/b/1.png", hours_ago=25)
    stored_input("inputs/c/0.png", hours_ago=23)
    stored_input("elsewhere/d/0.png", hours_ago=100)
    assert "2 orphans" in clean_up()
    assert [file_exists(key) for key in ("inputs/a/0.png", "inputs/c/0.png", "elsewhere/d/0.png")] == [True] * 3
    assert not file_exists("inputs/b/0.png")
    assert "0 orphans" in clean_up()


def test_many_orphans_are_deleted_in_batches(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.storage._LIST_BATCH", 3)
    monkeypatch.setattr("worker.tasks.stages.files.orphaned_files._MAX_INPUTS", 4)
    for n in range(10):
        stored_input(f"inputs/x{n}/0.png", hours_ago=30)
    for _ in range(4):
        clean_up()
    assert not any(file_exists(f"inputs/x{n}/0.png") for n in range(10))


# --- unused session ids ---

DEAD = "dead-made-up-"


def move_back_a_day(engine: Engine) -> None:
    """Move all timestamps back by 25 hours."""
    past = "- interval '25 hours'"
    engine.sql(f"UPDATE accounts SET created_at = created_at {past}, last_submit_at = last_submit_at {past}")
    engine.sql(f"UPDATE jobs SET created_at = created_at {past}, finished_at = finished_at {past}")


def known_accounts(engine: Engine) -> set[UUID]:
    return {row.id for row in engine.sql("SELECT id FROM accounts")}


def remaining_jobs(engine: Engine) -> set[UUID]:
    return {row.id for row in engine.sql("SELECT id FROM jobs")}


def add_failed_job(engine: Engine, *accounts: UUID, **changes: object) -> UUID:
    job = engine.add_job(*accounts, **changes)
    assert engine.run_until_final(job) == ["failed"]
    return job


def test_unused_session_ids_are_deleted_with_their_jobs(engine: Engine) -> None:
    made_up = [engine.add_account(session=f"{DEAD}{number}") for number in range(3)]
    for account in made_up:
        add_failed_job(engine, account)
    add_failed_job(engine, *made_up)
    refused = engine.add_account()
    add_failed_job(engine, refused, prompt="bad [[refuse:2038]]")  # keeps `account_id`, but upstream never took it
    clean_up()
    assert known_accounts(engine) == {*made_up, refused}, "a day has not passed yet"
    move_back_a_day(engine)
    assert "removed 4 accounts that never worked with 5 jobs" in clean_up()
    assert not known_accounts(engine)
    assert not engine.sql("SELECT 1 FROM jobs UNION ALL SELECT 1 FROM job_events")
    assert "removed 0 accounts" in clean_up()


def test_accounts_that_worked_or_may_still_work_are_kept(engine: Engine) -> None:
    worked, paused, pooled = engine.add_account(), engine.add_account(), engine.add_account(pool=True)
    jobs = {engine.add_succeeded_job(worked)}
    waits = engine.add_account(session=f"{DEAD}waits")
    jobs.add(engine.add_job(waits))
    engine.sql("UPDATE accounts SET state = 'paused' WHERE id = :id", id=paused)
    left_the_pool = engine.add_account(session=f"{DEAD}pool", pool=True)
    jobs.add(engine.add_job())
    engine.sql("UPDATE jobs SET account_id = :id, state = 'cancelled', finished_at = now() WHERE account_ids = '{}'",
               id=left_the_pool)  # fmt: skip
    engine.sql("UPDATE accounts SET pool = false WHERE id = :id", id=left_the_pool)
    move_back_a_day(engine)
    assert "removed 0 accounts" in clean_up()
    assert known_accounts(engine) == {worked, paused, pooled, waits, left_the_pool}
    assert remaining_jobs(engine) == jobs


def test_job_with_several_accounts_is_kept_with_the_kept_account(engine: Engine) -> None:
    dead, good = engine.add_account(session=f"{DEAD}list"), engine.add_account()
    engine.sql("UPDATE accounts SET last_submit_at = now() WHERE id = :id", id=good)  # the dead one is tried first
    job = engine.add_job(dead, good)
    assert engine.run_until_final(job) == ["succeeded"]
    move_back_a_day(engine)
    assert "removed 1 accounts that never worked with 0 jobs" in clean_up()
    assert known_accounts(engine) == {good}
    assert len(engine.files(job)) == 1


def test_pending_webhook_keeps_its_job(engine: Engine) -> None:
    account = engine.add_account(session=f"{DEAD}hook")
    job = add_failed_job(engine, account, webhook_url="http://127.0.0.1:1/hook")
    move_back_a_day(engine)
    assert "removed 0 accounts" in clean_up()
    engine.sql("UPDATE webhook_deliveries SET due_at = NULL, given_up_at = now() WHERE job_id = :id", id=job)
    assert "removed 1 accounts that never worked with 1 jobs" in clean_up()


def caller_of(session: str) -> Caller:
    token = SessionToken(session=session, region="sandbox")
    return Caller(owner="tokens:x", tokens=((session_token_hash(token), token),))


def test_job_being_accepted_keeps_its_account(engine: Engine) -> None:
    account = engine.add_account(session=f"{DEAD}held")
    move_back_a_day(engine)
    with transaction() as tx:
        assert caller_of(f"{DEAD}held").account_ids(tx) == [account]
        assert "removed 0 accounts" in clean_up()
    assert "removed 1 accounts" in clean_up()


def test_acceptance_after_cleanup_creates_the_account_again(engine: Engine) -> None:
    old = engine.add_account(session=f"{DEAD}late")
    move_back_a_day(engine)
    found: list[UUID] = []

    def accept_job() -> None:
        with transaction() as tx:
            found.extend(caller_of(f"{DEAD}late").account_ids(tx))

    with engine.connect() as other:
        other.execute("SELECT 1 FROM accounts WHERE id = %s FOR UPDATE", [old])
        thread = threading.Thread(target=accept_job)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive(), "it waits for the deletion"
        other.execute("DELETE FROM accounts WHERE id = %s", [old])
    thread.join(10)
    [new] = found
    assert new != old
    assert known_accounts(engine) == {new}
