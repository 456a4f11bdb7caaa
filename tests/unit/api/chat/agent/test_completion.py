"""Results, progress lines and errors in a chat with the agent."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from api.chat.agent.completion import (
    agent_completion,
    final_error,
    finish_reason,
    not_started_text,
    result_markdown,
    result_progress_line,
)
from worker.db.jobs.conversations import AgentReply
from worker.db.jobs.queries import JobView

BASE = "https://dream.test"


def job(**changes: Any) -> Any:
    values = {
        "id": uuid4(), "kind": "image", "state": "succeeded", "error_code": None, "error_message": None, "user_id": None,
        "queue_position": None, "finished_at": None, "submitted_at": None, "forecast_seconds": None, "usual_seconds": None, "created_at": datetime(2026, 11, 24, tzinfo=UTC), "params": {"asked_model": "agent"},
    }  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


def result_file(mime: str) -> Any:
    return SimpleNamespace(id=UUID(int=7), mime=mime)


def child(*mimes: str, **changes: Any) -> JobView:
    return JobView(job=job(**changes), files=[result_file(mime) for mime in mimes], position=None)


def conversation(
    said: str = "Here.", *, calls: int = 0, finish: str = "stop", children: int = 0, **changes: Any
) -> JobView:
    reply = AgentReply(said, calls, finish)
    ids = [uuid4() for _ in range(children)]
    return JobView(job=job(kind="chat", **changes), files=[], position=None, reply=reply, children=ids)


REJECTED = {"state": "failed", "error_code": "content_policy_violation"}
BROKEN = {"state": "failed", "error_code": "generation_failed"}


def test_image_is_a_paragraph_of_its_own():
    url = f"{BASE}/v1/files/file_{UUID(int=7).hex}/content"
    assert result_markdown(child("image/jpeg"), BASE) == f"\n\n![image]({url})\n"


def test_video_is_an_element_with_a_plain_link():
    url = f"{BASE}/v1/files/file_{UUID(int=7).hex}/content"
    expected = f'\n\n<video controls src="{url}">\n{url}\n</video>\n\n[video.mp4]({url})\n'
    assert result_markdown(child("video/mp4", kind="video"), BASE) == expected


def test_failed_and_cancelled_results_are_reported():
    assert "The image could not be generated: Upstream rejected the content." in result_markdown(
        child(**REJECTED), BASE
    )
    assert "The video was cancelled." in result_markdown(child(kind="video", state="cancelled"), BASE)


def test_progress_line_has_number_and_queue_position():
    line = result_progress_line(child(state="running", queue_position=12), 2, 3)
    assert line == "Image 2 of 3: position 12 in the upstream queue."
    assert result_progress_line(child(state="running", kind="video"), 1, 1) == "Video: generating."
    assert "storing" in result_progress_line(child(state="saving"), 1, 1)


@pytest.mark.parametrize(
    ("children", "finish", "code"),
    [
        ([], "stop", None),
        ([child("image/png"), child(**REJECTED)], "stop", None),
        ([child(**REJECTED), child(**REJECTED)], "content_filter", "content_policy_violation"),
        ([child(**BROKEN), child(**REJECTED)], "stop", "generation_failed"),
        ([child(state="cancelled")], "stop", "job_cancelled"),
    ],
)
def test_finish_reason_and_final_error(children, finish, code):
    assert finish_reason(conversation(), children) == finish
    failure = final_error(conversation(), children)
    assert (failure.code if failure else None) == code


def test_truncated_answer_has_finish_reason_length():
    assert finish_reason(conversation(finish="length"), [child(**REJECTED)]) == "length"


def test_failed_conversation_reports_its_own_error():
    failure = final_error(conversation(state="failed", error_code="stream_broken"), [child("image/png")])
    assert failure is not None
    assert failure.code == "stream_broken"


def test_results_that_never_started_are_counted():
    assert not_started_text(conversation(calls=2, children=2)) == ""
    assert "1 of the results that the agent announced was never started" in not_started_text(
        conversation(calls=3, children=2)
    )
    assert "2 of the results that the agent announced were never" in not_started_text(conversation(calls=2))


def test_completion_has_text_results_and_images():
    answer = agent_completion(
        conversation("Look:", calls=2, children=2), [child("image/png"), child("video/mp4", kind="video")], BASE
    )
    message = answer["choices"][0]["message"]
    assert message["content"].startswith("Look:\n\n![image](")
    assert "<video controls" in message["content"]
    assert [part["type"] for part in message["images"]] == ["image_url"]
    assert "reasoning_content" not in message


def test_completion_notes_omitted_parts():
    view = conversation(params={"asked_model": "agent", "left_out": 2})
    message = agent_completion(view, [], BASE)["choices"][0]["message"]
    assert "2 parts of the messages that are not text" in message["reasoning_content"]
