"""What tasks of Ark mean for our jobs: their states, results and what was charged."""

from worker.core.errors import ERRORS
from worker.providers.ark.error_codes import Action, rule_for
from worker.providers.ark.responses import Task, TaskStatus
from worker.providers.base import OpenOrder, Record, RecordState, ResultRef

_STATES = {TaskStatus.QUEUED: RecordState.QUEUED, TaskStatus.SUCCEEDED: RecordState.DONE}
_ENDED = {
    TaskStatus.EXPIRED: ("generation_timeout", "The task expired upstream before it was begun."),
    TaskStatus.CANCELLED: ("job_cancelled", "The task was cancelled upstream."),
}


def record_of(order: OpenOrder, task: Task, *, echoes: bool | None = None) -> Record:
    """Return the record of a task. `echoes` = whether a list showed the keys that we sent; None = not known."""
    if task.status in _ENDED:
        code, message = _ENDED[task.status]
        return _failed(order, task, code, message, detail=f"{task.status} {task.id}", echoes=echoes)
    if task.status is TaskStatus.FAILED:
        return _failure(order, task, echoes=echoes)
    done = task.status is TaskStatus.SUCCEEDED
    return Record(
        submit_key=order.submit_key,
        upstream_id=task.id,
        state=_STATES.get(task.status, RecordState.RUNNING),
        expected=1,
        results=_results(order, task) if done else (),
        usage={"tokens": task.tokens} if done and task.tokens is not None else {},
        echoes=echoes,
    )


def unasked(order: OpenOrder) -> Record:
    """Return the record of an order that could not be asked for: it changes nothing."""
    return Record(order.submit_key, order.upstream_id or "", RecordState.RUNNING, expected=1)


def _results(order: OpenOrder, task: Task) -> tuple[ResultRef, ...]:
    if task.video_url is None:
        return ()
    wanted = (order.order.get("options") or {}).get("output_format") or "mp4"
    video = ResultRef(task.video_url, None, None, wanted, seconds=task.seconds)
    if task.last_frame_url is None:
        return (video,)
    return video, ResultRef(task.last_frame_url, None, None, "jpeg", role="last_frame")


def _failure(order: OpenOrder, task: Task, *, echoes: bool | None) -> Record:
    if task.error is None:
        return _failed(order, task, "generation_failed", None, detail=f"failed {task.id}", echoes=echoes)
    rule = rule_for(task.error, status=0)
    message = None
    if rule.action is Action.FIX:
        text = task.error.message.partition("Request id:")[0].strip()
        message = f"Upstream refused the request ({task.error.code}): {text}"[:400]
    code = rule.error if rule.action in {Action.FIX, Action.AGAIN} and rule.error in ERRORS else "generation_failed"
    detail = f"{task.error.code} {task.error.message}"[:500]
    return _failed(order, task, code, message, detail=detail, echoes=echoes, again=rule.action is Action.AGAIN)


def _failed(
    order: OpenOrder,
    task: Task,
    code: str,
    message: str | None,
    *,
    detail: str,
    echoes: bool | None,
    again: bool = False,
) -> Record:
    """Return the record of a task without results. Upstream does not charge it."""
    return Record(
        submit_key=order.submit_key,
        upstream_id=task.id,
        state=RecordState.FAILED,
        expected=1,
        error_code=code,
        error_message=message,
        detail=detail,
        charged=0,
        echoes=echoes,
        may_repeat=again,
    )
