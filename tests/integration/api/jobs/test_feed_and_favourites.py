"""Job feed, favourites, search, archives and thumbnails: routes that the console uses."""

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
def finished_jobs(api_platform) -> Iterator[tuple[ApiClient, dict[str, str]]]:
    """A caller with two image jobs, a video job and a failed job; ids by name. Read-only."""
    with ApiClient(api_platform) as client:
        jobs = {
            "boat": client.start_job("a Red 红 boat", n=2)["id"],
            "house": client.start_job("a house, 100% blue")["id"],
            "failed": client.start_job("[[fail:2038]] a boat")["id"],
        }
        jobs["video"] = (
            client.http.post("/v1/videos", json={"prompt": "a boat sails"}).json()["id"].replace("video_", "job_")
        )
        for job_id in jobs.values():
            client.wait_for_end(job_id)
        yield client, jobs


def feed_events(stream: httpx.Response) -> Iterator[tuple[str, int | None, dict]]:
    """Events without their ids: ids of the feed are times, which `read_events` cannot parse."""
    return read_events(line for line in stream.iter_lines() if not line.startswith("id:"))


def matching_names(client: ApiClient, jobs: dict[str, str], **query: object) -> set[str]:
    data = client.http.get("/v1/jobs", params=query).json()["data"]
    return {name for name, job_id in jobs.items() if job_id in {job["id"] for job in data}}


class TestFeed:
    def test_snapshot_is_followed_by_every_change(self, client):
        hanging = client.start_job("[[hang]]")["id"]
        client.wait_for_status(hanging, "in_progress")
        with client.http.stream("GET", EVENTS) as stream:
            events = feed_events(stream)
            name, _, snapshot = next(events)
            assert name == "snapshot"
            assert [job["id"] for job in snapshot["data"]] == [hanging]
            new_job = client.start_job("a boat")["id"]
            seen = []
            for name, _, job in events:
                assert name == "job"
                seen += [job] if job["id"] == new_job else []
                if seen and seen[-1]["status"] == "completed":
                    break
        assert seen[0]["status"] in {"queued", "in_progress"}
        assert seen[-1] == client.job(new_job)
        client.cancel(hanging)

    def test_feed_hides_jobs_of_other_callers(self, client, api_platform):
        with ApiClient(api_platform) as other, other.http.stream("GET", EVENTS) as stream:
            events = feed_events(stream)
            next(events)
            # Its account row exists only after its first job; until then the feed polls every few seconds.
            first = other.start_job("the first")["id"]
            while next(events)[2]["id"] != first:
                pass
            client.wait_for_end(client.start_job("a secret")["id"])
            own = other.start_job("my own")["id"]
            seen: set[str] = set()
            while own not in seen:
                seen.add(next(events)[2]["id"])
            assert seen <= {first, own}

    def test_last_event_id_replays_missed_jobs(self, client):
        with client.http.stream("GET", EVENTS) as stream:
            last_event_id = next(line for line in stream.iter_lines() if line.startswith("id: "))[4:]
        missed = client.wait_for_end(client.start_job("a boat")["id"])["id"]
        with client.http.stream("GET", EVENTS, headers={"Last-Event-ID": last_event_id}) as stream:
            events = feed_events(stream)
            name, _, job = next(events)
        assert (name, job["id"], job["status"]) == ("job", missed, "completed")


class TestFavourites:
    def test_favourite_is_set_listed_and_removed(self, client):
        first, second = client.start_job("one")["id"], client.start_job("two")["id"]
        path = f"/v1/jobs/{first}/favourite"
        assert client.http.put(path).json()["favourite"] is True
        assert client.http.put(path).json()["favourite"] is True
        assert [job["id"] for job in client.http.get("/v1/jobs?favourite=true").json()["data"]] == [first]
        assert [job["id"] for job in client.http.get("/v1/jobs?favourite=false").json()["data"]] == [second]
        assert client.http.delete(path).json()["favourite"] is False
        assert client.http.get("/v1/jobs?favourite=true").json()["data"] == []

    def test_other_callers_job_returns_404(self, client, api_platform):
        job = client.start_job("one")["id"]
        with ApiClient(api_platform) as other:
            assert_error(other.http.put(f"/v1/jobs/{job}/favourite"), 404, "job_not_found")
        assert client.job(job)["favourite"] is False


def test_search_by_text_kind_and_status(finished_jobs):
    client, jobs = finished_jobs
    assert matching_names(client, jobs, q="BOAT") == {"boat", "failed", "video"}
    assert matching_names(client, jobs, q="红") == {"boat"}
    assert matching_names(client, jobs, q="100% b") == {"house"}
    assert matching_names(client, jobs, q="_") == set()
    assert matching_names(client, jobs, q="boat", kind="video,image", status="completed") == {"boat", "video"}
    assert "got 'song'" in assert_error(client.http.get("/v1/jobs?kind=image,song"), 400, "invalid_value", "kind")


class TestArchive:
    def test_archive_contains_all_files_and_a_manifest(self, finished_jobs):
        client, jobs = finished_jobs
        ids = ",".join(jobs[name] for name in ("boat", "video", "failed"))
        answer = client.http.get("/v1/files/archive", params={"ids": ids})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/zip"
        assert len(answer.content) == int(answer.headers["content-length"])
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            manifest = json.loads(archive.read("manifest.json"))
            assert set(archive.namelist()) == {"manifest.json", *(entry["name"] for entry in manifest["files"])}
            for entry in manifest["files"]:
                content = archive.read(entry["name"])
                assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"])
        assert [entry["job"] for entry in manifest["files"]] == [jobs["video"], jobs["boat"], jobs["boat"]]
        assert manifest["files"][1]["input"]["prompt"] == "a Red 红 boat"
        assert [entry["job"] for entry in manifest["skipped"]] == [jobs["failed"]]

    def test_invalid_archive_requests_are_rejected(self, finished_jobs, api_platform):
        client, jobs = finished_jobs
        many = ",".join(f"job_{random.SystemRandom().randrange(16**32):032x}" for _ in range(101))
        assert "1 to 100" in assert_error(
            client.http.get("/v1/files/archive", params={"ids": many}), 400, "invalid_value", "ids"
        )
        assert_error(client.http.get("/v1/files/archive"), 400, "missing_required_parameter", "ids")
        assert_error(client.http.get(f"/v1/files/archive?ids={jobs['failed']}"), 404, "file_not_found")
        assert_error(client.http.get(f"/v1/files/archive?ids={jobs['boat']},nonsense"), 404, "job_not_found")
        with ApiClient(api_platform, new_key()) as other:
            assert_error(other.http.get(f"/v1/files/archive?ids={jobs['boat']}"), 404, "job_not_found")


class TestThumbnails:
    def test_image_has_a_thumbnail(self, finished_jobs):
        client, jobs = finished_jobs
        link = client.job(jobs["boat"])["output"][0]["url"].replace("/content", "/thumbnail")
        answer = httpx.get(link, trust_env=False)
        assert answer.headers["content-type"] == "image/webp"
        with Image.open(io.BytesIO(answer.content)) as image:
            assert image.size == (512, 512)
        again = httpx.get(link, headers={"If-None-Match": answer.headers["etag"]}, trust_env=False)
        assert (again.status_code, again.content) == (304, b"")

    def test_video_thumbnail_is_in_the_job(self, finished_jobs):
        client, jobs = finished_jobs
        link = client.job(jobs["video"])["output"][0]["url"].replace("/content", "/thumbnail")
        assert "thumbnail_url" in assert_error(httpx.get(link, trust_env=False), 404, "file_not_found")
