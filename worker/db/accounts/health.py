"""How an account stands with upstream: rests, refused logins, risk control; and what brings it back.

`needs_login` and `blocked` are states of accounts that the platform or a user keeps. One that is only presented as a
session id rests at most: whoever presents it is told its refusals.
"""

from uuid import UUID

from sqlalchemy import text

from worker.db.engine import Transaction

EXPIRED = "upstream_session_expired"
RISK = "upstream_risk_control"
# So often in a row the free call must have met an unknown session, rests between, before its account needs a login.
MOST_LOGIN_REFUSALS = 3
# So often in a row submits must have met risk control, a rest between, before people must look at the account.
MOST_RISK_REFUSALS = 2

# Risk control counts once per rest: several jobs that were refused together are one refusal.
_REST = text(
    """/* rest */
    UPDATE accounts SET rest_code = :code,
        rest_until = greatest(rest_until, clock_timestamp() + make_interval(secs => :seconds)),
        risk_refusals = risk_refusals + new.risk,
        state = CASE WHEN new.blocks THEN 'blocked' ELSE state END,
        state_code = CASE WHEN new.blocks THEN :code ELSE state_code END,
        state_at = CASE WHEN new.blocks THEN clock_timestamp() ELSE state_at END
    FROM (SELECT o.id AS of, r.risk, r.risk = 1 AND o.state = 'ok' AND (o.pool OR o.user_id IS NOT NULL)
              AND o.risk_refusals + 1 >= :most AS blocks
          FROM accounts o CROSS JOIN LATERAL (SELECT (CAST(:code AS text) = :risk
              AND NOT coalesce(o.rest_code = :code AND o.rest_until > clock_timestamp(), false))::int AS risk) r
          WHERE o.id = :id FOR NO KEY UPDATE OF o) new
    WHERE accounts.id = new.of"""
)


def cool_down(tx: Transaction, account_id: UUID, *, seconds: float, code: str) -> None:
    """Let the account rest; a longer rest that is under way stays."""
    tx.run(_REST, {"id": account_id, "seconds": seconds, "code": code, "risk": RISK, "most": MOST_RISK_REFUSALS})


def cool_down_kind(tx: Transaction, account_id: UUID, kind: str, *, seconds: float) -> None:
    """Let one kind of jobs of the account rest: upstream has no room for more of it, which says nothing of others."""
    tx.run(
        text(
            """UPDATE accounts SET kind_rests = kind_rests || jsonb_build_object(CAST(:kind AS text),
                   extract(epoch FROM clock_timestamp()) + CAST(:seconds AS float8)) WHERE id = :id"""
        ),
        {"id": account_id, "kind": kind, "seconds": seconds},
    )


def record_success(tx: Transaction, account_id: UUID) -> None:
    """Upstream took a job from the account: earlier refusals say nothing any more. Mostly writes nothing."""
    tx.run(
        text(
            """UPDATE accounts SET login_refusals = 0, risk_refusals = 0
               WHERE id = :id AND (login_refusals > 0 OR risk_refusals > 0)"""
        ),
        {"id": account_id},
    )


def record_login_refusal(tx: Transaction, account_id: UUID, *, seconds: float) -> bool:
    """The free call was told that upstream does not know the session. It rests, or has been told so often enough to
    need a login: then True.
    """
    row = tx.first(
        text(
            """/* login_refused */
            UPDATE accounts SET login_refusals = login_refusals + 1, rest_code = :code,
                rest_until = greatest(rest_until, clock_timestamp() + make_interval(secs => :seconds)),
                state = CASE WHEN gone.now THEN 'needs_login' ELSE state END,
                state_code = CASE WHEN gone.now THEN :code ELSE state_code END,
                state_at = CASE WHEN gone.now THEN clock_timestamp() ELSE state_at END
            FROM (SELECT id AS of, state = 'ok' AND (pool OR user_id IS NOT NULL) AND login_refusals + 1 >= :most AS now
                  FROM accounts WHERE id = :id FOR NO KEY UPDATE) gone
            WHERE accounts.id = gone.of RETURNING gone.now"""
        ),
        {"id": account_id, "seconds": seconds, "code": EXPIRED, "most": MOST_LOGIN_REFUSALS},
    )
    return row is not None and bool(row.now)


def record_session_works(tx: Transaction, account_id: UUID) -> bool:
    """Upstream knows the session: what was for that reason is over. True when the account may take jobs again."""
    row = tx.first(
        text(
            """/* session_works */
            UPDATE accounts SET login_refusals = 0,
                rest_until = CASE WHEN rest_code = :code THEN NULL ELSE rest_until END,
                rest_code = CASE WHEN rest_code = :code THEN NULL ELSE rest_code END,
                state_code = CASE WHEN state = 'needs_login' THEN NULL ELSE state_code END,
                state_at = CASE WHEN state = 'needs_login' THEN clock_timestamp() ELSE state_at END,
                state = CASE WHEN state = 'needs_login' THEN 'ok' ELSE state END
            WHERE id = :id AND (login_refusals > 0 OR rest_code = :code OR state = 'needs_login')
            RETURNING state = 'ok' AND rest_code IS NULL AS free"""
        ),
        {"id": account_id, "code": EXPIRED},
    )
    return row is not None and bool(row.free)


def end_cooldown(tx: Transaction, account_id: UUID, *, code: str) -> bool:
    """The account rests for that reason and need not: it was seen to be over. True when it rested."""
    row = tx.first(
        text(
            """UPDATE accounts SET rest_until = NULL, rest_code = NULL
               WHERE id = :id AND rest_code = :code RETURNING id"""
        ),
        {"id": account_id, "code": code},
    )
    return row is not None
