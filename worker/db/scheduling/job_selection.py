"""Selects the next queued jobs for an account: the first of each kind that has free slots. Writes nothing."""

from collections import deque
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.db.accounts.accounts import AccountRow
from worker.db.accounts.available_credits import covers, credits_left
from worker.db.accounts.concurrency import SUBMIT_KINDS, narrow_slots, slot_limits
from worker.db.accounts.eligibility import BOUND, bound, candidates, may_take, model_works, works
from worker.db.engine import Transaction

# Later than any time of the database, in epoch seconds.
_JUST_NOW = 1e12
# A conversation waits this long for an account with credits. After that, one without them takes it.
CREDITS_WAIT_SECONDS = 30
# SQL: whether an input `i` is stored and inspected, as `inputs.is_prepared` says of a row.
_IS_PREPARED = "(i.key IS NOT NULL AND (i.media = 'image' OR i.milliseconds IS NOT NULL))"


@dataclass(frozen=True, slots=True)
class Selection:
    """A queued job, locked for this transaction."""

    id: UUID
    kind: str
    price: int | None
    needs_uploads: bool  # the account lacks some of its references, and the caller cannot upload them
    has_inputs: bool  # it has references
    is_unprepared: bool  # one of them is not fetched or not inspected yet
    has_uploads: bool  # the account has some of its references
    single_account: bool  # no other account may run it
    # Jobs of the same group may run on the same accounts for the same price.
    group: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class NextJobs:
    """The next jobs for an account, in the order in which to claim them, and whether the one after them waits for
    references that the caller cannot upload.

    `complete` = after them there is no job that the account may run now.
    """

    jobs: list[Selection]
    needs_uploads: Selection | None = None
    complete: bool = False


# SQL: whether a young conversation waits for an account with credits that is busy or paced now. Upstream decides what
# the agent costs; without credits it only talks.
_WAITS_FOR_CREDITS = f"""(kind = 'chat' AND price IS NULL
    AND created_at > clock_timestamp() - interval '{CREDITS_WAIT_SECONDS} seconds'
    AND EXISTS (SELECT 1 FROM {candidates("jobs")} WHERE {works("a")} AND {model_works("a", "jobs")}
                AND NOT (a.id = ANY(jobs.avoid_accounts)) AND {credits_left("a")} > 0))"""

# Slots are counted in a separate statement after the one that locked the account: the locking statement would read a
# snapshot from before the lock and let two claims into the last slot. `clock_timestamp()`, because `now()` is when the
# transaction began, possibly before a wait for that lock.
#
# The first jobs of each kind with free slots are found in the order of its index. Jobs that the account's credits do
# not cover are skipped, so an expensive job does not block a cheap one.
_SELECT = text(
    f"""/* pick */
    WITH used AS MATERIALIZED (
        SELECT kind, count(*) AS n FROM jobs WHERE account_id = ANY(CAST(:members AS uuid[])) AND holds_slot
        GROUP BY kind),
    free AS MATERIALIZED (
        SELECT k.kind, k.most - coalesce(used.n, 0) AS n
        FROM unnest(CAST(:kinds AS text[]), CAST(:slots AS integer[])) AS k(kind, most)
        LEFT JOIN used ON used.kind = k.kind WHERE k.most > coalesce(used.n, 0)),
    own AS MATERIALIZED (SELECT turns, {credits_left("a")} AS left FROM accounts a WHERE id = :account_id)
    SELECT h.*, own.left AS credits_left, (own.turns #>> ARRAY[h.kind, 'at'])::float8 AS served_at,
        (SELECT bool_and({_IS_PREPARED}) FROM job_inputs i WHERE i.job_id = h.id) AS prepared,
        EXISTS (SELECT 1 FROM input_uploads u WHERE u.job_id = h.id AND u.account_id = :account_id) AS has_uploads,
        NOT :can_upload AND EXISTS (
            SELECT 1 FROM job_inputs i WHERE i.job_id = h.id AND NOT EXISTS (
                SELECT 1 FROM input_uploads u
                WHERE NOT :takes_files AND u.job_id = i.job_id AND u.n = i.n AND u.account_id = :account_id)
            AND NOT (:takes_files AND {_IS_PREPARED})) AS needs_uploads
    FROM free CROSS JOIN own CROSS JOIN LATERAL (
        SELECT id, kind, price, place, cardinality(account_ids) = 1 AS single_account,
            user_id, account_ids, avoid_accounts, account_choice, model FROM jobs
        WHERE state = 'queued' AND kind = free.kind AND due_at <= clock_timestamp()
          AND cancel_requested_at IS NULL
          AND {may_take(BOUND, "jobs")}
          AND NOT (CAST(:account_id AS uuid) = ANY(avoid_accounts))
          AND {covers("own.left", "price")}
          AND (own.left IS NULL OR own.left > 0 OR NOT {_WAITS_FOR_CREDITS})
          AND (CAST(:full AS text[]) = '{{}}'
               OR NOT (concat_ws(' ', model, params #>> '{{order,resolution}}') = ANY(CAST(:full AS text[]))))
        ORDER BY place, id LIMIT least(free.n, CAST(:limit AS bigint)) FOR NO KEY UPDATE SKIP LOCKED) h"""
)


_IS_ANY_QUEUED = text("SELECT EXISTS (SELECT FROM jobs WHERE state = 'queued' AND kind = ANY(:kinds)) AS found")


def is_any_queued(tx: Transaction, kinds: tuple[str, ...] = SUBMIT_KINDS) -> bool:
    """Return whether any job of these kinds is queued, on any account."""
    row = tx.first(_IS_ANY_QUEUED, {"kinds": list(kinds)})
    return row is not None and bool(row.found)


_USED_SIZES = text(
    """/* used_sizes */
    SELECT concat_ws(' ', model, params #>> '{order,resolution}') AS size, count(*) AS n FROM jobs
    WHERE account_id = ANY(CAST(:members AS uuid[])) AND holds_slot AND kind = 'video' GROUP BY size"""
)


def _find_full(tx: Transaction, members: list[UUID], narrow: dict[str, int]) -> list[str]:
    """Return those of the sizes with fewer slots that have none left."""
    rows = tx.all(_USED_SIZES, {"members": members})
    return [row.size for row in rows if row.n >= narrow.get(row.size, row.n + 1)]


def select_jobs(
    tx: Transaction,
    account: AccountRow,
    kinds: tuple[str, ...],
    *,
    can_upload: bool,
    limit: int,
    takes_files: bool = False,
) -> NextJobs:
    """Lock and return the next jobs for a locked account, at most `limit`, within its slots and its credits.

    `can_upload` = the caller uploads references that the account lacks. `takes_files` = upstream takes references
    within the order, so they need only be fetched.
    """
    values: dict[str, Any] = {
        **bound(account),
        **slot_limits(),
        "kinds": list(kinds),
        "slots": [account.slots[kind] for kind in kinds],
        "can_upload": can_upload,
        "takes_files": takes_files,
        "full": [],
        "members": list(account.members) or [account.id],
        "limit": limit,
    }
    narrow = narrow_slots(account.provider)
    if narrow and "video" in kinds:
        values["full"] = _find_full(tx, values["members"], narrow)
        # Within one claim, a second job of such a size would be over the limit.
        values["limit"] = limit = 1
    rows = tx.all(_SELECT, values)
    return _in_claim_order(rows, limit) if rows else NextJobs([], complete=True)


def _in_claim_order(rows: list[Row[Any]], limit: int) -> NextJobs:
    """Return the jobs in the order of claims that take one job at a time.

    Of the first jobs of all kinds, jobs that need no upload come first. Then the kind that the account served longest
    ago wins: positions of different kinds are not comparable, and if one kind always came first, a slow pace would
    starve the other. A job behind one that needs an upload waits for it.
    """
    lines: dict[str, deque[Row[Any]]] = {}
    for row in sorted(rows, key=lambda row: (row.place, row.id)):
        lines.setdefault(row.kind, deque()).append(row)
    served_at = {row.kind: -1.0 if row.served_at is None else float(row.served_at) for row in rows}
    left, chosen = rows[0].credits_left, list[Row[Any]]()
    while lines and len(chosen) < limit:
        heads = [line[0] for line in lines.values()]
        first = min(heads, key=lambda row: (row.needs_uploads, served_at[row.kind], row.id))
        if first.needs_uploads:
            return NextJobs([_selection(row) for row in chosen], needs_uploads=_selection(first))
        lines[first.kind].popleft()
        if not lines[first.kind]:
            del lines[first.kind]
        if left is not None and first.price is not None:
            if left < first.price:
                continue  # covered alone, but not after the jobs before it
            left -= first.price
        chosen.append(first)
        served_at[first.kind] = _JUST_NOW + len(chosen)
    return NextJobs([_selection(row) for row in chosen], complete=len(chosen) == len(rows) < limit)


def _selection(row: Row[Any]) -> Selection:
    return Selection(
        id=row.id,
        kind=row.kind,
        price=row.price,
        needs_uploads=row.needs_uploads,
        has_inputs=row.prepared is not None,
        is_unprepared=row.prepared is False,
        has_uploads=row.has_uploads,
        single_account=row.single_account,
        group=(
            row.kind,
            row.model,
            row.price,
            row.user_id,
            tuple(row.account_ids),
            tuple(row.avoid_accounts),
            row.account_choice,
        ),
    )
