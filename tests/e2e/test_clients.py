"""Real clients, each in its own environment (`tests/clients/environments.py`), against one running platform."""

import pytest

from tests.clients.environments import run
from tests.face import new_key

_SEVERAL = [
    ("openai1", "check.py", "pictures edits streams"),
    ("litellm", "check.py", "pictures edits"),
    ("node", "openai.mjs", "pictures edits streams"),
    ("node", "ai-sdk.mjs", "pictures edits"),
]
_CLIENTS = [(client, script) for client, script, _ in _SEVERAL]


@pytest.mark.parametrize(("client", "script", "parts"), _SEVERAL, ids=[f"{c}-{s}" for c, s in _CLIENTS])
def test_pictures(api_platform, client, script, parts):
    said = run(client, script, api_platform, new_key(), *parts.split())
    assert said.count(" ok") == len(parts.split()), said


@pytest.mark.parametrize(("client", "script"), _CLIENTS)
def test_chat_streams(api_platform, client, script):
    assert "chat ok" in run(client, script, api_platform, new_key(), "chat")


@pytest.mark.parametrize(("client", "script"), _CLIENTS)
def test_a_job_of_40_seconds_streams_to_its_end(api_platform, client, script):
    assert "slow ok" in run(client, script, api_platform, new_key(), "slow")
