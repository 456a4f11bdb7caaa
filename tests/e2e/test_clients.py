"""Real clients, each in its own environment (`tests/clients/environments.py`), against one running platform.

The newest openai for Python is in our own environment: `test_openai_sdk.py`, `_chat.py` and `_videos.py`.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import OpenAI

from tests.clients.environments import run
from tests.face import new_key

_PARTS = {
    ("openai1", "check.py"): "pictures edits streams",
    ("litellm", "check.py"): "pictures edits",
    ("node", "openai.mjs"): "pictures edits streams",
    ("node", "ai-sdk.mjs"): "pictures edits",
}


@pytest.mark.parametrize(("client", "script"), _PARTS)
def test_pictures(api_platform, client, script):
    parts = _PARTS[client, script].split()
    said = run(client, script, api_platform, new_key(), *parts)
    assert said.splitlines()[-len(parts) :] == [f"{part} ok" for part in parts]


@pytest.mark.parametrize(("client", "script"), _PARTS)
def test_chat_streams(api_platform, client, script):
    assert "chat ok" in run(client, script, api_platform, new_key(), "chat")


@pytest.mark.parametrize(("client", "script"), [("litellm", "check.py"), ("node", "openai.mjs")])
def test_videos(api_platform, client, script):
    assert "videos ok" in run(client, script, api_platform, new_key(), "videos")


def _newest_openai(url: str) -> str:
    """What the others do in their own environments, with strict validation."""
    with OpenAI(
        base_url=f"{url}/v1", api_key=new_key(), _strict_response_validation=True, timeout=30, max_retries=0
    ) as client:
        stream = client.chat.completions.create(
            model="jimeng-4.0", messages=[{"role": "user", "content": "a boat [[seconds:40]]"}], stream=True
        )
        chunks = [chunk.choices[0] for chunk in stream]
    assert "![" in "".join(choice.delta.content or "" for choice in chunks)
    assert chunks[-1].finish_reason == "stop"
    return "slow ok"


def test_a_job_of_40_seconds_streams_to_its_end_in_each_client(api_platform):
    """Side by side, so that it takes 40 s once; each gives up after 30 s of silence, or as its makers chose."""
    started = time.monotonic()
    with ThreadPoolExecutor(len(_PARTS) + 1) as pool:
        newest = pool.submit(_newest_openai, api_platform.url)
        others = [pool.submit(run, client, script, api_platform, new_key(), "slow") for client, script in _PARTS]
        for told in (newest, *others):
            assert "slow ok" in told.result()
            assert time.monotonic() - started > 40
