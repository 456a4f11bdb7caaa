"""Durations learned from finished jobs, the queue capacity of a queued job, and deletion of jobs."""

import io

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from api.app import create_app
from tests.support.api_client import new_session
from tests.support.engine import Engine
from worker import storage
from worker.core.ids import parse_public_id
from worker.db.engine import transaction
from worker.db.jobs import deletions, durations, queries
from worker.db.jobs.durations import DurationStats
from worker.db.jobs.inputs import NewInput, StoredInput, add_inputs
from worker.tasks.cleanup import clean_up

MODEL = "jimeng-4.0"


def add_finished_job(
    engine: Engine, seconds: float, *, size: str = "1k", model: str = MODEL, state: str = "succeeded"
) -> None:
    job_id = engine.add_job(model=model)
    engine.sql(
        """UPDATE jobs SET state = :state, submitted_at = now() - make_interval(secs => :seconds), finished_at = now(),
               error_code = CASE WHEN :state = 'failed' THEN 'upstream_error' END,
               params = jsonb_set(params, '{order,resolution}', to_jsonb(CAST(:size AS text))) WHERE id = :id""",
        id=job_id, seconds=seconds, size=size, state=state,
    )  # fmt: skip


def stats(size: str = "1k", model: str = MODEL) -> DurationStats | None:
    durations.clear_cache()
    with transaction() as tx:
        return durations.find_duration_stats(tx, "image", model, {"order": {"resolution": size}})


def test_durations_are_learned_per_size_with_the_model_as_fallback(engine: Engine) -> None:
    assert stats() is None
    for seconds in range(1, 12):
        add_finished_job(engine, seconds)
    for _ in range(4):
        add_finished_job(engine, 100, size="4k")
    add_finished_job(engine, 9999, state="failed")
    small = stats()
    assert small is not None
    assert (round(small.p50), round(small.p90), small.count) == (6, 11, 11)
    large = stats("4k")
    assert large is not None
    assert large.count == 15, "four jobs are too few, so all sizes of the model count"
    add_finished_job(engine, 100, size="4k")
    large = stats("4k")
    assert large is not None
    assert (round(large.p50), large.count) == (100, 5)
    assert stats(model="jimeng-3.0") is None


def test_duration_query_uses_its_index(engine: Engine) -> None:
    for _ in range(40):
        add_finished_job(engine, 5)
    with transaction() as tx:
        # Without figures of the table any index is as good for the planner.
        tx.run(text("ANALYZE jobs"))
        tx.run(text("SET LOCAL enable_seqscan = off"))
        tx.run(text("SET LOCAL enable_bitmapscan = off"))
        values = {"kind": "image", "model": MODEL, "newest": 400}
        plan = str(tx.all(text(f"EXPLAIN {durations._READ_STATS.text}"), values))
    assert "ix_jobs_succeeded" in plan


def test_typical_duration_is_stored_with_the_job(engine: Engine) -> None:
    """Progress is computed from it and would decrease if it changed."""
    for _ in range(5):
        add_finished_job(engine, 50)
    durations.clear_cache()
    with TestClient(create_app(), headers={"Authorization": f"Bearer {new_session()}:sandbox"}) as client:
        response = client.post("/v1/images/generations", json={"prompt": "a boat", "async": True})
    [row] = engine.sql(
        "SELECT usual_seconds FROM jobs WHERE id = :id", id=parse_public_id("job", response.json()["id"])
    )
    assert row.usual_seconds == pytest.approx(50, abs=1)


def test_queued_job_has_the_capacity_of_its_queue(engine: Engine) -> None:
    accounts = [
        engine.add_account(max_images=3, submits_per_minute=10),
        engine.add_account(max_images=1, submits_per_minute=5),
    ]
    engine.add_running_job(accounts[0])
    job_id, single = engine.add_job(*accounts), engine.add_job(accounts[1])
    without_account = engine.add_job()
    with transaction() as tx:
        first, second, third = queries.group_views(tx, [job_id, single, without_account])
    assert first.capacity is not None
    assert (first.capacity.slots, first.capacity.busy, first.capacity.submits_per_minute) == (4, 1, 15.0)
    assert second.capacity is not None
    assert (second.capacity.slots, second.capacity.busy) == (1, 0)
    assert third.capacity is None
    engine.sql("UPDATE accounts SET rest_until = now() + interval '5 minutes', rest_code = 'x'")
    with transaction() as tx:
        [resting] = queries.group_views(tx, [job_id])
    assert resting.capacity is not None
    assert resting.capacity.slots == 0
    assert 290 < resting.capacity.cooldown_seconds <= 300


class TestDeletion:
    def test_cleanup_completes_a_deletion_after_a_crash(self, engine: Engine) -> None:
        job_id, kept = engine.add_succeeded_job(engine.add_account()), engine.add_succeeded_job(engine.add_account())
        with transaction() as tx:
            assert deletions.delete_job(tx, job_id)
        [item] = engine.files(job_id)
        assert storage.read_file(item.key)
        assert "removed 1 files" in clean_up()
        with pytest.raises(storage.MissingFileError):
            storage.read_file(item.key)
        assert engine.files(job_id)[0].removed_at is not None
        assert engine.files(kept)[0].removed_at is None
        assert "removed 0 files" in clean_up()

    def test_deletion_is_repeated_after_a_crash_between_bytes_and_row(self, engine: Engine) -> None:
        job_id = engine.add_succeeded_job(engine.add_account())
        with transaction() as tx:
            deletions.delete_job(tx, job_id)
        storage.delete_file(engine.files(job_id)[0].key)
        assert "removed 1 files" in clean_up()

    def test_only_a_finished_job_can_be_deleted_and_only_once(self, engine: Engine) -> None:
        job_id = engine.add_running_job(engine.add_account())
        with transaction() as tx:
            assert not deletions.delete_job(tx, job_id)
        ended = engine.add_succeeded_job(engine.add_account())
        with transaction() as tx:
            assert deletions.delete_job(tx, ended)
            assert not deletions.delete_job(tx, ended)
        assert engine.job_row(ended).state == "succeeded"

    def test_inputs_are_deleted_unless_other_jobs_of_the_request_share_them(self, engine: Engine) -> None:
        jobs = [engine.add_succeeded_job(engine.add_account()) for _ in range(3)]
        shared, own = "inputs/shared/0.png", "inputs/own/0.png"
        for key in (shared, own):
            storage.put_file(key, io.BytesIO(b"bytes"))
        with transaction() as tx:
            for ids, key in ((jobs[:2], shared), (jobs[2:], own)):
                stored = StoredInput(key=key, mime="image/png", bytes=5, width=1, height=1, sha256="x")
                add_inputs(tx, ids, [NewInput(stored=stored)])
        engine.sql("UPDATE jobs SET group_id = :first WHERE id = :second", first=jobs[0], second=jobs[1])
        with transaction() as tx:
            deletions.delete_job(tx, jobs[0])
            deletions.delete_job(tx, jobs[2])
        assert "1 inputs" in clean_up()
        assert storage.read_file(shared)
        with pytest.raises(storage.MissingFileError):
            storage.read_file(own)
        with transaction() as tx:
            deletions.delete_job(tx, jobs[1])
        assert "1 inputs" in clean_up()
