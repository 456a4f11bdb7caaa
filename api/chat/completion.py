"""What a chat shows of jobs: Markdown of results, lines of progress, the whole answer without a stream.

Front ends load these links without a key, so they are absolute and cannot be guessed (openai-compat 9.1).
"""

import time
from collections.abc import Iterable
from typing import Any

from api.chat.chunks import NO_USAGE, completion_id, finish_reason_of
from api.jobs.serialization import file_url, job_object
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.job_state import JobState
from worker.db.jobs.queries import JobView

_FINAL = {JobState.SUCCEEDED: "done", JobState.FAILED: "failed", JobState.CANCELLED: "cancelled"}
_PASSING = {
    **_FINAL,
    JobState.SUBMITTING: "sending upstream",
    JobState.SAVING: "finished upstream, storing the results",
}


def content_of(item: Any, base: str) -> str:
    """One result: a picture alone on its line; a video as a block with blank lines around, and a plain link."""
    url = file_url(base, item.id)
    if not item.mime.startswith("video/"):
        return f"![image]({url})\n"
    name = f"video.{item.mime.partition('/')[2]}"
    return f'\n<video controls src="{url}"></video>\n\n[{name}]({url})\n'


def pictures_of(files: Iterable[Any], base: str) -> dict[str, Any]:
    """The field `images` of a message, for clients that read no Markdown; without pictures no such field."""
    links = [file_url(base, item.id) for item in files if item.mime.startswith("image/")]
    return {"images": [{"type": "image_url", "image_url": {"url": link}} for link in links]} if links else {}


def first_line(job_ids: list[str], model: str, earlier: str | None) -> str:
    """What a stream says before anything has happened."""
    jobs = job_ids[0] if len(job_ids) == 1 else f"{len(job_ids)} jobs, the first is {job_ids[0]}"
    source = f" Working from the earlier picture {earlier}" if earlier else ""
    return f"Accepted by {model} as {jobs}.{source}"


def progress_line(views: list[JobView], base: str) -> str:
    """How far the jobs of a request are, in one line."""
    if len(views) == 1:
        return _sentence(_stage(views[0], base))
    return _sentence("; ".join(f"job {n} of {len(views)}: {_stage(view, base)}" for n, view in enumerate(views, 1)))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _stage(view: JobView, base: str) -> str:
    state = view.job.state
    if state in _PASSING:
        return _PASSING[state]
    shown = job_object(view, base)
    queue = shown["queue"]
    wait = f", about {queue['eta_seconds']} s left" if queue["eta_seconds"] else ""
    if state == JobState.QUEUED:
        return f"queued{'' if queue['position'] is None else ', place ' + str(queue['position'])}{wait}"
    if queue["upstream_position"]:
        return f"submitted, place {queue['upstream_position']} in upstream's queue{wait}"
    return f"{'generating, ' + str(shown['progress']) + ' %' if shown['progress'] else 'submitted'}{wait}"


def finish_of(views: list[JobView]) -> str:
    """`content_filter` when upstream refused a part of what was asked for, else `stop`."""
    codes = {view.job.error_code for view in views}
    return finish_reason_of(DreameryError("content_policy_violation") if "content_policy_violation" in codes else None)


def _story(view: JobView) -> str:
    """What an ended job went through."""
    job = view.job
    asked = job.submitted_at or job.finished_at
    waited = int((asked - job.created_at).total_seconds()) if asked else 0
    worked = int((job.finished_at - asked).total_seconds()) if asked and job.finished_at else 0
    why = f": {job.error_message}" if job.error_message else ""
    return (
        f"{public_id('job', job.id)}: queued {waited} s, worked {worked} s, {_FINAL.get(job.state, job.state)}{why}\n"
    )


def chat_answer(views: list[JobView], *, n: int, model: str, base: str) -> dict[str, Any]:
    """OpenAI's chat.completion from the jobs of one request, at most n results."""
    files = [item for view in views for item in view.files][:n]
    message = {
        "role": "assistant",
        "content": "".join(content_of(item, base) for item in files),
        "refusal": None,
        "reasoning_content": "".join(map(_story, views)),
        **pictures_of(files, base),
    }
    return completion(message, model=model, created=int(views[0].job.created_at.timestamp()), finish=finish_of(views))


def completion(
    message: dict[str, Any], *, model: str, created: int | None = None, finish: str = "stop"
) -> dict[str, Any]:
    """OpenAI's chat.completion with one choice."""
    return {
        "id": completion_id(),
        "object": "chat.completion",
        "created": created or int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": NO_USAGE,
    }
