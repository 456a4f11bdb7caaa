"""Why a queued job waits, in two languages. Only administrators see the names of accounts."""

from datetime import UTC, datetime
from typing import Any

from api.http.responses import unix_seconds
from api.jobs.serialization import STATUS_OF
from worker.core.ids import public_id
from worker.core.job_state import JobState
from worker.db.jobs.queries import JobView
from worker.db.scheduling.queue_positions import MOST_AHEAD
from worker.db.scheduling.wait_reasons import WaitReason

# Reason of `worker/db/scheduling/wait_reasons.py` -> text in English, Chinese. `{n}` = the number of accounts.
_TEXTS = {
    "delay": ("The job pauses before its next attempt.", "任务正在等待下一次尝试。"),
    "ready": ("Accounts free for the next job: {n}.", "可接收下一个任务的账号：{n} 个。"),
    "busy": ("Accounts that run as many jobs as they may: {n}.", "运行中的任务已达上限的账号：{n} 个。"),
    "pace": ("Accounts pausing between two submits: {n}.", "处于两次提交间隔中的账号：{n} 个。"),
    "resting": ("Accounts cooling down: {n}.", "冷却中的账号：{n} 个。"),
    "model_resting": (
        "Accounts on which upstream refuses this model for now: {n}.",
        "上游暂拒此模型的账号：{n} 个。",
    ),
    "credits": ("Accounts without enough credits for this job: {n}.", "积分不足以运行此任务的账号：{n} 个。"),
    "off_hours": ("Accounts outside their working hours: {n}.", "不在工作时间内的账号：{n} 个。"),
    "daily_cap": ("Accounts that have reached their daily limit of jobs: {n}.", "已达每日任务上限的账号：{n} 个。"),
    "needs_login": ("Accounts that must be signed in again: {n}.", "需要重新登录的账号：{n} 个。"),
    "blocked": ("Accounts blocked by upstream's risk control: {n}.", "被上游风控的账号：{n} 个。"),
    "paused": ("Accounts paused by an administrator: {n}.", "已被管理员暂停的账号：{n} 个。"),
    "refused": (
        "Accounts that refused this job or do not offer its model: {n}.",
        "已拒绝任务或无此模型的账号：{n} 个。",
    ),
}
# The reasons that end by themselves.
_PASSING = {"delay", "ready", "busy", "pace", "resting", "model_resting", "off_hours", "daily_cap"}
_RUNS = ("The job is not waiting for an account.", "该任务没有在等待账号。")
_NO_ACCOUNT = ("There is no account that may run this job.", "没有可运行此任务的账号。")
_NEXT = ("The job is next: an account takes it in a moment.", "该任务排在最前，马上会被账号接收。")
_BEHIND = ("Jobs ahead in the queue: {n}.", "队列前面还有 {n} 个任务。")
_FAR_BEHIND = ("Jobs ahead in the queue: at least {n}.", "队列前面至少有 {n} 个任务。")
_FIRST = ("The job is next and waits for an account.", "该任务排在最前，正在等待账号。")
# The first part of the `hold` of a job (`worker/db/batches/held_jobs.py`) -> text.
_HELD = {
    "time": ("The job waits for its time.", "该任务在等待指定的时间。"),
    "batch": (
        "The job waits for its turn in its batch, or for the limit of its key.",
        "该任务在等待所属批次轮到它，或等待密钥的并发限制。",
    ),
    "key": (
        "The key or its user has as many jobs at work as it may: the job starts when an earlier one ends.",
        "该密钥或用户同时进行的任务已达上限：前面的任务结束后开始。",
    ),
    "idle": ("The job waits for an account that nobody else needs.", "该任务在等待空闲的账号。"),
}
_STUCK = ("No account can take this job at the moment.", "目前没有账号可以接收此任务。")


def waiting_object(view: JobView, reasons: list[WaitReason], *, shows_labels: bool) -> dict[str, Any]:
    """Build the body of `GET /v1/jobs/{id}/waiting`."""
    summary = _summary(view, reasons)
    return {
        "object": "job.waiting",
        "id": public_id("job", view.job.id),
        "status": STATUS_OF[view.job.state],
        "position": view.position,
        "text": {"en": summary[0], "zh": summary[1]},
        "data": [_reason(reason, shows_labels=shows_labels) for reason in reasons],
    }


def _summary(view: JobView, reasons: list[WaitReason]) -> tuple[str, str]:
    if view.job.state != JobState.QUEUED:
        return _held(view) if view.job.state == JobState.HELD else _RUNS
    if not any(reason.accounts for reason in reasons):
        return _NO_ACCOUNT
    kinds = {reason.reason for reason in reasons}
    if not kinds & (_PASSING - {"delay"}):
        return _STUCK
    if view.position is not None and view.position > MOST_AHEAD:
        return _counted(_FAR_BEHIND, MOST_AHEAD)
    if view.position is not None and view.position > 1:
        return _counted(_BEHIND, view.position - 1)
    return _NEXT if "ready" in kinds and "delay" not in kinds else _FIRST


def _held(view: JobView) -> tuple[str, str]:
    return _HELD["time" if view.job.due_at > datetime.now(UTC) else view.job.hold.partition(":")[0]]


def _counted(text: tuple[str, str], n: int) -> tuple[str, str]:
    return text[0].format(n=n), text[1].format(n=n)


def _reason(reason: WaitReason, *, shows_labels: bool) -> dict[str, Any]:
    english, chinese = _counted(_TEXTS[reason.reason], reason.accounts)
    return {
        "reason": reason.reason,
        "accounts": reason.accounts,
        "labels": reason.labels if shows_labels else None,
        "until": unix_seconds(reason.until),
        "code": reason.code,
        "text": {"en": english, "zh": chinese},
    }
