"""`GET /admin/v1/system` tells what jobs did, as it was."""

from typing import Any

from api.operations.schemas import System
from tests.support.api_client import ApiClient, new_key


def look(admin: ApiClient) -> dict[str, Any]:
    answer = admin.http.get("/admin/v1/system")
    assert answer.status_code == 200, answer.text
    System.model_validate(answer.json(), strict=True)
    return answer.json()


def counts(told: dict[str, Any], code: str) -> tuple[int, int]:
    return next(((one["failed"], one["survived"]) for one in told["errors"] if one["code"] == code), (0, 0))


def test_what_ended_and_what_is_open_is_counted(api_platform):
    with ApiClient(api_platform, api_platform.admin_key) as admin, ApiClient(api_platform, new_key()) as caller:
        before = look(admin)
        assert caller.generate_images("a boat", n=1).status_code == 200
        caller.wait_for_end(caller.start_job("[[fail:2038]] refused")["id"])
        hanging = caller.start_job("[[hang]] never ends")
        waiting = [caller.start_job("[[hang]] waits") for _ in range(2)]
        after = look(admin)
        told = {one["kind"]: one for one in after["open"]}
        assert told["image"]["queued"] + told["image"]["running"] >= 3
        assert (told["image"]["oldest_queued_seconds"] is None) == (told["image"]["queued"] == 0)
        for job in (hanging, *waiting):
            caller.http.post(f"/v1/jobs/{job['id']}/cancel")
            caller.wait_for_end(job["id"])
        last = look(admin)
    ended = [
        sum(sum(hour[state] for hour in told["hours"]) for state in ("succeeded", "failed", "cancelled"))
        for told in (before, last)
    ]
    assert ended[1] - ended[0] >= 5
    assert last["outcomes"]["content"] - before["outcomes"].get("content", 0) >= 1
    assert last["outcomes"]["cancelled"] - before["outcomes"].get("cancelled", 0) >= 3
    code = "content_policy_violation"
    assert counts(last, code)[0] > counts(before, code)[0]
    assert len(last["hours"]) == 24
    assert last["checks"]["database"] is last["checks"]["redis"] is None
    assert last["schema"]["present"] == last["schema"]["newest"]


def test_a_refusal_that_a_job_outlives_is_counted_as_such(api_platform):
    with ApiClient(api_platform, api_platform.admin_key) as admin:
        before = counts(look(admin), "insufficient_quota")
        # More jobs than the good account takes at once, so the one without credits is asked too.
        with admin.as_caller(f"{new_key('broke')},{new_key()}") as caller:
            jobs = [caller.start_job("a boat")["id"] for _ in range(6)]
            assert {caller.wait_for_end(job)["status"] for job in jobs} == {"completed"}
            ways = [caller.http.get(f"/v1/jobs/{job}/timeline").json()["data"] for job in jobs]
        refused = sum(entry["code"] == "insufficient_quota" for way in ways for entry in way)
        after = counts(look(admin), "insufficient_quota")
    assert refused >= 1
    assert (after[0] - before[0], after[1] - before[1]) == (0, refused)
