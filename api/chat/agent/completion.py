"""What a chat with the agent shows besides its text: Markdown of results and progress lines."""

from typing import Any

from api.chat.chunks import finish_reason_of
from api.chat.completion import completion, file_markdown, image_fields
from api.jobs.eta import LATE_TEXT, estimate_eta
from api.jobs.serialization import group_error, job_error
from worker.core.errors import DreameryError
from worker.core.job_state import FINAL, UNSUCCESSFUL, JobState
from worker.db.jobs.queries import JobView

_OMITTED_PARTS = "{} parts of the messages that are not text were"


def has_ended(view: JobView) -> bool:
    """Return whether the job has ended."""
    return view.job.state in FINAL


def is_text_complete(conversation: JobView) -> bool:
    """Return whether the agent's text is complete; jobs that it started may still run."""
    return conversation.job.state == JobState.SAVING or has_ended(conversation)


def result_markdown(child: JobView, base: str) -> str:
    """Return an ended job of the agent as its own paragraph: the results, or why there are none."""
    if child.job.state == JobState.SUCCEEDED:
        return "".join(f"\n\n{file_markdown(item, base).lstrip()}" for item in child.files)
    name = child.job.kind
    if child.job.state == JobState.CANCELLED:
        return f"\n\nThe {name} was cancelled.\n"
    error = job_error(child) or {}
    return f"\n\nThe {name} could not be generated: {error.get('message')}\n"


def not_started_text(conversation: JobView) -> str:
    """Return a note about results that the agent announced and upstream never started; "" without any."""
    missing = conversation.reply.tool_calls - len(conversation.children) if conversation.reply else 0
    if missing <= 0:
        return ""
    verb = "was" if missing == 1 else "were"
    return f"\n\n{missing} of the results that the agent announced {verb} never started upstream.\n"


def result_progress_line(child: JobView, number: int, count: int) -> str:
    """Return the progress of a job of the agent in one line."""
    name = child.job.kind.capitalize()
    label = f"{name} {number} of {count}" if count > 1 else name
    job = child.job
    if job.state == JobState.SAVING:
        return f"{label}: finished upstream, storing it."
    late = f", {LATE_TEXT}" if estimate_eta(child).late else ""
    if job.queue_position:
        return f"{label}: position {job.queue_position} in the upstream queue{late}."
    return f"{label}: generating{late}."


def waiting_line(conversation: JobView) -> str:
    """Return what a conversation waits for before its first text."""
    if conversation.job.state in {JobState.HELD, JobState.QUEUED}:
        position = "" if conversation.position is None else f", position {conversation.position}"
        return f"Waiting for an account{position}."
    return "Waiting for the agent."


def final_error(conversation: JobView, children: list[JobView]) -> DreameryError | None:
    """Return the error to report at the end: the conversation failed, or all jobs that it started failed."""
    if conversation.job.state in UNSUCCESSFUL:
        return group_error([conversation])[0]
    if children and all(child.job.state != JobState.SUCCEEDED for child in children):
        return group_error(children)[0]
    return None


def finish_reason(conversation: JobView, children: list[JobView]) -> str:
    """Return `length` when upstream cut the answer short, `content_filter` when all started jobs were rejected."""
    if conversation.reply is not None and conversation.reply.finish_reason == "length":
        return "length"
    failures = [child.job.error_code for child in children if child.job.state != JobState.SUCCEEDED]
    all_rejected = bool(failures) and len(failures) == len(children) and set(failures) == {"content_policy_violation"}
    return finish_reason_of(DreameryError("content_policy_violation")) if all_rejected else "stop"


def omitted_parts_line(conversation: JobView) -> str:
    """Return a note about parts of the messages that were not sent; "" without any."""
    count = conversation.job.params.get("left_out", 0)
    if not count:
        return ""
    which = "1 part of the messages that is not text was" if count == 1 else _OMITTED_PARTS.format(count)
    return f"{which} left out: the agent reads text only."


def agent_completion(conversation: JobView, children: list[JobView], base: str) -> dict[str, Any]:
    """Return OpenAI's chat.completion: the text, then the results."""
    text = conversation.reply.text if conversation.reply else ""
    content = text + "".join(result_markdown(child, base) for child in children) + not_started_text(conversation)
    notes = omitted_parts_line(conversation)
    message = {
        "role": "assistant",
        "content": content,
        "refusal": None,
        **({"reasoning_content": f"{notes}\n"} if notes else {}),
        **image_fields((item for child in children for item in child.files), base),
    }
    created = int(conversation.job.created_at.timestamp())
    return completion(
        message,
        model=conversation.job.params["asked_model"],
        created=created,
        finish=finish_reason(conversation, children),
    )
