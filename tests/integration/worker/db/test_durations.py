"""What is learned from finished jobs, what a queued job knows of its line, and what deletion leaves behind."""

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
from worker.db.jobs.durations import Usual
from worker.db.jobs.inputs import NewInput, StoredInput, add_inputs
from worker.tasks.cleanup import clean_up

MODEL = "jimeng-4.0"


def finished(engine: Engine, seconds: float, *, size: str = "1k", model: str = MODEL, state: str = "succeeded") -> None:
    job_id = engine.add_job(model=model)
    engine.sql(
        """UPDATE jobs SET state = :state, submitted_at = now() - make_interval(secs => :seconds), finished_at = now(),
               error_code = CASE WHEN :state = 'failed' THEN 'upstream_error' END,
               params = jsonb_set(params, '{order,resolution}', to_jsonb(CAST(:size AS text))) WHERE id = :id""",
        id=job_id, seconds=seconds, size=size, state=state,
    )  # fmt: skip


def usual(size: str = "1k", model: str = MODEL) -> Usual | None:
    durations.forget()
    with transaction() as tx:
        return durations.usual(tx, "image", model, {"order": {"resolution": size}})


def test_times_are_learned_per_size_and_else_per_model(engine: Engine) -> None:
    assert usual() is None
    for seconds in range(1, 12):
        finished(engine, seconds)
    for _ in range(4):
        finished(engine, 100, size="4k")
    finished(engine, 9999, state="failed")
    small = usual()
    assert small is not None
    assert (round(small.p50), round(small.p90), small.count) == (6, 10, 11)
    large = usual("4k")
    assert large is not None
    assert large.count == 15, "four say too little, so all of the model count"
    finished(engine, 100, size="4k")
    large = usual("4k")
    assert large is not None
    assert (round(large.p50), large.count) == (100, 5)
    assert usual(model="jimeng-3.0") is None


def test_an_index_serves_the_question(engine: Engine) -> None:
    finished(engine, 5)
    with transaction() as tx:
        tx.run(text("SET LOCAL enable_seqscan = off"))
        values = {"kind": "image", "model": MODEL, "newest": 400}
        plan = str(tx.all(text(f"EXPLAIN {durations._LEARN.text}"), values))
    assert "ix_jobs_succeeded" in plan


def test_what_a_job_usually_takes_is_kept_with_it(engine: Engine) -> None:
    """Its progress is told by it, and would fall if it changed."""
    for _ in range(5):
        finished(engine, 50)
    durations.forget()
    with TestClient(create_app(), headers={"Authorization": f"Bearer {new_session()}:sandbox"}) as client:
        made = client.post("/v1/images/generations", json={"prompt": "a boat", "async": True})
    [row] = engine.sql("SELECT usual_seconds FROM jobs WHERE id = :id", id=parse_public_id("job", made.json()["id"]))
    assert row.usual_seconds == pytest.approx(50, abs=1)


def test_a_waiting_job_knows_its_line(engine: Engine) -> None:
    two = [engine.add_account(max_images=3, submits_per_minute=10), engine.add_account(max_images=1, submits_per_minute=5)]
    engine.add_running_job(two[0])
    job_id, alone = engine.add_job(*two), engine.add_job(two[1])
    stranded = engine.add_job()
    with transaction() as tx:
        first, second, third = queries.group_views(tx, [job_id, alone, stranded])
    assert first.line is not None
    assert (first.line.slots, first.line.busy, first.line.submits_per_minute) == (4, 1, 15.0)
    assert second.line is not None
    assert (second.line.slots, second.line.busy) == (1, 0)
    assert third.line is None
    engine.sql("UPDATE accounts SET rest_until = now() + interval '5 minutes', rest_code = 'x'")
    with transaction() as tx:
        [resting] = queries.group_views(tx, [job_id])
    assert resting.line is not None
    assert resting.line.slots == 0
    assert 290 < resting.line.cooldown_seconds <= 300


class TestDeletion:
    def test_a_crash_after_the_deletion_is_made_good_by_upkeep(self, engine: Engine) -> None:
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

    def test_a_crash_between_bytes_and_row_is_repeated(self, engine: Engine) -> None:
        job_id = engine.add_succeeded_job(engine.add_account())
        with transaction() as tx:
            deletions.delete_job(tx, job_id)
        storage.delete_file(engine.files(job_id)[0].key)
        assert "removed 1 files" in clean_up()

    def test_only_an_ended_job_once(self, engine: Engine) -> None:
        job_id = engine.add_running_job(engine.add_account())
        with transaction() as tx:
            assert not deletions.delete_job(tx, job_id)
        ended = engine.add_succeeded_job(engine.add_account())
        with transaction() as tx:
            assert deletions.delete_job(tx, ended)
            assert not deletions.delete_job(tx, ended)
        assert engine.job_row(ended).state == "succeeded"

    def test_its_inputs_go_too_but_not_those_that_others_of_its_request_share(self, engine: Engine) -> None:
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
