"""Chat completions through the official `openai` SDK, with strict response validation, against a running platform."""

import asyncio
import base64
import re
from collections.abc import Iterator

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.support.api_client import FINAL, ApiClient, account_name, new_key
from tests.support.sandbox_client import read_ledger
from tests.support.uploads import make_image

MODEL = "jimeng-3.0"
_LINK = re.compile(r"!\[image\]\((\S+)\)")


@pytest.fixture
def client(api_platform) -> Iterator[OpenAI]:
    with OpenAI(
        base_url=f"{api_platform.url}/v1", api_key=new_key(), _strict_response_validation=True, timeout=60
    ) as client:
        yield client


def user_message(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def count_submits(client: OpenAI, platform) -> int:
    ledger = read_ledger(platform)
    return sum(line["account"] == account_name(client.api_key) for line in ledger["submits"])


def is_image(link: str) -> bool:
    return httpx.get(link, trust_env=False).headers["content-type"].startswith("image/")


def test_completion(client):
    answer = client.chat.completions.create(
        model=MODEL, messages=user_message("a lighthouse"), n=1, temperature=0.7, max_tokens=1000, user="u", seed=7
    )
    [choice] = answer.choices
    assert (answer.model, choice.finish_reason, choice.message.role) == (MODEL, "stop", "assistant")
    [link] = _LINK.findall(choice.message.content)
    assert is_image(link)
    assert choice.message.images == [{"type": "image_url", "image_url": {"url": link}}]
    assert answer.usage.total_tokens == 0


def test_stream(client):
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=user_message("a lighthouse [[seconds:2]]"),
            n=1,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert any("reasoning_content" in delta.model_extra for delta in deltas)
    content = "".join(delta.content or "" for delta in deltas)
    assert is_image(_LINK.findall(content)[0])
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.total_tokens == 0
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


def test_stream_helper(client):
    with client.chat.completions.stream(model=MODEL, messages=user_message("a lighthouse"), n=1) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "stop"
    assert is_image(_LINK.findall(final.choices[0].message.content)[0])


def test_image_from_reference_image(client, api_platform):
    link = f"data:image/png;base64,{base64.b64encode(make_image('red', side=64)).decode()}"
    parts = [{"type": "text", "text": "at night"}, {"type": "image_url", "image_url": {"url": link}}]
    messages = [{"role": "user", "content": parts}]
    answer = client.chat.completions.create(model="jimeng-4.0:1k", messages=messages, n=1)
    assert is_image(_LINK.findall(answer.choices[0].message.content)[0])
    assert read_ledger(api_platform, summary=True)["violations"] == {}


def test_parallel_streams(api_platform):
    async def run() -> None:
        base_url = f"{api_platform.url}/v1"
        async with AsyncOpenAI(base_url=base_url, api_key=new_key(), _strict_response_validation=True) as client:

            async def stream_text(number: int) -> str:
                stream = await client.chat.completions.create(
                    model=MODEL, messages=user_message(f"boat {number}"), n=1, stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            contents = await asyncio.gather(*(stream_text(number) for number in range(8)))
            assert len({link for content in contents for link in _LINK.findall(content)}) == 8

    asyncio.run(run())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("words", "prompt", "error", "code"),
    [
        ("caller", "[[fail:2005]]", openai.BadRequestError, "content_policy_violation"),
        ("dead", "a boat", openai.AuthenticationError, "upstream_session_expired"),
        ("broke", "a boat", openai.RateLimitError, "insufficient_quota"),
        ("caller", "[[fail:2002]]", openai.InternalServerError, "generation_failed"),
    ],
)
def test_failed_job_raises_and_is_not_retried(api_platform, words, prompt, error, code, stream):
    key = new_key(words)
    with OpenAI(base_url=f"{api_platform.url}/v1", api_key=key, max_retries=2) as client:
        with pytest.raises(openai.APIError if stream else error) as error_info:
            list(client.chat.completions.create(model=MODEL, messages=user_message(prompt), n=1, stream=stream))
        assert error_info.value.code == code
        assert error_info.value.message
    with ApiClient(api_platform, key) as caller:
        assert len(caller.http.get("/v1/jobs").json()["data"]) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_invalid_requests_raise_with_message(client, api_platform, stream):
    with pytest.raises(openai.NotFoundError, match="gpt-9") as unknown:
        client.chat.completions.create(model="gpt-9", messages=user_message("a"), stream=stream)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="-re"):
        client.chat.completions.create(model=MODEL, messages=user_message("a -re 9k"), stream=stream)
    assert count_submits(client, api_platform) == 0


def test_closing_the_stream_does_not_cancel_the_job(client, api_platform):
    stream = client.chat.completions.create(model=MODEL, messages=user_message("a [[seconds:1.5]]"), n=1, stream=True)
    next(stream)
    stream.close()
    with ApiClient(api_platform, client.api_key) as caller:
        [job] = caller.http.get("/v1/jobs").json()["data"]
        assert caller.wait_for_end(job["id"])["status"] == "completed"


def test_first_chunk_is_sent_immediately(client, api_platform):
    stream = client.chat.completions.create(model=MODEL, messages=user_message("a [[seconds:3]]"), n=1, stream=True)
    first, second = next(stream), next(stream)
    with ApiClient(api_platform, client.api_key) as caller:
        [job] = caller.http.get("/v1/jobs").json()["data"]
        assert job["status"] not in FINAL
    assert first.choices[0].delta.role == "assistant"
    assert second.choices[0].delta.reasoning_content.endswith("\n")
    assert any(chunk.choices[0].delta.content for chunk in stream)


def test_client_probes_create_no_job(client, api_platform):
    answer = client.chat.completions.create(model=MODEL, messages=user_message("hi"), max_tokens=16)
    assert answer.choices[0].message.content == "ok"
    stream = client.chat.completions.create(model=MODEL, messages=user_message("test"), stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "ok"
    assert count_submits(client, api_platform) == 0
