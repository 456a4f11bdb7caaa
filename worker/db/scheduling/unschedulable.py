"""Jobs that no account will take: queued ones and the code they fail with; new ones while all accounts cool down."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text

from worker.db.accounts.available_credits import is_insufficient
from worker.db.accounts.eligibility import ANY_NEEDS, NEEDS, Needs, candidates
from worker.db.accounts.queue_lines import in_line, line_heads
from worker.db.engine import Transaction

# A queued job fails at once instead of waiting if the cooldowns of all its accounts are longer than this.
LONGEST_COOLDOWN_SECONDS = 60.0

_REASON = text(
    f"""/* refusal */
    SELECT bool_or(NOT (a.id = ANY(j.avoid_accounts)) AND a.state = 'ok' AND NOT coalesce(
               a.rest_until > clock_timestamp() + make_interval(secs => :longest_cooldown), false)
               AND NOT {is_insufficient("a", "j.price")}) AS schedulable,
           bool_or(a.state = 'ok' AND {is_insufficient("a", "j.price")}) AS insufficient,
           (array_agg(a.rest_code ORDER BY a.rest_until DESC NULLS LAST)
               FILTER (WHERE a.state = 'ok' AND a.rest_until > clock_timestamp()))[1] AS rest_code,
           bool_and(a.state IN ('needs_login', 'blocked')) AND bool_or(a.state = 'needs_login') AS logged_out,
           bool_and(a.state = 'blocked') AS blocked,
           (SELECT e.note ->> 'code' FROM job_events e
            WHERE e.job_id = j.id AND e.note ? 'code' ORDER BY e.seq DESC LIMIT 1) AS last_code
    FROM jobs j
    LEFT JOIN {candidates("j")} ON a.state NOT IN ('paused', 'retired')
    WHERE j.id = :id AND j.state = 'queued' GROUP BY j.id"""
)


def unschedulable_reason(tx: Transaction, job_id: UUID) -> str | None:
    """Return the error code of a queued job that no account will take; None if some account will.

    Each account refused it, is in a long cooldown or lacks the credits. The code is that of the last refusal of this
    job, else of the longest cooldown, else `insufficient_quota`, else what the accounts need.
    """
    row = tx.first(_REASON, {"id": job_id, "longest_cooldown": LONGEST_COOLDOWN_SECONDS})
    if row is None or row.schedulable:
        return None
    idle = "accounts_need_login" if row.logged_out else "accounts_blocked" if row.blocked else "no_account_available"
    return str(row.last_code or row.rest_code or ("insufficient_quota" if row.insufficient else idle))


def find_unschedulable_jobs(tx: Transaction, *, limit: int) -> list[UUID]:
    """Return queued jobs that no account could take soon."""
    rows = tx.all(
        text(
            f"""/* unschedulable_jobs */
            WITH RECURSIVE {line_heads("lines", "ARRAY['image', 'video', 'chat']")},
            unschedulable AS MATERIALIZED (SELECT * FROM lines j WHERE NOT EXISTS (
                SELECT 1 FROM {candidates("j")} WHERE a.id <> ALL(j.avoid_accounts) AND a.state = 'ok'
                  AND NOT {is_insufficient("a", "j.price")}
                  AND NOT coalesce(a.rest_until > clock_timestamp() + make_interval(secs => :longest_cooldown), false)))
            SELECT w.id FROM unschedulable u CROSS JOIN LATERAL (
                SELECT id FROM jobs WHERE {in_line("u")} ORDER BY place, id LIMIT :limit) w
            ORDER BY w.id LIMIT :limit"""
        ),
        {"longest_cooldown": LONGEST_COOLDOWN_SECONDS, "limit": limit},
    )
    return [row.id for row in rows]


@dataclass(frozen=True, slots=True)
class Cooldown:
    """The cooldown that ends first: the error code of its cause, its end, and the time of the database."""

    code: str
    until: datetime
    now: datetime


# The columns of a job that the selection of accounts reads: of a job without a row, and of an ended job. An account
# that refused that job may take the next one, so the accounts that it avoids count too.
_NEW_JOB = f"""(SELECT CAST(:user_id AS uuid) AS user_id, CAST(:account_ids AS uuid[]) AS account_ids,
    CAST(:choice AS text) AS account_choice, CAST(:avoid AS uuid[]) AS avoid_accounts,
    CAST(:price AS integer) AS price, {NEEDS}) j"""
_ENDED_JOB = """(SELECT user_id, account_ids, account_choice, CAST('{}' AS uuid[]) AS avoid_accounts, price,
    providers, currency, model
    FROM jobs WHERE id = :id) j"""


def _any_schedulable(job: str) -> TextClause:
    """Whether an account takes the job soon. It stops at the first one, which is usually the first that it reads."""
    return text(
        f"""/* any_schedulable */
        SELECT EXISTS (SELECT 1 FROM {job} CROSS JOIN {candidates("j")}
            WHERE a.state = 'ok' AND a.id <> ALL(j.avoid_accounts)
              AND NOT coalesce(a.rest_until > clock_timestamp() + make_interval(secs => :longest_cooldown), false)
              AND NOT {is_insufficient("a", "j.price")}) AS found"""
    )


def _first_cooldown(job: str) -> TextClause:
    return text(
        f"""/* first_cooldown */
        SELECT a.rest_code AS code, a.rest_until AS until, clock_timestamp() AS now
        FROM {job} CROSS JOIN {candidates("j")}
        WHERE a.state = 'ok' AND a.id <> ALL(j.avoid_accounts)
          AND a.rest_until > clock_timestamp() + make_interval(secs => :longest_cooldown)
        ORDER BY a.rest_until LIMIT 1"""
    )


_FOR_NEW_JOB = (_any_schedulable(_NEW_JOB), _first_cooldown(_NEW_JOB))
_AFTER_ENDED_JOB = (_any_schedulable(_ENDED_JOB), _first_cooldown(_ENDED_JOB))


def first_cooldown_for_new_job(
    tx: Transaction,
    *,
    user_id: UUID | None,
    account_ids: list[UUID],
    choice: str,
    avoid: list[UUID],
    price: int | None,
    needs: Needs = ANY_NEEDS,
) -> Cooldown | None:
    """Return the cooldown that ends first, if a new job would fail because of cooldowns; else None.

    Short cooldowns do not count: the job waits for their end.
    """
    values = {"user_id": user_id, "account_ids": account_ids, "choice": choice, "avoid": avoid, "price": price}
    values |= needs.values()
    return _find_cooldown(tx, _FOR_NEW_JOB, values)


def first_cooldown_after_job(tx: Transaction, job_id: UUID) -> Cooldown | None:
    """Return the cooldown that ends first, if the next job of the same caller would fail because of cooldowns."""
    return _find_cooldown(tx, _AFTER_ENDED_JOB, {"id": job_id})


def _find_cooldown(
    tx: Transaction, statements: tuple[TextClause, TextClause], values: dict[str, Any]
) -> Cooldown | None:
    any_schedulable, first_cooldown = statements
    values |= {"longest_cooldown": LONGEST_COOLDOWN_SECONDS}
    found = tx.first(any_schedulable, values)
    if found is not None and found.found:
        return None
    row = tx.first(first_cooldown, values)
    return None if row is None or row.code is None else Cooldown(code=row.code, until=row.until, now=row.now)


# --- for `dreamery doctor` and health ---
