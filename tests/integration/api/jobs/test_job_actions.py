"""`/v1/jobs` on a running platform: retry, delete, lists by id, timeline, and estimated time."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from api.jobs.schemas import AcceptedJob, Job
from api.jobs.timeline.schemas import Timeline
from tests.support.api_client import ApiClient, assert_error, new_key
from tests.support.uploads import make_image
from worker.core.errors import ERRORS


@pytest.fixture
def client(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform) as client:
        yield client


def finish_job(client: ApiClient, prompt: str = "a boat", **fields) -> dict:
    return client.wait_for_end(client.start_job(prompt, **fields)["id"])


def retry(client: ApiClient, job_id: str, **options) -> httpx.Response:
    return client.http.post(f"/v1/jobs/{job_id}/retry", **options)


class TestRetry:
    def test_retry_repeats_the_job(self, client):
        job = finish_job(client, "a red kite", seed=7, size="1024x768", metadata={"order": "12"}, user="me")
        answer = retry(client, job["id"])
        assert answer.status_code == 202
        again = answer.json()
        AcceptedJob.model_validate(again)
        assert again["id"] != job["id"]
        assert answer.headers["x-job-id"] == again["id"]
        assert answer.headers["location"] == f"/v1/jobs/{again['id']}"
        assert int(answer.headers["retry-after"]) in range(1, 61)
        assert again["input"] == job["input"]
        assert again["metadata"] == {"order": "12", "user": "me", "retry_of": job["id"]}
        assert client.wait_for_end(again["id"])["status"] == "completed"
        assert len(client.submits()) == 2

    def test_retry_with_another_seed(self, client):
        job = finish_job(client, seed=7)
        for seed, expected in (("same", 7), (0, 0), (4294967295, 4294967295)):
            assert retry(client, job["id"], json={"seed": seed}).json()["input"]["seed"] == expected
        assert retry(client, job["id"], json={"seed": "new"}).json()["input"]["seed"] != 7
        assert retry(client, job["id"], json={}).json()["input"]["seed"] == 7

    @pytest.mark.parametrize("seed", ["other", -1, 2**32, 1.5, [1]])
    def test_invalid_seeds_are_rejected(self, client, seed):
        job = finish_job(client)
        answer = retry(client, job["id"], json={"seed": seed})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")
        assert answer.json()["error"]["param"].startswith("seed")

    def test_only_an_ended_job_can_be_retried(self, client):
        job = client.start_job("[[hang]]")
        assert "cancel" in assert_error(retry(client, job["id"]), 400, "job_not_finished")
        client.cancel(job["id"])
        client.wait_for_end(job["id"])
        assert retry(client, job["id"]).status_code == 202

    def test_failed_job_can_be_retried(self, client):
        job = finish_job(client, "[[fail:2005]]")
        again = retry(client, job["id"]).json()
        assert client.wait_for_end(again["id"])["status"] == "failed"

    def test_retry_of_one_job_of_a_group(self, client):
        first = client.start_job("many", n=10, size="512x512")
        members = [client.wait_for_end(job["id"]) for job in first["jobs"]]
        again = client.wait_for_end(retry(client, members[1]["id"]).json()["id"])
        assert len(again["output"]) == len(members[1]["output"])
        assert again["input"]["seed"] == members[1]["input"]["seed"]
        assert again["input"]["n"] == len(members[1]["output"])
        assert again["group"] == again["id"]

    def test_inputs_are_copied(self, client, api_platform):
        image = base64.b64encode(make_image()).decode()
        job = finish_job(client, "like this", image=f"data:image/png;base64,{image}")
        again = retry(client, job["id"]).json()
        assert again["input"]["images"] == job["input"]["images"]
        assert client.wait_for_end(again["id"])["status"] == "completed"
        files = Path(api_platform.data_dir) / "files"
        keys = self._keys(api_platform, job, again)
        assert len(keys) == 2
        assert len({(files / key).read_bytes() for key in keys}) == 1

    def _keys(self, platform, *jobs) -> set[str]:
        with psycopg.connect(platform.database_url) as connection:
            rows = connection.execute(
                "SELECT key FROM job_inputs WHERE job_id = ANY(%s::uuid[])",
                ([job["id"].removeprefix("job_") for job in jobs],),
            ).fetchall()
        return {key for (key,) in rows}

    def test_retry_with_missing_inputs_returns_410(self, client, api_platform):
        image = base64.b64encode(make_image()).decode()
        job = finish_job(client, "like this", image=image)
        (key,) = self._keys(api_platform, job)
        (Path(api_platform.data_dir) / "files" / key).unlink()
        assert_error(retry(client, job["id"]), 410, "input_expired")

    def test_retry_with_wait(self, client):
        job = finish_job(client)
        answer = retry(client, job["id"], headers={"Prefer": "wait=30"})
        assert answer.json()["status"] == "completed"
        assert answer.headers["preference-applied"] == "wait=30"

    def test_idempotency_key_prevents_a_second_retry(self, client):
        job, key = finish_job(client), {"Idempotency-Key": "r"}
        first, again = (retry(client, job["id"], headers=key) for _ in range(2))
        assert first.headers["x-job-id"] == again.headers["x-job-id"]
        assert again.headers["idempotency-replayed"] == "true"
        assert_error(retry(client, job["id"], headers=key, json={"seed": 1}), 422, "idempotency_key_reuse")

    def test_other_users_job_returns_404(self, client):
        job = finish_job(client)
        with client.as_caller(new_key()) as other:
            for response in (
                retry(other, job["id"]),
                other.http.delete(f"/v1/jobs/{job['id']}"),
                other.http.get(f"/v1/jobs/{job['id']}/timeline"),
            ):
                assert_error(response, 404, "job_not_found")


class TestDelete:
    def test_delete_removes_job_and_files(self, client, api_platform):
        job, kept = finish_job(client), finish_job(client)
        (url,) = [item["url"] for item in job["output"]]
        stored = {path for path in (Path(api_platform.data_dir) / "files").rglob("*") if path.is_file()}
        # Python's SDK sends a JSON content type on a DELETE without a body.
        headers = {"Content-Type": "application/json"}
        answer = client.http.delete(f"/v1/jobs/{job['id']}", headers=headers)
        assert answer.json() == {"id": job["id"], "object": "job.deleted", "deleted": True}
        left = {path for path in (Path(api_platform.data_dir) / "files").rglob("*") if path.is_file()}
        assert len(stored - left) == 1
        assert_error(httpx.get(url, trust_env=False), 404, "file_not_found")
        for method, path in (
            ("GET", ""), ("GET", "/events"), ("GET", "/timeline"), ("POST", "/cancel"), ("POST", "/retry"),
            ("DELETE", ""),
        ):  # fmt: skip
            assert_error(client.http.request(method, f"/v1/jobs/{job['id']}{path}"), 404, "job_not_found")
        page = client.http.get("/v1/jobs").json()
        assert [one["id"] for one in page["data"]] == [kept["id"]]
        assert httpx.get(kept["output"][0]["url"], trust_env=False).status_code == 200

    def test_only_an_ended_job_can_be_deleted(self, client):
        job = client.start_job("[[hang]]")
        assert "ancel" in assert_error(client.http.delete(f"/v1/jobs/{job['id']}"), 400, "job_not_finished")
        client.wait_for_status(job["id"], "in_progress")
        client.cancel(job["id"])
        client.wait_for_end(job["id"])
        assert client.http.delete(f"/v1/jobs/{job['id']}").status_code == 200


class TestLists:
    def test_list_by_ids(self, client):
        jobs = [client.start_job(f"number {n}")["id"] for n in range(3)]
        with client.as_caller(new_key()) as other:
            foreign = other.start_job()["id"]
        page = client.http.get(
            "/v1/jobs", params={"ids": f"{jobs[0]}, {foreign},nonsense,{jobs[2]}", "limit": 1}
        ).json()
        assert [job["id"] for job in page["data"]] == [jobs[2], jobs[0]]
        assert page["missing"] == [foreign, "nonsense"]
        assert page["has_more"] is False
        assert client.http.get("/v1/jobs", params={"ids": ""}).json()["data"] == []
        assert_error(client.http.get("/v1/jobs", params={"ids": ",".join(jobs * 34)}), 400, "invalid_value", "ids")

    def test_list_by_group(self, client):
        several = [job["id"] for job in client.start_job("many", n=10, size="512x512")["jobs"]]
        client.start_job()
        page = client.http.get("/v1/jobs", params={"group": several[0], "order": "asc"}).json()
        assert [job["id"] for job in page["data"]] == several
        assert {job["group"] for job in page["data"]} == {several[0]}
        assert_error(client.http.get("/v1/jobs", params={"group": "nonsense"}), 404, "job_not_found")

    def test_list_by_metadata(self, client):
        one = client.start_job(metadata={"order": "1", "for": "a:b"})["id"]
        two = client.start_job(metadata={"order": "2", "for": "a:b"})["id"]

        def ids_for(*pairs: str) -> list[str]:
            return [job["id"] for job in client.http.get("/v1/jobs", params={"metadata": pairs}).json()["data"]]

        assert ids_for("order:1") == [one]
        assert ids_for("for:a:b") == [two, one]
        assert ids_for("for:a:b", "order:2") == [two]
        assert ids_for("order:") == []
        assert_error(client.http.get("/v1/jobs", params={"metadata": "order"}), 400, "invalid_value", "metadata")


class TestTimeline:
    def test_timeline_of_a_successful_job(self, client):
        job = finish_job(client, "[[seconds:0.5]]")
        body = client.http.get(f"/v1/jobs/{job['id']}/timeline").json()
        Timeline.model_validate(body)
        assert [one["state"] for one in body["data"]] == ["queued", "submitting", "running", "saving", "succeeded"]
        assert [one["attempt"] for one in body["data"]] == [0, 1, 1, 1, 1]
        labels = {one["account"] for one in body["data"][1:]}
        assert len(labels) == 1
        assert labels.pop().startswith("session-")
        assert body["data"][0]["waited_seconds"] is None
        assert body["seconds"]["running"] == body["data"][3]["waited_seconds"] >= 0.4
        assert set(body["seconds"]) == {"queued", "submitting", "running", "saving"}
        for one in body["data"]:
            assert one["text"]["en"]
            assert one["text"]["zh"]

    def test_timeline_of_a_job_refused_by_one_account(self, api_platform):
        """Shows every attempt with its account and failure reason, but no messages of upstream."""
        with ApiClient(api_platform, f"{new_key('broke')},{new_key()}") as client:
            for n in range(3):  # one of them is submitted with the account without credits first
                job = finish_job(client, f"try {n}")
                body = client.http.get(f"/v1/jobs/{job['id']}/timeline")
                refused = [one for one in body.json()["data"] if one["code"]]
                if refused:
                    break
        (entry,) = refused
        kind = ERRORS["insufficient_quota"]
        assert (entry["state"], entry["from_state"], entry["code"]) == ("queued", "submitting", kind.code)
        assert kind.message in entry["text"]["en"]
        assert kind.message_zh in entry["text"]["zh"]
        assert [one["attempt"] for one in body.json()["data"]] == [0, 1, 1, 2, 2, 2, 2]
        assert len({one["account"] for one in body.json()["data"]}) == 3
        assert "logid" not in body.text

    def test_timeline_of_a_failed_job_shows_the_reason(self, client):
        job = finish_job(client, "[[fail:2005]]")
        last = client.http.get(f"/v1/jobs/{job['id']}/timeline").json()["data"][-1]
        assert (last["state"], last["code"]) == ("failed", "content_policy_violation")
        assert ERRORS["content_policy_violation"].message in last["text"]["en"]

    def test_admin_sees_labels_of_pool_accounts(self, client, api_platform):
        with client.as_caller(api_platform.admin_key) as admin:
            job = finish_job(admin)
            body = admin.http.get(f"/v1/jobs/{job['id']}/timeline").json()
        assert {one["account"] for one in body["data"]} == {None, "sandbox demo"}

    def test_timeline_shows_account_score_and_alternatives(self, api_platform):
        with ApiClient(api_platform, f"{new_key()},{new_key()}") as client:
            job = finish_job(client)
            body = client.http.get(f"/v1/jobs/{job['id']}/timeline").json()
        Timeline.model_validate(body)
        [choice] = [one["choice"] for one in body["data"] if one["choice"]]
        assert set(choice["score"]) == {"health", "load", "success", "credits", "wear", "total"}
        [other] = choice["others"]
        assert (other["why"], other["text"]["zh"]) == ("no better score", "评分不更高")
        assert other["account"].startswith("session-")
        assert other["score"] == choice["score"]["total"]

    def test_member_does_not_see_labels_of_pool_accounts(self, api_platform):
        with ApiClient(api_platform, api_platform.admin_key) as admin:
            name = f"chooser {time.time_ns()}"  # must not look like a session id, which no table may contain
            admin.http.post("/admin/v1/users", json={"name": name}).raise_for_status()
            key = admin.http.post("/admin/v1/keys", json={"user": name}).json()["key"]
            second = admin.http.post("/admin/v1/accounts", json={"tokens": new_key(), "label": "second of two"}).json()
            try:
                with ApiClient(api_platform, key) as member:
                    job = finish_job(member)
                    timeline = member.http.get(f"/v1/jobs/{job['id']}/timeline").text
                    missed = member.http.get(f"/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": "0"}).text
                assert '"choice":{' in timeline
                for text in (timeline, missed):
                    assert "second of two" not in text
                    assert "sandbox demo" not in text
            finally:
                admin.http.delete(f"/admin/v1/accounts/{second['data'][0]['id']}")


class TestEta:
    def test_running_job_has_an_eta(self, client):
        job = client.wait_for_status(client.start_job("[[seconds:3]]")["id"], "in_progress")
        Job.model_validate(job)
        assert job["eta"]["p50"] <= job["eta"]["p90"]
        assert job["queue"]["eta_seconds"] == max(round(job["eta"]["p50"]), 1)
        assert client.wait_for_end(job["id"])["eta"] is None

    def test_later_queue_position_has_a_longer_eta(self, client):
        """There are two slots, so the sixth job waits for more jobs than the fourth. No other test uses this model."""
        jobs = [client.start_job("[[hang]]", model="jimeng-4.5")["id"] for _ in range(6)]
        client.wait_for_status(jobs[1], "in_progress")
        etas = [client.job(job_id)["eta"]["p50"] for job_id in jobs]
        assert etas[5] > etas[3] > etas[1]
        for job_id in jobs:
            client.cancel(job_id)

    def test_events_contain_the_eta(self, client):
        job_id = client.start_job("[[seconds:1]]")["id"]
        text = client.http.get(f"/v1/jobs/{job_id}/events").text
        assert '"eta":{"p50":' in text
