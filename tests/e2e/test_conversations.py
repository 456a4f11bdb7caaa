"""Conversations through real worker processes: their own process, its death, and many of them beside pictures."""

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.api_client import new_key
from tests.support.chat.agent_chats import stream_chat
from tests.support.platform import eventually
from worker.local.supervisor import Platform


@pytest.fixture
def platform(multi_region_platform: Platform) -> Platform:
    """Its talker is killed in here, and is back when its test ends."""
    return multi_region_platform


@pytest.fixture
def url(platform: Platform) -> str:
    return platform.url


def ledger(platform: Platform) -> dict[str, Any]:
    return dict(httpx.get(f"{platform.sandbox_url}/_ledger", trust_env=False).json())


def test_an_answer_with_pictures(platform: Platform, url: str) -> None:
    heard = stream_chat(url, "draw two boats 🛶 [[image:2]]")
    assert heard.text.startswith("I will make that now — 我来画 🎨 …\n\nDone — 完成 ✅")
    assert heard.text.count("![image](") == 2
    assert heard.finish == ["stop"]


def test_a_killed_talker_breaks_its_conversations_and_no_more(platform: Platform, url: str) -> None:
    talker = platform.children["talker"]
    killed: list[int] = []

    def kill(heard: Any) -> bool:
        if len(heard.contents) > 5 and not killed:
            killed.append(talker.pid)
            talker.send(signal.SIGKILL)
        return False

    heard = stream_chat(url, "[[words:4000]] [[pause:0.02]]", stop=kill)
    assert [error["code"] for error in heard.errors] == ["stream_broken"]
    assert killed != [talker.pid]
    assert heard.text.startswith("词0 词1 词2 ")
    assert stream_chat(url, "hi again").finish == ["stop"]
    prompts = [line["prompt"] for line in ledger(platform)["conversations"]]
    assert prompts.count("[[words:4000]] [[pause:0.02]]") == 1


def test_thirty_conversations_do_not_starve_pictures(platform: Platform, url: str) -> None:
    """More conversations than the talker has threads, each of some seconds; pictures go on beside them."""
    key = new_key()
    headers = {"Authorization": f"Bearer {key}"}

    def picture(n: int) -> None:
        body = {"prompt": f"a cat {n}", "n": 1}
        response = httpx.post(f"{url}/v1/images/generations", json=body, headers=headers, timeout=60)
        assert response.status_code == 200, response.text

    with ThreadPoolExecutor(40) as pool:
        before = len(ledger(platform)["conversations"])
        streams = [pool.submit(stream_chat, url, f"draw boat {n} [[pause:0.5]]", key=key) for n in range(30)]
        eventually(lambda: len(ledger(platform)["conversations"]) >= before + 10)
        list(pool.map(picture, range(8)))
        still_open = sum(not stream.done() for stream in streams)
        heard = [stream.result(120) for stream in streams]
    assert still_open > 0, "the pictures came when the conversations were over"
    for one in heard:
        assert one.text.count("![image](") == 1
        assert one.finish == ["stop"]
    books = ledger(platform)
    assert books["violations"] == {}
    talks = [line["conversation_id"] for line in books["conversations"]]
    assert len(talks) == len(set(talks)) == before + 30
    print(still_open, "conversations were open when the pictures were there")
