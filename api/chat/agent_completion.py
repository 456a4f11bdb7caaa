"""What a chat with the agent shows beside its words: Markdown of what it made, lines about what is being made."""

from typing import Any

from api.chat.chunks import finish_reason_of
from api.chat.completion import completion, content_of, pictures_of
from api.jobs.serialization import failure_of, job_error
from worker.core.errors import DreameryError
from worker.core.job_state import FINAL, UNSUCCESSFUL, JobState
from worker.db.jobs.queries import JobView

_PARTS = "{} parts of the messages that are no text were"
_NAMES = {"image": "picture", "video": "video"}


def is_over(view: JobView) -> bool:
    """Whether the job has ended."""
    return view.job.state in FINAL


def says_no_more(talk: JobView) -> bool:
    """Whether the agent has said all; jobs that it started may still run."""
    return talk.job.state == JobState.SAVING or is_over(talk)


def result_text(child: JobView, base: str) -> str:
    """An ended job of the agent, as a paragraph of its own: the results, or why there is none."""
    if child.job.state == JobState.SUCCEEDED:
        return "".join(f"\n\n{content_of(item, base).lstrip()}" for item in child.files)
    name = _NAMES[child.job.kind]
    if child.job.state == JobState.CANCELLED:
        return f"\n\nThe {name} was cancelled.\n"
    error = job_error(child) or {}
    return f"\n\nThe {name} could not be made: {error.get('message')}\n"


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
    if job.state == JobState.SAVING:
        return f"{which}: finished upstream, storing it."
    if job.queue_position:
        return f"{which}: place {job.queue_position} in upstream's queue."
    return f"{which}: generating."


def waiting_line(talk: JobView) -> str:
    """Where a conversation is before its first word."""
    if talk.job.state == JobState.QUEUED:
        place = "" if talk.position is None else f", place {talk.position}"
        return f"Waiting for an account{place}."
    return "Waiting for the agent."


def failure_after(talk: JobView, children: list[JobView]) -> DreameryError | None:
    """What to report at the end: that the conversation failed, or that nothing of what it started was made."""
    if talk.job.state in UNSUCCESSFUL:
        return failure_of([talk])[0]
    if children and all(child.job.state != JobState.SUCCEEDED for child in children):
        return failure_of(children)[0]
    return None


def finish_of(talk: JobView, children: list[JobView]) -> str:
    """`length` for an answer that upstream cut short, `content_filter` when all that was started was refused."""
    if talk.spoken is not None and talk.spoken.finish == "length":
        return "length"
    failures = [child.job.error_code for child in children if child.job.state != JobState.SUCCEEDED]
    all_refused = bool(failures) and len(failures) == len(children) and set(failures) == {"content_policy_violation"}
    return finish_reason_of(DreameryError("content_policy_violation")) if all_refused else "stop"


def left_out_line(talk: JobView) -> str:
    """That parts of the messages were not sent; the agent reads text only."""
    count = talk.job.params.get("left_out", 0)
    if not count:
        return ""
    which = "1 part of the messages that is no text was" if count == 1 else _PARTS.format(count)
    return f"{which} left out: the agent reads text only."


def whole_answer(talk: JobView, children: list[JobView], base: str) -> dict[str, Any]:
    """OpenAI's chat.completion: the text, then what was made."""
    said = talk.spoken.said if talk.spoken else ""
    content = said + "".join(result_text(child, base) for child in children) + lost_text(talk)
    notes = left_out_line(talk)
    message = {
        "role": "assistant",
        "content": content,
        "refusal": None,
        **({"reasoning_content": f"{notes}\n"} if notes else {}),
        **pictures_of((item for child in children for item in child.files), base),
    }
    created = int(talk.job.created_at.timestamp())
    return completion(message, model=talk.job.params["asked_model"], created=created, finish=finish_of(talk, children))
