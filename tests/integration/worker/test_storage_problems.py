"""Paid results wait while the storage is full, slow or away, and are saved when it works again. No slot is held."""

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from tests.support.engine import MEDIA, Engine
from tests.support.platform import eventually
from tests.support.servers.s3_stand_in import (
    FULL_507,
    FULL_MINIO,
    FULL_QUOTA,
    SLOW_DOWN,
    FailingBucket,
    running_failing_bucket,
)
from tests.support.uploads import make_image
from worker import storage
from worker.core.ids import public_id
from worker.core.settings import get_settings
from worker.tasks.dispatch import sweep
from worker.tasks.save import save
from worker.tasks.stages.files import storage_wait
from worker.tasks.stages.files.orphaned_files import delete_orphans


@pytest.fixture(scope="module")
def server() -> Iterator[FailingBucket]:
    with running_failing_bucket() as bucket:
        yield bucket


@pytest.fixture
def failing(engine: Engine, server: FailingBucket, monkeypatch: pytest.MonkeyPatch) -> FailingBucket:
    """The engine's storage; requests are repeated for a second only."""
    server.failure, server.silent = None, False
    server.objects.clear()
    server.puts.clear()
    monkeypatch.setattr(storage, "_REQUEST_SECONDS", 1)
    monkeypatch.setattr(storage, "_RETRY_SECONDS", 1)
    engine.configure(**server.settings())
    return server


@pytest.fixture
def http(engine: Engine) -> Iterator[TestClient]:
    headers = {"Authorization": f"Bearer {engine.env['DREAMERY_ADMIN_KEY']}"}
    with TestClient(create_app(), client=("127.0.0.1", 50000), headers=headers) as client:
        yield client


def timeline_texts(http: TestClient, job: UUID) -> list[str]:
    answer = http.get(f"/admin/v1/jobs/{public_id('job', job)}")
    assert answer.status_code == 200, answer.text
    return [entry["text"]["en"] for entry in answer.json()["timeline"]["data"]]


def storage_up(http: TestClient) -> float:
    lines = http.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith('dreamery_up{source="storage"}')).split()[1])


def storage_check(http: TestClient) -> dict[str, Any]:
    answer = http.get("/readyz", params={"exclude": ["tick", "worker"]})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ask_again() -> None:
    """The answer of a moment ago no longer counts."""
    storage_wait._known.asked_at = float("-inf")


@pytest.mark.parametrize(
    ("failure", "problem", "words"),
    [
        (FULL_507, "full", "The storage is full."),
        (FULL_MINIO, "full", "The storage is full."),
        (FULL_QUOTA, "full", "The storage is full."),
        (SLOW_DOWN, "away", "The storage does not respond."),
        ((500, b"oops"), "away", "The storage does not respond."),
        ((403, b"<Error><Code>AccessDenied</Code></Error>"), "refused", "The storage refuses access."),
    ],
)
def test_result_waits_is_reported_and_is_saved_when_the_storage_works(
    engine: Engine, failing: FailingBucket, http: TestClient, failure: tuple[int, bytes], problem: str, words: str
) -> None:
    account = engine.add_account()
    job = engine.add_saving_job(account)
    failing.failure = failure
    assert "again in" in engine.save(job)
    row = engine.job_row(job)
    assert (row.state, row.holds_slot) == ("saving", False)
    assert row.deadline_at - row.due_at > timedelta(minutes=59)
    assert timeline_texts(http, job)[-1].startswith(words)
    [event] = [e for e in engine.job_events(job) if e.note.get("waits_for")]
    assert event.note["problem"] == problem
    body = storage_check(http)
    assert (body["status"], body["checks"]["storage"], body["checks"]["database"]) == ("degraded", False, True)
    assert body["problems"] == [f"{words[0].lower()}{words[1:-1]}, finished results wait"]
    assert storage_up(http) == 0

    failing.failure = None
    ask_again()
    engine.save(job)
    assert engine.job_row(job).state == "succeeded"
    assert (storage_check(http)["status"], storage_up(http)) == ("ready", 1)
    assert engine.charge_count() == 1


def test_silent_storage_counts_as_away(engine: Engine, failing: FailingBucket, http: TestClient) -> None:
    job = engine.add_saving_job(engine.add_account())
    failing.silent = True
    assert "again in" in engine.save(job)
    assert timeline_texts(http, job)[-1].startswith("The storage does not respond.")
    failing.silent = False
    ask_again()
    engine.save(job)
    assert engine.job_row(job).state == "succeeded"


def test_paid_result_never_fails_while_the_storage_is_full(engine: Engine, failing: FailingBucket) -> None:
    job = engine.add_saving_job(engine.add_account())
    failing.failure = FULL_507
    for _ in range(12):
        # Hours pass: the deadline is almost over at each try.
        engine.sql("UPDATE jobs SET deadline_at = now() + interval '500 milliseconds'")
        ask_again()
        assert "again in" in engine.save(job)
        sweep()
        assert engine.job_row(job).state == "saving"
    assert len([e for e in engine.job_events(job) if e.note.get("waits_for")]) == 1, "one entry, not one per try"
    failing.failure = None
    ask_again()
    engine.save(job)
    assert engine.job_row(job).state == "succeeded"


def test_pauses_grow_and_a_new_kind_of_problem_is_a_new_entry(engine: Engine, failing: FailingBucket) -> None:
    job = engine.add_saving_job(engine.add_account())
    lines = []
    for failure in (FULL_507, FULL_507, FULL_507, SLOW_DOWN, SLOW_DOWN, SLOW_DOWN):
        failing.failure = failure
        ask_again()
        lines.append(engine.save(job).split(":")[0])
    assert lines == [f"again in {seconds} s" for seconds in (1, 3, 10, 30, 60, 60)]
    problems = [e.note["problem"] for e in engine.job_events(job) if e.note.get("waits_for")]
    assert problems == ["full", "away"]


def test_nothing_is_downloaded_while_there_is_no_room(engine: Engine, failing: FailingBucket) -> None:
    jobs = [engine.add_saving_job(engine.add_account()) for _ in range(3)]
    failing.failure = FULL_507
    engine.save(jobs[0])
    copies = engine.ledger()["calls"][MEDIA]
    asked = len(failing.puts)
    for job in jobs:
        engine.save(job)
    assert engine.ledger()["calls"][MEDIA] == copies
    once = len(failing.puts) - asked
    for job in jobs:
        engine.save(job)
    assert len(failing.puts) == asked + once, "one answer counts for all jobs of the process"
    ask_again()
    engine.save(jobs[1])
    assert engine.ledger()["calls"][MEDIA] == copies
    assert len(failing.puts) > asked + once


def test_first_stored_result_wakes_the_others(engine: Engine, failing: FailingBucket) -> None:
    jobs = [engine.add_saving_job(engine.add_account()) for _ in range(3)]
    failing.failure = FULL_507
    for job in jobs:
        engine.save(job)
    engine.sql("UPDATE jobs SET due_at = now() + interval '50 seconds'")
    failing.failure = None
    ask_again()
    engine.sql("UPDATE jobs SET due_at = now() - interval '1 second' WHERE id = :id", id=jobs[0])
    assert "saved" in save(job_id=jobs[0])
    due = engine.sql("SELECT count(*) AS n FROM jobs WHERE state = 'saving' AND due_at <= now()")
    assert due[0].n == 2


def test_links_that_end_meanwhile_are_replaced_while_upstream_has_the_result(
    engine: Engine, failing: FailingBucket
) -> None:
    job = engine.add_saving_job(engine.add_account(), prompt="a boat [[expires:2]]")
    failing.failure = FULL_507
    engine.sql(
        """UPDATE jobs SET result_refs = jsonb_set(result_refs, '{0,url}',
               to_jsonb(regexp_replace(result_refs -> 0 ->> 'url', 'x-expires=[0-9]+', 'x-expires=1')))"""
    )
    engine.save(job)
    assert "x-expires=1&" not in engine.job_row(job).result_refs[0]["url"]
    assert engine.job_row(job).state == "saving"


def test_result_that_upstream_no_longer_keeps_fails_at_its_deadline(engine: Engine, failing: FailingBucket) -> None:
    job = engine.add_saving_job(engine.add_account())
    failing.failure = FULL_507
    engine.sql(
        """UPDATE jobs SET result_refs = jsonb_set(result_refs, '{0,url}',
               to_jsonb(regexp_replace(result_refs -> 0 ->> 'url', 'x-expires=[0-9]+', 'x-expires=1')))"""
    )
    engine.sandbox._by_submit.clear()
    before = engine.job_row(job).deadline_at
    engine.save(job)
    assert (engine.job_row(job).state, engine.job_row(job).deadline_at) == ("saving", before)
    engine.sql("UPDATE jobs SET deadline_at = now() + interval '500 milliseconds'")
    engine.save(job)
    row = engine.job_row(job)
    assert (row.state, row.error_code) == ("failed", "result_unavailable")


def test_conversation_waits_for_the_result_of_its_job(engine: Engine, failing: FailingBucket) -> None:
    job = engine.add_saving_job(engine.add_account())
    parent = engine.add_job(engine.add_account())
    failing.failure = FULL_507
    engine.sql(
        "UPDATE jobs SET state = 'saving', kind = 'chat', account_id = account_ids[1], submit_key = gen_random_uuid(), deadline_at = now() WHERE id = :id",
        id=parent,
    )
    engine.sql("UPDATE jobs SET parent_id = :parent WHERE id = :id", parent=parent, id=job)
    engine.save(job)
    assert engine.job_row(parent).deadline_at >= engine.job_row(job).deadline_at - timedelta(seconds=1)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_full_disk_of_temporary_files_is_not_the_jobs_fault(
    engine: Engine, http: TestClient, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    job = engine.add_saving_job(engine.add_account())

    def no_room(*_args: object, **_more: object) -> None:
        raise OSError(number, "no room")

    with monkeypatch.context() as patch:
        for name in ("TemporaryFile", "SpooledTemporaryFile"):
            patch.setattr(tempfile, name, no_room)
        patch.setattr("worker.safe_fetch.async_client.SPOOL_BYTES", 0)
        assert "again in" in engine.save(job)
    assert "temporary files" in storage_check(http)["problems"][0]
    engine.save(job)
    assert engine.job_row(job).state == "succeeded"


def test_old_report_of_a_problem_is_over(engine: Engine, failing: FailingBucket, http: TestClient) -> None:
    job = engine.add_saving_job(engine.add_account())
    failing.failure = FULL_507
    engine.save(job)
    assert storage_check(http)["status"] == "degraded"
    engine.sql("UPDATE platform_state SET updated_at = now() - interval '4 minutes' WHERE name = 'storage_problem'")
    assert (storage_check(http)["status"], storage_up(http)) == ("ready", 1)


def test_half_written_files_of_killed_processes_are_removed(engine: Engine) -> None:
    job = engine.add_succeeded_job(engine.add_account())
    folder = Path(storage._store().prefix)
    [kept] = [path for path in folder.rglob("*.png") if path.is_file()]
    unfinished, fresh = kept.with_name("0.png#1"), kept.with_name("0.png#2")
    unfinished.write_bytes(b"half")
    fresh.write_bytes(b"half")
    os.utime(unfinished, (time.time() - 90_000,) * 2)
    delete_orphans()
    assert (unfinished.exists(), fresh.exists(), kept.exists()) == (False, True, True)
    assert engine.files(job)


def test_upload_to_a_full_storage_is_refused_with_retry_after(
    engine: Engine, failing: FailingBucket, http: TestClient
) -> None:
    engine.add_account()
    failing.failure = FULL_507
    answer = http.post(
        "/v1/images/edits", data={"prompt": "a boat"}, files={"image": ("a.png", make_image(), "image/png")}
    )
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"]["code"] == "storage_unavailable"
    assert int(answer.headers["retry-after"]) > 0


def test_silent_storage_delays_nobody_who_needs_no_file(
    engine: Engine, failing: FailingBucket, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More uploads than threads wait for the bucket; keys are checked and jobs listed meanwhile."""
    monkeypatch.setattr(storage, "_REQUEST_SECONDS", 5)
    storage._store.cache_clear()
    engine.add_account()
    failing.silent = True
    image = make_image()

    def upload() -> int:
        files = {"image": ("a.png", image, "image/png")}
        return http.post("/v1/images/edits", data={"prompt": "a boat"}, files=files).status_code

    with ThreadPoolExecutor(24) as threads:
        uploads = [threads.submit(upload) for _ in range(24)]
        eventually(lambda: len(failing.puts) >= get_settings().db_pool_size, what="the uploads wait for the bucket")
        answers = [http.get("/v1/jobs").status_code for _ in range(10)]
        over = [each for each in uploads if each.done()]
    assert answers == [200] * 10
    assert over == [], "all else was answered before the first upload was over"
    assert {each.result() for each in uploads} == {503}


@pytest.mark.parametrize(
    ("text", "problem", "reason"),
    [
        ("Unable to copy data to file: No space left on device (os error 28)", "full", "it is full (no space left)"),
        ("Unable to open file /x#1: Disk quota exceeded (os error 122)", "full", "it is full (no space left)"),
        ("Unable to open file /x#1: Read-only file system (os error 30)", "read_only", "it is read-only"),
        ("Unable to open file /x#1: Permission denied (os error 13)", "refused", "access was refused (OSError)"),
        ("Error performing PUT http://h/ in 5 s, after 3 retries - error sending request", "away", "cannot be reached"),
        (
            "Server returned non-2xx status code: 502 Bad Gateway: <html>long page</html>",
            "away",
            "it answers 502 Bad Gateway",
        ),
        ("<Code>AccountQuotaExceeded</Code> for 507000 bytes", "full", "it is full (AccountQuotaExceeded)"),
        ("Error performing GET of a file of 507 bytes - connection reset", "away", "cannot be reached"),
    ],
)
def test_errors_of_disks_and_servers_are_distinguished(text: str, problem: str, reason: str) -> None:
    error = storage.as_storage_error(OSError(text))
    assert error.problem == problem
    assert reason in error.reason
