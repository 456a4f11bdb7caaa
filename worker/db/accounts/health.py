"""Health of upstream accounts: cooldowns, refused logins, risk control, and recovery.

`needs_login` and `blocked` are states of registered accounts only. An account that is only presented as a session id
gets a cooldown at most, because its caller receives the errors directly.
"""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.catalog.provider_data import all_providers
from worker.db.engine import Transaction

EXPIRED = "upstream_session_expired"
RISK = "upstream_risk_control"
# Codes with which keys are stopped, or rest if no one registered them.
STOPS = ("accounts_need_login", "accounts_blocked", "insufficient_quota")


def _refusals(field: str, account: str) -> str:
    """SQL: after how many refusals in a row the account's provider gives up on it."""
    cases = " ".join(
        f"WHEN '{name}' THEN {getattr(one.credentials, field)}" for name, one in sorted(all_providers().items())
    )
    return f"(CASE {account}.provider {cases} END)"


def unproved(account: str) -> str:
    """SQL: the refused logins of an account whose credential is new: if upstream does not know it, it is wrong, and the
    first refusal counts. The first success sets it to 0.
    """
    return f"({_refusals('login_refusals', account)} - 1)"


def keys_only(account: str) -> str:
    """SQL: whether the credential of the account is a key, which upstream refuses only for a reason that lasts."""
    names = ", ".join(f"'{name}'" for name, one in sorted(all_providers().items()) if not one.has_sessions)
    return f"{account}.provider IN ({names})" if names else "false"


# Risk control counts once per cooldown: several jobs refused together count as one refusal.
_COOL_DOWN = text(
    f"""/* rest */
    UPDATE accounts SET rest_code = :code,
        rest_until = greatest(rest_until, clock_timestamp() + make_interval(secs => :seconds)),
        risk_refusals = risk_refusals + new.risk,
        state = CASE WHEN new.blocks THEN 'blocked' ELSE state END,
        state_code = CASE WHEN new.blocks THEN :code ELSE state_code END,
        state_at = CASE WHEN new.blocks THEN clock_timestamp() ELSE state_at END
    FROM (SELECT o.id AS of, r.risk, r.risk = 1 AND o.state = 'ok' AND (o.pool OR o.user_id IS NOT NULL)
              AND o.risk_refusals + 1 >= {_refusals("block_refusals", "o")} AS blocks
          FROM accounts o CROSS JOIN LATERAL (SELECT (CAST(:code AS text) = :risk
              AND NOT coalesce(o.rest_code = :code AND o.rest_until > clock_timestamp(), false))::int AS risk) r
          WHERE o.id = :id FOR NO KEY UPDATE OF o) new
    WHERE accounts.id = new.of"""
)


def cool_down(tx: Transaction, account_id: UUID, *, seconds: float, code: str) -> None:
    """Start a cooldown of the account. A longer cooldown in progress stays."""
    tx.run(_COOL_DOWN, {"id": account_id, "seconds": seconds, "code": code, "risk": RISK})


def cool_down_kind(tx: Transaction, account_id: UUID, kind: str, *, seconds: float) -> None:
    """Start a cooldown for one kind of job: upstream has no capacity for this kind, other kinds are not affected."""
    tx.run(
        text(
            """UPDATE accounts SET kind_rests = kind_rests || jsonb_build_object(CAST(:kind AS text),
                   extract(epoch FROM clock_timestamp()) + CAST(:seconds AS float8)) WHERE id = :id"""
        ),
        {"id": account_id, "kind": kind, "seconds": seconds},
    )


def record_success(tx: Transaction, account_ids: Collection[UUID]) -> None:
    """Upstream accepted jobs of these accounts: reset their refusal counters. Usually there is nothing to write."""
    tx.run(
        text(
            """UPDATE accounts SET login_refusals = 0, risk_refusals = 0
               WHERE id = ANY(:ids) AND (login_refusals > 0 OR risk_refusals > 0)"""
        ),
        {"ids": list(account_ids)},
    )


def record_login_refusal(tx: Transaction, account_id: UUID, *, seconds: float) -> bool:
    """Record that upstream does not recognize the session. The account gets a cooldown, or after too many refusals the
    state `needs_login`: then return True.
    """
    row = tx.first(
        text(
            f"""/* login_refused */
            UPDATE accounts SET login_refusals = login_refusals + 1, rest_code = :code,
                rest_until = greatest(rest_until, clock_timestamp() + make_interval(secs => :seconds)),
                state = CASE WHEN gone.now THEN 'needs_login' ELSE state END,
                state_code = CASE WHEN gone.now THEN :code ELSE state_code END,
                state_at = CASE WHEN gone.now THEN clock_timestamp() ELSE state_at END
            FROM (SELECT id AS of, state = 'ok' AND (pool OR user_id IS NOT NULL)
                      AND login_refusals + 1 >= {_refusals("login_refusals", "accounts")} AS now
                  FROM accounts WHERE id = :id FOR NO KEY UPDATE) gone
            WHERE accounts.id = gone.of RETURNING gone.now"""
        ),
        {"id": account_id, "seconds": seconds, "code": EXPIRED},
    )
    return row is not None and bool(row.now)


def record_session_works(tx: Transaction, account_id: UUID) -> bool:
    """Record that upstream accepts the credential, and end the effects of refusals. True if the account may take jobs
    again. A blocked session stays blocked: that it is known says nothing about risk control.
    """
    rests = f"(rest_code = :code OR (rest_code = ANY(:stops) AND {keys_only('accounts')}))"
    stopped = f"(state = 'needs_login' OR (state = 'blocked' AND {keys_only('accounts')}))"
    row = tx.first(
        text(
            f"""/* session_works */
            UPDATE accounts SET login_refusals = 0,
                rest_until = CASE WHEN {rests} THEN NULL ELSE rest_until END,
                rest_code = CASE WHEN {rests} THEN NULL ELSE rest_code END,
                state_code = CASE WHEN {stopped} THEN NULL ELSE state_code END,
                state_at = CASE WHEN {stopped} THEN clock_timestamp() ELSE state_at END,
                state = CASE WHEN {stopped} THEN 'ok' ELSE state END
            WHERE id = :id AND (login_refusals > 0 OR {rests} OR {stopped})
            RETURNING state = 'ok' AND rest_code IS NULL AS free"""
        ),
        {"id": account_id, "code": EXPIRED, "stops": list(STOPS)},
    )
    return row is not None and bool(row.free)


def closed_models(tx: Transaction, *, limit: int) -> list[Row[Any]]:
    """Return models that are closed on accounts until an operator looks: `label`, `model`, `code`."""
    return tx.all(
        text(
            """SELECT a.label, r.key AS model, r.value ->> 'code' AS code
               FROM accounts a CROSS JOIN LATERAL jsonb_each(a.model_rests) r
               WHERE a.model_rests <> '{}' AND a.state <> 'retired' AND r.value ->> 'until' = 'Infinity'
               ORDER BY a.label, r.key LIMIT :limit"""
        ),
        {"limit": limit},
    )


def end_cooldown(tx: Transaction, account_id: UUID, *, code: str) -> bool:
    """End a cooldown with this code, because its cause is gone. True if there was one."""
    row = tx.first(
        text(
            """UPDATE accounts SET rest_until = NULL, rest_code = NULL
               WHERE id = :id AND rest_code = :code RETURNING id"""
        ),
        {"id": account_id, "code": code},
    )
    return row is not None
