"""Real clients, each in its own environment (`tests/support/client_environments.py`), against one running platform.

The newest openai for Python is tested in `test_openai_sdk.py`, `_chat.py` and `_videos.py`.
"""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from openai import OpenAI

from tests.support.api_client import new_key
from tests.support.client_environments import run
from worker.local.supervisor import Platform

# `slow` streams a job that takes longer than the client waits for data: the comments in between keep it waiting.
_PARTS = {
    ("openai1", "check.py"): "images edits streams chat slow",
    ("litellm", "check.py"): "images edits chat videos slow",
    ("node", "openai.mjs"): "images edits streams chat videos slow",
    ("node", "ai-sdk.mjs"): "images edits chat slow",
}


@pytest.fixture(scope="module")
def outputs(api_platform: Platform) -> Iterator[dict[str, Future[str]]]:
    """The output of each script. They run in parallel, so that the slow job is waited for once."""
    with ThreadPoolExecutor(len(_PARTS)) as pool:
        yield {
            script: pool.submit(run, *script, api_platform, new_key(), *parts.split(), seconds=280)
            for script, parts in _PARTS.items()
        }


@pytest.mark.parametrize("script", _PARTS, ids=" ".join)
def test_client_supports_its_features(outputs, script):
    passed = [line for line in outputs[script].result().splitlines() if line.endswith(" ok")]
    assert passed == [f"{part} ok" for part in _PARTS[script].split()]


def test_newest_openai_streams_a_job_longer_than_its_timeout(api_platform, outputs):
    """As in the other clients, with strict response validation."""
    started = time.monotonic()
    with OpenAI(
        base_url=f"{api_platform.url}/v1", api_key=new_key(), _strict_response_validation=True, timeout=8,
        max_retries=0,
    ) as client:  # fmt: skip
        stream = client.chat.completions.create(
            model="jimeng-4.0", messages=[{"role": "user", "content": "a boat [[seconds:10]]"}], stream=True
        )
        chunks = [chunk.choices[0] for chunk in stream]
    assert "![" in "".join(choice.delta.content or "" for choice in chunks)
    assert chunks[-1].finish_reason == "stop"
    assert time.monotonic() - started > 10
