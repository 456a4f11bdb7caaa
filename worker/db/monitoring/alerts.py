"""The state of alerts: `apply` lets them fire, repeats their messages, and resolves them, in one transaction.

An alert is a row for a rule and a subject, from the first minute that the rule fires to the first in which it does not.
Its messages are rows of the webhook outbox, written in the same transaction, so each is sent whatever process ends.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.ids import new_id, public_id
from worker.core.messages.alert_texts import message
from worker.core.observability.alert_rules import RULES, RuleSettings, default_settings
from worker.db.engine import Transaction
from worker.db.monitoring import channels
from worker.db.monitoring.conditions import Evaluation

# A message names so many alerts of its rule; many accounts that fail together are one message.
MOST_IN_MESSAGE = 20
KEPT_DAYS = 90
_DELETED_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Changes:
    """What one evaluation changed: numbers of alerts, and the messages to deliver."""

    fired: int = 0
    resolved: int = 0
    messages: tuple[UUID, ...] = ()


def list_rules(tx: Transaction) -> dict[str, RuleSettings]:
    """Return the rules in force, by name."""
    rules = {name: default_settings(name) for name in RULES}
    for row in tx.all(text("SELECT *, extract(epoch FROM muted_until) AS muted FROM alert_rules")):
        if row.name in rules:
            muted = None if row.muted is None else float(row.muted)
            rules[row.name] = RuleSettings(row.name, row.enabled, row.threshold, row.repeat_hours, muted)
    return rules


def change_rule(tx: Transaction, settings: RuleSettings) -> None:
    """Store a rule as it should be in force."""
    tx.run(
        text(
            """INSERT INTO alert_rules (name, enabled, threshold, repeat_hours, muted_until)
               VALUES (:name, :enabled, :threshold, :repeat_hours, to_timestamp(:muted_until))
               ON CONFLICT (name) DO UPDATE SET enabled = excluded.enabled, threshold = excluded.threshold,
                   repeat_hours = excluded.repeat_hours, muted_until = excluded.muted_until"""
        ),
        {
            "name": settings.name,
            "enabled": settings.enabled,
            "threshold": settings.threshold,
            "repeat_hours": settings.repeat_hours,
            "muted_until": settings.muted_until,
        },
    )


def lock(tx: Transaction) -> None:
    """Let other evaluations wait for the end of this transaction."""
    tx.run(text("SELECT pg_advisory_xact_lock(hashtextextended('alerts', 0))"))


def apply(tx: Transaction, rules: Mapping[str, RuleSettings], evaluation: Evaluation) -> Changes:
    """Write what changed since the last evaluation, and its messages. Needs `lock`."""
    fired = _fire(tx, rules, evaluation)
    resolved = _resolve(tx, rules, evaluation)
    sent: list[UUID] = []
    for event, rows in _due_messages(tx, rules).items():
        sent += _send(tx, event, rows)
    # A message says that it ended if one said that it began, and not to those who muted it.
    noticed = [row for row in resolved if row.notified_at is not None and not row.is_muted and rules[row.rule].enabled]
    sent += _send(tx, "alert.resolved", noticed)
    return Changes(fired=fired, resolved=len(resolved), messages=tuple(sent))


_FIRE = text(
    """/* fire_alert */
    INSERT INTO alerts (id, rule, subject, label, value, threshold)
    VALUES (:id, :rule, :subject, :label, :value, :threshold)
    ON CONFLICT (rule, subject) WHERE resolved_at IS NULL
        DO UPDATE SET value = excluded.value, label = excluded.label, threshold = excluded.threshold
        WHERE (alerts.value, alerts.label, alerts.threshold) IS DISTINCT FROM
              (excluded.value, excluded.label, excluded.threshold)
    RETURNING (xmax = 0) AS is_new"""
)


def _fire(tx: Transaction, rules: Mapping[str, RuleSettings], evaluation: Evaluation) -> int:
    fired = 0
    for finding in evaluation.findings:
        row = tx.first(
            _FIRE,
            {
                "id": new_id(),
                "rule": finding.rule,
                "subject": finding.subject,
                "label": finding.label[:300],
                "value": finding.value,
                "threshold": rules[finding.rule].threshold,
            },
        )
        fired += row is not None and row.is_new
    return fired


_MUTED = """(coalesce(a.muted_until > clock_timestamp(), false) OR coalesce((
    SELECT r.muted_until > clock_timestamp() FROM alert_rules r WHERE r.name = a.rule), false))"""


def _resolve(tx: Transaction, rules: Mapping[str, RuleSettings], evaluation: Evaluation) -> list[Row[Any]]:
    """Resolve what fires no more, and all of rules that are disabled or gone. Return the rows."""
    over = evaluation.rules | {name for name, rule in rules.items() if not rule.enabled}
    return tx.all(
        text(
            f"""/* resolve_alerts */
            UPDATE alerts a SET resolved_at = clock_timestamp()
            WHERE a.resolved_at IS NULL AND (a.rule = ANY(:over) OR NOT (a.rule = ANY(:known)))
              AND NOT EXISTS (SELECT FROM unnest(CAST(:rules AS text[]), CAST(:subjects AS text[])) f (rule, subject)
                              WHERE f.rule = a.rule AND f.subject = a.subject)
            RETURNING a.*, {_MUTED} AS is_muted"""
        ),
        {
            "over": sorted(over),
            "known": sorted(rules),
            "rules": [finding.rule for finding in evaluation.findings],
            "subjects": [finding.subject for finding in evaluation.findings],
        },
    )


# The last message about the same subject counts, also one of an earlier alert: what comes and goes stays quiet.
_LAST_MESSAGE = """(SELECT max(p.notified_at) FROM alerts p WHERE p.rule = a.rule AND p.subject = a.subject)"""


def _due_messages(tx: Transaction, rules: Mapping[str, RuleSettings]) -> dict[str, list[Row[Any]]]:
    """Mark the alerts about which a message is due, and return them by event."""
    names = sorted(rules)
    rows = tx.all(
        text(
            f"""/* due_alert_messages */
            WITH due AS (
                SELECT a.id, a.notified_at IS NULL AS is_first FROM alerts a
                JOIN unnest(CAST(:names AS text[]), CAST(:hours AS double precision[])) r (name, hours)
                    ON r.name = a.rule
                WHERE a.resolved_at IS NULL AND NOT {_MUTED}
                  AND coalesce({_LAST_MESSAGE} <= clock_timestamp() - make_interval(secs => r.hours * 3600), true))
            UPDATE alerts SET notified_at = clock_timestamp() FROM due WHERE alerts.id = due.id
            RETURNING alerts.*, due.is_first"""
        ),
        {"names": names, "hours": [rules[name].repeat_hours for name in names]},
    )
    return {
        "alert.firing": [row for row in rows if row.is_first],
        "alert.repeated": [row for row in rows if not row.is_first],
    }


def _send(tx: Transaction, event: str, rows: Sequence[Row[Any]]) -> list[UUID]:
    """Write one message for each rule and channel."""
    sent: list[UUID] = []
    for rule in sorted({row.rule for row in rows}):
        own = sorted((row for row in rows if row.rule == rule), key=lambda row: row.id)
        sent.extend(add_message(tx, channel, event, rule, own) for channel in channels.channels_for(tx, rule))
    return sent


def add_message(tx: Transaction, channel: Row[Any], event: str, rule: str | None, rows: Sequence[Row[Any]]) -> UUID:
    """Insert a message for a channel into the outbox, due now, and return its id. `rule` None = a test.

    The caller enqueues its delivery after the commit.
    """
    shown = [alert_object(row) for row in rows[:MOST_IN_MESSAGE]]
    title, body = message(event, rule, shown, len(rows), channel.language)
    data = {"object": "alert.message", "rule": rule, "title": title, "text": body, "total": len(rows), "alerts": shown}
    delivery_id = new_id()
    tx.run(
        text(
            """/* add_alert_message */
            INSERT INTO webhook_deliveries (id, endpoint_id, event, data, url, owner, lane, due_at)
            VALUES (:id, :channel, :event, CAST(:data AS jsonb), :url, :owner, :lane, now())"""
        ),
        {
            "id": delivery_id,
            "channel": channel.id,
            "event": event,
            "data": json.dumps(data, ensure_ascii=False),
            "url": channel.url,
            "owner": channels.OWNER,
            "lane": f"endpoint:{channel.id}",
        },
    )
    return delivery_id


def alert_object(row: Row[Any]) -> dict[str, Any]:
    """Return an alert as the API and messages show it. Times are unix seconds."""
    return {
        "id": public_id("alert", row.id),
        "object": "alert",
        "rule": row.rule,
        "status": "firing" if row.resolved_at is None else "resolved",
        "subject": public_id("account", UUID(hex=row.subject)) if _is_account(row) else row.subject or None,
        "label": row.label,
        "value": row.value,
        "threshold": row.threshold,
        "started_at": int(row.started_at.timestamp()),
        "resolved_at": _seconds(row.resolved_at),
        "notified_at": _seconds(row.notified_at),
        "muted_until": _seconds(row.muted_until),
    }


def _is_account(row: Row[Any]) -> bool:
    return row.rule in {"account_credits_low", "session_expired"}


def _seconds(moment: Any) -> int | None:
    return None if moment is None else int(moment.timestamp())


def list_alerts(
    tx: Transaction, *, status: str | None, rule: str | None, after: UUID | None, limit: int
) -> tuple[list[Row[Any]], bool] | None:
    """Return one page of alerts, the newest first, and whether more follow; None if `after` does not exist."""
    cursor = None
    if after is not None:
        cursor = tx.first(text("SELECT started_at FROM alerts WHERE id = :id"), {"id": after})
        if cursor is None:
            return None
    rows = tx.all(
        text(
            """/* list_alerts */ SELECT * FROM alerts
               WHERE (CAST(:status AS text) IS NULL OR (resolved_at IS NULL) = (:status = 'firing'))
                 AND (CAST(:rule AS text) IS NULL OR rule = :rule)
                 AND (CAST(:after AS uuid) IS NULL OR (started_at, id) < (:moment, CAST(:after AS uuid)))
               ORDER BY started_at DESC, id DESC LIMIT :limit"""
        ),
        {
            "status": status,
            "rule": rule,
            "after": after,
            "moment": cursor.started_at if cursor is not None else None,
            "limit": limit + 1,
        },
    )
    return rows[:limit], len(rows) > limit


def mute(tx: Transaction, alert_id: UUID, until: int | None) -> Row[Any] | None:
    """Send no messages about this alert until then (unix seconds; None = send them). None if it does not exist."""
    return tx.first(
        text("UPDATE alerts SET muted_until = to_timestamp(:until) WHERE id = :id RETURNING *"),
        {"id": alert_id, "until": until},
    )


def delete_old(tx: Transaction) -> int:
    """Delete alerts that ended long ago; return how many."""
    rows = tx.all(
        text(
            """DELETE FROM alerts WHERE id IN (
                   SELECT id FROM alerts
                   WHERE resolved_at IS NOT NULL AND started_at < now() - make_interval(days => :days)
                     AND resolved_at < now() - make_interval(days => :days)
                   ORDER BY started_at LIMIT :limit)
               RETURNING id"""
        ),
        {"days": KEPT_DAYS, "limit": _DELETED_AT_ONCE},
    )
    return len(rows)


def count_firing(tx: Transaction) -> Iterable[Row[Any]]:
    """Return the number of firing alerts by rule."""
    return tx.all(text("SELECT rule, count(*) AS n FROM alerts WHERE resolved_at IS NULL GROUP BY rule ORDER BY rule"))
