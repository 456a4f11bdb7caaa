"""Selects the next queued job for an account: the first of each kind that has a free slot. Writes nothing."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from worker.db.accounts.accounts import AccountRow
from worker.db.accounts.available_credits import covers, credits_left
from worker.db.accounts.concurrency import slot_limits
from worker.db.accounts.eligibility import BOUND, bound, may_take
from worker.db.engine import Transaction


@dataclass(frozen=True, slots=True)
class Selection:
    """A queued job, locked for this transaction."""

    id: UUID
    kind: str
    needs_uploads: bool  # the account lacks some of its references, and the caller cannot upload them
    has_uploads: bool  # the account has some of its references
    single_account: bool  # no other account may run it


# Slots are counted in a separate statement after the one that locked the account: the locking statement would read a
# snapshot from before the lock and let two claims into the last slot. `clock_timestamp()`, because `now()` is when the
# transaction began, possibly before a wait for that lock.
#
# The first job of each kind with a free slot is found in the order of its index. Among these, the kind that the account
# served longest ago wins (positions of different kinds are not comparable, and if one kind always came first, a slow
# pace would starve the other). If the caller cannot upload, jobs that need no upload come first. Jobs that the
# account's credits do not cover are skipped, so an expensive job does not block a cheap one.
_SELECT = text(
    f"""/* pick */
    WITH used AS MATERIALIZED (
        SELECT kind, count(*) AS n FROM jobs WHERE account_id = :account_id AND holds_slot GROUP BY kind),
    free AS MATERIALIZED (
        SELECT k.kind FROM unnest(CAST(:kinds AS text[]), CAST(:slots AS integer[])) AS k(kind, most)
        LEFT JOIN used ON used.kind = k.kind WHERE k.most > coalesce(used.n, 0)),
    own AS MATERIALIZED (SELECT turns, {credits_left("a")} AS left FROM accounts a WHERE id = :account_id),
    heads AS MATERIALIZED (
        SELECT h.*, (own.turns #>> ARRAY[h.kind, 'at'])::float8 AS served_at, NOT :can_upload AND EXISTS (
                SELECT 1 FROM job_inputs i WHERE i.job_id = h.id AND NOT EXISTS (
                    SELECT 1 FROM input_uploads u
                    WHERE u.job_id = i.job_id AND u.n = i.n AND u.account_id = :account_id)) AS needs_uploads
        FROM free CROSS JOIN own CROSS JOIN LATERAL (
            SELECT id, kind, cardinality(account_ids) = 1 AS single_account FROM jobs
            WHERE state = 'queued' AND kind = free.kind AND due_at <= clock_timestamp()
              AND cancel_requested_at IS NULL
              AND {may_take(BOUND, "jobs")}
              AND NOT (CAST(:account_id AS uuid) = ANY(avoid_accounts))
              AND {covers("own.left", "price")}
            ORDER BY place, id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) h)
    SELECT id, kind, needs_uploads, single_account,
        EXISTS (SELECT 1 FROM input_uploads u WHERE u.job_id = heads.id AND u.account_id = :account_id) AS has_uploads
    FROM heads ORDER BY needs_uploads, served_at NULLS FIRST, id LIMIT 1"""
)


def select_job(tx: Transaction, account: AccountRow, kinds: tuple[str, ...], *, can_upload: bool) -> Selection | None:
    """Lock and return the next job for a locked account; None if there is none.

    `can_upload` = the caller uploads references that the account lacks.
    """
    values: dict[str, Any] = {
        **bound(account),
        **slot_limits(),
        "kinds": list(kinds),
        "slots": [account.slots[kind] for kind in kinds],
        "can_upload": can_upload,
    }
    row = tx.first(_SELECT, values)
    return Selection(**row._mapping) if row is not None else None  # noqa: SLF001
