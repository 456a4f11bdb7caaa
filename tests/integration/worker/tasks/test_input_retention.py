"""Inputs are kept as long as the results of their jobs, and at least a day."""

import io
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tests.integration.worker.tasks.test_retention import user
from tests.support import factories
from tests.support.engine import Engine
from tests.support.uploads import make_image
from worker import storage
from worker.core.ids import first_id_at, new_id
from worker.db.engine import transaction
from worker.db.jobs import inputs, state_machine
from worker.db.jobs.inputs import NewInput, StoredInput
from worker.tasks.cleanup import clean_up
from worker.tasks.stages import expire_inputs


def store_input(job_ids: list[UUID]) -> None:
    """Store one input that all of these jobs share."""
    key, data = f"inputs/{job_ids[0].hex}/0.png", make_image("red")
    storage.put_file(key, io.BytesIO(data))
    stored = StoredInput(key=key, mime="image/png", bytes=len(data), width=8, height=8, sha256="0" * 64)
    with transaction() as tx:
        inputs.add_inputs(tx, job_ids, [NewInput(stored=stored)])


def add_ended_job(engine: Engine, *, days_ago: float, user_id: UUID | None = None, count: int = 1) -> list[UUID]:
    """Add jobs of one request with one input that ended some days ago, and return their ids."""
    account = engine.add_account(pool=user_id is not None)
    then = datetime.now(UTC) - timedelta(days=days_ago)
    ids = [UUID(bytes=first_id_at(then).bytes[:6] + new_id().bytes[6:]) for _ in range(count)]
    with transaction() as tx:
        jobs = [factories.new_job([] if user_id else [account], id=one, user_id=user_id) for one in ids]
        state_machine.accept(tx, jobs)
    store_input(ids)
    engine.run_until_final(*ids)
    engine.sql("UPDATE jobs SET finished_at = :then WHERE id = ANY(:ids)", then=then, ids=ids)
    return ids


def is_kept(job: UUID) -> bool:
    """Whether the input of the job is stored; checks that the row and the bytes agree."""
    with transaction() as tx:
        (row,) = inputs.original_inputs(tx, job)
    try:
        storage.read_file(f"inputs/{job.hex}/0.png")
    except storage.MissingFileError:
        assert row.key is None
        return False
    assert row.key is not None
    return True


def test_inputs_are_kept_permanently_without_a_retention(engine: Engine) -> None:
    (job,) = add_ended_job(engine, days_ago=400)
    assert "0 inputs" in clean_up()
    assert is_kept(job)


def test_inputs_are_deleted_after_the_retention_of_the_last_job_of_the_request(engine: Engine) -> None:
    engine.configure(RETENTION_DAYS="7")
    first, second = add_ended_job(engine, days_ago=8, count=2)
    (young,) = add_ended_job(engine, days_ago=6)
    engine.sql("UPDATE jobs SET finished_at = now() - interval '6 days' WHERE id = :id", id=second)
    assert "0 inputs" in clean_up()
    engine.sql("UPDATE jobs SET finished_at = now() - interval '8 days' WHERE id = :id", id=second)
    assert "1 inputs" in clean_up()
    assert not is_kept(first)
    assert is_kept(young)
    assert "0 inputs" in clean_up()


def test_pins_and_the_retention_of_the_user_count(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_WINDOW", 1)
    engine.configure(RETENTION_DAYS="7")
    (pinned,) = add_ended_job(engine, days_ago=30)
    engine.sql("UPDATE jobs SET pinned_at = now() WHERE id = :id", id=pinned)
    (forever,) = add_ended_job(engine, days_ago=30, user_id=user(engine, 0))
    (longer,) = add_ended_job(engine, days_ago=8, user_id=user(engine, 20))
    (shorter,) = add_ended_job(engine, days_ago=3, user_id=user(engine, 2))
    (platform,) = add_ended_job(engine, days_ago=8, user_id=user(engine, None))
    assert "2 inputs" in clean_up()
    assert [is_kept(job) for job in (pinned, forever, longer, shorter, platform)] == [True, True, True, False, False]


def test_inputs_of_a_deleted_job_go_at_once(engine: Engine) -> None:
    first, second = add_ended_job(engine, days_ago=0, count=2)
    engine.sql("UPDATE jobs SET deleted_at = now() WHERE id = :id", id=first)
    assert "0 inputs" in clean_up(), "the other job of the request needs it"
    engine.sql("UPDATE jobs SET deleted_at = now() WHERE id = :id", id=second)
    assert "1 inputs" in clean_up()
    assert not is_kept(first)


def test_a_deleted_job_that_still_runs_keeps_its_inputs(engine: Engine) -> None:
    job = engine.add_running_job(engine.add_account())
    store_input([job])
    engine.sql("UPDATE jobs SET deleted_at = now() WHERE id = :id", id=job)
    assert expire_inputs.delete_expired_inputs() == 0
    assert is_kept(job)


def test_a_run_that_was_killed_before_its_commit_continues(engine: Engine) -> None:
    engine.configure(RETENTION_DAYS="1")
    (job,) = add_ended_job(engine, days_ago=2)
    storage.delete_file(f"inputs/{job.hex}/0.png")
    assert "1 inputs" in clean_up()
    assert not is_kept(job)
