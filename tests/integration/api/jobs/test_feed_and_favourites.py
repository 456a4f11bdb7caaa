"""All jobs as one stream, favourites, searching, archives and thumbnails: what the console lives on."""

import hashlib
import io
import json
import random
import zipfile
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from tests.support.api_client import ApiClient, assert_error, new_key, read_events

EVENTS = "/v1/jobs/events"


@pytest.fixture
def client(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform) as client:
        yield client


@pytest.fixture(scope="module")
def shelf(api_platform) -> Iterator[tuple[ApiClient, dict[str, str]]]:
    """A caller with two pictures, a video and a failed job; ids by name. Read only."""
    with ApiClient(api_platform) as client:
        made = {
            "boat": client.start_job("a Red 红 boat", n=2)["id"],
            "house": client.start_job("a house, 100% blue")["id"],
            "failed": client.start_job("[[fail:2038]] a boat")["id"],
        }
        made["video"] = (
            client.http.post("/v1/videos", json={"prompt": "a boat sails"}).json()["id"].replace("video_", "job_")
        )
        for job_id in made.values():
            client.wait_for_end(job_id)
        yield client, made


def told(stream: httpx.Response) -> Iterator[tuple[str, int | None, dict]]:
    """The events; their ids are times, which `read_events` does not know."""
    return read_events(line for line in stream.iter_lines() if not line.startswith("id:"))


def named(client: ApiClient, made: dict[str, str], **query: object) -> set[str]:
    data = client.http.get("/v1/jobs", params=query).json()["data"]
    return {name for name, job_id in made.items() if job_id in {job["id"] for job in data}}


class TestFeed:
    def test_a_snapshot_and_then_each_change_until_the_end(self, client):
        hanging = client.start_job("[[hang]]")["id"]
        client.wait_for_status(hanging, "in_progress")
        with client.http.stream("GET", EVENTS) as stream:
            events = told(stream)
            name, _, snapshot = next(events)
            assert name == "snapshot"
            assert [job["id"] for job in snapshot["data"]] == [hanging]
            made = client.start_job("a boat")["id"]
            seen = []
            for name, _, job in events:
                assert name == "job"
                seen += [job] if job["id"] == made else []
                if seen and seen[-1]["status"] == "completed":
                    break
        assert seen[0]["status"] in {"queued", "in_progress"}
        assert seen[-1] == client.job(made)
        client.cancel(hanging)

    def test_nobody_hears_of_a_strangers_job(self, client, api_platform):
        with ApiClient(api_platform) as stranger, stranger.http.stream("GET", EVENTS) as stream:
            events = told(stream)
            next(events)
            # Its account is known from its first job on; until then a feed looks every few seconds only.
            first = stranger.start_job("the first")["id"]
            while next(events)[2]["id"] != first:
                pass
            client.wait_for_end(client.start_job("a secret")["id"])
            own = stranger.start_job("my own")["id"]
            seen: set[str] = set()
            while own not in seen:
                seen.add(next(events)[2]["id"])
            assert seen <= {first, own}

    def test_what_was_missed_is_told_again(self, client):
        with client.http.stream("GET", EVENTS) as stream:
            mark = next(line for line in stream.iter_lines() if line.startswith("id: "))[4:]
        missed = client.wait_for_end(client.start_job("a boat")["id"])["id"]
        with client.http.stream("GET", EVENTS, headers={"Last-Event-ID": mark}) as stream:
            events = told(stream)
            name, _, job = next(events)
        assert (name, job["id"], job["status"]) == ("job", missed, "completed")


class TestFavourites:
    def test_a_mark_is_set_listed_and_taken(self, client):
        first, second = client.start_job("one")["id"], client.start_job("two")["id"]
        path = f"/v1/jobs/{first}/favourite"
        assert client.http.put(path).json()["favourite"] is True
        assert client.http.put(path).json()["favourite"] is True
        assert [job["id"] for job in client.http.get("/v1/jobs?favourite=true").json()["data"]] == [first]
        assert [job["id"] for job in client.http.get("/v1/jobs?favourite=false").json()["data"]] == [second]
        assert client.http.delete(path).json()["favourite"] is False
        assert client.http.get("/v1/jobs?favourite=true").json()["data"] == []

    def test_a_strangers_job_is_not_there(self, client, api_platform):
        job = client.start_job("one")["id"]
        with ApiClient(api_platform) as stranger:
            assert_error(stranger.http.put(f"/v1/jobs/{job}/favourite"), 404, "job_not_found")
        assert client.job(job)["favourite"] is False


def test_jobs_are_found_by_words_and_kinds(shelf):
    client, made = shelf
    assert named(client, made, q="BOAT") == {"boat", "failed", "video"}
    assert named(client, made, q="红") == {"boat"}
    assert named(client, made, q="100% b") == {"house"}
    assert named(client, made, q="_") == set()
    assert named(client, made, q="boat", kind="video,image", status="completed") == {"boat", "video"}
    assert "got 'song'" in assert_error(client.http.get("/v1/jobs?kind=image,song"), 400, "invalid_value", "kind")


class TestArchive:
    def test_holds_every_file_and_says_what_each_is(self, shelf):
        client, made = shelf
        ids = ",".join(made[name] for name in ("boat", "video", "failed"))
        answer = client.http.get("/v1/files/archive", params={"ids": ids})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/zip"
        assert len(answer.content) == int(answer.headers["content-length"])
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            manifest = json.loads(archive.read("manifest.json"))
            assert set(archive.namelist()) == {"manifest.json", *(line["name"] for line in manifest["files"])}
            for line in manifest["files"]:
                content = archive.read(line["name"])
                assert (len(content), hashlib.sha256(content).hexdigest()) == (line["bytes"], line["sha256"])
        assert [line["job"] for line in manifest["files"]] == [made["video"], made["boat"], made["boat"]]
        assert manifest["files"][1]["input"]["prompt"] == "a Red 红 boat"
        assert [line["job"] for line in manifest["skipped"]] == [made["failed"]]

    def test_refuses_clearly(self, shelf, api_platform):
        client, made = shelf
        many = ",".join(f"job_{random.SystemRandom().randrange(16**32):032x}" for _ in range(101))
        assert "1 to 100" in assert_error(
            client.http.get("/v1/files/archive", params={"ids": many}), 400, "invalid_value", "ids"
        )
        assert_error(client.http.get("/v1/files/archive"), 400, "missing_required_parameter", "ids")
        assert_error(client.http.get(f"/v1/files/archive?ids={made['failed']}"), 404, "file_not_found")
        assert_error(client.http.get(f"/v1/files/archive?ids={made['boat']},nonsense"), 404, "job_not_found")
        with ApiClient(api_platform, new_key()) as stranger:
            assert_error(stranger.http.get(f"/v1/files/archive?ids={made['boat']}"), 404, "job_not_found")


class TestThumbnails:
    def test_a_picture_has_a_small_copy(self, shelf):
        client, made = shelf
        link = client.job(made["boat"])["output"][0]["url"].replace("/content", "/thumbnail")
        answer = httpx.get(link, trust_env=False)
        assert answer.headers["content-type"] == "image/webp"
        with Image.open(io.BytesIO(answer.content)) as picture:
            assert picture.size == (512, 512)
        again = httpx.get(link, headers={"If-None-Match": answer.headers["etag"]}, trust_env=False)
        assert (again.status_code, again.content) == (304, b"")

    def test_a_video_has_another(self, shelf):
        client, made = shelf
        link = client.job(made["video"])["output"][0]["url"].replace("/content", "/thumbnail")
        assert "thumbnail_url" in assert_error(httpx.get(link, trust_env=False), 404, "file_not_found")
