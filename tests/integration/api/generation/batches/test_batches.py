"""`/v1/batches` and `/v1/files`: accepted as a whole or not at all, prices, limits, results, pause and cancel."""

import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.batches.schemas import Batch, BatchEstimate, StoredFile, StoredFileList
from tests.integration.api.generation.batches.conftest import (
    IMAGES,
    jsonl,
    make_batch,
    pictures,
    run_batch,
    set_database,
    states,
    upload,
    wait_for,
)
from tests.support.api_client import assert_error
from tests.support.engine import Engine
from tests.support.servers.http_servers import WebhookReceiver
from worker.db.batches import held_jobs
from worker.db.engine import transaction
from worker.tasks.deliver_webhooks import deliver
from worker.tasks.dispatch import tick


def results(http: TestClient, file_id: str) -> dict[str, Any]:
    """The lines of a result file by `custom_id`."""
    content = http.get(f"/v1/files/{file_id}/content")
    assert content.status_code == 200
    return {line["custom_id"]: line for line in map(json.loads, content.text.splitlines())}


def test_batch_runs_and_its_files_have_the_answers_of_the_calls(engine: Engine, http: TestClient) -> None:
    content = jsonl({"prompt": "a boat", "n": 1}, {"prompt": "bad [[fail:2038]]", "n": 1})
    made = make_batch(http, content, endpoint=IMAGES, metadata={"name": "first"})
    Batch.model_validate(made, strict=True)
    assert (made["status"], made["request_counts"]["total"], made["metadata"]) == ("in_progress", 2, {"name": "first"})
    assert made["price"]["requests"] == made["price"]["jobs"] == 2
    done = run_batch(engine, http, made["id"])
    assert done["status"] == "completed"
    assert done["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    good = results(http, done["output_file_id"])["line-1"]
    assert good["response"]["status_code"] == 200
    assert good["error"] is None
    assert http.get(good["response"]["body"]["data"][0]["url"]).status_code == 200
    bad = results(http, done["error_file_id"])["line-2"]
    assert bad["response"]["body"]["error"]["code"] == "content_policy_violation"
    listed = http.get("/v1/jobs", params={"batch": made["id"]}).json()["data"]
    assert {job["batch"] for job in listed} == {made["id"]}
    assert len(listed) == 2


def test_archive_has_files_named_by_custom_id_and_a_contact_sheet(engine: Engine, http: TestClient) -> None:
    lines = [
        {"custom_id": name, "method": "POST", "url": IMAGES, "body": {"prompt": "<b>boat</b>", "n": 1}}
        for name in ("a/b", "a b", "<script>")
    ]
    done = run_batch(engine, http, make_batch(http, "\n".join(map(json.dumps, lines)).encode())["id"])
    answer = http.get(f"/v1/batches/{done['id']}/archive")
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    names = [name for name in archive.namelist() if name.startswith("files/")]
    assert len({name.lower() for name in names}) == 3
    assert all(".." not in name and name.count("/") == 1 for name in names)
    sheet = archive.read("contact-sheet.html").decode()
    assert "<script>" not in sheet
    assert "&lt;script&gt;" in sheet
    assert all(name.removeprefix("files/") in sheet for name in names)
    manifest = json.loads(archive.read("manifest.json"))
    assert {one["custom_id"] for one in manifest["files"]} == {"a/b", "a b", "<script>"}


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        ("not json", "invalid_json", None),
        ('{"custom_id": "x", "body": 3, "url": "/v1/images/generations"}', "missing_required_parameter", "body"),
        ('{"body": {"prompt": "x"}, "url": "/v1/images/generations"}', "missing_required_parameter", "custom_id"),
        ('{"custom_id": "x", "url": "/v1/models", "body": {}}', "invalid_value", "url"),
        ('{"custom_id": "x", "url": "/v1/images/generations", "method": "GET", "body": {}}', "invalid_value", "method"),
        (
            '{"custom_id": "x", "url": "/v1/images/generations", "body": {"n": 1}}',
            "missing_required_parameter",
            "prompt",
        ),
        ('{"custom_id": "x", "url": "/v1/images/generations", "body": {"prompt": "x", "n": 99}}', "invalid_value", "n"),
        (
            '{"custom_id": "x", "url": "/v1/images/generations", "body": {"prompt": "x", "stream": true}}',
            "unsupported_parameter",
            "stream",
        ),
        (
            '{"custom_id": "x", "url": "/v1/images/generations", "body": {"prompt": "x", "model": "unknown-7"}}',
            "model_not_found",
            "model",
        ),
        (
            '{"custom_id": "x", "url": "/v1/images/edits", "body": {"prompt": "x"}}',
            "missing_required_parameter",
            "image",
        ),
        (
            '{"custom_id": "line-1", "url": "/v1/images/generations", "body": {"prompt": "x"}}',
            "invalid_value",
            "custom_id",
        ),
        ('{"custom_id": "x", "url": "/v1/chat/completions", "body": {"model": "agent", "messages": []}}', None, None),
    ],
)
def test_one_bad_line_refuses_the_whole(
    engine: Engine, http: TestClient, line: str, code: str | None, param: str | None
) -> None:
    made = make_batch(http, pictures(2) + b"\n\n" + line.encode())
    assert made["status"] == "failed"
    assert made["errors"]["total"] == 1
    [error] = made["errors"]["data"]
    assert error["line"] == 4
    if code is not None:
        assert (error["code"], error["param"]) == (code, param)
    assert states(engine) == []
    assert engine.sql("SELECT 1 FROM batch_lines") == []


def test_all_bad_lines_are_named_with_line_and_id(http: TestClient) -> None:
    made = make_batch(http, jsonl({"prompt": "x"}, {"prompt": "x", "n": 0}, {"prompt": ""}), endpoint=IMAGES)
    found = [(one["line"], one["custom_id"], one["param"]) for one in made["errors"]["data"]]
    assert found == [(2, "line-2", "n"), (3, "line-3", "prompt")]


def test_lines_of_another_endpoint_need_a_mixed_batch(http: TestClient) -> None:
    chat = jsonl(
        {"model": "jimeng-4.0", "messages": [{"role": "user", "content": "a boat"}]}, url="/v1/chat/completions"
    )
    mixed = pictures(1) + b"\n" + chat.replace(b"line-1", b"chat-1")
    assert make_batch(http, mixed, endpoint=IMAGES)["errors"]["data"][0]["param"] == "url"
    assert make_batch(http, mixed, endpoint="*")["status"] == "in_progress"


@pytest.mark.parametrize("http", [{"BATCH_MAX_LINES": "3"}], indirect=True)
def test_too_many_lines_are_refused(http: TestClient) -> None:
    assert make_batch(http, pictures(3))["status"] == "in_progress"
    assert "at most 3 lines" in make_batch(http, pictures(4))["errors"]["data"][-1]["message"]


def test_csv_columns_are_fields(engine: Engine, http: TestClient) -> None:
    table = 'custom_id,prompt,model,ratio,n\nfirst,"a boat, red",,16:9,1\nsecond,a dog,jimeng-4.0,,2\n'
    file = upload(http, table.encode(), "requests.csv")
    made = http.post("/v1/batches", json={"input_file_id": file}).json()
    assert made["request_counts"]["total"] == 2
    rows = engine.sql("SELECT params -> 'order' ->> 'prompt' AS prompt, params ->> 'n' AS n FROM jobs ORDER BY due_at")
    assert [(row.prompt, row.n) for row in rows] == [("a boat, red", "1"), ("a dog", "2")]
    unknown = upload(http, b"prompt,colour\nx,red\n", "requests.csv")
    refused = http.post("/v1/batches", json={"input_file_id": unknown}).json()
    assert (refused["status"], refused["errors"]["data"][0]["param"]) == ("failed", "colour")


def test_prompts_models_and_ratios_make_one_batch(engine: Engine, http: TestClient) -> None:
    body = {"prompts": ["a {red|blue} boat"], "variants": True, "ratios": ["1:1", "16:9"], "n": 1}
    estimate = http.post("/v1/batches", json={**body, "dry_run": True}).json()
    BatchEstimate.model_validate(estimate, strict=True)
    assert (estimate["valid"], estimate["price"]["requests"]) == (True, 4)
    assert engine.sql("SELECT 1 FROM batches") == states(engine) == []
    made = http.post("/v1/batches", json=body).json()
    assert made["price"] == estimate["price"]
    prompts = engine.sql("SELECT params -> 'order' ->> 'prompt' AS prompt FROM jobs ORDER BY due_at, id")
    assert [row.prompt for row in prompts] == ["a red boat", "a red boat", "a blue boat", "a blue boat"]


def test_most_that_it_may_cost_refuses_the_whole(engine: Engine, http: TestClient) -> None:
    price = http.post("/v1/batches", json={"prompts": ["a", "b"], "n": 1, "dry_run": True}).json()["price"]["credits"]
    refused = http.post("/v1/batches", json={"prompts": ["a", "b"], "n": 1, "max_credits": price - 1}).json()
    assert refused["errors"]["data"][0]["code"] == "max_cost_exceeded"
    assert refused["price"]["credits"] == price
    assert states(engine) == []
    exact = http.post("/v1/batches", json={"prompts": ["a", "b"], "n": 1, "max_credits": price}).json()
    assert exact["status"] == "in_progress"


def test_budget_is_reserved_for_the_whole_under_parallel_batches(engine: Engine, http: TestClient, add_key) -> None:
    headers = add_key()
    http.patch("/admin/v1/users/anna", json={"limits": {"jobs_per_day": 10}})

    def make(_number: int) -> dict[str, Any]:
        return make_batch(http, pictures(4), headers)

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(make, range(4)))
    assert sorted(batch["status"] for batch in made) == ["failed", "failed", "in_progress", "in_progress"]
    codes = {one["code"] for batch in made if batch["errors"] for one in batch["errors"]["data"]}
    assert codes == {"budget_exceeded"}
    assert len(states(engine)) == 8


def test_killed_acceptance_leaves_nothing_and_is_done_again(engine: Engine, http: TestClient) -> None:
    set_database(
        """CREATE FUNCTION fail_late() RETURNS trigger LANGUAGE plpgsql AS
           $$BEGIN RAISE EXCEPTION 'killed' USING ERRCODE = '57P01'; END$$;
           CREATE TRIGGER fail_late BEFORE UPDATE OF state ON batches FOR EACH ROW
           WHEN (NEW.state = 'in_progress') EXECUTE FUNCTION fail_late()"""
    )
    try:
        file = upload(http, pictures(3))
        made = http.post("/v1/batches", json={"input_file_id": file}).json()
        assert made["status"] == "validating"
        tick()
        assert states(engine) == []
        assert engine.sql("SELECT 1 FROM batch_lines") == []
    finally:
        set_database("DROP TRIGGER fail_late ON batches; DROP FUNCTION fail_late()")
    # As after the death of the process: its lease runs out.
    engine.sql("UPDATE batches SET lease_until = now() - interval '1 second'")
    accepted = wait_for(http, made["id"], lambda batch: batch["status"] != "validating")
    assert (accepted["status"], states(engine)) == ("in_progress", ["held"] * 3)


def test_pause_holds_back_and_resume_goes_on(engine: Engine, http: TestClient) -> None:
    made = make_batch(http, pictures(3))
    tick()
    assert states(engine) == ["queued"] * 3
    paused = http.post(f"/v1/batches/{made['id']}/pause").json()
    assert (paused["paused"], paused["status"]) == (True, "in_progress")
    tick()
    assert states(engine) == ["held"] * 3
    with transaction() as tx:
        assert held_jobs.find_due_groups(tx) == [], "no tick looks at the jobs of a paused batch"
    assert http.post(f"/v1/batches/{made['id']}/resume").json()["paused"] is False
    assert run_batch(engine, http, made["id"])["request_counts"]["completed"] == 3


def test_cancelled_batch_keeps_its_results(engine: Engine, http: TestClient) -> None:
    made = make_batch(http, pictures(3))
    tick()
    first = engine.sql("SELECT id FROM jobs ORDER BY due_at, id LIMIT 1")[0].id
    engine.sql("UPDATE jobs SET state = 'held' WHERE id <> :id", id=first)
    engine.run_until_final(first)
    cancelled = http.post(f"/v1/batches/{made['id']}/cancel").json()
    assert cancelled["status"] in {"cancelling", "finalizing", "cancelled"}
    done = wait_for(http, made["id"], lambda batch: batch["status"] == "cancelled")
    assert done["request_counts"] == {"total": 3, "completed": 1, "failed": 2}
    assert len(results(http, done["output_file_id"])) == 1
    assert {one["error"]["code"] for one in results(http, done["error_file_id"]).values()} == {"batch_cancelled"}
    assert {row.charged for row in engine.sql("SELECT charged FROM jobs WHERE state = 'cancelled'")} == {0}
    assert_error(http.post(f"/v1/batches/{made['id']}/pause"), 409, "batch_ended")


def test_lines_that_nobody_began_in_time_expire(engine: Engine, http: TestClient) -> None:
    made = make_batch(http, pictures(2))
    http.post(f"/v1/batches/{made['id']}/pause")
    engine.sql("UPDATE jobs SET deadline_at = now() - interval '1 second'")
    done = run_batch(engine, http, made["id"])
    assert done["status"] == "expired"
    assert {one["error"]["code"] for one in results(http, done["error_file_id"]).values()} == {"batch_expired"}


def test_repeated_request_with_a_key_makes_one_batch(engine: Engine, http: TestClient) -> None:
    headers = {"Idempotency-Key": "one"}
    first = http.post("/v1/batches", json={"prompts": ["a"]}, headers=headers)
    again = http.post("/v1/batches", json={"prompts": ["a"]}, headers=headers)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    other = http.post("/v1/batches", json={"prompts": ["b"]}, headers=headers)
    assert_error(other, 422, "idempotency_key_reuse")


def test_end_sends_one_event(engine: Engine, receiver: WebhookReceiver, http: TestClient) -> None:
    made = make_batch(http, pictures(2), webhook=receiver.url)
    run_batch(engine, http, made["id"])
    rows = engine.sql("SELECT id, event FROM webhook_deliveries WHERE batch_id IS NOT NULL")
    assert [row.event for row in rows] == ["batch.completed"]

    deliver(delivery_id=rows[0].id)
    [message] = receiver.received
    body = json.loads(message.body)
    assert (body["type"], body["data"]["id"]) == ("batch.completed", made["id"])
    assert body["data"]["request_counts"] == {"total": 2, "completed": 2, "failed": 0}


def test_batch_that_is_cancelled_while_it_is_checked_sends_one_event(
    engine: Engine, receiver: WebhookReceiver, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.batches.runner._claim", lambda _holder: None)  # the check does not begin
    monkeypatch.setattr("api.batches.batch_routes._WAIT_SECONDS", 0.1)
    made = http.post("/v1/batches", json={"prompts": ["a"], "webhook": receiver.url}).json()
    assert made["status"] == "validating"
    for _ in range(2):  # a client whose first answer was lost repeats it
        assert http.post(f"/v1/batches/{made['id']}/cancel").json()["status"] == "cancelled"
    rows = engine.sql("SELECT id, event FROM webhook_deliveries WHERE batch_id IS NOT NULL")
    assert [row.event for row in rows] == ["batch.cancelled"]
    deliver(delivery_id=rows[0].id)
    body = json.loads(receiver.received[0].body)
    assert (body["type"], body["data"]["id"], body["data"]["status"]) == ("batch.cancelled", made["id"], "cancelled")
    assert engine.sql("SELECT 1 FROM jobs") == []


def test_repeated_cancellation_of_a_batch_that_writes_its_files_is_no_error(engine: Engine, http: TestClient) -> None:
    made = make_batch(http, pictures(1))
    path = f"/v1/batches/{made['id']}/cancel"
    assert http.post(path).status_code == 200
    wait_for(http, made["id"], lambda batch: batch["status"] == "cancelled")
    engine.sql("UPDATE batches SET state = 'finalizing', lease_until = now() + interval '1 hour'")
    assert http.post(path).status_code == 200


def test_other_users_see_neither_batches_nor_files(http: TestClient, add_key) -> None:
    made = make_batch(http, pictures(1))
    other = add_key()
    assert_error(http.get(f"/v1/batches/{made['id']}", headers=other), 404, "batch_not_found")
    assert_error(http.post(f"/v1/batches/{made['id']}/cancel", headers=other), 404, "batch_not_found")
    assert_error(http.get(f"/v1/batches/{made['id']}/archive", headers=other), 404, "batch_not_found")
    for call in (http.get, http.delete):
        assert_error(call(f"/v1/files/{made['input_file_id']}", headers=other), 404, "file_not_found")
    assert_error(http.get(f"/v1/files/{made['input_file_id']}/content", headers=other), 404, "file_not_found")
    stolen = http.post("/v1/batches", json={"input_file_id": made["input_file_id"]}, headers=other)
    assert_error(stolen, 404, "file_not_found")
    assert http.get("/v1/batches", headers=other).json()["data"] == []


def test_files_are_listed_read_and_deleted(engine: Engine, http: TestClient) -> None:
    content = pictures(2)
    ids = [upload(http, content, f"part-{n}.jsonl") for n in range(3)]
    page = http.get("/v1/files", params={"limit": 2}).json()
    StoredFileList.model_validate(page, strict=True)
    assert ([one["id"] for one in page["data"]], page["has_more"]) == ([ids[2], ids[1]], True)
    shown = http.get(f"/v1/files/{ids[0]}").json()
    StoredFile.model_validate(shown, strict=True)
    assert (shown["filename"], shown["bytes"]) == ("part-0.jsonl", len(content))
    assert http.get(f"/v1/files/{ids[0]}/content").content == content
    assert http.delete(f"/v1/files/{ids[0]}").json() == {"id": ids[0], "object": "file", "deleted": True}
    assert_error(http.get(f"/v1/files/{ids[0]}/content"), 404, "file_not_found")
    assert engine.sql("SELECT count(*) AS n FROM batch_files WHERE erased_at IS NOT NULL")[0].n == 1


@pytest.mark.parametrize("http", [{"BATCH_MAX_BYTES": "1000"}], indirect=True)
def test_large_files_and_other_purposes_are_refused(http: TestClient) -> None:
    large = http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", b"x" * 1001)})
    assert_error(large, 413, "request_too_large", param="file")
    tune = http.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": ("a.jsonl", b"{}")})
    assert_error(tune, 400, "invalid_value", param="purpose")


def test_session_ids_make_no_batches(http: TestClient) -> None:
    answer = http.post("/v1/batches", json={"prompts": ["a"]}, headers={"Authorization": "Bearer demo:sandbox"})
    assert_error(answer, 403, "forbidden")


def test_scopes_of_a_key_hold_for_batches_and_files(http: TestClient, add_key) -> None:
    reader, generator = add_key(scopes=["read"]), add_key(scopes=["generate"])
    made = make_batch(http, pictures(1), add_key())
    path = f"/v1/batches/{made['id']}"
    assert http.get(path, headers=reader).status_code == 200
    for action in ("pause", "resume", "cancel"):
        assert_error(http.post(f"{path}/{action}", headers=reader), 403, "forbidden")
    assert_error(http.post("/v1/batches", json={"prompts": ["a"]}, headers=reader), 403, "forbidden")
    assert_error(http.delete(f"/v1/files/{made['input_file_id']}", headers=reader), 403, "forbidden")
    # A key with `generate` alone sees what it made itself.
    assert_error(http.get(path, headers=generator), 404, "batch_not_found")
    assert_error(http.get(f"/v1/files/{made['input_file_id']}", headers=generator), 404, "file_not_found")
    own = make_batch(http, pictures(1), generator)
    assert [one["id"] for one in http.get("/v1/batches", headers=generator).json()["data"]] == [own["id"]]
