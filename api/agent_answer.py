"""What a chat with the agent shows beside its words: Markdown of what it made, lines about what is being made."""

from typing import Any

from api.chunks import NO_USAGE, completion_id, finish_reason_of
from api.render import failure_of, file_url, job_error
from worker.core.errors import DreameryError
from worker.db.reports import JobView

_FINAL = frozenset({"succeeded", "failed", "cancelled"})
_NAMES = {"image": "picture", "video": "video"}


def is_over(view: JobView) -> bool:
    """Whether the job has ended."""
    return view.job.state in _FINAL


def says_no_more(talk: JobView) -> bool:
    """Whether the agent has said all; jobs that it started may still run."""
    return talk.job.state == "saving" or is_over(talk)


def result_text(child: JobView, base: str) -> str:
    """An ended job of the agent, as a paragraph of its own: the results, or why there is none."""
    if child.job.state == "succeeded":
        return "".join(_shown(item, base) for item in child.files)
    name = _NAMES[child.job.kind]
    if child.job.state == "cancelled":
        return f"\n\nThe {name} was cancelled.\n"
    error = job_error(child) or {}
    return f"\n\nThe {name} could not be made: {error.get('message')}\n"


def _shown(item: Any, base: str) -> str:
    """A picture alone on its line; a video as a block with blank lines around, and a plain link (openai-compat 9.1)."""
    url = file_url(base, item.id)
    if not item.mime.startswith("video/"):
        return f"\n\n![image]({url})\n"
    name = f"video.{item.mime.partition('/')[2]}"
    return f'\n\n<video controls src="{url}"></video>\n\n[{name}]({url})\n'


def lost_text(talk: JobView) -> str:
    """What to say of things that the agent announced and upstream never started."""
    lost = talk.spoken.calls - len(talk.children) if talk.spoken else 0
    if lost <= 0:
        return ""
    return (
        f"\n\n{lost} of the things that the agent announced {'was' if lost == 1 else 'were'} never started upstream.\n"
    )


def progress_of(child: JobView, number: int, count: int) -> str:
    """How far a job of the agent is, in one line."""
    name = _NAMES[child.job.kind].capitalize()
    which = f"{name} {number} of {count}" if count > 1 else name
    job = child.job
    if job.state == "saving":
        return f"{which}: finished upstream, storing it."
    if job.queue_position:
        return f"{which}: place {job.queue_position} in upstream's queue."
    return f"{which}: generating."


def waiting_line(talk: JobView) -> str:
    """Where a conversation is before its first word."""
    if talk.job.state == "queued":
        place = "" if talk.position is None else f", place {talk.position}"
        return f"Waiting for an account{place}."
    return "Waiting for the agent."


def failure_after(talk: JobView, children: list[JobView]) -> DreameryError | None:
    """What to report at the end: that the conversation failed, or that nothing of what it started was made."""
    if talk.job.state in {"failed", "cancelled"}:
        return failure_of([talk])[0]
    if children and all(child.job.state != "succeeded" for child in children):
        return failure_of(children)[0]
    return None


def finish_of(talk: JobView, children: list[JobView]) -> str:
    """`length` for an answer that upstream cut short, `content_filter` when all that was started was refused."""
    if talk.spoken is not None and talk.spoken.finish == "length":
        return "length"
    failures = [child.job.error_code for child in children if child.job.state != "succeeded"]
    all_refused = bool(failures) and len(failures) == len(children) and set(failures) == {"content_policy_violation"}
    return finish_reason_of(DreameryError("content_policy_violation")) if all_refused else "stop"


def left_out_line(talk: JobView) -> str:
    """That parts of the messages were not sent; the agent reads text only."""
    count = talk.job.params.get("left_out", 0)
    return f"{count} parts of the messages that are no text were left out: the agent reads text only." if count else ""


def whole_answer(talk: JobView, children: list[JobView], base: str) -> dict[str, Any]:
    """OpenAI's chat.completion: the text, then what was made."""
    said = talk.spoken.said if talk.spoken else ""
    content = said + "".join(result_text(child, base) for child in children) + lost_text(talk)
    notes = left_out_line(talk)
    pictures = [
        {"type": "image_url", "image_url": {"url": file_url(base, item.id)}}
        for child in children
        for item in child.files
        if item.mime.startswith("image/")
    ]
    message = {
        "role": "assistant",
        "content": content,
        "refusal": None,
        **({"reasoning_content": f"{notes}\n"} if notes else {}),
        **({"images": pictures} if pictures else {}),
    }
    return {
        "id": completion_id(),
        "object": "chat.completion",
        "created": int(talk.job.created_at.timestamp()),
        "model": talk.job.params["asked_model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_of(talk, children)}],
        "usage": NO_USAGE,
    }
