"""Chats with the agent over HTTP: a real app, real steps in threads, the sandbox's agent."""

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
from worker.db.engine import AWAY_ERRORS


@contextlib.contextmanager
def working(engine: Engine, threads: int = 40) -> Iterator[None]:
    """Beat and workers, as threads: the tick, the sweep, and whatever messages come."""
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
            held += [pool.submit(message.obey) for message in engine.take_messages()]
        trouble.extend(error for work in held if (error := work.exception(60)) and not isinstance(error, AWAY_ERRORS))

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


def test_words_are_streamed_whole(url: str) -> None:
    heard = stream_chat(url, "tell me 一个笑话 🛶 [[pause:0.05]]", stream_options={"include_usage": True})
    assert heard.text == "You said: “tell me 一个笑话 🛶” — 好的 🙂"
    assert len(heard.contents) > 3
    assert heard.deltas[0][1] == {"role": "assistant", "content": ""}
    assert heard.finish == ["stop"]
    assert heard.frames[-1][1] == "DONE"
    assert heard.frames[-2][1]["usage"]["total_tokens"] == 0
    assert heard.headers["content-type"].startswith("text/event-stream")
    assert heard.headers["x-job-id"].startswith("job_")
    assert len({data["id"] for _, data in heard.frames[:-1]}) == 1
    assert {data["model"] for _, data in heard.frames[:-1]} == {"agent"}
    for _, delta in heard.deltas:
        assert not ("content" in delta and "reasoning_content" in delta)


def test_the_first_word_comes_while_the_agent_still_talks(engine: Engine, url: str) -> None:
    seen: list[str] = []

    def first_word(heard: RecordedStream) -> bool:
        if heard.contents and not seen:
            seen.extend(line["ended"] for line in engine.ledger()["conversations"])
        return False

    heard = stream_chat(url, "[[words:40]] [[pause:0.05]]", stop=first_word)
    assert seen == [""], "the stream upstream was still open"
    assert heard.text == "".join(f"词{n} " for n in range(40))
    moments = [at for at, _ in heard.contents]
    assert moments[-1] - moments[0] > 1.5
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert max(gaps) < 1.0
    assert len(moments) > 25, "live, not in lumps of a second"


@pytest.mark.parametrize("form", ["", "[[replace]] [[complete]]", "[[leak]] [[repeat]]"])
def test_pictures_are_shown_each_on_its_line(url: str, form: str) -> None:
    heard = stream_chat(url, f"draw two boats [[image:2]] {form}")
    assert heard.text.startswith("I will make that now — 我来画 🎨 …\n\nDone — 完成 ✅")
    shown = [piece for _, piece in heard.contents if "![image](" in piece]
    assert len(shown) == 2
    for piece in shown:
        link = piece.partition("(")[2].partition(")")[0]
        assert piece == f"\n\n![image]({link})\n"
        picture = httpx.get(link)
        assert picture.headers["content-type"] == "image/jpeg"
    assert heard.finish == ["stop"]
    assert "submit_id" not in heard.text
    assert not heard.errors


def test_progress_is_told_while_pictures_are_made(url: str) -> None:
    heard = stream_chat(url, "draw two boats [[image:2]] [[seconds:2]] [[queue:3]]")
    assert "Picture 1 of 2: " in heard.reasoning
    assert "Picture 2 of 2: " in heard.reasoning
    assert "place" in heard.reasoning
    assert heard.text.count("![image](") == 2


def test_each_result_is_shown_when_it_is_ready(engine: Engine, url: str) -> None:
    """Also while another is still made: all jobs of a turn are watched together."""

    def hold_first(heard: RecordedStream) -> bool:
        found = list(engine.sandbox._by_submit.values())
        if len(found) == 2 and heard.text.count("![image](") == 0:
            found[1].start_at = found[1].finish_at = found[1].accepted_at
            found[1].lingers = False
        if heard.text.count("![image](") == 1 and found[0].finish_at > time.time() + 100:
            found[0].start_at = found[0].finish_at = found[0].accepted_at
            found[0].lingers = False
        return False

    heard = stream_chat(url, "draw two boats [[image:2]] [[seconds:1000]]", stop=hold_first)
    assert heard.text.count("![image](") == 2
    assert heard.finish == ["stop"]


def test_a_failed_picture_is_told_in_the_text_and_as_an_error(url: str) -> None:
    heard = stream_chat(url, "draw a boat [[fail:2004]]")
    assert "The picture could not be made: Upstream refused the content." in heard.text
    assert heard.finish == ["content_filter"]
    (error,) = heard.errors
    assert error["code"] == "content_policy_violation"
    assert heard.frames[-1][1] == "DONE"


def test_a_call_that_came_to_nothing_is_told(url: str) -> None:
    heard = stream_chat(url, "draw [[image:2]] [[lost]]")
    assert "1 of the things that the agent announced was never started upstream." in heard.text
    assert heard.text.count("![image](") == 1
    assert not heard.errors


def test_a_stream_that_broke_keeps_its_words_and_its_pictures(url: str) -> None:
    heard = stream_chat(url, "draw two boats [[image:2]] [[cut:tools]]")
    assert heard.text.startswith("I will make that now")
    assert heard.text.count("![image](") == 2
    assert heard.finish == []
    (error,) = heard.errors
    assert error["code"] == "stream_broken"
    assert set(error) == {"message", "type", "param", "code"}


def test_an_answer_cut_short_ends_with_length(url: str) -> None:
    assert stream_chat(url, "one two three [[truncate]]").finish == ["length"]


@pytest.mark.parametrize(
    ("script", "code"), [("[[reject]]", "upstream_permission_denied"), ("[[json:2038]]", "content_policy_violation")]
)
def test_a_refused_conversation_is_an_error_frame(url: str, script: str, code: str) -> None:
    heard = stream_chat(url, f"hi {script}")
    assert [error["code"] for error in heard.errors] == [code]
    assert heard.text == ""
    assert heard.frames[-1][1] == "DONE"


def test_who_leaves_stops_nothing(engine: Engine, url: str) -> None:
    key = new_key()
    heard = stream_chat(url, "draw a boat [[pause:0.1]]", key=key, stop=lambda h: bool(h.contents))
    job_id = heard.headers["x-job-id"]
    eventually(lambda: get_job(url, job_id, key)["status"] == "completed", within=30)
    job = get_job(url, job_id, key)
    assert job["output"]["text"].startswith("I will make that now")
    (child,) = job["output"]["jobs"]
    assert get_job(url, child, key)["output"][0]["mime"] == "image/jpeg"
    assert job["kind"] == "chat"
    assert job["input"]["messages"] == [{"role": "user", "text": "draw a boat [[pause:0.1]]"}]


def test_a_repeat_with_the_same_key_hears_the_same_conversation(engine: Engine, url: str) -> None:
    key, again = new_key(), {"Idempotency-Key": "k1"}
    first = stream_chat(url, "draw a boat [[pause:0.1]]", key=key, headers=again, stop=lambda h: bool(h.contents))
    second = stream_chat(url, "draw a boat [[pause:0.1]]", key=key, headers=again)
    assert first.headers["x-job-id"] == second.headers["x-job-id"]
    assert second.headers["idempotency-replayed"] == "true"
    assert second.text.startswith("I will make that now — 我来画 🎨 …")
    assert second.text.count("![image](") == 1
    assert len(engine.ledger()["conversations"]) == 1


def test_parts_that_are_no_text_are_told_to_be_left_out(url: str) -> None:
    parts = [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]
    heard = stream_chat(url, "", messages=[{"role": "user", "content": parts}])
    assert "1 part of the messages that is no text was left out" in heard.reasoning
    assert "“hi”" in heard.text


def test_a_wait_before_the_first_word_is_explained(url: str) -> None:
    heard = stream_chat(url, "hi [[latency:3]]")
    assert "Waiting for the agent." in heard.reasoning
    assert "“hi”" in heard.text


# --- messages that are lost ---


def test_words_that_redis_lost_are_read_from_the_row(engine: Engine, url: str) -> None:
    """Everybody's connection to Redis is cut, and Redis emptied, again and again in the middle of a conversation."""

    def disturb(heard: RecordedStream) -> bool:
        if len(heard.contents) % 10 == 3:
            engine.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            engine.redis.flushall()
        return False

    heard = stream_chat(url, "[[words:120]] [[pause:0.05]]", stop=disturb)
    assert heard.text == "".join(f"词{n} " for n in range(120))
    assert heard.finish == ["stop"]
    moments = [at for at, _ in heard.contents]
    assert max(later - earlier for earlier, later in itertools.pairwise(moments)) < 4


def test_nothing_but_the_row_is_needed(engine: Engine, url: str) -> None:
    """No word ever reaches the hub: another process took the place of Redis' subscribers."""
    over = threading.Event()

    def silence() -> None:
        while not over.wait(0.02):
            engine.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    thread = threading.Thread(target=silence)
    thread.start()
    try:
        heard = stream_chat(url, "draw a boat [[pause:0.1]]")
    finally:
        over.set()
        thread.join()
    assert heard.text.startswith("I will make that now — 我来画 🎨 …\n\nDone — 完成 ✅")
    assert heard.text.count("![image](") == 1
    assert heard.finish == ["stop"]


# --- whole answers ---


def test_a_whole_answer_has_the_text_and_the_pictures(url: str) -> None:
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


def test_a_refused_conversation_is_an_error(url: str) -> None:
    assert_error(complete_chat(url, "hi [[json:2038]]"), 400, "content_policy_violation")
    assert_error(complete_chat(url, "hi [[reject]]"), 403, "upstream_permission_denied")
    assert_error(complete_chat(url, "one two [[cut]]"), 502, "stream_broken")


def test_errors_speak_chinese_too(url: str) -> None:
    response = complete_chat(url, "one two [[cut]]", headers={"Accept-Language": "zh-CN"})
    assert "对话中途中断" in response.json()["error"]["message"]


def test_front_ends_own_calls_start_no_conversation(engine: Engine, url: str) -> None:
    title = '### Task:\nA title as { "title": "x" }\n<chat_history>\nUSER: a red boat\n</chat_history>'
    answer = complete_chat(url, title)
    assert answer.json()["choices"][0]["message"]["content"] == '{"title": "A red boat"}'
    assert "x-job-id" not in answer.headers
    tested = stream_chat(url, "say hello", max_tokens=16)
    assert (tested.text, tested.finish, tested.frames[-1][1]) == ("ok", ["stop"], "DONE")
    assert engine.ledger()["conversations"] == []
    # What it can answer itself is its own, and who asks for a job gets one.
    tools = [{"type": "function", "function": {"name": "weather"}}]
    assert "“hi”" in stream_chat(url, "hi", tools=tools, response_format={"type": "json_object"}).text
    assert complete_chat(url, "say hello", max_tokens=16, **{"async": True}).status_code == 202


def test_respond_async_gives_the_job(url: str) -> None:
    key = new_key()
    response = complete_chat(url, "draw a boat", key=key, headers={"Prefer": "respond-async"}, stream=True)
    assert response.status_code == 202
    job = response.json()
    assert (job["kind"], job["status"]) == ("chat", "queued")
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    eventually(lambda: get_job(url, job["id"], key)["status"] == "completed", within=30)
    assert len(get_job(url, job["id"], key)["output"]["jobs"]) == 1


def test_a_wait_that_runs_out_names_the_job(url: str) -> None:
    response = complete_chat(url, "hi [[latency:5]]", headers={"Prefer": "wait=1"})
    assert_error(response, 504, "generation_timeout")
    assert response.headers["x-should-retry"] == "false"


def test_bad_messages_are_refused_before_the_stream(url: str) -> None:
    response = complete_chat(url, "", messages=[{"role": "wizard", "content": "x"}], stream=True)
    assert_error(response, 400, "invalid_value", "messages.0.role")


def test_a_strangers_conversation_is_not_found(url: str) -> None:
    response = complete_chat(url, "hi")
    missing = httpx.get(
        f"{url}/v1/jobs/{response.headers['x-job-id']}", headers={"Authorization": f"Bearer {new_key()}"}
    )
    assert_error(missing, 404, "job_not_found")


# --- many at once ---


def test_thirty_streams_and_pictures_at_once(engine: Engine, url: str) -> None:
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
        heard = [stream.result(90) for stream in streams]
        took = [done.result(90) for done in pictures]
    for one in heard:
        assert one.text.count("![image](") == 1
        assert one.finish == ["stop"]
    assert len({one.headers["x-job-id"] for one in heard}) == 30
    assert len(engine.ledger()["conversations"]) == 30
    assert max(took) < 20
    assert engine.ledger()["violations"] == {}
