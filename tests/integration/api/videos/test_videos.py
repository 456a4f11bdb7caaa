"""Video routes over HTTP: create, get, list, content, delete and remix. Results are inserted as rows."""

import base64
import io
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.auth.session_tokens import session_token_hash
from api.jobs.schemas import Job
from api.videos.schemas import AcceptedVideo, Video, VideoDeleted, VideoList, VideosAnswer, VideoTask, VideoTaskState
from tests.integration.api.videos.video_rows import finish_video, set_state
from tests.support.api_client import assert_error, new_key
from tests.support.engine import Engine
from tests.support.media_files import make_video
from tests.support.uploads import make_image
from worker import storage
from worker.core.media.video import inspect_video
from worker.core.security.session_tokens import parse_tokens
from worker.tasks.cleanup import clean_up

GENERATIONS, VIDEOS, TASKS = "/v1/videos/generations", "/v1/videos", "/v1/video/generations"
LINK = "https://example.org/a.png"
OMNI = "jimeng-video-seedance-2.0"
VIDEO_BYTES = make_video("navy", seconds=1)


@pytest.fixture
def client(engine: Engine) -> Iterator[TestClient]:
    headers = {"Authorization": f"Bearer {new_key()}"}
    with TestClient(create_app(), headers=headers, raise_server_exceptions=False) as client:
        yield client


def parse_job_id(any_id: str) -> UUID:
    return UUID(hex=any_id.partition("_")[2])


def start(client: TestClient, prompt: str = "waves", **fields: Any) -> dict[str, Any]:
    answer = client.post(VIDEOS, json={"prompt": prompt, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def account_of(client: TestClient, engine: Engine) -> UUID:
    (token,) = parse_tokens(client.headers["authorization"].removeprefix("Bearer "), "sandbox")
    return engine.sql("SELECT id FROM accounts WHERE lookup_hash = :h", h=session_token_hash(token))[0].id


def finished(client: TestClient, engine: Engine, prompt: str = "waves", **fields: Any) -> dict[str, Any]:
    made = start(client, prompt, **fields)
    finish_video(parse_job_id(made["id"]), account_of(client, engine), data=VIDEO_BYTES)
    return client.get(f"{VIDEOS}/{made['id']}").json()


def put(client: TestClient, engine: Engine, state: str, **columns: Any) -> str:
    made = start(client)
    set_state(parse_job_id(made["id"]), account_of(client, engine), state, **columns)
    return str(made["id"])


def keys(engine: Engine) -> list[str]:
    folder = storage._store().prefix
    assert folder is not None
    found = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return sorted(str(p) for p in found if p.parts[0] != "platform")  # whose storage this is


class TestCreate:
    def test_video_object_is_returned_at_once(self, client) -> None:
        answer = client.post(VIDEOS, json={"prompt": "waves -ra 1:1", "seconds": "10", "metadata": {"a": "b"}})
        made = answer.json()
        Video.model_validate(made)
        assert set(made) == set(Video.model_fields)
        assert made["id"].startswith("video_")
        assert len(made["id"]) <= 64
        assert (made["status"], made["progress"], made["seconds"]) == ("queued", 0, "10")
        assert (made["size"], made["width"], made["height"]) == ("1280x720", 720, 720)
        assert (made["prompt"], made["metadata"], made["error"], made["url"]) == ("waves", {"a": "b"}, None, None)
        assert made["queue_position"] == 1
        assert answer.headers["openai-poll-after-ms"] == "5000"
        assert answer.headers["x-job-id"] == f"job_{made['id'][6:]}"
        assert client.get(f"{VIDEOS}/{made['id']}").json() == made

    def test_job_and_video_share_their_digits(self, client) -> None:
        made = start(client, model="sora-2", seconds="4", size="720x1280")
        assert (made["model"], made["seconds"], made["adjusted"]) == ("sora-2", "5", {"seconds": "4"})
        job = client.get(f"/v1/jobs/job_{made['id'][6:]}").json()
        Job.model_validate(job)
        assert set(job) == set(Job.model_fields)
        assert (job["kind"], job["model"], job["input"]["size"]) == ("video", "jimeng-video-3.0", "720x1280")
        assert (job["input"]["model"], job["input"]["adjusted"]) == ("sora-2", {"seconds": "4"})
        (listed,) = client.get("/v1/jobs", params={"kind": "video", "model": "sora-2"}).json()["data"]
        assert listed["id"] == job["id"]

    def test_form_without_file_is_accepted(self, client) -> None:
        # As the SDKs send it: multipart, all values text.
        form = {
            "prompt": (None, "waves"),
            "seconds": (None, "5"),
            "size": (None, "1280x720"),
            "model": (None, "sora-2"),
        }
        answer = client.post(VIDEOS, files=form)
        assert answer.status_code == 200, answer.text
        assert answer.json()["size"] == "1280x720"

    @pytest.mark.parametrize("spelling", ["file", "link", "nested", "data"])
    def test_input_reference_in_every_spelling(self, client, engine: Engine, spelling: str) -> None:
        red = make_image("red")
        data_url = f"data:image/png;base64,{base64.b64encode(red).decode()}"
        part = {
            "file": ("upload", red, "application/octet-stream"),
            "link": (None, LINK),
            "nested": (None, LINK),
            "data": (None, data_url),
        }[spelling]
        name = "input_reference[image_url]" if spelling == "nested" else "input_reference"
        answer = client.post(VIDEOS, files={"prompt": (None, "waves"), name: part})
        assert answer.status_code == 200, answer.text
        (row,) = engine.sql("SELECT * FROM job_inputs")
        assert (row.role, row.media, row.url) == ("first_frame", "image", LINK if part[1] == LINK else None)
        assert row.key is None or storage.read_file(row.key) == red

    def test_own_result_is_used_by_file_id(self, client, engine: Engine) -> None:
        shown = finished(client, engine)
        file_id = shown["thumbnail_url"].split("/")[-2]
        made = start(client, input_reference={"file_id": file_id})
        (row,) = engine.sql("SELECT * FROM job_inputs WHERE job_id = :id", id=parse_job_id(made["id"]))
        assert (row.role, row.mime, row.width) == ("first_frame", "image/jpeg", 64)
        for bad in ("file-abc", f"file_{'0' * 32}"):
            answer = client.post(VIDEOS, json={"prompt": "a", "input_reference": {"file_id": bad}})
            assert "Files API" in assert_error(answer, 404, "file_not_found", "input_reference.file_id")

    def test_references_are_stored_in_order(self, client, engine: Engine) -> None:
        parts = [
            ("prompt", (None, "@video_file_1 with @image_file_1")),
            ("model", (None, OMNI)),
            ("image_file_1", ("cat.png", make_image("red"), "image/png")),
            ("video_file_1", ("dance.mp4", VIDEO_BYTES, "video/mp4")),
        ]
        answer = client.post(GENERATIONS, files=[*parts, ("async", (None, "true"))])
        assert answer.status_code == 202, answer.text
        rows = engine.sql("SELECT * FROM job_inputs ORDER BY n")
        assert [(r.n, r.role, r.media, r.name) for r in rows] == [
            (0, "reference", "image", "cat.png"),
            (1, "reference", "video", "dance.mp4"),
        ]
        assert rows[1].milliseconds == inspect_video(io.BytesIO(VIDEO_BYTES)).milliseconds
        assert answer.json()["input"]["parts"] == [{"material": 1}, {"text": " with "}, {"material": 0}]

    @pytest.mark.parametrize("path", [VIDEOS, GENERATIONS, TASKS])
    def test_invalid_requests_are_rejected(self, client, engine: Engine, path: str) -> None:
        def ask(**fields: Any) -> Any:
            return client.post(path, json={"prompt": "waves", **fields})

        assert "5, 10" in assert_error(ask(seconds="7"), 400, "invalid_value", "seconds")
        assert_error(ask(prompt=" "), 400, "invalid_value", "prompt")
        assert_error(client.post(path, json={}), 400, "missing_required_parameter", "prompt")
        assert_error(client.post(path, content=b"{"), 400, "invalid_json")
        assert_error(ask(model="gpt-9"), 404, "model_not_found", "model")
        assert_error(ask(image=[make_image("red").hex()]), 400, "invalid_image", "image.0")
        assert_error(ask(images=[LINK, LINK], model="jimeng-video-veo3"), 400, "unsupported_parameter", "images.1")
        assert_error(ask(stream=True), 400, "unsupported_parameter", "stream")
        assert_error(ask(n=5), 400, "invalid_value", "n")
        assert_error(ask(webhook="ftp://x"), 400, "invalid_value", "webhook")
        assert (engine.sql("SELECT 1 FROM jobs"), keys(engine)) == ([], [])

    @pytest.mark.parametrize("path", [VIDEOS, TASKS])
    def test_single_video_routes_reject_several_videos(self, client, path: str) -> None:
        message = assert_error(client.post(path, json={"prompt": "a", "n": 2}), 400, "unsupported_parameter", "n")
        assert GENERATIONS in message

    def test_requests_with_one_key_create_one_video(self, client, engine: Engine) -> None:
        headers = {"Idempotency-Key": "once"}
        body = {"prompt": "waves", "image": base64.b64encode(make_image("red")).decode()}
        first = client.post(VIDEOS, json=body, headers=headers)
        again = client.post(VIDEOS, json=body, headers=headers)
        assert again.headers["idempotency-replayed"] == "true"
        assert again.json()["id"] == first.json()["id"]
        assert_error(client.post(VIDEOS, json={"prompt": "x"}, headers=headers), 422, "idempotency_key_reuse")
        assert len(engine.sql("SELECT 1 FROM jobs")) == len(keys(engine)) == 1

    def test_unsupported_operations_name_alternatives(self, client) -> None:
        for what in ("edits", "extensions", "characters"):
            message = assert_error(
                client.post(f"{VIDEOS}/{what}", files={"prompt": (None, "a")}), 400, "unsupported_operation"
            )
            assert GENERATIONS in message
        assert_error(client.get(f"{VIDEOS}/characters/x"), 400, "unsupported_operation")
        assert_error(client.post(f"{VIDEOS}/video_1"), 405, "method_not_allowed")


class TestGenerations:
    def test_async_answer_names_job_and_video(self, client) -> None:
        answer = client.post(GENERATIONS, json={"prompt": "a", "n": 2}, headers={"Prefer": "respond-async"})
        made = answer.json()
        assert answer.status_code == 202
        AcceptedVideo.model_validate(made)
        assert answer.headers["preference-applied"] == "respond-async"
        assert answer.headers["location"] == f"/v1/jobs/{made['id']}"
        assert made["request_id"] == f"video_{made['id'][4:]}"
        assert len(made["jobs"]) == 2
        assert client.get(f"{VIDEOS}/{made['request_id']}").json()["status"] == "queued"

    def test_timed_out_wait_returns_504(self, client) -> None:
        answer = client.post(GENERATIONS, json={"prompt": "a"}, headers={"Prefer": "wait=0"})
        assert "/v1/jobs/job_" in assert_error(answer, 504, "generation_timeout")
        assert answer.headers["x-should-retry"] == "false"

    @pytest.mark.parametrize("form", ["url", "b64_json", None])
    def test_finished_video_answer_format(self, client, engine: Engine, form: str | None) -> None:
        key = {"Idempotency-Key": "k"}
        body = {"prompt": "a", **({"response_format": form} if form else {})}
        begun = client.post(GENERATIONS, json=body, headers={**key, "Prefer": "respond-async"})
        job_id = parse_job_id(begun.json()["id"])
        finish_video(job_id, account_of(client, engine), data=VIDEO_BYTES)
        answer = client.post(GENERATIONS, json=body, headers=key)
        assert answer.status_code == 200, answer.text
        VideosAnswer.model_validate(answer.json())
        (one,) = answer.json()["data"]
        assert one.pop("revised_prompt") is None
        if form == "b64_json":
            assert base64.b64decode(one.pop("b64_json")) == VIDEO_BYTES
        else:
            link = one.pop("url")
            got = client.get(httpx.URL(link).raw_path.decode(), headers={"Authorization": ""})
            assert (got.content, got.headers["content-type"]) == (VIDEO_BYTES, "video/mp4")
            assert got.headers["access-control-allow-origin"] == "*"
        assert one == {}

    def test_failed_video_is_an_error(self, client, engine: Engine) -> None:
        key = {"Idempotency-Key": "k"}
        begun = client.post(GENERATIONS, json={"prompt": "a"}, headers={**key, "Prefer": "respond-async"})
        job_id = parse_job_id(begun.json()["id"])
        set_state(job_id, account_of(client, engine), "failed", error_code="generation_failed")
        answer = client.post(GENERATIONS, json={"prompt": "a"}, headers=key)
        assert_error(answer, 502, "generation_failed")
        assert answer.headers["x-should-retry"] == "false"


class TestTasks:
    def test_task_from_start_to_end(self, client, engine: Engine) -> None:
        body = {"prompt": "a", "model": "sora-2", "width": 720, "height": 1280, "duration": 5, "n": 1}
        made = client.post(TASKS, json=body).json()
        VideoTask.model_validate(made)
        assert made["task_id"] == made["id"]
        waiting = client.get(f"{TASKS}/{made['task_id']}").json()
        VideoTaskState.model_validate(waiting)
        assert (waiting["status"], waiting["url"], waiting["error"]) == ("queued", None, None)
        assert (waiting["metadata"]["width"], waiting["metadata"]["duration"]) == (720, 5)
        finish_video(parse_job_id(made["id"]), account_of(client, engine), data=VIDEO_BYTES)
        done = client.get(f"{TASKS}/{made['task_id']}").json()
        assert (done["status"], done["format"], done["metadata"]["width"]) == ("completed", "mp4", 64)
        assert done["url"]
        assert_error(client.get(f"{TASKS}/video_{'0' * 32}"), 404, "video_not_found")


class TestStatus:
    def test_completed_video_has_actual_values(self, client, engine: Engine) -> None:
        shown = finished(client, engine, size="1280x720")
        Video.model_validate(shown)
        assert (shown["status"], shown["progress"], shown["error"]) == ("completed", 100, None)
        assert (shown["seconds"], shown["size"], shown["width"], shown["height"]) == ("5", "1280x720", 64, 64)
        assert shown["metadata"] == {"url": shown["url"]}
        assert shown["completed_at"] >= shown["created_at"]
        assert "openai-poll-after-ms" not in client.get(f"{VIDEOS}/{shown['id']}").headers
        job = client.get(f"/v1/jobs/job_{shown['id'][6:]}").json()
        Job.model_validate(job)
        (output,) = job["output"]
        assert (output["url"], output["thumbnail_url"]) == (shown["url"], shown["thumbnail_url"])
        assert output["spritesheet_url"].startswith("http")
        assert job["usage"] == {"videos": 1, "seconds": 5, "credits_estimated": 25, "credits_charged": None}

    def test_running_video_has_progress(self, client, engine: Engine) -> None:
        video = put(client, engine, "running", progress=40, forecast_seconds=33)
        answer = client.get(f"{VIDEOS}/{video}")
        shown = answer.json()
        assert (shown["status"], shown["progress"], shown["queue_position"]) == ("in_progress", 40, None)
        assert 0 < shown["eta_seconds"] <= 3
        assert answer.headers["openai-poll-after-ms"] == "2000"

    @pytest.mark.parametrize(
        ("state", "columns", "code"),
        [
            ("failed", {"error_code": "content_policy_violation", "error_message": "No."}, "content_policy_violation"),
            ("cancelled", {}, "job_cancelled"),
        ],
    )
    def test_unsuccessful_video_is_failed_with_status_200(self, client, engine: Engine, state, columns, code) -> None:
        video = put(client, engine, state, progress=30, **columns)
        shown = client.get(f"{VIDEOS}/{video}").json()
        Video.model_validate(shown)
        assert (shown["status"], shown["error"]["code"], shown["completed_at"]) == ("failed", code, None)
        assert shown["error"]["message"]
        assert shown["progress"] == 0
        assert_error(client.get(f"{VIDEOS}/{video}/content"), 400, "video_failed")

    def test_video_of_a_conversation_is_shown(self, client, engine: Engine) -> None:
        order = {"messages": [{"role": "user", "text": "hi"}]}
        params = {"order": order, "n": 0, "flags": {}, "asked_model": "agent", "images": []}
        start(client)
        account = account_of(client, engine)
        job_id = engine.add_job(account, kind="chat", model="agent", params=params)
        job = client.get(f"/v1/jobs/job_{job_id.hex}").json()
        Job.model_validate(job)
        assert (job["input"]["messages"], job["input"]["size"], job["input"]["model"]) == (
            order["messages"],
            None,
            "agent",
        )
        assert_error(client.get(f"{VIDEOS}/video_{job_id.hex}"), 404, "video_not_found")

    def test_other_users_and_non_video_jobs_return_404(self, client, engine: Engine) -> None:
        made = finished(client, engine)
        stranger = {"Authorization": f"Bearer {new_key()}"}
        for path in ("", "/content"):
            assert_error(client.get(f"{VIDEOS}/{made['id']}{path}", headers=stranger), 404, "video_not_found")
        assert_error(client.delete(f"{VIDEOS}/{made['id']}", headers=stranger), 404, "video_not_found")
        remix = client.post(f"{VIDEOS}/{made['id']}/remix", json={"prompt": "a"}, headers=stranger)
        assert_error(remix, 404, "video_not_found")
        assert client.get(VIDEOS, headers=stranger).json()["data"] == []
        assert_error(client.get(f"{VIDEOS}/{made['id']}", headers={"Authorization": ""}), 401, "missing_api_key")
        assert_error(client.get(f"{VIDEOS}/nonsense"), 404, "video_not_found")
        drawn = client.post("/v1/images/generations", json={"prompt": "a", "async": True}).json()["id"]
        assert_error(client.get(f"{VIDEOS}/video_{drawn[4:]}"), 404, "video_not_found")


class TestList:
    def test_list_pages(self, client) -> None:
        assert client.get(VIDEOS).json() == {
            "object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False,
        }  # fmt: skip
        made = [start(client, f"number {n}")["id"] for n in range(3)]
        client.post("/v1/images/generations", json={"prompt": "no video", "async": True})
        page = client.get(VIDEOS, params={"limit": 2}).json()
        VideoList.model_validate(page)
        assert [one["id"] for one in page["data"]] == [made[2], made[1]]
        assert (page["first_id"], page["last_id"], page["has_more"]) == (made[2], made[1], True)
        rest = client.get(VIDEOS, params={"limit": 2, "after": page["last_id"]}).json()
        assert ([one["id"] for one in rest["data"]], rest["has_more"]) == ([made[0]], False)
        upwards = client.get(VIDEOS, params={"order": "asc"}).json()
        assert [one["id"] for one in upwards["data"]] == made
        for bad in ({"limit": 0}, {"limit": 101}, {"order": "up"}):
            assert_error(client.get(VIDEOS, params=bad), 400, "invalid_value", next(iter(bad)))


class TestContent:
    def test_each_variant_is_served(self, client, engine: Engine) -> None:
        made = finished(client, engine)
        content = f"{VIDEOS}/{made['id']}/content"
        whole = client.get(content, headers={"Accept": "application/binary"})
        assert (whole.status_code, whole.content) == (200, VIDEO_BYTES)
        assert whole.headers["content-type"] == "video/mp4"
        assert whole.headers["content-length"] == str(len(VIDEO_BYTES))
        assert whole.headers["accept-ranges"] == "bytes"
        assert f'filename="{made["id"]}.mp4"' in whole.headers["content-disposition"]
        assert "private" in whole.headers["cache-control"]
        thumbnail = client.get(content, params={"variant": "thumbnail"})
        assert (thumbnail.headers["content-type"], thumbnail.content[:2]) == ("image/jpeg", b"\xff\xd8")
        assert f'filename="{made["id"]}-thumbnail.jpeg"' in thumbnail.headers["content-disposition"]
        sheet = client.get(content, params={"variant": "spritesheet"})
        assert sheet.content == thumbnail.content + b"\0"
        assert_error(client.get(content, params={"variant": "gif"}), 400, "invalid_value", "variant")

    def test_range_and_conditional_requests(self, client, engine: Engine) -> None:
        content = f"{VIDEOS}/{finished(client, engine)['id']}/content"
        part = client.get(content, headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, VIDEO_BYTES[10:20])
        assert part.headers["content-range"] == f"bytes 10-19/{len(VIDEO_BYTES)}"
        outside = client.get(content, headers={"Range": f"bytes={len(VIDEO_BYTES)}-"})
        assert_error(outside, 416, "range_not_satisfiable")
        known = client.get(content, headers={"If-None-Match": part.headers["etag"]})
        assert (known.status_code, known.content) == (304, b"")
        head = client.head(content)
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(VIDEO_BYTES)))

    def test_missing_variant_returns_404(self, client, engine: Engine) -> None:
        made = start(client)
        finish_video(parse_job_id(made["id"]), account_of(client, engine), data=VIDEO_BYTES, sheet=False)
        answer = client.get(f"{VIDEOS}/{made['id']}/content", params={"variant": "spritesheet"})
        assert_error(answer, 404, "file_not_found", "variant")

    def test_unfinished_video_has_no_content(self, client, engine: Engine) -> None:
        assert "queued" in assert_error(client.get(f"{VIDEOS}/{start(client)['id']}/content"), 400, "video_not_ready")
        video = put(client, engine, "running", progress=40)
        assert "40 %" in assert_error(client.get(f"{VIDEOS}/{video}/content"), 400, "video_not_ready")

    def test_expired_video_returns_410(self, client, engine: Engine) -> None:
        engine.configure(RETENTION_DAYS="7")
        made = finished(client, engine)
        assert made["expires_at"] == made["completed_at"] + 7 * 86400
        engine.sql("UPDATE jobs SET finished_at = now() - interval '8 days', created_at = now() - interval '8 days'")
        engine.sql("UPDATE files SET created_at = now() - interval '8 days'")
        clean_up()
        assert_error(client.get(f"{VIDEOS}/{made['id']}/content"), 410, "video_expired")
        shown = client.get(f"{VIDEOS}/{made['id']}").json()
        Video.model_validate(shown)
        assert (shown["status"], shown["error"]["code"], shown["url"]) == ("failed", "video_expired", None)
        assert shown["progress"] < 100


class TestDelete:
    def test_delete_removes_video_and_files(self, client, engine: Engine) -> None:
        made = finished(client, engine)
        kept = start(client)["id"]
        answer = client.request("DELETE", f"{VIDEOS}/{made['id']}", headers={"Content-Type": "application/json"})
        VideoDeleted.model_validate(answer.json())
        assert answer.json() == {"id": made["id"], "object": "video.deleted", "deleted": True}
        assert keys(engine) == []
        for path in ("", "/content"):
            assert_error(client.get(f"{VIDEOS}/{made['id']}{path}"), 404, "video_not_found")
        assert_error(client.delete(f"{VIDEOS}/{made['id']}"), 404, "video_not_found")
        assert_error(client.get(f"/v1/jobs/job_{made['id'][6:]}"), 404, "job_not_found")
        assert_error(client.get(httpx.URL(made["url"]).raw_path.decode()), 404, "file_not_found")
        assert [one["id"] for one in client.get(VIDEOS).json()["data"]] == [kept]

    def test_delete_cancels_a_queued_video(self, client, engine: Engine) -> None:
        made = start(client)
        assert client.delete(f"{VIDEOS}/{made['id']}").status_code == 200
        assert engine.job_row(parse_job_id(made["id"])).state == "cancelled"

    def test_delete_of_running_video_removes_files_when_they_arrive(self, client, engine: Engine) -> None:
        video = put(client, engine, "running")
        assert client.delete(f"{VIDEOS}/{video}").status_code == 200
        row = engine.job_row(parse_job_id(video))
        assert (row.state, row.cancel_requested_at is not None, row.holds_slot) == ("running", True, True)
        engine.sql("UPDATE jobs SET holds_slot = false, state = 'saving' WHERE id = :id", id=row.id)
        finish_video(row.id, row.account_id, data=VIDEO_BYTES)
        assert_error(client.get(f"{VIDEOS}/{video}"), 404, "video_not_found")
        assert len(keys(engine)) == 3
        assert "removed 3 files" in clean_up()
        assert keys(engine) == []
        assert all(item.removed_at for item in engine.files(row.id))

    def test_crash_after_the_mark_leaves_files_to_the_cleanup(self, client, engine: Engine) -> None:
        made = finished(client, engine)
        engine.sql("UPDATE jobs SET deleted_at = now() WHERE id = :id", id=parse_job_id(made["id"]))
        assert_error(client.get(httpx.URL(made["url"]).raw_path.decode()), 404, "file_not_found")
        clean_up()
        assert keys(engine) == []


class TestRemix:
    def test_remix_keeps_everything_but_the_prompt(self, client, engine: Engine) -> None:
        red = make_image("red")
        fields = {"seconds": "10", "resolution": "1080p", "seed": 9, "metadata": {"a": "b"}}
        source = finished(
            client, engine, model="sora-2", image=base64.b64encode(red).decode(), end_image=f"{LINK}?end", **fields
        )
        answer = client.post(f"{VIDEOS}/{source['id']}/remix", json={"prompt": "at night"})
        made = answer.json()
        Video.model_validate(made)
        assert made["remixed_from_video_id"] == source["id"] != made["id"]
        assert (made["prompt"], made["model"], made["seconds"]) == ("at night", "sora-2", "10")
        assert (made["status"], made["metadata"]) == ("queued", {"a": "b"})
        order = engine.job_row(parse_job_id(made["id"])).params["order"]
        assert (order["seed"], order["resolution"], order["ratio"]) == (9, "1080p", "1:1")
        rows = engine.sql("SELECT * FROM job_inputs WHERE job_id = :id ORDER BY n", id=parse_job_id(made["id"]))
        assert [(row.role, row.url) for row in rows] == [("first_frame", None), ("end_frame", f"{LINK}?end")]
        assert rows[0].key.startswith(f"inputs/{parse_job_id(made['id']).hex}/")
        assert storage.read_file(rows[0].key) == red
        assert client.get(f"{VIDEOS}/{source['id']}").json()["remixed_from_video_id"] is None

    def test_remix_keeps_reference_names(self, client, engine: Engine) -> None:
        images = [{"url": LINK, "name": "cat.png"}, {"url": f"{LINK}?2"}]
        source = finished(
            client, engine, "@cat.png runs", model=OMNI, images=images, videos="https://example.org/d.mp4"
        )
        made = client.post(f"{VIDEOS}/{source['id']}/remix", json={"prompt": "@cat sleeps by @video1"}).json()
        order = engine.job_row(parse_job_id(made["id"])).params["order"]
        assert order["parts"] == [{"material": 0}, {"text": " sleeps by "}, {"material": 2}]
        plain = client.post(f"{VIDEOS}/{source['id']}/remix", json={"prompt": "they sleep"}).json()
        assert engine.job_row(parse_job_id(plain["id"])).params["order"]["parts"] == [{"text": "they sleep"}]

    def test_only_completed_videos_with_inputs_can_be_remixed(self, client, engine: Engine) -> None:
        waiting = start(client, image=base64.b64encode(make_image("red")).decode())
        remix = f"{VIDEOS}/{waiting['id']}/remix"
        assert_error(client.post(remix, json={"prompt": "a"}), 400, "video_not_ready")
        finish_video(parse_job_id(waiting["id"]), account_of(client, engine), data=VIDEO_BYTES)
        assert_error(client.post(remix, json={}), 400, "missing_required_parameter", "prompt")
        engine.sql("UPDATE job_inputs SET removed_at = now()")
        assert "as long as its results" in assert_error(
            client.post(remix, json={"prompt": "a"}), 400, "input_unavailable"
        )
        failed = put(client, engine, "failed", error_code="generation_failed")
        assert_error(client.post(f"{VIDEOS}/{failed}/remix", json={"prompt": "a"}), 400, "video_failed")
