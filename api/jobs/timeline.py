"""A job's timeline: every change of its state, how long it waited before, on which account and why; in two languages.

Upstream's own words, ids and log numbers stay out. The label of an account is shown to whoever brought that account,
and to admins; for others an account of the platform is just `pool`.
"""

from typing import Any

from api.jobs.serialization import STATUS_OF
from worker.core.errors import ERRORS
from worker.core.ids import public_id
from worker.core.job_state import JobState
from worker.db.engine import Row
from worker.db.jobs.queries import JobView

_TEXTS = {
    JobState.QUEUED: ("Accepted; it waits for a free account.", "已接受，等待空闲账号。"),
    "again": ("Back in the queue", "重新排队"),
    JobState.SUBMITTING: ("An account has taken it and sends it upstream.", "已分配账号，正在提交到上游。"),
    JobState.RUNNING: ("Upstream has accepted it.", "上游已接受，正在生成。"),
    JobState.SAVING: ("Upstream is done; the results are copied here.", "上游已完成，正在保存结果。"),
    JobState.SUCCEEDED: ("Done: the results are stored.", "完成，结果已保存。"),
    JobState.FAILED: ("Failed", "失败"),
    JobState.CANCELLED: ("Cancelled on request.", "已按要求取消。"),
}
# Why a candidate was passed over, as `worker/db/scheduling/selection_log.py` writes it.
_PASSED_OVER = {
    "refused this job": "已拒绝此任务",
    "has not this model": "没有此模型",
    "paused": "已暂停",
    "retired": "已停用",
    "resting": "休息中",
    "no better score": "评分不更高",
    "just taken": "刚被其他任务占用",
    "no free slot": "没有空闲名额",
    "too few credits": "积分不足",
    "pace": "提交间隔未到",
}
# Reasons of a new try that are no error codes.
_REASONS = {
    "claim lost": "任务已不再属于这次提交。",
    "session moved to another cluster; looked up again": "会话已迁移到其他集群，已重新查找。",
    "took the daily credits": "已领取每日积分。",
    "upstream does not know this submit": "上游不知道这次提交。",
}


def timeline(view: JobView, rows: list["Row[Any]"], *, shows_labels: bool) -> dict[str, Any]:
    """The body of `GET /v1/jobs/{id}/timeline` from the job's transitions, oldest first."""
    entries: list[dict[str, Any]] = []
    spent: dict[str, float] = {}
    attempt = 0
    account: str | None = None
    own = False
    before: Row[Any] | None = None
    for row in rows:
        if row.to_state == JobState.SUBMITTING:
            attempt, account = attempt + 1, row.note.get("account")
            own = bool(row.note.get("own"))
        waited: float | None = None if before is None else round((row.at - before.at).total_seconds(), 3)
        if waited is not None:
            spent[row.from_state] = round(spent.get(row.from_state, 0.0) + waited, 3)
        shown = account if shows_labels or own or account is None else "pool"
        entries.append(_entry(row, attempt, shown, waited) | {"choice": _choice(row.note, shows_labels=shows_labels)})
        before = row
        if row.to_state == JobState.QUEUED:
            account = None
    return {
        "object": "job.timeline",
        "id": public_id("job", view.job.id),
        "status": STATUS_OF[view.job.state],
        "data": entries,
        "seconds": spent,
    }


def _entry(row: "Row[Any]", attempt: int, account: str | None, waited: float | None) -> dict[str, Any]:
    note = row.note
    english, chinese = _told(row)
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
    """Of a claim that had a choice: the score of the account that was chosen, and why not the others."""
    if "score" not in note and "passed_over" not in note:
        return None
    others = [
        {
            "account": other["account"] if shows_labels else "pool",
            "why": other["why"],
            "text": {"en": other["why"], "zh": _PASSED_OVER.get(other["why"], other["why"])},
            "score": other.get("score"),
            "until": other.get("until"),
            "code": other.get("code"),
        }
        for other in note.get("passed_over", [])
    ]
    return {"score": note.get("score"), "others": others}


def _told(row: "Row[Any]") -> tuple[str, str]:
    again = row.to_state == JobState.QUEUED and row.from_state is not None
    english, chinese = _TEXTS["again" if again else row.to_state]
    if not again and row.to_state != JobState.FAILED:
        return english, chinese
    why, why_zh = _reason(row.note)
    later = ""
    later_zh = ""
    if again and row.note.get("delay_seconds"):
        later = f" in {row.note['delay_seconds']:g} s"
        later_zh = f"，{row.note['delay_seconds']:g} 秒后再试"
    return f"{english}{later}: {why}", f"{chinese}{later_zh}：{why_zh}"


def _reason(note: dict[str, Any]) -> tuple[str, str]:
    reason, kind = note.get("reason"), ERRORS.get(note.get("code") or "")
    if reason in _REASONS:
        return f"{reason}.", _REASONS[reason]
    if kind is not None:
        return kind.message, kind.message_zh
    return "the try had no effect.", "这次提交没有生效。"
