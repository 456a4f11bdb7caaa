"""Frames of chat streams over real rows with short intervals: heartbeats, slow jobs, several jobs, failures."""

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.chat.chunks import Chunks
from api.chat.completion import chat_completion
from api.chat.streaming import ChatStream, StreamTiming
from api.generation.acceptance import AcceptedRequest
from api.generation.response import read_job_views
from api.jobs.watcher import JobWatcher
from tests.support.api_client import assert_error, new_key
from tests.support.chat.chat_stream_checks import ParsedStream, check_stream
from tests.support.engine import Engine
from tests.support.uploads import make_image

FAST = StreamTiming(
    heartbeat=0.15, min_line_interval=0.02, max_line_interval=30.0, refresh_interval=0.05, deadline=20.0
)
BASE = "http://here"
CHAT = "/v1/chat/completions"


def follow(
    *job_ids: UUID,
    meanwhile: Callable[[], object] = lambda: None,
    after: float = 0.0,
    n: int = 1,
    timing: StreamTiming = FAST,
    mark_unanswered: Callable[[], None] = lambda: None,
) -> ParsedStream:
    """Read a stream to its end; `meanwhile` runs in a thread, `after` seconds after the first frame."""

    async def read() -> bytes:
        job_watcher = JobWatcher()
        job_watcher.start()
        raw, doing = b"", None
        accepted = AcceptedRequest(job_ids=list(job_ids), n=n)
        stream = ChatStream(job_watcher, accepted, Chunks("m"), BASE, mark_unanswered, with_usage=True, timing=timing)
        async for frame in stream.frames():
            raw += frame
            if doing is None:
                doing = asyncio.create_task(asyncio.to_thread(_after, after, meanwhile))
        await doing
        await job_watcher.stop()
        return raw

    return check_stream(asyncio.run(read()))


def _after(seconds: float, act: Callable[[], object]) -> None:
    threading.Event().wait(seconds)
    act()


def finish(engine: Engine, job_id: UUID) -> None:
    engine.finish_upstream()
    engine.poll(engine.job_row(job_id).account_id)
    engine.save(job_id)


def test_slow_job_sends_heartbeats(engine: Engine) -> None:
    job = engine.add_running_job(engine.add_account())
    parsed = follow(job, meanwhile=lambda: finish(engine, job), after=1.0)
    assert parsed.heartbeats >= 3
    assert len(parsed.links) == 1
    assert parsed.links[0].startswith(f"{BASE}/v1/files/file_")


def test_heartbeats_and_repeated_lines_until_the_deadline(engine: Engine) -> None:
    job = engine.add_running_job(engine.add_account())
    # Long ago, so that the shown progress stands still.
    engine.sql("UPDATE jobs SET submitted_at = now() - interval '1 day' WHERE id = :id", id=job)
    timing = replace(FAST, max_line_interval=0.5, deadline=1.7)
    parsed = follow(job, timing=timing)
    assert parsed.error["code"] == "generation_timeout"
    assert f"/v1/jobs/job_{job.hex}" in parsed.error["message"]
    assert 5 <= parsed.heartbeats <= 12
    assert 4 <= len(parsed.lines) <= 5
    assert engine.job_row(job).state == "running"


def test_only_stream_that_ends_before_its_jobs_is_unanswered(engine: Engine) -> None:
    account, calls = engine.add_account(), []
    done = engine.add_running_job(account)
    follow(done, meanwhile=lambda: finish(engine, done), mark_unanswered=lambda: calls.append("done"))
    assert calls == []
    slow = engine.add_running_job(account)
    parsed = follow(slow, timing=replace(FAST, deadline=0.5), mark_unanswered=lambda: calls.append("slow"))
    assert parsed.error["code"] == "generation_timeout"
    assert calls == ["slow"]


def test_lines_respect_the_minimum_interval(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_job(account, prompt="a boat [[hang]]")

    def hurry() -> None:
        engine.submit(job)
        finish(engine, job)

    parsed = follow(job, meanwhile=hurry, timing=replace(FAST, min_line_interval=60.0))
    assert len(parsed.lines) == 1
    assert parsed.links


def test_queue_position_is_reported(engine: Engine) -> None:
    account = engine.add_account()
    first, second, third = (engine.add_job(account, prompt="a boat") for _ in range(3))

    def work() -> None:
        engine.run_until_final(first)
        engine.run_until_final(second, third)

    parsed = follow(third, meanwhile=work, after=0.3)
    assert parsed.lines[1].startswith("Queued, position 3, about ")
    assert parsed.links


def test_each_result_of_several_jobs_is_sent_when_stored(engine: Engine) -> None:
    account = engine.add_account(max_images=5)
    early = engine.add_succeeded_job(account)
    late = engine.add_running_job(account)
    parsed = follow(early, late, n=2, meanwhile=lambda: finish(engine, late), after=0.4)
    assert parsed.order.index("content") < len(parsed.order) - 1 - parsed.order[::-1].index("line")
    assert any(line.startswith("Job 1 of 2: done; job 2 of 2: ") for line in parsed.lines)
    assert len(set(parsed.links)) == 2


def test_at_most_n_results_are_sent(engine: Engine) -> None:
    jobs = [engine.add_succeeded_job(engine.add_account(), count=4) for _ in range(2)]
    parsed = follow(*jobs, n=5)
    assert len(set(parsed.links)) == 5
    answer = chat_completion(read_job_views(jobs), n=5, model="m", base=BASE)
    assert answer["choices"][0]["message"]["content"] == parsed.content


def test_content_policy_violation_sets_finish_reason(engine: Engine) -> None:
    account = engine.add_account(max_images=5)
    good = engine.add_succeeded_job(account)
    bad = engine.add_job(account, prompt="a boat [[fail:2005]]")
    engine.run_until_final(bad)
    parsed = follow(good, bad, n=2)
    assert (len(parsed.links), parsed.finish) == (1, "content_filter")
    [choice] = chat_completion(read_job_views([good, bad]), n=2, model="m", base=BASE)["choices"]
    assert choice["finish_reason"] == "content_filter"
    assert "rejected the content" in choice["message"]["reasoning_content"]


def test_failed_and_cancelled_jobs_end_in_an_error(engine: Engine) -> None:
    account = engine.add_account()
    bad = engine.add_job(account, prompt="a boat [[fail:2005]]")
    engine.run_until_final(bad)
    assert follow(bad).error["code"] == "content_policy_violation"
    refused = engine.add_job(engine.add_account(session="dead1"), prompt="a boat")
    parsed = follow(refused, meanwhile=lambda: engine.run_until_final(refused))
    assert parsed.error["code"] == "upstream_session_expired"


def test_video_is_an_element_and_a_link(engine: Engine) -> None:
    job = engine.add_succeeded_job(engine.add_account())
    engine.sql("UPDATE files SET mime = 'video/mp4' WHERE job_id = :id", id=job)
    parsed = follow(job)
    url = f"{BASE}/v1/files/file_{engine.files(job)[0].id.hex}/content"
    # The tag, the address and the closing tag between blank lines: otherwise Open WebUI shows them as text.
    assert parsed.content.split("\n") == [
        "", f'<video controls src="{url}">', url, "</video>", "", f"[video.mp4]({url})", "",
    ]  # fmt: skip
    [choice] = chat_completion(read_job_views([job]), n=1, model="m", base=BASE)["choices"]
    assert choice["message"]["content"] == parsed.content
    assert "images" not in choice["message"]


def test_stream_waits_for_unavailable_database(engine: Engine) -> None:
    job = engine.add_running_job(engine.add_account())

    def cut() -> None:
        for _ in range(5):
            with psycopg.connect(engine.env["DREAMERY_DATABASE_URL"], autocommit=True) as connection:
                connection.execute(
                    """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                       WHERE datname = current_database() AND pid <> pg_backend_pid()"""
                )
            threading.Event().wait(0.1)
        finish(engine, job)

    assert len(follow(job, meanwhile=cut, after=0.2).links) == 1


def test_heartbeats_continue_while_database_hangs(engine: Engine) -> None:
    job = engine.add_running_job(engine.add_account())

    def block() -> None:
        with engine.connect() as connection:
            connection.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
            threading.Event().wait(1.0)
            connection.rollback()
        finish(engine, job)

    parsed = follow(job, meanwhile=block)
    assert parsed.heartbeats >= 4
    assert parsed.links


def test_removed_job_ends_the_stream(engine: Engine) -> None:
    job = engine.add_running_job(engine.add_account())
    parsed = follow(job, meanwhile=lambda: engine.sql("DELETE FROM jobs WHERE id = :id", id=job), after=0.2)
    assert parsed.error["code"] == "job_not_found"


# --- from the request to the row ---


@pytest.fixture
def client(engine: Engine) -> Iterator[TestClient]:
    headers = {"Authorization": f"Bearer {new_key()}"}
    with TestClient(create_app(), headers=headers, raise_server_exceptions=False) as client:
        yield client


def ask(client: TestClient, content: Any, *, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    body = {"messages": [{"role": "user", "content": content}], "async": True, **fields}
    return client.post(CHAT, json=body, headers=headers)


def with_images(text: str, number: int) -> list[Any]:
    link = f"data:image/png;base64,{base64.b64encode(make_image('red')).decode()}"
    return [{"type": "text", "text": text}, *[{"type": "image_url", "image_url": {"url": link}}] * number]


def test_video_model_creates_a_video_job(client: TestClient, engine: Engine) -> None:
    answer = ask(client, "a boat -ra 9:16", model="jimeng-video-3.0:1280x720:10s", seed=5)
    assert answer.status_code == 202, answer.text
    [job] = engine.sql("SELECT * FROM jobs")
    assert (job.kind, job.model) == ("video", "jimeng-video-3.0")
    wanted = {"prompt": "a boat", "ratio": "9:16", "resolution": "720p", "seconds": 10, "seed": 5, "parts": []}
    assert wanted.items() <= job.params["order"].items()
    assert (job.params["n"], job.params["asked_model"]) == (1, "jimeng-video-3.0:1280x720:10s")


@pytest.mark.parametrize(("number", "roles"), [(0, []), (1, ["first_frame"]), (2, ["first_frame", "end_frame"])])
def test_images_of_a_video_chat_are_its_frames(client: TestClient, engine: Engine, number: int, roles: Any) -> None:
    assert ask(client, with_images("a boat", number), model="jimeng-video-3.0").status_code == 202
    assert [row.role for row in engine.sql("SELECT role FROM job_inputs ORDER BY n")] == roles


def test_invalid_video_requests_are_rejected(client: TestClient, engine: Engine) -> None:
    video = "jimeng-video-3.0"
    assert_error(ask(client, with_images("a", 3), model=video), 400, "unsupported_parameter", "messages")
    assert_error(ask(client, "a", model=video, size="big"), 400, "invalid_value", "size")
    assert_error(ask(client, "a", model=video, size="1280x720", ratio="1:1"), 400, "invalid_value", "ratio")
    assert_error(ask(client, "a", model=video, negative_prompt="x"), 400, "unsupported_parameter", "negative_prompt")
    assert_error(ask(client, "a -re 9k", model=video), 400, "invalid_value", "messages")
    assert engine.sql("SELECT 1 FROM jobs") == []


def test_client_probe_replies_can_be_disabled(client: TestClient, engine: Engine) -> None:
    headers = {"Prefer": "wait=0"}
    assert ask(client, "hi", headers=headers, **{"async": False}).status_code == 200
    assert engine.sql("SELECT 1 FROM jobs") == []
    engine.configure(ANSWER_CLIENT_PROBES="false")
    late = ask(client, "hi", headers=headers, **{"async": False})
    assert_error(late, 504, "generation_timeout")
    assert len(engine.sql("SELECT 1 FROM jobs")) == 1


def test_job_watcher_stops_while_connecting(engine: Engine) -> None:
    async def stop_after(turns: int) -> None:
        job_watcher = JobWatcher()
        job_watcher.start()
        for _ in range(turns):
            await asyncio.sleep(0)
        await job_watcher.stop()

    async def run() -> None:
        async with asyncio.timeout(20):
            for turns in range(40):
                await stop_after(turns)

    asyncio.run(run())
