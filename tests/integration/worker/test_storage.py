"""Storage behaves the same with a local folder and with a bucket of a real S3 server."""

import asyncio
import io
import os
import random
from pathlib import Path

import pytest

from api.cli.operator import doctor
from tests.support.engine import Engine
from tests.support.servers.s3_server import BUCKET, PREFIX, Bucket
from worker import storage
from worker.core.errors import ERRORS

KINDS = ("folder", "bucket")


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, engine: Engine, s3: Bucket) -> Engine:
    """Yield the engine with an empty folder, then with an empty bucket as storage."""
    if request.param == "bucket":
        s3.empty()
        engine.configure(**s3.settings(PREFIX))
    return engine


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def streamed(key: str, start: int, end: int) -> list[bytes]:
    async def read() -> list[bytes]:
        return [chunk async for chunk in await storage.stream_file(key, start=start, end=end)]

    return asyncio.run(read())


@pytest.mark.parametrize("size", [1, 70_000, 13_000_000])
def test_file_is_read_back_unchanged(store: Engine, size: int) -> None:
    data = noise(size)
    with io.BytesIO(data) as content:
        content.read(1)  # the position does not matter
        storage.put_file("jobs/a/0.png", content)
    assert storage.file_size("jobs/a/0.png") == size
    assert storage.read_file("jobs/a/0.png") == data
    with storage.open_file("jobs/a/0.png") as copy:
        assert copy.read() == data
    assert b"".join(streamed("jobs/a/0.png", 0, size)) == data
    for start, end in ((0, 1), (size // 2, size), (size - 1, size), (size // 3, size // 3 + size // 2 + 1)):
        chunks = streamed("jobs/a/0.png", start, end)
        assert b"".join(chunks) == data[start:end]
        assert max(map(len, chunks)) <= 300_000, "a slow reader uses little memory"


def test_key_holds_the_newest_file_until_deleted(store: Engine) -> None:
    for text in (b"old and longer", b"new"):
        storage.put_file("jobs/a/0.png", io.BytesIO(text))
    assert storage.read_file("jobs/a/0.png") == b"new"
    storage.delete_file("jobs/a/0.png")
    storage.delete_file("jobs/a/0.png")
    for read in (storage.read_file, storage.open_file, storage.file_size):
        with pytest.raises(storage.MissingFileError):
            read("jobs/a/0.png")
    with pytest.raises(storage.MissingFileError):
        streamed("jobs/a/0.png", 0, 1)


def test_keys_are_listed_by_prefix_and_age(store: Engine) -> None:
    for key in ("inputs/a/0.png", "inputs/b/0.png", "inputsnot/c", "jobs/d/0.png"):
        storage.put_file(key, io.BytesIO(b"x"))
    assert sorted(k for keys in storage.list_old_keys("inputs", hours=-1) for k in keys) == [
        "inputs/a/0.png",
        "inputs/b/0.png",
    ]
    assert [k for keys in storage.list_old_keys("inputs", hours=1) for k in keys] == []


def test_bucket_listing_continues_after_a_key(engine: Engine, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.storage._LIST_BATCH", 2)
    keys = [f"jobs/{letter}/0.png" for letter in "abcde"]
    for key in reversed(keys):
        storage.put_file(key, io.BytesIO(b"x"))
    assert storage.lists_in_order()
    first, second, *_ = storage.list_pages("jobs", hours=-1)
    assert [*first[0], *second[0]] == keys[:4]
    assert [k for page, _ in storage.list_pages("jobs", hours=-1, after=first[1]) for k in page] == keys[2:]


def test_large_files_are_uploaded_in_parts_under_the_prefix(engine: Engine, bucket: Bucket) -> None:
    storage.put_file("jobs/a/0.mp4", io.BytesIO(noise(12_000_000)))
    assert bucket.keys("") == {f"{PREFIX}/jobs/a/0.mp4": 12_000_000}
    with bucket.client() as client:
        etag = client.head_object(Bucket=BUCKET, Key=f"{PREFIX}/jobs/a/0.mp4")["ETag"]
        assert client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []
    assert etag.strip('"').endswith("-3"), "three parts"


def test_aborted_upload_leaves_nothing(engine: Engine, bucket: Bucket) -> None:
    class Torn(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 6_000_000:
                raise OSError("the disk failed")
            return super().read(size)

    with pytest.raises(storage.StorageError):
        storage.put_file("jobs/a/0.mp4", Torn(noise(12_000_000)))
    assert bucket.keys("") == {}


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("S3_SECRET_ACCESS_KEY", "not-the-secret", "access was refused (SignatureDoesNotMatch)"),
        ("S3_ACCESS_KEY_ID", "AKIANOBODY", "access was refused (InvalidAccessKeyId)"),
        ("STORAGE_URL", "s3://no-such-bucket", "the bucket does not exist"),
        ("S3_ENDPOINT", "http://127.0.0.1:1", "it cannot be reached"),
    ],
)
def test_bucket_errors_have_clear_messages(
    engine: Engine, bucket: Bucket, setting: str, value: str, reason: str
) -> None:
    engine.configure(**{setting: value})
    for call in (
        lambda: storage.put_file("jobs/a/0.png", io.BytesIO(b"x")),
        lambda: storage.read_file("jobs/a/0.png"),
        lambda: list(storage.list_old_keys("jobs", hours=1)),
        lambda: streamed("jobs/a/0.png", 0, 1),
    ):
        with pytest.raises(storage.StorageError) as caught:
            call()
        assert reason in caught.value.reason
        assert caught.value.kind == ERRORS["storage_unavailable"]
        assert bucket.secret not in repr(caught.value) + str(caught.value.__cause__)
    [finding] = [found for found in doctor.run_checks() if found.check == "storage"]
    assert not finding.ok
    assert reason in finding.detail
    assert "DREAMERY_S3_" in finding.hint


def test_doctor_reports_working_storage(store: Engine) -> None:
    [finding] = [found for found in doctor.run_checks() if found.check == "storage"]
    assert finding.ok
    assert store.env.get("DREAMERY_STORAGE_URL", store.env["DREAMERY_DATA_DIR"]) in finding.detail
    assert [key for keys in storage.list_old_keys("platform", hours=-1) for key in keys] == []


def test_unwritable_folder_has_a_clear_message(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "a file").write_bytes(b"")
    engine.configure(STORAGE_URL=f"file://{tmp_path}/store")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "jobs").write_bytes(b"in the way")
    with pytest.raises(storage.StorageError):
        storage.put_file("jobs/a/0.png", io.BytesIO(b"x"))


def test_first_platform_owns_the_storage(store: Engine) -> None:
    assert storage.read_owner() is None
    assert storage.claim_ownership("one") == "one"
    assert storage.claim_ownership("two") == "one"
    assert storage.read_owner() == "one"
    storage.take_ownership("two")
    assert storage.claim_ownership("one") == "two"


def test_job_result_is_stored_in_the_bucket(engine: Engine, bucket: Bucket) -> None:
    job = engine.add_succeeded_job(engine.add_account(), count=2)
    stored = bucket.keys(PREFIX)
    assert stored == {f"{PREFIX}/{row.key}": row.bytes for row in engine.files(job)}


def test_save_is_retried_when_storage_fails(engine: Engine, bucket: Bucket) -> None:
    job = engine.add_saving_job(engine.add_account())
    engine.configure(S3_SECRET_ACCESS_KEY="not-the-secret")
    engine.save(job)
    assert engine.job_row(job).state == "saving"
    assert bucket.keys(PREFIX) == {}
    engine.configure(S3_SECRET_ACCESS_KEY=bucket.secret)
    engine.save(job)
    assert engine.job_row(job).state == "succeeded"
    assert len(bucket.keys(PREFIX)) == 1
    assert engine.charge_count() == 1


def test_aws_environment_is_used_for_unset_settings(
    engine: Engine, s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.configure(STORAGE_URL=f"s3://{BUCKET}", S3_ENDPOINT=s3.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret)
    assert "AWS_SECRET_ACCESS_KEY" in os.environ
    assert storage.probe().startswith(f"s3://{BUCKET}")
