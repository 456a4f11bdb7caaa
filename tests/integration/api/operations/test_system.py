"""`GET /admin/v1/system` counts open and ended jobs and errors."""

from typing import Any

from api.operations.schemas import System
from tests.support.api_client import ApiClient, new_key


def get_system(admin: ApiClient) -> dict[str, Any]:
    answer = admin.http.get("/admin/v1/system")
    assert answer.status_code == 200, answer.text
    System.model_validate(answer.json(), strict=True)
    return answer.json()


def error_counts(system: dict[str, Any], code: str) -> tuple[int, int]:
    return next(((one["failed"], one["survived"]) for one in system["errors"] if one["code"] == code), (0, 0))


def test_open_and_ended_jobs_are_counted(api_platform):
    with ApiClient(api_platform, api_platform.admin_key) as admin, ApiClient(api_platform, new_key()) as caller:
        before = get_system(admin)
        assert caller.generate_images("a boat", n=1).status_code == 200
        caller.wait_for_end(caller.start_job("[[fail:2038]] refused")["id"])
        hanging = caller.start_job("[[hang]] never ends")
        waiting = [caller.start_job("[[hang]] waits") for _ in range(2)]
        after = get_system(admin)
        open_jobs = {one["kind"]: one for one in after["open"]}
        assert open_jobs["image"]["queued"] + open_jobs["image"]["running"] >= 3
        assert (open_jobs["image"]["oldest_queued_seconds"] is None) == (open_jobs["image"]["queued"] == 0)
        for job in (hanging, *waiting):
            caller.http.post(f"/v1/jobs/{job['id']}/cancel")
            caller.wait_for_end(job["id"])
        last = get_system(admin)
    ended = [
        sum(sum(hour[state] for hour in system["hours"]) for state in ("succeeded", "failed", "cancelled"))
        for system in (before, last)
    ]
    assert ended[1] - ended[0] >= 5
    assert last["outcomes"]["content"] - before["outcomes"].get("content", 0) >= 1
    assert last["outcomes"]["cancelled"] - before["outcomes"].get("cancelled", 0) >= 3
    code = "content_policy_violation"
    assert error_counts(last, code)[0] > error_counts(before, code)[0]
    assert len(last["hours"]) == 24
    assert last["checks"]["database"] is last["checks"]["redis"] is None
    assert last["schema"]["present"] == last["schema"]["newest"]


def test_error_recovered_by_retry_is_counted_as_survived(api_platform):
    with ApiClient(api_platform, api_platform.admin_key) as admin:
        before = error_counts(get_system(admin), "insufficient_quota")
        # More jobs than the account with credits can run at once, so the one without credits is tried too.
        with admin.as_caller(f"{new_key('broke')},{new_key()}") as caller:
            jobs = [caller.start_job("a boat")["id"] for _ in range(6)]
            assert {caller.wait_for_end(job)["status"] for job in jobs} == {"completed"}
            timelines = [caller.http.get(f"/v1/jobs/{job}/timeline").json()["data"] for job in jobs]
        refused = sum(entry["code"] == "insufficient_quota" for timeline in timelines for entry in timeline)
        after = error_counts(get_system(admin), "insufficient_quota")
    assert refused >= 1
    assert (after[0] - before[0], after[1] - before[1]) == (0, refused)
