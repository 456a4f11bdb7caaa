"""What a chat with the agent shows beside its words."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from api.chat.agent_completion import (
    agent_completion,
    failure_after,
    finish_reason,
    lost_text,
    progress_of,
    result_text,
)
from worker.db.jobs.conversations import Spoken
from worker.db.jobs.queries import JobView

BASE = "https://dream.test"


def job(**changes: Any) -> Any:
    values = {
        "id": uuid4(), "kind": "image", "state": "succeeded", "error_code": None, "error_message": None, "user_id": None,
        "queue_position": None, "created_at": datetime(2026, 11, 24, tzinfo=UTC), "params": {"asked_model": "agent"},
    }  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


def made(mime: str) -> Any:
    return SimpleNamespace(id=UUID(int=7), mime=mime)


def child(*mimes: str, **changes: Any) -> JobView:
    return JobView(job=job(**changes), files=[made(mime) for mime in mimes], position=None)


def talk(said: str = "Here.", *, calls: int = 0, finish: str = "stop", children: int = 0, **changes: Any) -> JobView:
    spoken = Spoken(said, calls, finish)
    ids = [uuid4() for _ in range(children)]
    return JobView(job=job(kind="chat", **changes), files=[], position=None, spoken=spoken, children=ids)


REFUSED = {"state": "failed", "error_code": "content_policy_violation"}
BROKEN = {"state": "failed", "error_code": "generation_failed"}


def test_a_picture_stands_alone_on_its_line():
    url = f"{BASE}/v1/files/file_{UUID(int=7).hex}/content"
    assert result_text(child("image/jpeg"), BASE) == f"\n\n![image]({url})\n"


def test_a_video_is_a_block_with_a_plain_link_behind_it():
    url = f"{BASE}/v1/files/file_{UUID(int=7).hex}/content"
    wanted = f'\n\n<video controls src="{url}"></video>\n\n[video.mp4]({url})\n'
    assert result_text(child("video/mp4", kind="video"), BASE) == wanted


def test_what_failed_is_told():
    assert "The picture could not be made: Upstream refused the content." in result_text(child(**REFUSED), BASE)
    assert "The video was cancelled." in result_text(child(kind="video", state="cancelled"), BASE)


def test_progress_names_the_picture_and_its_place():
    line = progress_of(child(state="running", queue_position=12), 2, 3)
    assert line == "Picture 2 of 3: place 12 in upstream's queue."
    assert progress_of(child(state="running", kind="video"), 1, 1) == "Video: generating."
    assert "storing" in progress_of(child(state="saving"), 1, 1)


@pytest.mark.parametrize(
    ("children", "finish", "code"),
    [
        ([], "stop", None),
        ([child("image/png"), child(**REFUSED)], "stop", None),
        ([child(**REFUSED), child(**REFUSED)], "content_filter", "content_policy_violation"),
        ([child(**BROKEN), child(**REFUSED)], "stop", "generation_failed"),
        ([child(state="cancelled")], "stop", "job_cancelled"),
    ],
)
def test_how_an_answer_ends(children, finish, code):
    assert finish_reason(talk(), children) == finish
    failure = failure_after(talk(), children)
    assert (failure.code if failure else None) == code


def test_an_answer_cut_short_ends_with_length():
    assert finish_reason(talk(finish="length"), [child(**REFUSED)]) == "length"


def test_a_conversation_that_failed_is_a_failure_whatever_it_made():
    failure = failure_after(talk(state="failed", error_code="stream_broken"), [child("image/png")])
    assert failure is not None
    assert failure.code == "stream_broken"


def test_things_that_never_started_are_counted():
    assert lost_text(talk(calls=2, children=2)) == ""
    assert "1 of the things that the agent announced was never started" in lost_text(talk(calls=3, children=2))
    assert "2 of the things that the agent announced were never" in lost_text(talk(calls=2))


def test_a_whole_answer():
    answer = agent_completion(
        talk("Look:", calls=2, children=2), [child("image/png"), child("video/mp4", kind="video")], BASE
    )
    message = answer["choices"][0]["message"]
    assert message["content"].startswith("Look:\n\n![image](")
    assert "<video controls" in message["content"]
    assert [part["type"] for part in message["images"]] == ["image_url"]
    assert "reasoning_content" not in message


def test_a_whole_answer_tells_what_was_left_out():
    view = talk(params={"asked_model": "agent", "left_out": 2})
    message = agent_completion(view, [], BASE)["choices"][0]["message"]
    assert "2 parts of the messages that are no text" in message["reasoning_content"]
