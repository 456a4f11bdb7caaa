"""Thumbnails are made once, kept beside their image, and deleted with it. Nothing depends on a kept one."""

import asyncio
import io
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.jobs.results import thumbnails
from tests.support.api_client import new_key
from tests.support.engine import Engine
from tests.support.servers.s3_server import PREFIX, Bucket
from worker import storage
from worker.core.media.isolation.client import run_async
from worker.core.media.thumbnail_keys import thumbnail_keys
from worker.tasks.cleanup import clean_up


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, engine: Engine, s3: Bucket) -> Engine:
    if request.param == "bucket":
        s3.empty()
        engine.configure(**s3.settings(PREFIX))
    return engine


@pytest.fixture
def client(engine: Engine) -> Iterator[TestClient]:
    with TestClient(create_app(), headers={"Authorization": f"Bearer {new_key()}"}) as client:
        yield client


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The pictures that child processes were asked to shrink."""
    works: list[Any] = []

    async def counted(work: Any, **options: Any) -> bytes:
        works.append(work)
        return await run_async(work, **options)

    monkeypatch.setattr(thumbnails, "run_async", counted)
    monkeypatch.setattr(thumbnails._Pause, "until", 0.0)
    return works


class Picture:
    """A finished picture: its id, its storage key and the links of its thumbnails."""

    def __init__(self, engine: Engine, client: TestClient) -> None:
        body = {"prompt": "a boat", "n": 1, "async": True}
        job = client.post("/v1/images/generations", json=body).json()["id"]
        [row] = engine.sql("SELECT id FROM jobs WHERE id = :id", id=job.removeprefix("job_"))
        engine.run_until_final(row.id)
        self.job = row.id
        self.id = client.get(f"/v1/jobs/{job}").json()["output"][0]["id"]
        self.key = engine.files(row.id)[0].key
        self.small, self.medium = (f"/v1/files/{self.id}/thumbnail?size={size}" for size in ("small", "medium"))


def stored(*keys: str) -> list[str]:
    """Return those of the keys that have bytes."""
    found = []
    for key in keys:
        try:
            found.append(key) if storage.file_size(key) else None
        except storage.MissingFileError:
            continue
    return found


def test_made_once_and_deleted_with_the_picture(store: Engine, client: TestClient, made: list[Any]) -> None:
    picture = Picture(store, client)
    first = [client.get(link) for link in (picture.small, picture.medium)]
    assert [answer.status_code for answer in first] == [200, 200]
    assert len(made) == 2
    again = [client.get(link) for link in (picture.small, picture.medium)]
    assert [answer.content for answer in again] == [answer.content for answer in first]
    assert [answer.headers["etag"] for answer in again] == [answer.headers["etag"] for answer in first]
    assert len(made) == 2, "the second time nothing is made"
    files = [picture.key, *thumbnail_keys(picture.key)]
    assert stored(*files) == files
    assert client.delete(f"/v1/files/{picture.id}").status_code == 200
    assert stored(*files) == []
    assert client.get(picture.small).status_code == 404


def test_requests_at_once_make_one(
    engine: Engine, client: TestClient, made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, count = Picture(engine, client), thumbnails.run_async

    async def when_both_wait(work: Any, **options: Any) -> bytes:
        for _ in range(500):
            if sum(shared.waiting for shared in thumbnails._being_made.values()) == 2:
                break
            await asyncio.sleep(0.01)
        return await count(work, **options)

    monkeypatch.setattr(thumbnails, "run_async", when_both_wait)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(client.get, [picture.medium] * 2))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content
    assert len(made) == 1
    assert not thumbnails._being_made


@pytest.mark.parametrize("left", [b"", b"RIFF", b"RIFF\xff\x00\x00\x00WEBPVP8 half"])
def test_a_damaged_one_is_made_again(engine: Engine, client: TestClient, made: list[Any], left: bytes) -> None:
    picture = Picture(engine, client)
    whole = client.get(picture.small).content
    storage.put_bytes(thumbnail_keys(picture.key)[0], left)
    assert client.get(picture.small).content == whole
    assert len(made) == 2
    assert storage.read_file(thumbnail_keys(picture.key)[0]) == whole


def test_a_storage_that_keeps_nothing_hinders_nobody(
    engine: Engine, client: TestClient, made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = Picture(engine, client)
    obstacle = Path(storage._store().prefix) / thumbnail_keys(picture.key)[1] / "a folder in its place"
    obstacle.mkdir(parents=True)
    assert client.get(picture.medium).headers["content-type"] == "image/webp"
    assert thumbnails._Pause.until > time.monotonic()
    assert client.get(picture.small).status_code == 200
    assert stored(thumbnail_keys(picture.key)[0]) == [], "the storage is left alone for a while"
    monkeypatch.setattr(thumbnails._Pause, "until", 0.0)
    assert client.get(picture.small).status_code == 200
    assert stored(thumbnail_keys(picture.key)[0])


def test_a_picture_deleted_meanwhile_leaves_none(
    engine: Engine, client: TestClient, made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, count = Picture(engine, client), thumbnails.run_async

    async def then_deleted(work: Any, **options: Any) -> bytes:
        content = await count(work, **options)
        storage.delete_file(picture.key)
        return content

    monkeypatch.setattr(thumbnails, "run_async", then_deleted)
    assert client.get(picture.medium).status_code == 200
    assert stored(picture.key, *thumbnail_keys(picture.key)) == []


def test_clean_up_knows_them(engine: Engine, client: TestClient, made: list[Any]) -> None:
    kept, expired = Picture(engine, client), Picture(engine, client)
    assert {client.get(link).status_code for link in (kept.small, expired.small)} == {200}
    ownerless = [f"{folder}/{kept.job.hex}/7.png.thumbnail-128.webp" for folder in ("inputs", "jobs")]
    for key in ownerless:
        storage.put_file(key, io.BytesIO(b"of a picture without a row"))
    for file in Path(storage._store().prefix).rglob("*.webp"):
        os.utime(file, (time.time() - 25 * 3600,) * 2)
    engine.configure(RETENTION_DAYS="7")
    engine.sql("UPDATE jobs SET finished_at = now() - interval '8 days' WHERE id = :id", id=expired.job)
    summary = clean_up()
    assert "removed 1 files" in summary, "a thumbnail is not counted"
    assert "2 orphans" in summary
    assert stored(*ownerless, expired.key, *thumbnail_keys(expired.key)) == []
    assert stored(kept.key, *thumbnail_keys(kept.key)) == [kept.key, thumbnail_keys(kept.key)[0]]
