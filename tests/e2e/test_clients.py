"""Real clients, each in its own environment (`tests/support/client_environments.py`), against one running platform.

The newest openai for Python is in our own environment: `test_openai_sdk.py`, `_chat.py` and `_videos.py`.
"""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from openai import OpenAI

from tests.support.api_client import new_key
from tests.support.client_environments import run
from worker.local.supervisor import Platform

# `slow` is a job of 40 s that streams to its end; each client gives up after 30 s of silence, or as its makers chose.
_PARTS = {
    ("openai1", "check.py"): "pictures edits streams chat slow",
    ("litellm", "check.py"): "pictures edits chat videos slow",
    ("node", "openai.mjs"): "pictures edits streams chat videos slow",
    ("node", "ai-sdk.mjs"): "pictures edits chat slow",
}


@pytest.fixture(scope="module")
def told(api_platform: Platform) -> Iterator[dict[str, Future[str]]]:
    """What each script says. They run side by side, so that 40 s are waited for once."""
    with ThreadPoolExecutor(len(_PARTS)) as pool:
        yield {
            script: pool.submit(run, *script, api_platform, new_key(), *parts.split(), seconds=280)
            for script, parts in _PARTS.items()
        }


@pytest.mark.parametrize("script", _PARTS, ids=" ".join)
def test_a_client_does_all_it_can(told, script):
    said = [line for line in told[script].result().splitlines() if line.endswith(" ok")]
    assert said == [f"{part} ok" for part in _PARTS[script].split()]


def test_a_job_of_40_seconds_streams_to_its_end_in_the_newest_openai(api_platform, told):
    """As in the others, with strict validation."""
    started = time.monotonic()
    with OpenAI(
        base_url=f"{api_platform.url}/v1", api_key=new_key(), _strict_response_validation=True, timeout=30,
        max_retries=0,
    ) as client:  # fmt: skip
        stream = client.chat.completions.create(
            model="jimeng-4.0", messages=[{"role": "user", "content": "a boat [[seconds:40]]"}], stream=True
        )
        chunks = [chunk.choices[0] for chunk in stream]
    assert "![" in "".join(choice.delta.content or "" for choice in chunks)
    assert chunks[-1].finish_reason == "stop"
    assert time.monotonic() - started > 40
