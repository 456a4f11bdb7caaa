"""Texts of alerts in the language of a channel: the title of a rule, and a line for each subject."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

Language = Literal["en", "zh"]

# Rule -> language -> title and line. A line has the label of its subject, the value and the threshold.
_RULES: dict[str, dict[str, tuple[str, str]]] = {
    "account_credits_low": {
        "en": ("Low credits", "Account {label} has {value} credits; the limit is {threshold}."),
        "zh": ("积分不足", "账号 {label} 剩余 {value} 积分，低于 {threshold}。"),
    },
    "pool_credits_low": {
        "en": ("Low credits of all accounts", "All platform accounts have {value} credits; the limit is {threshold}."),
        "zh": ("全部账号积分不足", "所有平台账号共剩余 {value} 积分，低于 {threshold}。"),
    },
    "session_expired": {
        "en": ("Account needs attention", "Account {label} has needed a login or been blocked for {value} minutes."),
        "zh": ("账号需要处理", "账号 {label} 已有 {value} 分钟不可用：需要重新登录，或已被封禁。"),
    },
    "queue_stuck": {
        "en": ("Queue is stuck", "A job ({label}) has waited for {value} minutes although an account is free."),
        "zh": ("队列停滞", "有任务（{label}）已等待 {value} 分钟，但仍有空闲账号。"),
    },
    "jobs_overdue": {
        "en": ("Job does not end", "A job is open {value} minutes after its deadline."),
        "zh": ("任务未结束", "有任务超过截止时间 {value} 分钟仍未结束。"),
    },
    "storage_low": {
        "en": ("Storage is {full} % full", "{value} % of the storage is free; the limit is {threshold} %. {label}"),
        "zh": ("存储空间已用 {full} %", "存储剩余空间 {value} %，低于 {threshold} %。{label}"),
    },
    "workers_away": {
        "en": ("Workers are away", "No worker has processed the queue {label} for {value} minutes."),
        "zh": ("工作进程离线", "队列 {label} 已有 {value} 分钟没有工作进程处理。"),
    },
    "failure_rate_high": {
        "en": ("Many jobs fail", "{value} % of the jobs of the last 10 minutes failed; the limit is {threshold} %."),
        "zh": ("任务失败率高", "最近 10 分钟有 {value} % 的任务失败，上限为 {threshold} %。"),
    },
    "charges_in_doubt": {
        "en": ("Charges in doubt", "Upstream may have charged {value} jobs of the last 24 hours wrongly."),
        "zh": ("扣费存疑", "最近 24 小时内有 {value} 个任务可能被上游扣费但没有结果，或被重复扣费。"),
    },
    "backup_old": {
        "en": ("Backup is old", "The last backup was made {value} hours ago; the limit is {threshold} hours."),
        "zh": ("备份过旧", "上次备份是在 {value} 小时前，上限为 {threshold} 小时。"),
    },
}  # fmt: skip
_EVENTS = {
    "alert.firing": {"en": "Alert", "zh": "告警"},
    "alert.repeated": {"en": "Still firing", "zh": "告警仍在持续"},
    "alert.resolved": {"en": "Resolved", "zh": "告警已恢复"},
    "webhook.test": {"en": "Test", "zh": "测试"},
}
_TEST = {
    "en": "This is a test of this alert channel. Alerts will look like this.",
    "zh": "这是对此告警渠道的测试，告警将以这种形式发送。",
}
_MORE = {"en": "and {n} more", "zh": "另有 {n} 条"}
_PLATFORM = {"en": "The platform was stopped, or had no worker.", "zh": "平台曾停止运行，或没有工作进程。"}


def rule_title(rule: str, language: str, threshold: float) -> str:
    """Return the title of a rule. That of the storage names how full it is: its threshold counts what is free."""
    return _RULES[rule][language][0].format(full=number(100 - threshold))


def number(value: float) -> str:
    """Return a number without needless digits, as the console formats it in both languages."""
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.1f}"


def alert_line(alert: Mapping[str, Any], language: str) -> str:
    """Return the line of an alert with `rule`, `label`, `value` and `threshold`."""
    if alert["rule"] == "workers_away" and not alert["label"]:
        return _PLATFORM[language]
    line = _RULES[alert["rule"]][language][1]
    shown = {"value": number(alert["value"]), "threshold": number(alert["threshold"]), "label": alert["label"]}
    return line.format(**shown).strip()


def message(
    event: str, rule: str | None, alerts: Sequence[Mapping[str, Any]], total: int, language: str
) -> tuple[str, str]:
    """Return the title and the text of a message about alerts of one rule; `rule` None = a test.

    `alerts` are the first ones of `total`.
    """
    title = _EVENTS[event][language]
    if rule is None:
        return title, _TEST[language]
    lines = [alert_line(alert, language) for alert in alerts]
    if total > len(alerts):
        lines.append(_MORE[language].format(n=total - len(alerts)))
    mark = "：" if language == "zh" else ": "
    threshold = float(alerts[0]["threshold"])
    return f"{title}{mark}{rule_title(rule, language, threshold)}", "\n".join(lines)
