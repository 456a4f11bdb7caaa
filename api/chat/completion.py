"""Jobs as chat text: Markdown of results, progress lines, and the whole answer without a stream.

Front ends load the links without a key, so they are absolute and unguessable (openai-compat 9.1).
"""

import html
import time
from collections.abc import Iterable
from typing import Any

from api.chat.chunks import NO_USAGE, completion_id, finish_reason_of
from api.chat.follow_ups.decision import describe_follow_up
from api.jobs.serialization import file_url, job_object
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.job_state import JobState
from worker.db.jobs.queries import JobView

_FINAL = {JobState.SUCCEEDED: "done", JobState.FAILED: "failed", JobState.CANCELLED: "cancelled"}
_STAGES = {
    **_FINAL,
    JobState.HELD: "waiting before the queue",
    JobState.SUBMITTING: "sending upstream",
    JobState.SAVING: "finished upstream, storing the results",
}


def file_markdown(item: Any, base: str) -> str:
    """Return the Markdown of a result: an image on its own line, or a video element with a plain link.

    The tag, the address and the closing tag of a video are lines of their own between blank lines: only then Markdown
    takes them for one block of HTML. Open WebUI reads the address between the tags, browsers the attribute.
    """
    url = file_url(base, item.id)
    if not item.mime.startswith("video/"):
        return f"![image]({url})\n"
    name = f"video.{item.mime.partition('/')[2]}"
    return f'\n<video controls src="{html.escape(url)}">\n{html.escape(url)}\n</video>\n\n[{name}]({url})\n'


def image_fields(files: Iterable[Any], base: str) -> dict[str, Any]:
    """Return the field `images` of a message, for clients that read no Markdown; {} without images."""
    links = [file_url(base, item.id) for item in files if item.mime.startswith("image/")]
    return {"images": [{"type": "image_url", "image_url": {"url": link}} for link in links]} if links else {}


def accepted_line(job_ids: list[str], model: str, note: str | None) -> str:
    """Return the first line of a stream."""
    jobs = job_ids[0] if len(job_ids) == 1 else f"{len(job_ids)} jobs, the first is {job_ids[0]}"
    return f"Accepted by {model} as {jobs}." + (f" {note}" if note else "")


def progress_line(views: list[JobView], base: str) -> str:
    """Return the progress of the jobs of a request in one line."""
    if len(views) == 1:
        return _sentence(_stage(views[0], base))
    return _sentence("; ".join(f"job {n} of {len(views)}: {_stage(view, base)}" for n, view in enumerate(views, 1)))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _stage(view: JobView, base: str) -> str:
    state = view.job.state
    if state in _STAGES:
        return _STAGES[state]
    shown = job_object(view, base)
    queue = shown["queue"]
    wait = f", {shown['eta']['text']}" if shown["eta"] else ""
    if state == JobState.QUEUED:
        return f"queued{'' if queue['position'] is None else ', position ' + str(queue['position'])}{wait}"
    if queue["upstream_position"]:
        return f"submitted, position {queue['upstream_position']} in the upstream queue{wait}"
    return f"{'generating, ' + str(shown['progress']) + ' %' if shown['progress'] else 'submitted'}{wait}"


def finish_reason(views: list[JobView]) -> str:
    """Return `content_filter` when upstream rejected any job of the request, else `stop`."""
    codes = {view.job.error_code for view in views}
    return finish_reason_of(DreameryError("content_policy_violation") if "content_policy_violation" in codes else None)


def _job_summary(view: JobView) -> str:
    """Return how long an ended job waited and ran, and its error."""
    job = view.job
    started = job.submitted_at or job.finished_at
    waited = int((started - job.created_at).total_seconds()) if started else 0
    ran = int((job.finished_at - started).total_seconds()) if started and job.finished_at else 0
    error = f": {job.error_message}" if job.error_message else ""
    return f"{public_id('job', job.id)}: queued {waited} s, ran {ran} s, {_FINAL.get(job.state, job.state)}{error}\n"


def _follow_up_line(view: JobView) -> str:
    follow_up = view.job.params.get("follow_up")
    return f"{describe_follow_up(follow_up)}\n" if follow_up else ""


def chat_completion(views: list[JobView], *, n: int, model: str, base: str) -> dict[str, Any]:
    """Return OpenAI's chat.completion from the jobs of one request, with at most n results."""
    files = [item for view in views for item in view.files][:n]
    message = {
        "role": "assistant",
        "content": "".join(file_markdown(item, base) for item in files),
        "refusal": None,
        "reasoning_content": _follow_up_line(views[0]) + "".join(map(_job_summary, views)),
        **image_fields(files, base),
    }
    return completion(
        message, model=model, created=int(views[0].job.created_at.timestamp()), finish=finish_reason(views)
    )


def completion(
    message: dict[str, Any], *, model: str, created: int | None = None, finish: str = "stop"
) -> dict[str, Any]:
    """Return OpenAI's chat.completion with one choice."""
    return {
        "id": completion_id(),
        "object": "chat.completion",
        "created": created or int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": NO_USAGE,
    }
