"""`/v1/jobs` on a running platform: list, get, cancel, follow; and who may see what (I9)."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from api.jobs.schemas import Job, JobList
from tests.support.api_client import FINAL, Face, error_of, new_key, new_session, read_events


@pytest.fixture
def face(api_platform) -> Iterator[Face]:
    with Face(api_platform) as face:
        yield face


@pytest.fixture(scope="module", autouse=True)
def silent(api_platform) -> Iterator[tuple[list[bytes], threading.Thread]]:
    """What a stream sends that has nothing to tell; begun early and read in the background, for it takes a while."""
    chunks: list[bytes] = []
    with Face(api_platform) as face:
        job_id = face.start("[[hang]]")["id"]
        face.becomes(job_id, "in_progress")

        def read() -> None:
            with Face(api_platform, face.key) as same, same.http.stream("GET", f"/v1/jobs/{job_id}/events") as response:
                for chunk in response.iter_raw():
                    chunks.append(chunk)
                    if chunk.startswith(b":"):
                        return

        reader = threading.Thread(target=read)
        reader.start()
        yield chunks, reader
        face.cancel(job_id)
        reader.join(timeout=60)


def ids_of(face: Face, **query) -> list[str]:
    response = face.http.get("/v1/jobs", params=query)
    assert response.status_code == 200, response.text
    return [job["id"] for job in response.json()["data"]]


class TestList:
    @pytest.fixture(scope="class")
    @staticmethod
    def shelf(api_platform) -> Iterator[tuple[Face, dict[str, str]]]:
        """A caller with a job of every status, oldest first."""
        with Face(api_platform) as face:
            made = {
                "completed": face.start("one")["id"],
                "failed": face.start("[[fail:2005]]", model="jimeng-3.0")["id"],
            }
            for job_id in made.values():
                face.ended(job_id)
            made["in_progress"] = face.start("[[hang]]")["id"]
            face.becomes(made["in_progress"], "in_progress")
            made["other"] = face.start("[[hang]]")["id"]
            face.becomes(made["other"], "in_progress")
            made["queued"] = face.start("three")["id"]
            made["cancelled"] = face.start("four")["id"]
            face.cancel(made["cancelled"])
            yield face, made
            for job_id in made.values():
                face.cancel(job_id)

    def test_a_page_has_the_documented_shape(self, shelf):
        face, made = shelf
        page = face.http.get("/v1/jobs").json()
        JobList.model_validate(page)
        assert [job["id"] for job in page["data"]] == list(reversed(made.values()))
        assert (page["first_id"], page["last_id"]) == (made["cancelled"], made["completed"])
        assert page["has_more"] is False

    @pytest.mark.parametrize("order", ["asc", "desc"])
    def test_pages_follow_each_other_without_gap_or_repeat(self, shelf, order):
        face, made = shelf
        seen, query = [], {"order": order, "limit": 2}
        while True:
            page = face.http.get("/v1/jobs", params=query).json()
            assert len(page["data"]) <= 2
            seen += [job["id"] for job in page["data"]]
            if not page["has_more"]:
                break
            query["after"] = page["last_id"]
        wanted = list(made.values())
        assert seen == (wanted if order == "asc" else wanted[::-1])

    def test_filters(self, shelf):
        face, made = shelf
        assert ids_of(face, status="completed") == [made["completed"]]
        assert ids_of(face, status="failed,cancelled") == [made["cancelled"], made["failed"]]
        assert ids_of(face, status="queued, in_progress") == [made["queued"], made["other"], made["in_progress"]]
        assert ids_of(face, model="jimeng-3.0") == [made["failed"]] == ids_of(face, model="jimeng-image-3.0")
        assert ids_of(face, model="gpt-9") == []
        assert len(ids_of(face, kind="image")) == 6
        assert ids_of(face, kind="video") == []
        assert ids_of(face, status="completed", model="jimeng-3.0") == []

    def test_filters_by_time(self, shelf):
        face, made = shelf
        moment = face.job(made["completed"])["created_at"]
        assert len(ids_of(face, created_after=str(moment))) == 6
        assert ids_of(face, created_before=str(moment)) == []
        assert ids_of(face, created_after=str(moment + 3600)) == []
        assert len(ids_of(face, created_before="2999-01-01T00:00:00Z", created_after="1999-01-01")) == 6

    def test_a_job_has_the_documented_shape_in_every_status(self, shelf):
        face, made = shelf
        for name, job_id in made.items():
            job = face.job(job_id)
            Job.model_validate(job)
            assert set(job) == set(Job.model_fields)
            assert job["status"] == ("in_progress" if name == "other" else name)
            assert (job["completed_at"] is not None) == (job["status"] in FINAL)
            assert (job["error"] is not None) == (name == "failed")
            assert (job["output"] is not None) == (name == "completed")
            assert (job["progress"] == 100) == (name == "completed")
            assert job["urls"]["get"] == f"{face.platform.url}/v1/jobs/{job_id}"


def test_a_queued_job_knows_its_place(face):
    running = [face.start("[[hang]]")["id"] for _ in range(2)]
    for job_id in running:
        face.becomes(job_id, "in_progress")
    waiting = [face.start(f"number {n}")["id"] for n in range(3)]
    assert [face.job(job_id)["queue"]["position"] for job_id in waiting] == [1, 2, 3]
    face.cancel(waiting[0])
    assert [face.job(job_id)["queue"]["position"] for job_id in waiting] == [None, 1, 2]
    assert face.job(running[0])["queue"]["position"] is None
    for job_id in [*running, *waiting]:
        face.cancel(job_id)


def test_progress_never_falls_until_the_end(face):
    job_id = face.start("[[seconds:1.5]] [[queue:2]]")["id"]
    seen = [0]
    places = []
    while seen[-1] < 100:
        job = face.job(job_id)
        assert job["status"] not in {"failed", "cancelled"}
        seen.append(job["progress"])
        places.append(job["queue"]["upstream_position"])
    assert seen == sorted(seen)
    assert len(set(seen)) > 3
    assert places[-1] is None


def test_waiting_for_a_job_with_get(face):
    job_id = face.start("[[seconds:1]]")["id"]
    response = face.http.get(f"/v1/jobs/{job_id}", params={"wait": 0.2})
    assert response.json()["status"] in {"queued", "in_progress"}
    assert response.headers["retry-after"] in {"2", "3"}
    done = face.http.get(f"/v1/jobs/{job_id}", params={"wait": 30})
    assert done.json()["status"] == "completed"
    assert "retry-after" not in done.headers


class TestCancel:
    def test_a_queued_job_is_cancelled_at_once(self, face):
        running = [face.start("[[hang]]")["id"] for _ in range(2)]
        for job_id in running:
            face.becomes(job_id, "in_progress")
        job_id = face.start()["id"]
        first = face.cancel(job_id)
        assert first["status"] == "cancelled"
        assert first["completed_at"] is not None
        assert face.cancel(job_id) == first
        assert len(face.submits()) == 2
        for job_id in running:
            face.cancel(job_id)

    def test_a_running_job_is_cancelled_soon(self, face):
        job_id = face.start("[[seconds:30]]")["id"]
        face.becomes(job_id, "in_progress")
        response = face.http.post(f"/v1/jobs/{job_id}/cancel")
        assert (response.status_code, response.headers["x-job-id"]) == (200, job_id)
        Job.model_validate(response.json())
        assert response.json()["status"] == "cancelled" or response.json()["cancelling"]
        ended = face.ended(job_id)
        assert (ended["status"], ended["cancelling"], ended["error"]) == ("cancelled", False, None)
        assert face.cancel(job_id) == ended

    def test_a_finished_job_stays_as_it_is(self, face):
        job_id = face.start()["id"]
        done = face.ended(job_id)
        assert face.cancel(job_id) == face.cancel(job_id) == done


class TestEvents:
    def follow(self, face: Face, job_id: str, **headers: str) -> list[tuple[str, int | None, dict]]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with face.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=named) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["x-job-id"] == job_id
            assert response.headers["cache-control"] == "no-cache"
            assert response.headers["x-accel-buffering"] == "no"
            return list(read_events(response.iter_lines()))

    def test_from_snapshot_to_the_end(self, face):
        job_id = face.start("[[seconds:1]]")["id"]
        frames = self.follow(face, job_id)
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
        assert frames[-1][2] == face.job(job_id)

    @pytest.mark.parametrize(("prompt", "last"), [("[[fail:2005]]", "failed"), ("[[hang]]", "cancelled")])
    def test_other_ends(self, face, prompt, last):
        job_id = face.start(prompt)["id"]
        if last == "cancelled":
            face.becomes(job_id, "in_progress")
            face.cancel(job_id)
        assert self.follow(face, job_id)[-1][0] == last

    def test_resuming_gives_what_was_missed(self, face):
        job_id = face.start("[[seconds:1]]")["id"]
        with face.http.stream("GET", f"/v1/jobs/{job_id}/events") as response:
            name, seen, _ = next(read_events(response.iter_lines()))
        assert name == "snapshot"
        face.ended(job_id)
        frames = self.follow(face, job_id, Last_Event_ID=str(seen))
        names, numbers = [name for name, _, _ in frames], [number for _, number, _ in frames]
        assert numbers == list(range(seen + 1, numbers[-1] + 1))
        assert names == ["progress"] * (len(frames) - 1) + ["completed"]
        assert all(data["id"] == job_id for _, _, data in frames)
        states = [data["state"] for name, _, data in frames if name == "progress"]
        assert states[-1] == "saving"

    def test_after_the_end_the_final_event_comes_again(self, face):
        job_id = face.start()["id"]
        face.ended(job_id)
        ((name, number, job),) = self.follow(face, job_id)
        assert (name, job["status"]) == ("completed", "completed")
        for again in (str(number), "999999", "nonsense", ""):
            assert self.follow(face, job_id, Last_Event_ID=again)[-1][:2] == ("completed", number)
        assert face.http.get(f"/v1/jobs/{job_id}/events?after={number}").text.startswith(
            f"id: {number}\nevent: completed\n"
        )

    def test_silence_is_filled_with_one_comment_line(self, silent):
        chunks, reader = silent
        reader.join(timeout=60)
        assert chunks[-1] == b": ka\n"
        assert b"retry:" not in b"".join(chunks)
        assert all(chunk.endswith(b"\n\n") for chunk in chunks[:-1])


class TestStrangers:
    """I9: a caller sees only their own jobs; a stranger's id answers 404, not 403."""

    def test_strangers_see_nothing(self, face):
        job_id = face.start("[[hang]]")["id"]
        done = face.draw(n=1).headers["x-job-id"]
        admin = face.platform.admin_key
        for key in (new_key(), new_session() + ":cn", face.key.replace(":sandbox", ":cn"), admin):
            with face.as_caller(key) as stranger:
                for wanted in (job_id, done):
                    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
                        response = stranger.http.request(method, f"/v1/jobs/{wanted}{path}")
                        error_of(response, 404, "job_not_found")
                        assert "x-job-id" not in response.headers
                if key != admin:
                    assert ids_of(stranger) == []
                assert not {job_id, done} & set(ids_of(stranger, limit=100))
        assert face.job(job_id)["status"] != "cancelled"
        face.cancel(job_id)

    def test_sessions_do_not_see_the_jobs_of_keys(self, face):
        with face.as_caller(face.platform.admin_key) as admin:
            job_id = admin.draw(n=1).headers["x-job-id"]  # ran on the demo account of the pool
            assert admin.job(job_id)["status"] == "completed"
            assert job_id in ids_of(admin)
        for key in ("demo:sandbox", new_key()):
            with face.as_caller(key) as session:
                error_of(session.http.get(f"/v1/jobs/{job_id}"), 404, "job_not_found")
                assert job_id not in ids_of(session, limit=100)

    def test_one_member_of_a_list_is_enough_to_see_its_jobs(self, face):
        first, second = new_key(), new_key()
        with face.as_caller(f" {first} , {second},") as both:
            job_id = both.start("[[seconds:0.5]]")["id"]
            both.ended(job_id)
        for key in (first, second, f"{second},{new_key()}"):
            with face.as_caller(key) as member:
                assert member.job(job_id)["status"] == "completed"
                assert ids_of(member) == [job_id]
        error_of(face.http.get(f"/v1/jobs/{job_id}"), 404, "job_not_found")

    def test_looking_makes_no_account(self, face, api_platform):
        count = "SELECT count(*) FROM accounts"
        with psycopg.connect(api_platform.database_url, autocommit=True) as connection:
            before = connection.execute(count).fetchone()
            assert ids_of(face) == []
            error_of(face.draw(model="gpt-9"), 404, "model_not_found", "model")
            assert connection.execute(count).fetchone() == before


def test_a_list_of_sessions_survives_a_dead_member(api_platform):
    with Face(api_platform, f"{new_key('dead')},{new_key()}") as face:
        answers = [face.draw(n=1) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]


def test_two_callers_with_the_same_new_sessions_do_not_block_each_other(api_platform):
    """Rows of new accounts are made in one order whatever the order of the list, or Postgres may see a deadlock."""

    def start(order: list[str]) -> str:
        with Face(api_platform, ",".join(order)) as face:
            return face.start()["id"]

    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            keys = [new_key() for _ in range(40)]
            assert len(set(pool.map(start, (keys, keys[::-1])))) == 2
