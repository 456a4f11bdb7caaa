"""`/v1/jobs` on a running platform: list, get, cancel, follow; visibility of jobs (I9)."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from api.jobs.schemas import Job, JobList
from tests.support.api_client import FINAL, ApiClient, assert_error, new_key, new_session, read_events


@pytest.fixture
def client(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def idle_stream(api_platform) -> Iterator[tuple[list[bytes], threading.Thread]]:
    """Chunks of a stream without events. Started early and read in the background, because the heartbeat takes a while."""
    chunks: list[bytes] = []
    with ApiClient(api_platform) as client:
        job_id = client.start_job("[[hang]]")["id"]
        client.wait_for_status(job_id, "in_progress")

        def read() -> None:
            with (
                ApiClient(api_platform, client.key) as same,
                same.http.stream("GET", f"/v1/jobs/{job_id}/events") as response,
            ):
                for chunk in response.iter_raw():
                    chunks.append(chunk)
                    if chunk.startswith(b":"):
                        return

        reader = threading.Thread(target=read)
        reader.start()
        yield chunks, reader
        client.cancel(job_id)
        reader.join(timeout=60)


def ids_of(client: ApiClient, **query) -> list[str]:
    response = client.http.get("/v1/jobs", params=query)
    assert response.status_code == 200, response.text
    return [job["id"] for job in response.json()["data"]]


class TestList:
    @pytest.fixture(scope="class")
    @staticmethod
    def listed_jobs(api_platform) -> Iterator[tuple[ApiClient, dict[str, str]]]:
        """A caller with one job of every status, oldest first."""
        with ApiClient(api_platform) as client:
            jobs = {
                "completed": client.start_job("one")["id"],
                "failed": client.start_job("[[fail:2005]]", model="jimeng-3.0")["id"],
            }
            for job_id in jobs.values():
                client.wait_for_end(job_id)
            jobs["in_progress"] = client.start_job("[[hang]]")["id"]
            client.wait_for_status(jobs["in_progress"], "in_progress")
            jobs["other"] = client.start_job("[[hang]]")["id"]
            client.wait_for_status(jobs["other"], "in_progress")
            jobs["queued"] = client.start_job("three")["id"]
            jobs["cancelled"] = client.start_job("four")["id"]
            client.cancel(jobs["cancelled"])
            yield client, jobs
            for job_id in jobs.values():
                client.cancel(job_id)

    def test_page_has_documented_shape(self, listed_jobs):
        client, jobs = listed_jobs
        page = client.http.get("/v1/jobs").json()
        JobList.model_validate(page)
        assert [job["id"] for job in page["data"]] == list(reversed(jobs.values()))
        assert (page["first_id"], page["last_id"]) == (jobs["cancelled"], jobs["completed"])
        assert page["has_more"] is False

    @pytest.mark.parametrize("order", ["asc", "desc"])
    def test_pagination_has_no_gaps_or_duplicates(self, listed_jobs, order):
        client, jobs = listed_jobs
        seen, query = [], {"order": order, "limit": 2}
        while True:
            page = client.http.get("/v1/jobs", params=query).json()
            assert len(page["data"]) <= 2
            seen += [job["id"] for job in page["data"]]
            if not page["has_more"]:
                break
            query["after"] = page["last_id"]
        expected = list(jobs.values())
        assert seen == (expected if order == "asc" else expected[::-1])

    def test_filters_by_status_model_and_kind(self, listed_jobs):
        client, jobs = listed_jobs
        assert ids_of(client, status="completed") == [jobs["completed"]]
        assert ids_of(client, status="failed,cancelled") == [jobs["cancelled"], jobs["failed"]]
        assert ids_of(client, status="queued, in_progress") == [jobs["queued"], jobs["other"], jobs["in_progress"]]
        assert ids_of(client, model="jimeng-3.0") == [jobs["failed"]] == ids_of(client, model="jimeng-image-3.0")
        assert ids_of(client, model="gpt-9") == []
        assert len(ids_of(client, kind="image")) == 6
        assert ids_of(client, kind="video") == []
        assert ids_of(client, status="completed", model="jimeng-3.0") == []

    def test_filters_by_time(self, listed_jobs):
        client, jobs = listed_jobs
        moment = client.job(jobs["completed"])["created_at"]
        assert len(ids_of(client, created_after=str(moment))) == 6
        assert ids_of(client, created_before=str(moment)) == []
        assert ids_of(client, created_after=str(moment + 3600)) == []
        assert len(ids_of(client, created_before="2999-01-01T00:00:00Z", created_after="1999-01-01")) == 6

    def test_job_has_documented_shape_in_every_status(self, listed_jobs):
        client, jobs = listed_jobs
        for name, job_id in jobs.items():
            job = client.job(job_id)
            Job.model_validate(job)
            assert set(job) == set(Job.model_fields)
            assert job["status"] == ("in_progress" if name == "other" else name)
            assert (job["completed_at"] is not None) == (job["status"] in FINAL)
            assert (job["error"] is not None) == (name == "failed")
            assert (job["output"] is not None) == (name == "completed")
            assert (job["progress"] == 100) == (name == "completed")
            assert job["urls"]["get"] == f"{client.platform.url}/v1/jobs/{job_id}"


def test_queued_job_shows_its_position(client):
    running = [client.start_job("[[hang]]")["id"] for _ in range(2)]
    for job_id in running:
        client.wait_for_status(job_id, "in_progress")
    waiting = [client.start_job(f"number {n}")["id"] for n in range(3)]
    assert [client.job(job_id)["queue"]["position"] for job_id in waiting] == [1, 2, 3]
    client.cancel(waiting[0])
    assert [client.job(job_id)["queue"]["position"] for job_id in waiting] == [None, 1, 2]
    assert client.job(running[0])["queue"]["position"] is None
    for job_id in [*running, *waiting]:
        client.cancel(job_id)


def test_progress_never_falls(client):
    job_id = client.start_job("[[seconds:1.5]] [[queue:2]]")["id"]
    seen = [0]
    positions = []
    while seen[-1] < 100:
        job = client.job(job_id)
        assert job["status"] not in {"failed", "cancelled"}
        seen.append(job["progress"])
        positions.append(job["queue"]["upstream_position"])
    assert seen == sorted(seen)
    assert len(set(seen)) > 3
    assert positions[-1] is None


def test_get_with_wait_returns_when_job_ends(client):
    job_id = client.start_job("[[seconds:1]]")["id"]
    response = client.http.get(f"/v1/jobs/{job_id}", params={"wait": 0.2})
    assert response.json()["status"] in {"queued", "in_progress"}
    assert response.headers["retry-after"] in {"2", "3"}
    done = client.http.get(f"/v1/jobs/{job_id}", params={"wait": 30})
    assert done.json()["status"] == "completed"
    assert "retry-after" not in done.headers


class TestCancel:
    def test_queued_job_is_cancelled_immediately(self, client):
        running = [client.start_job("[[hang]]")["id"] for _ in range(2)]
        for job_id in running:
            client.wait_for_status(job_id, "in_progress")
        job_id = client.start_job()["id"]
        first = client.cancel(job_id)
        assert first["status"] == "cancelled"
        assert first["completed_at"] is not None
        assert client.cancel(job_id) == first
        assert len(client.submits()) == 2
        for job_id in running:
            client.cancel(job_id)

    def test_running_job_is_cancelled(self, client):
        job_id = client.start_job("[[seconds:30]]")["id"]
        client.wait_for_status(job_id, "in_progress")
        response = client.http.post(f"/v1/jobs/{job_id}/cancel")
        assert (response.status_code, response.headers["x-job-id"]) == (200, job_id)
        Job.model_validate(response.json())
        assert response.json()["status"] == "cancelled" or response.json()["cancelling"]
        ended = client.wait_for_end(job_id)
        assert (ended["status"], ended["cancelling"], ended["error"]) == ("cancelled", False, None)
        assert client.cancel(job_id) == ended

    def test_cancelling_an_ended_job_changes_nothing(self, client):
        job_id = client.start_job()["id"]
        done = client.wait_for_end(job_id)
        assert client.cancel(job_id) == client.cancel(job_id) == done


class TestEvents:
    def follow(self, client: ApiClient, job_id: str, **headers: str) -> list[tuple[str, int | None, dict]]:
        request_headers = {name.replace("_", "-"): value for name, value in headers.items()}
        with client.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=request_headers) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["x-job-id"] == job_id
            assert response.headers["cache-control"] == "no-cache"
            assert response.headers["x-accel-buffering"] == "no"
            return list(read_events(response.iter_lines()))

    def test_events_from_snapshot_to_completion(self, client):
        job_id = client.start_job("[[seconds:1]]")["id"]
        frames = self.follow(client, job_id)
        names, numbers = [name for name, _, _ in frames], [number for _, number, _ in frames]
        assert names[0] == "snapshot"
        assert names[-1] == "completed"
        assert set(names[1:-1]) == {"progress"}
        assert numbers == sorted(numbers)
        progress = [job["progress"] for _, _, job in frames]
        assert progress == sorted(progress)
        assert progress[-1] == 100
        for _, _, job in frames:
            Job.model_validate(job)
        assert frames[-1][2] == client.job(job_id)

    @pytest.mark.parametrize(("prompt", "last"), [("[[fail:2005]]", "failed"), ("[[hang]]", "cancelled")])
    def test_final_event_of_failed_and_cancelled_jobs(self, client, prompt, last):
        job_id = client.start_job(prompt)["id"]
        if last == "cancelled":
            client.wait_for_status(job_id, "in_progress")
            client.cancel(job_id)
        assert self.follow(client, job_id)[-1][0] == last

    def test_last_event_id_replays_missed_events(self, client):
        job_id = client.start_job("[[seconds:1]]")["id"]
        with client.http.stream("GET", f"/v1/jobs/{job_id}/events") as response:
            name, seen, _ = next(read_events(response.iter_lines()))
        assert name == "snapshot"
        client.wait_for_end(job_id)
        frames = self.follow(client, job_id, Last_Event_ID=str(seen))
        names, numbers = [name for name, _, _ in frames], [number for _, number, _ in frames]
        assert numbers == list(range(seen + 1, numbers[-1] + 1))
        assert names == ["progress"] * (len(frames) - 1) + ["completed"]
        assert all(data["id"] == job_id for _, _, data in frames)
        states = [data["state"] for name, _, data in frames if name == "progress"]
        assert states[-1] == "saving"

    def test_client_that_has_the_final_event_is_stopped_with_204(self, client):
        job_id = client.start_job()["id"]
        client.wait_for_end(job_id)
        ((name, number, job),) = self.follow(client, job_id)
        assert (name, job["status"]) == ("completed", "completed")
        for again in (str(number - 1), "nonsense", ""):
            assert self.follow(client, job_id, Last_Event_ID=again)[-1][:2] == ("completed", number)
        for seen in (str(number), "999999"):
            ended = client.http.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": seen})
            assert (ended.status_code, ended.content, ended.headers["x-job-id"]) == (204, b"", job_id)
        assert client.http.get(f"/v1/jobs/{job_id}/events?after={number}").status_code == 204

    def test_idle_stream_sends_heartbeat_comments(self, idle_stream):
        chunks, reader = idle_stream
        reader.join(timeout=60)
        assert chunks[-1] == b": ka\n"
        assert b"retry:" not in b"".join(chunks)
        assert all(chunk.endswith(b"\n\n") for chunk in chunks[:-1])


class TestOtherCallers:
    """I9: callers see only their own jobs; the id of another caller's job returns 404, not 403."""

    def test_other_callers_job_returns_404(self, client):
        job_id = client.start_job("[[hang]]")["id"]
        done = client.generate_images(n=1).headers["x-job-id"]
        admin = client.platform.admin_key
        for key in (new_key(), new_session() + ":cn", client.key.replace(":sandbox", ":cn"), admin):
            with client.as_caller(key) as other:
                for hidden_id in (job_id, done):
                    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
                        response = other.http.request(method, f"/v1/jobs/{hidden_id}{path}")
                        assert_error(response, 404, "job_not_found")
                        assert "x-job-id" not in response.headers
                if key != admin:
                    assert ids_of(other) == []
                assert not {job_id, done} & set(ids_of(other, limit=100))
        assert client.job(job_id)["status"] != "cancelled"
        client.cancel(job_id)

    def test_session_ids_do_not_see_jobs_of_api_keys(self, client):
        with client.as_caller(client.platform.admin_key) as admin:
            job_id = admin.generate_images(n=1).headers["x-job-id"]  # ran on the demo account of the pool
            assert admin.job(job_id)["status"] == "completed"
            assert job_id in ids_of(admin)
        for key in ("demo:sandbox", new_key()):
            with client.as_caller(key) as session:
                assert_error(session.http.get(f"/v1/jobs/{job_id}"), 404, "job_not_found")
                assert job_id not in ids_of(session, limit=100)

    def test_one_session_of_a_list_sees_its_jobs(self, client):
        first, second = new_key(), new_key()
        with client.as_caller(f" {first} , {second},") as both:
            job_id = both.start_job("[[seconds:0.5]]")["id"]
            both.wait_for_end(job_id)
        for key in (first, second, f"{second},{new_key()}"):
            with client.as_caller(key) as member:
                assert member.job(job_id)["status"] == "completed"
                assert ids_of(member) == [job_id]
        assert_error(client.http.get(f"/v1/jobs/{job_id}"), 404, "job_not_found")

    def test_reading_creates_no_account(self, client, api_platform):
        count = "SELECT count(*) FROM accounts"
        with psycopg.connect(api_platform.database_url, autocommit=True) as connection:
            before = connection.execute(count).fetchone()
            assert ids_of(client) == []
            assert_error(client.generate_images(model="gpt-9"), 404, "model_not_found", "model")
            assert connection.execute(count).fetchone() == before


def test_session_list_works_with_one_expired_session(api_platform):
    with ApiClient(api_platform, f"{new_key('dead')},{new_key()}") as client:
        answers = [client.generate_images(n=1) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]


def test_callers_with_the_same_new_sessions_do_not_deadlock(api_platform):
    """Rows of new accounts are created in sorted order, because any other order could deadlock in Postgres."""

    def start(order: list[str]) -> str:
        with ApiClient(api_platform, ",".join(order)) as client:
            return client.start_job()["id"]

    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            keys = [new_key() for _ in range(40)]
            assert len(set(pool.map(start, (keys, keys[::-1])))) == 2
