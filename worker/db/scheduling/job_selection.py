"""Which queued job an account would take next: the first turn of each kind that has a free slot. Writes nothing."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from worker.db.accounts.accounts import AccountRow
from worker.db.accounts.available_credits import affords, credits_left
from worker.db.accounts.concurrency import slot_limits
from worker.db.accounts.eligibility import BOUND, bound, may_take
from worker.db.engine import Transaction


@dataclass(frozen=True, slots=True)
class Pick:
    """A queued job, locked for this transaction."""

    id: UUID
    kind: str
    left_alone: bool  # its references are not with the account, and the caller does not bring any
    settled: bool  # references of it are with this account
    alone: bool  # no other account may run it


# The count stands in a statement of its own, after the one that locked the account: in the locking statement it would
# read a snapshot from before the lock and let two claims into the last slot. `clock_timestamp()`, because `now()` is
# when the transaction began, possibly before a wait for that lock.
#
# The first job of each kind that has a free slot is looked up in the order of its index. Of those the one whose kind
# the account served longest ago is taken (turns of different kinds say nothing of each other, and with one kind always
# first a slow pace would starve the other); those that need nothing brought first when the caller brings nothing.
# A job that the account's credits do not cover is not seen, so that a dear one is in no cheap one's way.
_PICK = text(
    f"""/* pick */
    WITH used AS MATERIALIZED (
        SELECT kind, count(*) AS n FROM jobs WHERE account_id = :account_id AND holds_slot GROUP BY kind),
    free AS MATERIALIZED (
        SELECT k.kind FROM unnest(CAST(:kinds AS text[]), CAST(:slots AS integer[])) AS k(kind, most)
        LEFT JOIN used ON used.kind = k.kind WHERE k.most > coalesce(used.n, 0)),
    mine AS MATERIALIZED (SELECT turns, {credits_left("a")} AS left FROM accounts a WHERE id = :account_id),
    heads AS MATERIALIZED (
        SELECT h.*, (mine.turns #>> ARRAY[h.kind, 'at'])::float8 AS served_at, NOT :brings AND EXISTS (
                SELECT 1 FROM job_inputs i WHERE i.job_id = h.id AND NOT EXISTS (
                    SELECT 1 FROM input_uploads u
                    WHERE u.job_id = i.job_id AND u.n = i.n AND u.account_id = :account_id)) AS left_alone
        FROM free CROSS JOIN mine CROSS JOIN LATERAL (
            SELECT id, kind, cardinality(account_ids) = 1 AS alone FROM jobs
            WHERE state = 'queued' AND kind = free.kind AND due_at <= clock_timestamp()
              AND cancel_requested_at IS NULL
              AND {may_take(BOUND, "jobs")}
              AND NOT (CAST(:account_id AS uuid) = ANY(avoid_accounts))
              AND {affords("mine.left", "price")}
            ORDER BY place, id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) h)
    SELECT id, kind, left_alone, alone,
        EXISTS (SELECT 1 FROM input_uploads u WHERE u.job_id = heads.id AND u.account_id = :account_id) AS settled
    FROM heads ORDER BY left_alone, served_at NULLS FIRST, id LIMIT 1"""
)


def pick(tx: Transaction, account: AccountRow, kinds: tuple[str, ...], *, brings: bool) -> Pick | None:
    """The job that a locked account takes next. `brings` = the caller brings references that are not with it yet."""
    values: dict[str, Any] = {
        **bound(account),
        **slot_limits(),
        "kinds": list(kinds),
        "slots": [account.slots[kind] for kind in kinds],
        "brings": brings,
    }
    row = tx.first(_PICK, values)
    return Pick(**row._mapping) if row is not None else None  # noqa: SLF001
