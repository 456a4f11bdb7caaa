"""The timeline of a job: every state change with its account, the wait before it and the reason, in two languages.

Upstream's own messages, ids and log numbers are left out. The owner of an account and admins see its label; other
callers see `pool` for accounts of the platform.
"""

from typing import Any

from api.auth.caller import Caller
from api.jobs.serialization import STATUS_OF, job_route
from api.jobs.timeline import cancelling
from worker.core.errors import ERRORS
from worker.core.ids import public_id
from worker.core.job_state import JobState
from worker.core.observability.faults import FAULT_PREFIX
from worker.db.engine import Row
from worker.db.jobs.queries import JobView

_TEXTS = {
    JobState.HELD: (
        "Held before the queue: until its time, for its batch, for a limit of its key, or for idle accounts.",
        "暂不排队：等待指定时间、所属批次、密钥的并发限制，或空闲账号。",
    ),
    JobState.QUEUED: ("Accepted; waiting for a free account.", "已接受，等待空闲账号。"),
    "again": ("Back in the queue", "重新排队"),
    JobState.SUBMITTING: ("An account claimed the job and is submitting it upstream.", "已分配账号，正在提交到上游。"),
    JobState.RUNNING: ("Upstream accepted the job and is generating.", "上游已接受，正在生成。"),
    JobState.SAVING: ("Upstream has finished; saving the results.", "上游已完成，正在保存结果。"),
    JobState.SUCCEEDED: ("Completed; the results are stored.", "完成，结果已保存。"),
    JobState.FAILED: ("Failed", "失败"),
}
# Remarks in events without a change of state.
_REMARKS = {
    "answer_lost": (
        "The answer to the submit did not arrive. The job is searched for upstream before anything else.",
        "未收到上游对提交的应答，正在上游查找该任务。",
    ),
    "cancel_refused": (
        "Upstream has begun already, so the job cannot be cancelled: it continues and will be charged.",
        "上游已开始生成，无法取消：任务会继续并计费。",
    ),
    "charged_twice_possible": (
        "This job may have been charged more than once. An administrator can check that at the upstream.",
        "该任务可能被重复计费，管理员可在上游核对。",
    ),
}
_FAULT = ("Something failed and is tried again", "出现问题，正在重试")
# Why a finished job waits for our storage.
_STORAGE = {
    "full": (
        "The storage is full. The result waits and is saved when there is room.",
        "存储空间已满，结果会保留，有空间后自动保存。",
    ),
    "read_only": (
        "The storage is read-only. The result waits and is saved when it can be written.",
        "存储为只读，结果会保留，可写后自动保存。",
    ),
    "refused": (
        "The storage refuses access. The result waits and is saved when access works.",
        "存储拒绝访问，结果会保留，恢复访问后自动保存。",
    ),
    "away": (
        "The storage does not respond. The result waits and is saved when it does.",
        "存储没有响应，结果会保留，恢复后自动保存。",
    ),
    "temporary_files": (
        "The worker has no room for temporary files. The result waits and is saved when there is room.",
        "工作进程的临时空间已满，结果会保留，有空间后自动保存。",
    ),
}
# Why an account was not chosen: reason code of `worker/db/scheduling/selection_log.py` -> text in English, Chinese.
_NOT_CHOSEN = {
    "refused this job": ("refused this job", "已拒绝此任务"),
    "has not this model": ("does not offer this model", "没有此模型"),
    "paused": ("paused", "已暂停"),
    "retired": ("retired", "已移除"),
    "resting": ("cooling down", "冷却中"),
    "no better score": ("no better score", "评分不更高"),
    "just taken": ("just taken by another job", "刚被其他任务占用"),
    "no free slot": ("no free slot", "没有空闲名额"),
    "too few credits": ("not enough credits", "积分不足"),
    "pace": ("submit interval not over", "提交间隔未到"),
}
# Reasons of a retry that are not error codes.
_RETRY_REASONS = {
    "claim lost": "任务已不再属于这次提交。",
    "session moved to another cluster; looked up again": "会话已迁移到其他集群，已重新查找。",
    "took the daily credits": "已领取每日积分。",
    "upstream proved that it does not have this submit": "已确认上游没有这次提交。",
    "unclear; sent again as requested": "结果不明，按要求再次提交。",
    "upstream does not know this submit": "上游不知道这次提交。",
}


def timeline_object(view: JobView, rows: list["Row[Any]"], reader: Caller, *, shows_labels: bool) -> dict[str, Any]:
    """Build the body of `GET /v1/jobs/{id}/timeline` from the transitions of the job, oldest first."""
    cancel_request: dict[str, Any] = {}
    entries: list[dict[str, Any]] = []
    seconds_in_state: dict[str, float] = {}
    attempt = 0
    account: str | None = None
    is_own = False
    previous: Row[Any] | None = None
    for row in rows:
        if row.to_state == JobState.SUBMITTING:
            attempt, account = attempt + 1, row.note.get("account")
            is_own = bool(row.note.get("own")) and view.job.user_id is not None
        waited: float | None = None if previous is None else round((row.at - previous.at).total_seconds(), 3)
        if waited is not None:
            seconds_in_state[row.from_state] = round(seconds_in_state.get(row.from_state, 0.0) + waited, 3)
        visible_account = account if shows_labels or is_own or account is None else "pool"
        requested = row.note.get("remark") == cancelling.REMARK
        if requested:
            cancel_request = row.note
        if requested or row.to_state == JobState.CANCELLED:
            by = row.note if "by" in row.note else cancel_request
            texts = cancelling.cancel_texts(by, reader, is_owner=view.job.owner == reader.owner, requested=requested)
        else:
            texts = _texts(row)
        entries.append(
            _entry(row, attempt, visible_account, waited, texts)
            | {"choice": _choice(row.note, shows_labels=shows_labels)}
        )
        previous = row
        if row.to_state == JobState.QUEUED:
            account = None
    return {
        "object": "job.timeline",
        "id": public_id("job", view.job.id),
        "status": STATUS_OF[view.job.state],
        "provider": view.job.providers[0],
        "route": job_route(view.job),
        "data": entries,
        "seconds": seconds_in_state,
    }


def _entry(
    row: "Row[Any]", attempt: int, account: str | None, waited: float | None, texts: tuple[str, str]
) -> dict[str, Any]:
    note = row.note
    english, chinese = texts
    return {
        "seq": row.seq,
        "at": round(row.at.timestamp(), 3),
        "from_state": row.from_state,
        "state": row.to_state,
        "actor": row.actor,
        "attempt": attempt,
        "account": account,
        "waited_seconds": waited,
        "code": note.get("code"),
        "delay_seconds": note.get("delay_seconds"),
        "text": {"en": english, "zh": chinese},
    }


def _choice(note: dict[str, Any], *, shows_labels: bool) -> dict[str, Any] | None:
    """For a claim with several candidates: the score of the chosen account, and why others were not chosen."""
    if "score" not in note and "passed_over" not in note:
        return None
    others = [
        {
            "account": other["account"] if shows_labels else "pool",
            "why": other["why"],
            "text": _not_chosen_text(other["why"]),
            "score": other.get("score"),
            "until": other.get("until"),
            "code": other.get("code"),
        }
        for other in note.get("passed_over", [])
    ]
    return {"score": note.get("score"), "others": others}


def _not_chosen_text(why: str) -> dict[str, str]:
    english, chinese = _NOT_CHOSEN.get(why, (why, why))
    return {"en": english, "zh": chinese}


def _texts(row: "Row[Any]") -> tuple[str, str]:
    if row.note.get("waits_for") == "storage":
        return _STORAGE[row.note["problem"]]
    if (remark := _REMARKS.get(row.note.get("remark"))) is not None:
        return remark
    if row.from_state == row.to_state:
        fault, fault_zh = _reason(row.note)
        return f"{_FAULT[0]}: {fault}", f"{_FAULT[1]}：{fault_zh}"
    is_retry = row.to_state == JobState.QUEUED and row.from_state not in {None, JobState.HELD}
    english, chinese = _TEXTS["again" if is_retry else row.to_state]
    if not is_retry and row.to_state != JobState.FAILED:
        return english, chinese
    why, why_zh = _reason(row.note)
    delay, delay_zh = "", ""
    if is_retry and row.note.get("delay_seconds"):
        delay = f" in {row.note['delay_seconds']:g} s"
        delay_zh = f"，{row.note['delay_seconds']:g} 秒后再试"
    return f"{english}{delay}: {why}", f"{chinese}{delay_zh}：{why_zh}"


def _reason(note: dict[str, Any]) -> tuple[str, str]:
    reason, kind = note.get("reason"), ERRORS.get(note.get("code") or "")
    if reason in _RETRY_REASONS:
        return f"{reason}.", _RETRY_REASONS[reason]
    detail = str(note.get("detail") or "")
    if detail.startswith(FAULT_PREFIX):
        # Type and place of the exception, our own text. What upstream says is left out.
        fault = detail.removeprefix(FAULT_PREFIX)
        return f"an error inside Dreamery, {fault}.", f"Dreamery 内部出错，{fault}。"
    if kind is not None:
        return kind.message, kind.message_zh
    return "the attempt had no effect.", "这次提交没有生效。"
