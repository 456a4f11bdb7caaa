"""Chats with the agent over HTTP: a real app, worker tasks in threads, the sandbox's agent."""

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from api.app import create_app
from tests.support.api_client import assert_error, new_key
from tests.support.chat.agent_chats import RecordedStream, complete_chat, get_job, stream_chat
from tests.support.engine import Engine
from tests.support.platform import eventually
from tests.support.servers.http_servers import running_app
from worker import celery_tasks
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS


@contextlib.contextmanager
def working(engine: Engine, threads: int = 40) -> Iterator[None]:
    """Run beat and workers as threads: dispatch, sweep and queued messages."""
    over = threading.Event()
    trouble: list[BaseException] = []

    def beat(pool: ThreadPoolExecutor) -> None:
        held: list[Any] = []
        swept = 0.0
        while not over.wait(0.05):
            celery_tasks.tick()
            if time.monotonic() - swept > 0.5:
                swept = time.monotonic()
                celery_tasks.sweep()
            held += [pool.submit(message.execute) for message in engine.take_messages()]
        trouble.extend(
            error
            for work in held
            if (error := work.exception(60)) and not isinstance(error, DATABASE_UNAVAILABLE_ERRORS)
        )

    with ThreadPoolExecutor(threads) as pool:
        thread = threading.Thread(target=beat, args=(pool,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(90)
    assert not trouble, trouble


@pytest.fixture
def app_url(engine: Engine) -> Iterator[str]:
    engine.configure(ACCOUNT_MAX_CHATS="40", ACCOUNT_MAX_IMAGES="100", POLL_MIN_SECONDS="0.2")
    with running_app(create_app(), lifespan="on") as url:
        yield url


@pytest.fixture
def url(engine: Engine, app_url: str) -> Iterator[str]:
    with working(engine):
        yield app_url


# --- streams ---


def test_text_is_streamed_completely(url: str) -> None:
    parsed = stream_chat(url, "tell me 一个笑话 🛶 [[pause:0.05]]", stream_options={"include_usage": True})
    assert parsed.text == "You said: “tell me 一个笑话 🛶” — 好的 🙂"
    assert len(parsed.contents) > 3
    assert parsed.deltas[0][1] == {"role": "assistant", "content": ""}
    assert parsed.finish == ["stop"]
    assert parsed.frames[-1][1] == "DONE"
    assert parsed.frames[-2][1]["usage"]["total_tokens"] == 0
    assert parsed.headers["content-type"].startswith("text/event-stream")
    assert parsed.headers["x-job-id"].startswith("job_")
    assert len({data["id"] for _, data in parsed.frames[:-1]}) == 1
    assert {data["model"] for _, data in parsed.frames[:-1]} == {"agent"}
    for _, delta in parsed.deltas:
        assert not ("content" in delta and "reasoning_content" in delta)


def test_first_text_arrives_before_the_agent_finishes(engine: Engine, url: str) -> None:
    seen: list[str] = []

    def first_word(parsed: RecordedStream) -> bool:
        if parsed.contents and not seen:
            seen.extend(line["ended"] for line in engine.ledger()["conversations"])
        return False

    parsed = stream_chat(url, "[[words:40]] [[pause:0.05]]", stop=first_word)
    assert seen == [""], "the stream upstream was still open"
    assert parsed.text == "".join(f"词{n} " for n in range(40))
    moments = [at for at, _ in parsed.contents]
    assert moments[-1] - moments[0] > 1.5
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert max(gaps) < 1.0
    assert len(moments) > 25, "live, not in lumps of a second"


@pytest.mark.parametrize("form", ["", "[[replace]] [[complete]]", "[[leak]] [[repeat]]"])
def test_each_image_is_on_its_own_line(url: str, form: str) -> None:
    parsed = stream_chat(url, f"draw two boats [[image:2]] {form}")
    assert parsed.text.startswith("I will make that now — 我来画 🎨 …\n\nDone — 完成 ✅")
    shown = [piece for _, piece in parsed.contents if "![image](" in piece]
    assert len(shown) == 2
    for piece in shown:
        link = piece.partition("(")[2].partition(")")[0]
        assert piece == f"\n\n![image]({link})\n"
        picture = httpx.get(link)
        assert picture.headers["content-type"] == "image/png"
    assert parsed.finish == ["stop"]
    assert "submit_id" not in parsed.text
    assert not parsed.errors


def test_progress_lines_are_sent_during_generation(url: str) -> None:
    parsed = stream_chat(url, "draw two boats [[image:2]] [[seconds:2]] [[queue:8]]")
    assert "Image 1 of 2: " in parsed.reasoning
    assert "Image 2 of 2: " in parsed.reasoning
    assert "position" in parsed.reasoning
    assert parsed.text.count("![image](") == 2


def test_each_result_is_sent_when_it_is_ready(engine: Engine, url: str) -> None:
    """A result is sent while another job runs: all jobs of a conversation are watched together."""

    def hold_first(parsed: RecordedStream) -> bool:
        found = list(engine.sandbox._by_submit.values())
        if len(found) == 2 and parsed.text.count("![image](") == 0:
            found[1].start_at = found[1].finish_at = found[1].accepted_at
            found[1].lingers = False
        if parsed.text.count("![image](") == 1 and found[0].finish_at > time.time() + 100:
            found[0].start_at = found[0].finish_at = found[0].accepted_at
            found[0].lingers = False
        return False

    parsed = stream_chat(url, "draw two boats [[image:2]] [[seconds:1000]]", stop=hold_first)
    assert parsed.text.count("![image](") == 2
    assert parsed.finish == ["stop"]


def test_failed_image_is_reported_in_text_and_error_frame(url: str) -> None:
    parsed = stream_chat(url, "draw a boat [[fail:2004]]")
    assert "The image could not be generated: Upstream rejected the content." in parsed.text
    assert parsed.finish == ["content_filter"]
    (error,) = parsed.errors
    assert error["code"] == "content_policy_violation"
    assert parsed.frames[-1][1] == "DONE"


def test_result_that_never_started_is_reported(url: str) -> None:
    parsed = stream_chat(url, "draw [[image:2]] [[lost]]")
    assert "1 of the results that the agent announced was never started upstream." in parsed.text
    assert parsed.text.count("![image](") == 1
    assert not parsed.errors


def test_broken_upstream_stream_keeps_text_and_images(url: str) -> None:
    parsed = stream_chat(url, "draw two boats [[image:2]] [[cut:tools]]")
    assert parsed.text.startswith("I will make that now")
    assert parsed.text.count("![image](") == 2
    assert parsed.finish == []
    (error,) = parsed.errors
    assert error["code"] == "stream_broken"
    assert set(error) == {"message", "type", "param", "code"}


def test_truncated_answer_has_finish_reason_length(url: str) -> None:
    assert stream_chat(url, "one two three [[truncate]]").finish == ["length"]


@pytest.mark.parametrize(
    ("script", "code"), [("[[reject]]", "upstream_permission_denied"), ("[[json:2038]]", "content_policy_violation")]
)
def test_rejected_conversation_is_an_error_frame(url: str, script: str, code: str) -> None:
    parsed = stream_chat(url, f"hi {script}")
    assert [error["code"] for error in parsed.errors] == [code]
    assert parsed.text == ""
    assert parsed.frames[-1][1] == "DONE"


def test_closing_the_stream_does_not_stop_the_conversation(engine: Engine, url: str) -> None:
    key = new_key()
    parsed = stream_chat(url, "draw a boat [[pause:0.1]]", key=key, stop=lambda h: bool(h.contents))
    job_id = parsed.headers["x-job-id"]
    eventually(lambda: get_job(url, job_id, key)["status"] == "completed", within=30)
    job = get_job(url, job_id, key)
    assert job["output"]["text"].startswith("I will make that now")
    (child,) = job["output"]["jobs"]
    assert get_job(url, child, key)["output"][0]["mime"] == "image/png"
    assert job["kind"] == "chat"
    assert job["input"]["messages"] == [{"role": "user", "text": "draw a boat [[pause:0.1]]"}]


def test_repeat_with_same_key_follows_the_same_conversation(engine: Engine, url: str) -> None:
    key, again = new_key(), {"Idempotency-Key": "k1"}
    first = stream_chat(url, "draw a boat [[pause:0.1]]", key=key, headers=again, stop=lambda h: bool(h.contents))
    second = stream_chat(url, "draw a boat [[pause:0.1]]", key=key, headers=again)
    assert first.headers["x-job-id"] == second.headers["x-job-id"]
    assert second.headers["idempotency-replayed"] == "true"
    assert second.text.startswith("I will make that now — 我来画 🎨 …")
    assert second.text.count("![image](") == 1
    assert len(engine.ledger()["conversations"]) == 1


def test_omitted_parts_are_reported(url: str) -> None:
    parts = [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]
    parsed = stream_chat(url, "", messages=[{"role": "user", "content": parts}])
    assert "1 part of the messages that is not text was left out" in parsed.reasoning
    assert "“hi”" in parsed.text


def test_wait_before_first_text_is_explained(url: str) -> None:
    parsed = stream_chat(url, "hi [[latency:3]]")
    assert "Waiting for the agent." in parsed.reasoning
    assert "“hi”" in parsed.text


# --- messages that are lost ---


def test_text_lost_by_redis_is_read_from_the_row(engine: Engine, url: str) -> None:
    """All Redis connections are cut and Redis is flushed repeatedly during a conversation."""

    def disturb(parsed: RecordedStream) -> bool:
        if len(parsed.contents) % 10 == 3:
            engine.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            engine.redis.flushall()
        return False

    parsed = stream_chat(url, "[[words:120]] [[pause:0.05]]", stop=disturb)
    assert parsed.text == "".join(f"词{n} " for n in range(120))
    assert parsed.finish == ["stop"]
    moments = [at for at, _ in parsed.contents]
    assert max(later - earlier for earlier, later in itertools.pairwise(moments)) < 4


def test_stream_works_without_pubsub(engine: Engine, url: str) -> None:
    """No text reaches the job watcher: nothing is delivered to its Redis subscription."""
    over = threading.Event()

    def silence() -> None:
        while not over.wait(0.02):
            engine.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    thread = threading.Thread(target=silence)
    thread.start()
    try:
        parsed = stream_chat(url, "draw a boat [[pause:0.1]]")
    finally:
        over.set()
        thread.join()
    assert parsed.text.startswith("I will make that now — 我来画 🎨 …\n\nDone — 完成 ✅")
    assert parsed.text.count("![image](") == 1
    assert parsed.finish == ["stop"]


# --- whole answers ---


def test_answer_without_stream_has_text_and_images(url: str) -> None:
    response = complete_chat(url, "draw two boats [[image:2]]")
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["object"] == "chat.completion"
    assert body["model"] == "agent"
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "stop"
    message = choice["message"]
    assert message["content"].startswith("I will make that now — 我来画 🎨 …\n\nDone — 完成 ✅\n\n![image](")
    assert message["content"].count("![image](") == 2
    assert len(message["images"]) == 2
    assert set(body["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert response.headers["x-job-id"]


def test_rejected_conversation_is_an_error(url: str) -> None:
    assert_error(complete_chat(url, "hi [[json:2038]]"), 400, "content_policy_violation")
    assert_error(complete_chat(url, "hi [[reject]]"), 403, "upstream_permission_denied")
    assert_error(complete_chat(url, "one two [[cut]]"), 502, "stream_broken")


def test_errors_are_localized(url: str) -> None:
    response = complete_chat(url, "one two [[cut]]", headers={"Accept-Language": "zh-CN"})
    assert "对话中途中断" in response.json()["error"]["message"]


def test_client_probes_start_no_conversation(engine: Engine, url: str) -> None:
    title = '### Task:\nA title as { "title": "x" }\n<chat_history>\nUSER: a red boat\n</chat_history>'
    answer = complete_chat(url, title)
    assert answer.json()["choices"][0]["message"]["content"] == '{"title": "A red boat"}'
    assert "x-job-id" not in answer.headers
    tested = stream_chat(url, "say hello", max_tokens=16)
    assert (tested.text, tested.finish, tested.frames[-1][1]) == ("ok", ["stop"], "DONE")
    assert engine.ledger()["conversations"] == []
    # Other texts are not probes, and a request for an asynchronous job creates one.
    tools = [{"type": "function", "function": {"name": "weather"}}]
    assert "“hi”" in stream_chat(url, "hi", tools=tools, response_format={"type": "json_object"}).text
    assert complete_chat(url, "say hello", max_tokens=16, **{"async": True}).status_code == 202


def test_respond_async_returns_the_job(url: str) -> None:
    key = new_key()
    response = complete_chat(url, "draw a boat", key=key, headers={"Prefer": "respond-async"}, stream=True)
    assert response.status_code == 202
    job = response.json()
    assert (job["kind"], job["status"]) == ("chat", "queued")
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    eventually(lambda: get_job(url, job["id"], key)["status"] == "completed", within=30)
    assert len(get_job(url, job["id"], key)["output"]["jobs"]) == 1


def test_timed_out_wait_names_the_job(url: str) -> None:
    response = complete_chat(url, "hi [[latency:5]]", headers={"Prefer": "wait=1"})
    assert_error(response, 504, "generation_timeout")
    assert response.headers["x-should-retry"] == "false"


def test_invalid_messages_are_rejected_before_the_stream(url: str) -> None:
    response = complete_chat(url, "", messages=[{"role": "wizard", "content": "x"}], stream=True)
    assert_error(response, 400, "invalid_value", "messages.0.role")


def test_other_users_conversation_returns_404(url: str) -> None:
    response = complete_chat(url, "hi")
    missing = httpx.get(
        f"{url}/v1/jobs/{response.headers['x-job-id']}", headers={"Authorization": f"Bearer {new_key()}"}
    )
    assert_error(missing, 404, "job_not_found")


# --- many at once ---


def test_thirty_concurrent_streams_with_images(engine: Engine, url: str) -> None:
    key = new_key()
    headers = {"Authorization": f"Bearer {key}"}

    def picture(n: int) -> float:
        began = time.monotonic()
        response = httpx.post(
            f"{url}/v1/images/generations", json={"prompt": f"a cat {n}", "n": 1}, headers=headers, timeout=60
        )
        assert response.status_code == 200, response.text
        return time.monotonic() - began

    with ThreadPoolExecutor(40) as pool:
        streams = [pool.submit(stream_chat, url, f"draw boat {n} [[pause:0.1]]", key=key) for n in range(30)]
        eventually(lambda: len(engine.ledger()["conversations"]) >= 10)
        pictures = [pool.submit(picture, n) for n in range(6)]
        parsed = [stream.result(90) for stream in streams]
        took = [done.result(90) for done in pictures]
    for one in parsed:
        assert one.text.count("![image](") == 1
        assert one.finish == ["stop"]
    assert len({one.headers["x-job-id"] for one in parsed}) == 30
    assert len(engine.ledger()["conversations"]) == 30
    assert max(took) < 20
    assert engine.ledger()["violations"] == {}
