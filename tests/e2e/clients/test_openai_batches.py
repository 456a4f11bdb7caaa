"""Batches and files with the official `openai` SDK, sync and async, with strict response validation."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI, NotFoundError, OpenAI

ENDPOINT = "/v1/images/generations"
ENDED = {"completed", "failed", "expired", "cancelled"}


@pytest.fixture(scope="module")
def client(api_platform) -> Iterator[OpenAI]:
    with OpenAI(
        base_url=f"{api_platform.url}/v1", api_key=api_platform.admin_key, _strict_response_validation=True, timeout=60
    ) as client:
        yield client


def requests(*bodies: dict[str, Any]) -> bytes:
    lines = [
        {"custom_id": f"line-{n}", "method": "POST", "url": ENDPOINT, "body": body} for n, body in enumerate(bodies)
    ]
    return "\n".join(map(json.dumps, lines)).encode()


def test_batch_from_upload_to_results(api_platform) -> None:
    asyncio.run(_run_batch(api_platform))


async def _run_batch(api_platform) -> None:
    async with AsyncOpenAI(
        base_url=f"{api_platform.url}/v1", api_key=api_platform.admin_key, _strict_response_validation=True, timeout=60
    ) as client:
        content = requests({"prompt": "a boat", "n": 1}, {"prompt": "bad [[fail:2038]]", "n": 1})
        file = await client.files.create(file=("boats.jsonl", content), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h", metadata={"name": "boats"}
        )
        while batch.status not in ENDED:
            await asyncio.sleep(0.3)
            batch = await client.batches.retrieve(batch.id)
        assert batch.status == "completed"
        assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 1)
        [good] = map(json.loads, (await client.files.content(batch.output_file_id)).text.splitlines())
        assert good["custom_id"] == "line-0"
        assert good["response"]["body"]["data"][0]["url"].startswith(api_platform.url)
        [bad] = map(json.loads, (await client.files.content(batch.error_file_id)).text.splitlines())
        assert bad["response"]["body"]["error"]["code"] == "content_policy_violation"
        assert batch.id in [one.id async for one in client.batches.list()]


def test_cancelled_batch(client: OpenAI) -> None:
    file = client.files.create(file=("boats.jsonl", requests({"prompt": "a boat", "n": 1})), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint=ENDPOINT,
        completion_window="24h",
        extra_body={"not_before": time.time() + 3600},
    )
    assert batch.status == "in_progress"
    assert client.batches.cancel(batch.id).status in {"cancelling", "finalizing", "cancelled"}


def test_refused_batch_names_the_line(client: OpenAI) -> None:
    file = client.files.create(file=("bad.jsonl", requests({"prompt": "a"}, {"n": 1})), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")
    assert batch.status == "failed"
    [error] = batch.errors.data
    assert (error.line, error.param) == (2, "prompt")


def test_files_are_listed_retrieved_and_deleted(client: OpenAI) -> None:
    file = client.files.create(file=("one.jsonl", requests({"prompt": "a"})), purpose="batch")
    assert client.files.retrieve(file.id).filename == "one.jsonl"
    assert file.id in [one.id for one in client.files.list(purpose="batch")]
    assert client.files.delete(file.id).deleted
    with pytest.raises(NotFoundError):
        client.files.retrieve(file.id)
