"""`/v1/chat/completions` on a running platform over HTTP: answers, exact streams, rejections, disconnects."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest
import redis

from api.chat.schemas import ChatAnswer
from tests.support.api_client import ApiClient, account_name, assert_error, forbids_retry, new_key
from tests.support.chat.chat_stream_checks import ParsedStream, check_stream
from tests.support.platform import find_processes
from tests.support.sandbox_client import read_ledger
from tests.support.uploads import make_image

CHAT = "/v1/chat/completions"
MODEL = "jimeng-3.0"  # generates small images


@pytest.fixture
def client(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform) as client:
        yield client


def body_of(content: Any, **fields: Any) -> dict[str, Any]:
    messages = content if isinstance(content, list) and isinstance(content[0], tuple) else [("user", content)]
    parsed = [{"role": role, "content": text} for role, text in messages]
    return {"model": MODEL, "messages": parsed, "n": 1, **fields}


def ask(client: ApiClient, content: Any, *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    return client.http.post(CHAT, json=body_of(content, **fields), headers=headers)


def stream(client: ApiClient, content: Any, *, headers: dict[str, str] | None = None, **fields: Any) -> ParsedStream:
    response = ask(client, content, stream=True, headers=headers, **fields)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-length" not in response.headers
    assert "content-encoding" not in response.headers
    parsed = check_stream(response.content)
    assert parsed.heartbeats == 0 or parsed.lines
    return parsed


def is_image(link: str) -> bool:
    got = httpx.get(link, trust_env=False)
    return got.status_code == 200 and got.headers["content-type"].startswith("image/") and len(got.content) > 500


def violations(client: ApiClient) -> dict[str, Any]:
    return read_ledger(client.platform, summary=True)["violations"]


def uploads(client: ApiClient) -> int:
    calls = read_ledger(client.platform, summary=True)["calls"]
    return sum(count for path, count in calls.items() if "/upload/v1" in path)


# --- answers ---


def test_answer_has_the_documented_format(client):
    response = ask(client, "a red boat", temperature=0.5, top_p=1, presence_penalty=0, whatever={"a": 1})
    assert response.status_code == 200, response.text
    answer = response.json()
    ChatAnswer.model_validate(answer)
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == MODEL
    [choice] = answer["choices"]
    message = choice["message"]
    assert (choice["finish_reason"], message["role"], message["refusal"]) == ("stop", "assistant", None)
    [image] = message["images"]
    link = image["image_url"]["url"]
    assert message["content"] == f"![image]({link})\n"
    assert link.startswith(client.platform.url)
    assert is_image(link)
    assert response.headers["x-job-id"] in message["reasoning_content"]
    assert answer["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    job = client.job(response.headers["x-job-id"])
    assert (job["kind"], job["input"]["prompt"], job["output"][0]["url"]) == ("image", "a red boat", link)


def test_request_without_n_is_one_job(client):
    answer = ask(client, "a boat", n=None).json()
    assert answer["choices"][0]["message"]["content"].count("![image](") == 4
    assert len(client.submits()) == 1


def test_fields_flags_and_suffixes_set_parameters(client):
    def order(content="a boat", **fields):
        job = ask(client, content, **{"async": True, **fields}).json()
        client.cancel(job["id"])
        return job["input"]

    assert order(model="jimeng-4.0:2k")["size"] == "2048x2048"
    assert order(model="jimeng-4.0:1024x1024")["resolution"] == "1k"
    assert order(model="jimeng-4.0:16:9:4k")["size"] == "5404x3040"
    assert order(model="jimeng-image-4.0:image")["model"] == "jimeng-image-4.0:image"
    flagged = order("a boat -ra 16:9 -re 1k", model="jimeng-4.0:4k")
    assert (flagged["prompt"], flagged["size"], flagged["flags"]) == (
        "a boat", "1664x936", {"ratio": "16:9", "resolution": "1k"},
    )  # fmt: skip
    parsed = order(seed=7, negative_prompt="rain", ratio="4:3", user="u", metadata={"a": "b"})
    assert (parsed["seed"], parsed["negative_prompt"], parsed["ratio"]) == (7, "rain", "4:3")
    assert order(model=None)["model"] == "jimeng-4.0"


def test_async_returns_the_job(client):
    for fields, headers in (
        ({"async": True}, {}),
        ({}, {"Prefer": "respond-async"}),
        ({"async": True, "stream": True}, {}),
    ):
        response = ask(client, "a boat", headers=headers, metadata={"order": "42"}, user="u", **fields)
        assert response.status_code == 202, response.text
        assert response.headers["preference-applied"] == "respond-async"
        assert response.headers["location"] == f"/v1/jobs/{response.json()['id']}"
        assert response.json()["metadata"] == {"order": "42", "user": "u"}
        assert client.wait_for_end(response.json()["id"])["status"] == "completed"


def test_used_key_returns_the_same_images(client):
    headers = {"Idempotency-Key": "chat-1"}
    first = ask(client, "a boat", headers=headers)
    again = ask(client, "a boat", headers=headers)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json()["choices"][0]["message"]["content"] == first.json()["choices"][0]["message"]["content"]
    streamed = stream(client, "a boat", headers=headers)
    assert streamed.content == first.json()["choices"][0]["message"]["content"]
    assert_error(ask(client, "another boat", headers=headers), 422, "idempotency_key_reuse")
    assert len(client.submits()) == 1


# --- streams ---


def test_stream_frames_follow_the_documented_order(client):
    started = time.monotonic()
    parsed = stream(client, "a boat [[seconds:2]] [[queue:3]]", stream_options={"include_usage": True})
    assert parsed.model == MODEL
    assert parsed.finish == "stop"
    assert parsed.usage == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert parsed.order[:2] == ["role", "line"]
    assert parsed.order.index("content") > max(n for n, kind in enumerate(parsed.order) if kind == "line")
    [link] = parsed.links
    assert is_image(link)
    [job] = client.http.get("/v1/jobs").json()["data"]
    assert job["id"] in parsed.lines[0]
    assert any("upstream queue" in line for line in parsed.lines)
    assert len(parsed.lines) == len(set(parsed.lines)) <= time.monotonic() - started + 2


def test_content_is_equal_with_and_without_stream(client):
    parsed = stream(client, "a boat", n=5)
    assert len(parsed.links) == 5
    assert parsed.contents == [f"![image]({link})\n" for link in parsed.links]
    assert "ob 1 of 2" in "".join(parsed.lines) or len(parsed.lines) == 1


def test_each_result_is_sent_when_it_is_stored(api_platform):
    """With two slots and three jobs, the first results arrive while the last job waits."""
    with ApiClient(api_platform) as client, client.http.stream(
        "POST", CHAT, json=body_of("a boat [[seconds:1.5]]", n=12, stream=True)
    ) as response:  # fmt: skip
        seen, raw = [], b""
        for chunk in response.iter_raw():
            raw += chunk
            if b"![image]" in chunk:
                seen.append((time.monotonic(), chunk.count(b"![image]")))
    parsed = check_stream(raw)
    assert len(parsed.links) == len(set(parsed.links)) == 12
    assert seen[-1][0] - seen[0][0] > 0.8


def test_status_is_decided_before_the_first_byte(client, api_platform):
    for fields, status, code, param in (
        ({"model": "gpt-9"}, 404, "model_not_found", "model"),
        ({"model": "jimeng-4.0:huge"}, 400, "invalid_value", "model"),
        ({"model": "jimeng-3.0:4k"}, 400, "invalid_value", "model"),
        ({"model": "jimeng-4.0:2k", "resolution": "4k"}, 400, "invalid_value", "resolution"),
        ({"model": "agent", "messages": [{"role": "king", "content": "a"}]}, 400, "invalid_value", "messages.0.role"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": "a boat"}, 400, "invalid_value", "messages"),
        ({"messages": [{"role": "user"}]}, 400, "missing_required_parameter", "messages.0.content"),
        ({"messages": [{"role": "user", "content": "x" * 32_001}]}, 400, "prompt_too_long", "messages"),
        ({"messages": [{"role": "user", "content": "a\x00"}]}, 400, "invalid_value", "messages"),
        ({"messages": [{"role": "user", "content": "a -re 9k"}]}, 400, "invalid_value", "messages"),
        ({"n": 0}, 400, "invalid_value", "n"),
        ({"seed": -2}, 400, "invalid_value", "seed"),
        ({"metadata": {"a": "x" * 600}}, 400, "invalid_value", "metadata"),
        ({"webhook": "ftp://a"}, 400, "invalid_value", "webhook"),
        ({"duration": 5}, 400, "unsupported_parameter", "duration"),
        ({"model": "jimeng-video-3.0", "n": 5}, 400, "invalid_value", "n"),
        ({"model": "jimeng-video-3.0:7s", "n": 1}, 400, "invalid_value", "model"),
    ):
        for streamed in (True, False):
            response = ask(client, "a boat", **{"stream": streamed, **fields})
            assert_error(response, status, code, param)
            assert not forbids_retry(response)
    assert_error(client.http.post(CHAT, json={"model": MODEL}), 400, "missing_required_parameter", "messages")
    assert_error(client.http.post(CHAT, content=b"{"), 400, "invalid_json")
    assert_error(httpx.post(f"{api_platform.url}{CHAT}", json=body_of("a"), trust_env=False), 401, "missing_api_key")
    assert client.submits() == []


FAILURES = [
    ("caller", "[[fail:2005]]", 400, "content_policy_violation"),
    ("caller", "[[fail:2002]]", 502, "generation_failed"),
    ("dead", "a boat", 401, "upstream_session_expired"),
    ("broke", "a boat", 429, "insufficient_quota"),
]


@pytest.mark.parametrize(("words", "prompt", "status", "code"), FAILURES)
def test_failed_job_is_an_error_or_an_error_frame(api_platform, words, prompt, status, code):
    with ApiClient(api_platform, new_key(words)) as client:
        response = ask(client, prompt)
        message = assert_error(response, status, code)
        assert forbids_retry(response)
    with ApiClient(api_platform, new_key(words)) as client:
        parsed = stream(client, prompt)
    # Upstream's message follows only if the task, not the sweep, noticed first that no account is left, and the end of
    # the cooldown only once the price of the model is known.
    first, second = (
        text.partition(" Upstream:")[0].partition(" No account can take")[0]
        for text in (message, parsed.error["message"])
    )
    assert (parsed.error["code"], second) == (code, first)
    assert parsed.contents == []
    assert parsed.lines


def test_full_queue_is_reported_before_the_stream(engine):
    """Streams are tested in `test_streaming.py`; this test needs its own limit."""
    from starlette.testclient import TestClient

    from api.app import create_app

    engine.configure(OPEN_JOBS_PER_CALLER="1")
    with TestClient(create_app(), headers={"Authorization": f"Bearer {new_key()}"}) as client:
        assert client.post(CHAT, json=body_of("a", **{"async": True})).status_code == 202
        assert_error(client.post(CHAT, json=body_of("a", stream=True)), 429, "queue_full")


# --- images in the message ---


def with_images(text: str, *links: Any) -> list[Any]:
    return [{"type": "text", "text": text}, *({"type": "image_url", "image_url": link} for link in links)]


def test_message_images_are_references(client):
    before = uploads(client)
    red = base64.b64encode(make_image("red", side=64)).decode()
    parts = with_images("merge these", {"url": f"data:image/png;base64,{red}"}, f"data:image/png;base64,{red}")
    parsed = stream(client, parts, model="jimeng-4.0:1k")
    assert is_image(parsed.links[0])
    [job] = client.http.get("/v1/jobs").json()["data"]
    assert [mark["mime"] for mark in job["input"]["images"]] == ["image/png"] * 2
    assert uploads(client) - before == 2
    assert violations(client) == {}


def test_change_request_uses_an_earlier_image(client):
    first = stream(client, "a boat", n=2, model="jimeng-4.0:1k")
    before = uploads(client)
    conversation = [("user", "a boat"), ("assistant", first.content), ("user", "make the second picture blue")]
    parsed = stream(client, conversation, model="jimeng-4.0:1k")
    assert is_image(parsed.links[0])
    assert first.links[1] in parsed.lines[0]
    second, _ = client.http.get("/v1/jobs").json()["data"]
    [mark] = second["input"]["images"]
    assert mark["bytes"] == len(httpx.get(first.links[1], trust_env=False).content)
    assert uploads(client) - before == 1
    conversation[-1] = ("user", "a cat")
    fresh = stream(client, conversation, model="jimeng-4.0:1k")
    assert first.links[0] not in fresh.lines[0]
    assert uploads(client) - before == 1
    assert violations(client) == {}


def test_link_to_own_result_is_accepted(client):
    first = stream(client, "a boat", model="jimeng-4.0:1k")
    answer = ask(client, with_images("a boat at night", {"url": first.links[0]}), model="jimeng-4.0:1k")
    assert answer.status_code == 200, answer.text
    missing = f"{client.platform.url}/v1/files/file_{'0' * 32}/content"
    assert_error(ask(client, with_images("night", missing), model="jimeng-4.0"), 410, "file_expired", "messages")


@pytest.mark.parametrize(
    ("parts", "fields", "code", "param"),
    [
        (with_images("a", "data:image/png;base64,AAAA"), {}, "invalid_image", "messages"),
        (with_images("a", {"url": 7}), {}, "invalid_image", "messages"),
        (with_images("a", "https://example.org/a.png"), {"model": "jimeng-3.1"}, "unsupported_parameter", "messages"),
        (with_images("a", *["https://example.org/a.png"] * 11), {}, "invalid_value", "messages"),
        ([{"type": "file", "file": {}}, "a"], {}, "unsupported_parameter", "messages.0.content.0"),
    ],
)
def test_invalid_images_are_rejected(client, parts, fields, code, param):
    assert_error(ask(client, parts, **fields), 400, code, param)


# --- disconnects and many streams ---


def test_closing_the_stream_does_not_cancel_the_job(api_platform):
    with ApiClient(api_platform) as client:
        with client.http.stream("POST", CHAT, json=body_of("a boat [[seconds:2]]", stream=True)) as response:
            job_id = response.headers["x-job-id"]
            next(response.iter_raw())
        assert client.job(job_id)["status"] in {"queued", "in_progress"}
        assert client.wait_for_end(job_id)["status"] == "completed"


def test_stream_survives_redis_flush(api_platform):
    """Messages and the subscription are lost; the stream ends because the job watcher also reads the rows."""
    with ApiClient(api_platform) as client, client.http.stream(
        "POST", CHAT, json=body_of("a boat [[seconds:2]]", stream=True)
    ) as response:  # fmt: skip
        chunks = response.iter_raw()
        raw = next(chunks)
        with redis.Redis.from_url(api_platform.redis_url) as redis_client:
            redis_client.flushall()
            # The subscription of the API; the worker's own is a pattern.
            for one in redis_client.client_list():
                if one["sub"] != "0":
                    redis_client.client_kill_filter(_id=one["id"])
        raw += b"".join(chunks)
    parsed = check_stream(raw)
    assert is_image(parsed.links[0])


def test_many_streams_use_no_threads(api_platform):
    [api] = [
        p
        for p in find_processes(api_platform.data_dir)
        if "api.http.server" in " ".join(p.cmdline()) and p.is_running()
    ]
    with ApiClient(api_platform) as client, ThreadPoolExecutor(100) as pool:
        opened = threading.Semaphore(0)

        def follow(number: int) -> ParsedStream:
            body = body_of(f"{number} [[hang]]", stream=True)
            with ApiClient(api_platform, client.key) as same, same.http.stream("POST", CHAT, json=body) as response:
                chunks = response.iter_raw()
                raw = next(chunks)
                opened.release()
                return check_stream(raw + b"".join(chunks))

        streams = [pool.submit(follow, number) for number in range(100)]
        came = [opened.acquire(timeout=30) for _ in streams]
        threads = psutil.Process(api.pid).num_threads()
        started = time.monotonic()
        alive = client.http.get("/v1/models").status_code
        seconds = time.monotonic() - started
        # Before anything is judged, or the streams would keep the test.
        for job in (job for page in pages(client) for job in page):
            client.cancel(job["id"])
        parsed = [one.result(timeout=60) for one in streams]
    assert all(came)
    # The pool has 16; the rest are uvicorn's own, the storage's and the bus timer's.
    assert threads <= 40
    assert (alive, seconds < 10) == (200, True)
    assert {one.error["code"] for one in parsed} == {"job_cancelled"}


def pages(client: ApiClient) -> Iterator[list[dict[str, Any]]]:
    after: dict[str, str] = {}
    while True:
        page = client.http.get("/v1/jobs", params={"limit": 100, **after}).json()
        yield page["data"]
        if not page["has_more"]:
            return
        after = {"after": page["last_id"]}


# --- client probes ---


def test_client_probes_are_answered_without_a_job(client):
    task = '### Task:\nA title as { "title": "x" }\n<chat_history>\nUSER: a red boat\n</chat_history>'
    answer = ask(client, task).json()
    ChatAnswer.model_validate(answer)
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"title": "A red boat"}
    parsed = stream_bytes(client, "hi", stream_options={"include_usage": True})
    assert (parsed.content, parsed.finish, parsed.usage["total_tokens"]) == ("ok", "stop", 0)
    assert ask(client, "a boat", max_tokens=5).json()["choices"][0]["message"]["content"] == "ok"
    assert_error(ask(client, task, model="gpt-9"), 404, "model_not_found", "model")
    assert client.submits() == []
    assert client.http.get("/v1/jobs").json()["data"] == []
    log = (client.platform.logs_dir / "api.log").read_text()
    assert "housekeeping_answered" in log


TOOLS = [{"type": "function", "function": {"name": "search_web", "parameters": {"type": "object", "properties": {}}}}]


def test_prompt_with_the_tools_of_a_front_end_makes_a_picture(client):
    answer = ask(client, "a lighthouse at dawn", tools=TOOLS, tool_choice="auto", n=1).json()
    assert answer["choices"][0]["message"]["content"].startswith("![image](")
    assert len(client.submits()) == 1


def test_forced_tools_and_json_are_refused_without_a_job(client):
    named = {"type": "function", "function": {"name": "search_web"}}
    for fields, param in (
        ({"tools": TOOLS, "tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": named, "stream": True}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}}, "response_format"),
    ):
        message = assert_error(ask(client, "a city", **fields), 400, "unsupported_parameter", param)
        assert "generates images" in message
    video = ask(client, "a city", model="jimeng-video-3.0", response_format={"type": "json_object"})
    assert "generates videos" in assert_error(video, 400, "unsupported_parameter", "response_format")
    assert client.submits() == []
    assert client.http.get("/v1/jobs").json()["data"] == []


def test_background_calls_in_other_languages_create_no_job(client):
    for text in (
        "From the chat history below, give this conversation a name. At most 10 characters.\n\nUser: a boat\nAssistant: ok",
        "以下のチャット履歴から、この会話に名前を付けてください。10文字以内。\n\nユーザー: 船\nアシスタント: 完了",
        "Sugiere tres respuestas cortas que el usuario podría enviar. Devuelve JSON.\nUsuario: un barco\nAsistente: listo",
    ):
        answer = ask(client, text)
        assert (answer.status_code, "x-job-id" in answer.headers) == (200, False)
        assert stream_bytes(client, text).finish == "stop"
    assert client.http.get("/v1/jobs").json()["data"] == []


def test_header_or_field_decides_whether_a_job_starts(client):
    assert "Nothing was generated" in ask(client, "a red boat", dreamery_job="never").text
    body = {"model": "jimeng-4.0", "n": 1, "messages": [{"role": "user", "content": "hi"}]}
    never = client.http.post("/v1/chat/completions", json=body, headers={"X-Dreamery-Job": "never"})
    assert never.json()["choices"][0]["message"]["content"] == "ok"
    assert client.submits() == []
    always = client.http.post("/v1/chat/completions", json=body, headers={"X-Dreamery-Job": "always"})
    assert always.json()["choices"][0]["message"]["content"].startswith("![image](")
    wrong = client.http.post("/v1/chat/completions", json=body, headers={"X-Dreamery-Job": "maybe"})
    assert_error(wrong, 400, "invalid_value", "X-Dreamery-Job")
    assert_error(ask(client, "hi", dreamery_job="maybe"), 400, "invalid_value", "dreamery_job")


def test_attached_file_of_a_front_end_is_not_drawn(client):
    text = '<attached_files>\n<file name="notes.txt" type="file"/>\n</attached_files>\na lighthouse at dawn'
    job = ask(client, text, n=1, **{"async": True}).json()
    assert job["input"]["prompt"] == "a lighthouse at dawn"


def stream_bytes(client: ApiClient, content: Any, **fields: Any) -> ParsedStream:
    return check_stream(ask(client, content, stream=True, **fields).content)


def test_async_probe_creates_a_job(client):
    job = ask(client, "test", **{"async": True})
    assert job.status_code == 202
    assert client.wait_for_end(job.json()["id"])["status"] == "completed"
    assert account_name(client.key) == client.submits()[0]["account"]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v1/responses", "chat completions"),
        ("/v1/responses/resp_1", "chat completions"),
        ("/v1/completions", "/v1/chat/completions"),
        ("/v1/embeddings", "embeddings"),
        ("/v1/audio/speech", "another provider for audio"),
        ("/v1/audio/transcriptions", "another provider for audio"),
        ("/v1/nothing", "/v1/images/generations"),
        ("/chat/completions", "must end in /v1"),
    ],
)
def test_unknown_routes_name_alternatives(client, path, hint):
    assert hint in assert_error(client.http.post(path, json={}), 404, "unknown_url")
