"""Retention per platform and user, pins, timelines, deliveries, orphaned files. Usage figures never change."""

import io
import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from api.jobs.results import pin_routes
from tests.integration.worker.tasks.test_cleanup import caller_of, file_exists, move_jobs_back, stored_input
from tests.support import factories
from tests.support.api_client import assert_error
from tests.support.engine import Engine
from tests.support.servers.s3_server import Bucket
from tests.support.uploads import make_image
from worker import storage
from worker.core.errors import DreameryError
from worker.core.ids import first_id_at, new_id
from worker.core.observability import metrics
from worker.db.engine import Transaction, transaction
from worker.db.jobs import inputs, retention, state_machine
from worker.db.jobs.inputs import NewInput, StoredInput
from worker.db.users import users
from worker.tasks.cleanup import clean_up
from worker.tasks.stages.files import expire_inputs


def user(engine: Engine, days: int | None) -> UUID:
    """Add a user with this retention."""
    with transaction() as tx:
        row = users.add_user(tx, name=f"user-{new_id().hex}", role="member")
        assert row is not None
        retention.set_user_retention(tx, row.id, days)
    return row.id  # type: ignore[no-any-return]


def add_job_of(engine: Engine, user_id: UUID | None) -> UUID:
    return engine.add_succeeded_job(engine.add_account(pool=user_id is not None), user_id=user_id)


def expire_first_files(tx: Transaction) -> int:
    removed, following = retention.expire_files(tx, retention.Retention(None, 7), after=UUID(int=0), limit=10)
    assert following is None
    return removed


def files_exist(engine: Engine, job: UUID) -> bool:
    """Return whether the files of the job exist; checks that rows and bytes agree."""
    states = set()
    for row in engine.files(job):
        try:
            storage.read_file(row.key)
            states.add(row.removed_at is None and row.erased_at is None)
            assert states == {True}, "files without a row"
        except storage.MissingFileError:
            assert row.removed_at
            assert row.erased_at
            states.add(False)
    assert len(states) == 1
    return states.pop()


def test_user_retention_overrides_platform_retention(engine: Engine) -> None:
    engine.configure(RETENTION_DAYS="7")
    jobs = {days: add_job_of(engine, user(engine, days)) for days in (None, 0, 3, 30)}
    move_jobs_back(engine, 5, *jobs.values())
    clean_up()
    assert {days: files_exist(engine, job) for days, job in jobs.items()} == {None: True, 0: True, 3: False, 30: True}
    move_jobs_back(engine, 10, *jobs.values())
    clean_up()
    assert {days: files_exist(engine, job) for days, job in jobs.items()} == {None: False, 0: True, 3: False, 30: True}


def test_user_retention_applies_without_platform_retention(engine: Engine) -> None:
    mine, other = add_job_of(engine, user(engine, 3)), add_job_of(engine, user(engine, None))
    move_jobs_back(engine, 4, mine, other)
    clean_up()
    assert (files_exist(engine, mine), files_exist(engine, other)) == (False, True)


def test_pinned_results_are_kept_until_unpinned(engine: Engine) -> None:
    engine.configure(RETENTION_DAYS="7")
    job = add_job_of(engine, None)
    move_jobs_back(engine, 100, job)
    with transaction() as tx:
        assert retention.pin_job(tx, job)
    clean_up()
    assert files_exist(engine, job)
    with transaction() as tx:
        retention.unpin_job(tx, job)
    clean_up()
    assert not files_exist(engine, job)


def test_concurrent_pin_and_cleanup_agree(engine: Engine) -> None:
    """The pin is committed while the cleanup waits for the job, and vice versa."""
    engine.configure(RETENTION_DAYS="7")
    job = add_job_of(engine, None)
    move_jobs_back(engine, 100, job)
    with transaction() as tx:
        assert retention.pin_job(tx, job)
        clean_up()
        assert files_exist(engine, job), "a locked job is left for the next run"
    clean_up()
    assert files_exist(engine, job)
    engine.sql("UPDATE jobs SET pinned_at = NULL")
    outcome: list[bool] = []

    def late() -> None:
        with transaction() as tx:
            outcome.append(retention.pin_job(tx, job))

    with transaction() as tx:
        assert expire_first_files(tx) == 1
        thread = threading.Thread(target=late)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive(), "the pin waits for the cleanup"
    thread.join(10)
    assert outcome == [False]


def test_cleanup_continues_after_crash_between_mark_and_bytes(engine: Engine) -> None:
    engine.configure(RETENTION_DAYS="7")
    job = add_job_of(engine, None)
    move_jobs_back(engine, 8, job)
    with transaction() as tx:
        assert expire_first_files(tx) == 1
    assert storage.read_file(engine.files(job)[0].key)
    assert "removed 1 files" in clean_up()
    assert not files_exist(engine, job)


def test_many_files_are_deleted_in_batches(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.tasks.stages.files.expire_results.FILES_PER_BATCH", 2)
    engine.configure(RETENTION_DAYS="7")
    jobs = [engine.add_succeeded_job(engine.add_account(), count=2) for _ in range(3)]
    move_jobs_back(engine, 8, *jobs)
    assert "removed 6 files" in clean_up()
    assert not any(files_exist(engine, job) for job in jobs)


def test_files_past_short_retention_are_found_behind_many_kept_jobs(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The windows of jobs that one statement looks at end anywhere: before, between and after jobs that are due."""
    monkeypatch.setattr("worker.db.jobs.retention._WINDOW", 2)
    monkeypatch.setattr("worker.tasks.stages.files.expire_results.FILES_PER_BATCH", 1)
    engine.configure(RETENTION_DAYS="30")
    short, default, forever = user(engine, 3), user(engine, None), user(engine, 0)
    jobs = [(owner, add_job_of(engine, owner)) for owner in (forever, short, default, short, short, forever, default)]
    pinned = add_job_of(engine, short)
    with transaction() as tx:
        assert retention.pin_job(tx, pinned)
    move_jobs_back(engine, 5, pinned, *(job for _, job in jobs))
    engine.sql("UPDATE jobs SET created_at = now() - interval '5 days'")
    clean_up()
    assert files_exist(engine, pinned)
    assert [files_exist(engine, job) for _, job in jobs] == [owner != short for owner, _ in jobs]
    move_jobs_back(engine, 40, pinned, *(job for _, job in jobs))
    engine.sql("UPDATE jobs SET created_at = now() - interval '40 days'")
    clean_up()
    assert [files_exist(engine, job) for _, job in jobs] == [owner == forever for owner, _ in jobs]


def test_cleanup_continues_after_a_part_that_fails(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trigger makes the deletion of requests and the expiry of files fail; timelines and prompts do not wait."""
    monkeypatch.setattr("worker.db.jobs.job_search._COPIED_AFTER", timedelta(hours=-1))
    engine.configure(RETENTION_DAYS="7", TIMELINE_RETENTION_DAYS="7")
    finished, old = engine.add_succeeded_job(engine.add_account()), old_job(engine, 8)
    move_jobs_back(engine, 8, finished)
    engine.sql(
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE query_canceled USING MESSAGE = 'canceling statement due to statement timeout'; END $$"""
    )
    engine.sql("CREATE TRIGGER refuse BEFORE UPDATE ON files FOR EACH ROW EXECUTE FUNCTION refuse()")
    try:
        with pytest.raises(OperationalError, match="statement timeout"):
            clean_up()
    finally:
        engine.sql("DROP TRIGGER refuse ON files")
        engine.sql("DROP FUNCTION refuse()")
    assert files_exist(engine, finished)
    assert engine.job_events(old) == []
    assert {row.job_id for row in engine.sql("SELECT job_id FROM prompts")} == {finished, old}
    assert "removed" in clean_up()
    assert not files_exist(engine, finished)


def test_results_without_counts_are_counted(engine: Engine) -> None:
    """Jobs that ended on an older version have no counts."""
    job = engine.add_succeeded_job(engine.add_account(), count=2)
    assert engine.job_row(job).result_count == 2
    engine.sql("UPDATE jobs SET result_count = NULL")
    clean_up()
    row = engine.job_row(job)
    assert (row.result_count, row.result_seconds) == (2, None)


def test_pins_per_caller_are_limited(engine: Engine) -> None:
    engine.configure(PINS_PER_CALLER="2")
    account = engine.add_account(session="pins-of-one")
    first, second, third = (engine.add_succeeded_job(account) for _ in range(3))
    caller = caller_of("pins-of-one")
    for job in (first, second, second):
        assert pin_routes._pin(caller, job).job.pinned_at
    with pytest.raises(DreameryError, match="pin_limit"):
        pin_routes._pin(caller, third)
    pin_routes._unpin(caller, first)
    assert pin_routes._pin(caller, third).job.pinned_at
    with pytest.raises(DreameryError, match="job_not_found"):
        pin_routes._pin(caller_of("another user"), first)


# --- timelines, deliveries, usage ---


def old_job(engine: Engine, days: float, **changes: Any) -> UUID:
    """Add a final job that was accepted that long ago."""
    first = first_id_at(datetime.now(UTC) - timedelta(days=days))
    job = engine.add_job(engine.add_account(), id=UUID(int=first.int + new_id().int % 2**60), **changes)
    engine.run_until_final(job)
    return job


def usage(engine: Engine) -> list[Any]:
    """Return charges and outcomes of jobs as the usage figures count them."""
    return engine.sql(
        "SELECT state, kind, model, error_code, count(*), count(submitted_at) FROM jobs GROUP BY 1, 2, 3, 4"
    )


def test_timelines_are_deleted_without_changing_usage(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.tasks.stages.files.expire_results.ROWS_PER_BATCH", 3)
    engine.configure(TIMELINE_RETENTION_DAYS="30", RETENTION_DAYS="7")
    old, young = [old_job(engine, 31) for _ in range(2)], old_job(engine, 29)
    failed = old_job(engine, 40, prompt="no [[fail:2038]]")
    waiting = engine.add_job(engine.add_account(), id=first_id_at(datetime.now(UTC) - timedelta(days=50)))
    move_jobs_back(engine, 31, *old)
    before = usage(engine)
    metrics.drain_counts()
    summary = clean_up()
    assert [bool(engine.job_events(job)) for job in (*old, failed, young, waiting)] == [False, False, False, True, True]
    assert usage(engine) == before
    counted = {labels[0]: by for (name, labels, _), by in metrics.drain_counts().items() if name == "dreamery_removed"}
    assert counted["files"] == 2
    assert f"{counted['events']:.0f} events" in summary
    assert "0 events" in clean_up()
    engine.configure(TIMELINE_RETENTION_DAYS="0")
    move_jobs_back(engine, 999, young)
    clean_up()
    assert engine.job_events(young)


def test_settled_deliveries_are_deleted_after_retention(engine: Engine) -> None:
    engine.configure(WEBHOOK_DELIVERY_RETENTION_DAYS="5")
    job = engine.add_job(engine.add_account(), webhook_url="http://127.0.0.1:1/hook", prompt="no [[fail:2038]]")
    engine.run_until_final(job)
    engine.sql(
        "UPDATE webhook_deliveries SET due_at = NULL, given_up_at = now(), created_at = now() - interval '4 days'"
    )
    assert "0 deliveries" in clean_up()
    engine.sql("UPDATE webhook_deliveries SET created_at = now() - interval '6 days'")
    assert "1 deliveries" in clean_up()


# --- orphaned files ---


def orphan_key(job: UUID | None = None) -> str:
    return f"jobs/{(job or new_id()).hex}/9.png"


def test_orphaned_results_are_deleted_once_a_day(engine: Engine) -> None:
    done, saving = engine.add_succeeded_job(engine.add_account()), engine.add_saving_job(engine.add_account())
    named = engine.files(done)[0].key
    orphan, of_done, of_saving, young = orphan_key(), orphan_key(done), orphan_key(saving), orphan_key()
    for key, hours in ((orphan, 25), (of_done, 25), (of_saving, 25), (young, 1), (named, 99)):
        stored_input(key, hours_ago=hours)
    assert "2 orphans" in clean_up()
    assert [file_exists(key) for key in (orphan, of_done, of_saving, young, named)] == [False, False, True, True, True]
    stored_input(orphan, hours_ago=25)
    assert "0 orphans" in clean_up(), "the next scan is tomorrow"
    engine.sql("UPDATE platform_state SET updated_at = now() - interval '25 hours' WHERE name = 'storage_walk'")
    assert "1 orphans" in clean_up()


def test_files_of_another_platform_are_not_orphans(engine: Engine) -> None:
    storage.take_ownership("another platform")
    orphan = orphan_key()
    stored_input(orphan, hours_ago=99)
    assert "0 orphans" in clean_up()
    assert file_exists(orphan)


def test_bucket_is_scanned_a_few_pages_per_run(
    engine: Engine,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.storage._LIST_BATCH", 1)
    monkeypatch.setattr("worker.tasks.stages.files.orphaned_files._PAGES_PER_RUN", 2)
    monkeypatch.setattr("worker.tasks.stages.files.orphaned_files.ORPHAN_HOURS", -1)
    for _ in range(5):
        storage.put_file(orphan_key(), io.BytesIO(b"bytes"))
    remaining = []
    for _ in range(3):
        clean_up()
        remaining.append(sum("/jobs/" in key for key in bucket.keys("")))
    assert remaining == [3, 1, 0]


def test_cleanup_continues_without_storage(engine: Engine, bucket: Bucket) -> None:
    engine.configure(RETENTION_DAYS="7", TIMELINE_RETENTION_DAYS="30")
    job = old_job(engine, 31)
    move_jobs_back(engine, 31, job)
    engine.configure(S3_SECRET_ACCESS_KEY="not-the-secret")
    clean_up()
    assert not engine.job_events(job)
    row = engine.files(job)[0]
    assert row.removed_at
    assert row.erased_at is None
    engine.configure(S3_SECRET_ACCESS_KEY=bucket.secret)
    assert "removed 1 files" in clean_up()
    assert not files_exist(engine, job)


# --- over HTTP ---


def test_pin_routes(admin: Any, run: Any) -> None:
    job = admin.wait_for_end(admin.start_job()["id"])
    assert (job["pinned"], job["expires_at"], job["expired_at"]) == (False, None, None)
    [link] = [item["url"] for item in job["output"]]
    assert admin.http.post(f"/v1/jobs/{job['id']}/pin").json()["pinned"]
    assert admin.job(job["id"])["pinned"]
    assert not admin.http.post(f"/v1/jobs/{job['id']}/unpin").json()["pinned"]
    assert_error(admin.http.post(f"/v1/jobs/job_{new_id().hex}/pin"), 404, "job_not_found")
    assert admin.http.get(link).status_code == 200
    run("UPDATE files SET removed_at = now() WHERE job_id = :id", id=UUID(job["id"].removeprefix("job_")))
    assert_error(admin.http.get(link), 410, "file_expired")
    assert_error(admin.http.post(f"/v1/jobs/{job['id']}/pin"), 410, "file_expired")
    assert admin.job(job["id"])["expired_at"] >= job["completed_at"]
    assert not admin.job(job["id"])["pinned"]


def test_user_retention_routes(admin: Any, run: Any) -> None:
    name = f"user-{new_id().hex}"
    assert admin.http.post("/admin/v1/users", json={"name": name}).json()["retention_days"] is None
    key = admin.http.post("/admin/v1/keys", json={"user": name}).json()["key"]
    with admin.as_caller(key) as caller:
        job = caller.wait_for_end(caller.start_job()["id"])
        for days, expected in ((30, job["completed_at"] + 30 * 86400), (0, None), (None, None)):
            changed = admin.http.patch(f"/admin/v1/users/{name}", json={"retention_days": days}).json()
            assert changed["retention_days"] == days
            assert caller.job(job["id"])["expires_at"] == expected
        admin.http.patch(f"/admin/v1/users/{name}", json={"retention_days": 30})
        admin.http.patch(f"/admin/v1/users/{name}", json={"role": "viewer"})
        assert caller.job(job["id"])["expires_at"] == job["completed_at"] + 30 * 86400, "an omitted field is unchanged"
    assert_error(
        admin.http.patch(f"/admin/v1/users/{name}", json={"retention_days": -1}), 400, "invalid_value", "retention_days"
    )
    acts = admin.http.get("/admin/v1/audit", params={"action": "user.change"}).json()["data"]
    assert {"name": name, "retention_days": 30} in [act["details"] for act in acts]


@pytest.fixture(scope="module")
def admin(api_platform: Any) -> Any:
    from tests.support.api_client import ApiClient

    with ApiClient(api_platform, api_platform.admin_key) as client:
        yield client


@pytest.fixture
def run(api_platform: Any) -> Any:
    """Run a statement in the database of the platform."""
    from sqlalchemy import create_engine

    from worker.core.settings import Settings

    url = Settings.model_construct(database_url=api_platform.database_url).sqlalchemy_url
    engine = create_engine(url)

    def execute(statement: str, **values: Any) -> None:
        with engine.begin() as connection:
            connection.execute(text(statement), values)

    yield execute
    engine.dispose()


# --- inputs ---


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
