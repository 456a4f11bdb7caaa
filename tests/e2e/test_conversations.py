"""Conversations in real processes: the crash of their process, and many conversations in parallel with image jobs."""

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.api_client import new_key
from tests.support.chat.agent_chats import stream_chat
from tests.support.platform import eventually, start_platform
from tests.support.sandbox_client import read_ledger
from worker.local.supervisor import Platform


@pytest.fixture
def platform(multi_region_platform: Platform) -> Platform:
    """A shared platform. A test kills its worker, which is running again when the test ends."""
    return multi_region_platform


@pytest.fixture
def url(platform: Platform) -> str:
    return platform.url


def ledger(platform: Platform) -> dict[str, Any]:
    return dict(read_ledger(platform))


def test_agent_answer_contains_images(platform: Platform, url: str) -> None:
    chat = stream_chat(url, "draw two boats 🛶 [[image:2]]")
    assert chat.text.startswith("I will make that now — 我来画 🎨 …\n\nDone — 完成 ✅")
    assert chat.text.count("![image](") == 2
    assert chat.finish == ["stop"]


def test_killed_worker_breaks_only_its_own_conversations(platform: Platform, url: str) -> None:
    worker = platform.children["worker-1"]
    killed: list[int] = []

    def kill(chat: Any) -> bool:
        if len(chat.contents) > 5 and not killed:
            killed.append(worker.pid)
            worker.send(signal.SIGKILL)
        return False

    chat = stream_chat(url, "[[words:4000]] [[pause:0.02]]", stop=kill)
    assert [error["code"] for error in chat.errors] == ["stream_broken"]
    assert killed != [worker.pid]
    assert chat.text.startswith("词0 词1 词2 ")
    assert stream_chat(url, "hi again").finish == ["stop"]
    prompts = [line["prompt"] for line in ledger(platform)["conversations"]]
    assert prompts.count("[[words:4000]] [[pause:0.02]]") == 1


def test_roles_in_processes_of_their_own_do_the_same(tmp_path: Path) -> None:
    """As on several hosts: worker, talker and scheduler are separate."""
    with start_platform(tmp_path, separate_roles=True) as separate:
        assert {"worker-1", "talker", "scheduler"} <= set(separate.children)
        assert stream_chat(separate.url, "draw a boat [[image:1]]", key="demo:sandbox").finish == ["stop"]


def test_thirty_conversations_do_not_starve_image_jobs(platform: Platform, url: str) -> None:
    """More conversations than one process may run, several seconds each, while image jobs continue."""
    key = new_key()
    headers = {"Authorization": f"Bearer {key}"}

    def generate_image(n: int) -> None:
        body = {"prompt": f"a cat {n}", "n": 1}
        response = httpx.post(f"{url}/v1/images/generations", json=body, headers=headers, timeout=60)
        assert response.status_code == 200, response.text

    with ThreadPoolExecutor(40) as pool:
        before = len(ledger(platform)["conversations"])
        streams = [pool.submit(stream_chat, url, f"draw boat {n} [[pause:0.5]]", key=key) for n in range(30)]
        eventually(lambda: len(ledger(platform)["conversations"]) >= before + 10)
        list(pool.map(generate_image, range(8)))
        still_open = sum(not stream.done() for stream in streams)
        chats = [stream.result(120) for stream in streams]
    assert still_open > 0, "the images were only finished after the conversations"
    for chat in chats:
        assert chat.text.count("![image](") == 1
        assert chat.finish == ["stop"]
    final_ledger = ledger(platform)
    assert final_ledger["violations"] == {}
    conversation_ids = [line["conversation_id"] for line in final_ledger["conversations"]]
    assert len(conversation_ids) == len(set(conversation_ids)) == before + 30
    print(still_open, "conversations were still open when the images were finished")
