"""Accounts of one customer share limits (`limit_group`): their locks, their pace, and rests of models and accounts.

Lock order: the rows of a group by id. An account without a group is a group of its own.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text

from worker.db.engine import Transaction

# A rest that grows is at most this long, unless its first one is longer.
LONGEST_REST_SECONDS = 120.0
# Refusals of a model this far apart are not in a row.
_ROW_SECONDS = 300.0
# A halved rate rises by a fifth every three minutes, which upstreams accept.
_RISE, _RISE_SECONDS = 1.2, 180.0
_SLOWEST_PER_MINUTE = 1.0
SLOWED = "slowed"

_LOCK = text("SELECT id FROM accounts WHERE limit_group = :name OR id = :id ORDER BY id FOR NO KEY UPDATE")
_LOCK_NOW = text(f"{_LOCK.text} SKIP LOCKED")
_COUNT = text("SELECT count(*) AS n FROM accounts WHERE limit_group = :name OR id = :id")
_SHARE_PACE = text(
    """/* share_pace */
    UPDATE accounts SET next_submit_at = greatest(next_submit_at, clock_timestamp() + make_interval(secs => :pause))
    WHERE id = ANY(:ids)"""
)


def lock(tx: Transaction, account_id: UUID, limit_group: str | None, *, waits: bool = True) -> list[UUID]:
    """Lock the accounts of the group. Return their ids; with `waits` False, none if another claim holds one."""
    if limit_group is None:
        return [account_id]
    values = {"name": limit_group, "id": account_id}
    locked = [row.id for row in tx.all(_LOCK if waits else _LOCK_NOW, values)]
    if not waits:
        known = tx.first(_COUNT, values)
        if known is None or known.n != len(locked):
            return []
    return locked


def share_pace(tx: Transaction, account_ids: Collection[UUID], *, seconds: float) -> None:
    """The locked accounts may not submit before `seconds` from now: another account of their group did."""
    if account_ids:
        tx.run(_SHARE_PACE, {"ids": list(account_ids), "pause": seconds})


def pace_of(facts: Mapping[str, Any], own: float, clock: float) -> float:
    """Return the submits per minute of an account: its own, or less for some time after they came too fast."""
    slowed = facts.get(SLOWED)
    if not isinstance(slowed, Mapping):
        return own
    passed = max(clock - float(slowed["at"]), 0.0) / _RISE_SECONDS
    # Beyond this, the power is larger than any pace.
    allowed: float = float(slowed["per_minute"]) * _RISE ** min(passed, 100.0)
    return min(own, allowed)


_SLOW_DOWN = text(
    f"""/* slow_down */
    UPDATE accounts SET provider_facts = provider_facts || jsonb_build_object('{SLOWED}', jsonb_build_object(
        'per_minute', CAST(:per_minute AS float8), 'at', extract(epoch FROM clock_timestamp())))
    WHERE id = ANY(:ids)"""
)


def slow_down(tx: Transaction, account_ids: Sequence[UUID], *, per_minute: float) -> None:
    """Halve this rate for the locked accounts. It rises slowly again."""
    tx.run(_SLOW_DOWN, {"ids": list(account_ids), "per_minute": max(per_minute / 2, _SLOWEST_PER_MINUTE)})


# Refusals that come together count as one: only one after the end of a rest makes the next rest longer.
_REST_MODEL = text(
    """/* rest_model */
    UPDATE accounts SET model_rests = model_rests || jsonb_build_object(CAST(:model AS text), jsonb_build_object(
        'until', to_jsonb(greatest(old.until, new.until)), 'code', CAST(:code AS text),
        'detail', CAST(:detail AS text), 'at', old.clock, 'count', new.count))
    FROM (
        SELECT id, extract(epoch FROM clock_timestamp())::float8 AS clock,
            coalesce((model_rests #>> ARRAY[CAST(:model AS text), 'until'])::float8, 0) AS until,
            coalesce((model_rests #>> ARRAY[CAST(:model AS text), 'at'])::float8, 0) AS at,
            coalesce((model_rests #>> ARRAY[CAST(:model AS text), 'count'])::int, 0) AS count
        FROM accounts WHERE id = ANY(:ids)) old
    CROSS JOIN LATERAL (
        SELECT CASE WHEN NOT :grows OR old.at = 0 OR old.at < old.clock - :in_a_row - :seconds THEN 0
            WHEN old.until > old.clock THEN old.count ELSE least(old.count + 1, 20) END AS count) counted
    CROSS JOIN LATERAL (
        SELECT counted.count, CASE WHEN :closed THEN 'Infinity'::float8 ELSE old.clock
            + least(CAST(:seconds AS float8) * power(2, counted.count), CAST(:longest AS float8)) END AS until) new
    WHERE accounts.id = old.id"""
)


def rest_model(
    tx: Transaction,
    account_ids: Sequence[UUID],
    model: str,
    *,
    seconds: float,
    code: str,
    detail: str,
    grows: bool = False,
) -> None:
    """Let the model rest on the locked accounts, or close it there (infinite `seconds`) until an operator looks.

    With `grows`, a refusal after the end of a rest doubles the next one.
    """
    closed = seconds == float("inf")
    finite = 0.0 if closed else seconds
    longest = max(LONGEST_REST_SECONDS, finite)
    values = {"ids": list(account_ids), "model": model, "code": code, "detail": detail, "seconds": finite}
    tx.run(_REST_MODEL, {**values, "closed": closed, "grows": grows, "longest": longest, "in_a_row": _ROW_SECONDS})


def end_model_rests(tx: Transaction, pairs: Collection[tuple[UUID, str]]) -> None:
    """Upstream accepted jobs of these models: forget their rests that are over, so that the next one is short."""
    for account_id, model in sorted(pairs):
        tx.run(
            text(
                """UPDATE accounts SET model_rests = model_rests - CAST(:model AS text) WHERE id = :id
                   AND (model_rests #>> ARRAY[CAST(:model AS text), 'until'])::float8
                       <= extract(epoch FROM clock_timestamp())"""
            ),
            {"id": account_id, "model": model},
        )


# A session or key that was only presented has no state: it rests, and the next refusal tells again.
_STOP = text(
    """/* stop_accounts */
    UPDATE accounts SET
        state = CASE WHEN kept.registered AND state = 'ok' THEN CAST(:state AS text) ELSE state END,
        state_code = CASE WHEN kept.registered AND state = 'ok' THEN CAST(:code AS text) ELSE state_code END,
        state_at = CASE WHEN kept.registered AND state = 'ok' THEN clock_timestamp() ELSE state_at END,
        rest_code = CASE WHEN kept.registered THEN rest_code ELSE CAST(:code AS text) END,
        rest_until = CASE WHEN kept.registered THEN rest_until
            ELSE greatest(rest_until, clock_timestamp() + make_interval(secs => :seconds)) END,
        refresh_due_at = CASE WHEN kept.registered AND CAST(:checks_after AS float8) > 0
            THEN clock_timestamp() + make_interval(secs => :checks_after) ELSE refresh_due_at END
    FROM (SELECT id, pool OR user_id IS NOT NULL AS registered FROM accounts WHERE id = ANY(:ids)) kept
    WHERE accounts.id = kept.id"""
)
_PRESENTED_REST_SECONDS = 300.0


def stop(tx: Transaction, account_ids: Sequence[UUID], *, state: str, code: str, checks_after: float = 0.0) -> None:
    """Stop the locked accounts: `needs_login` or `blocked`. `checks_after` = seconds to their next check."""
    seconds = max(checks_after, _PRESENTED_REST_SECONDS)
    values = {"ids": list(account_ids), "state": state, "code": code, "seconds": seconds}
    tx.run(_STOP, {**values, "checks_after": checks_after})
