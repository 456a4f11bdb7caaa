"""Lines of the queue: queued jobs that the same accounts may run.

Jobs of one line have the same kind, model, owner, account choice, named accounts, providers, currency, refusals and
price, so an account that may take one of them may take all. A question such as "which account can work now" is asked
once per line instead of once per waiting job, and no job is hidden behind jobs that nobody can run.
`ix_jobs_queue_lines` leads from line to line without reading the jobs in between.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text

from worker.db.engine import Transaction

# SQL: two values of a SELECT, with the effect that later statements of the transaction read the queue in the order of
# its index and stop early. With a LIMIT that is no constant, the planner expects to need a tenth of the queue, and
# sorts all of it.
USE_QUEUE_ORDER = "set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true)"
_USE = text(f"SELECT {USE_QUEUE_ORDER}")
_USE_ANY_ORDER = text("SELECT set_config('enable_sort', 'on', true), set_config('enable_bitmapscan', 'on', true)")

# The expression of `ix_jobs_queue_lines` (`worker/db/schema/jobs.py`): equal for jobs of the same line.
LINE = (
    "hash_record_extended(ROW(owner, user_id, account_choice, account_ids, avoid_accounts, price, providers, "
    "currency, model), 0::bigint)"
)
# What is equal within a line, and what a question about its first job needs.
_COLUMNS = (
    "id, owner, user_id, account_choice, account_ids, avoid_accounts, price, providers, currency, model, "
    "place, priority"
)
_FIRST = f"SELECT {LINE} AS line, {_COLUMNS} FROM jobs WHERE state = 'queued' AND kind"
_ORDER = f"ORDER BY {LINE}, place, id LIMIT 1"


def line_heads(name: str, kinds: str) -> str:
    """SQL: a CTE with the first job of each line, for `WITH RECURSIVE`: `line`, `kind` and columns of that job.

    `kinds` is an array expression.
    """
    return f"""{name} AS (
        SELECT k.kind, h.* FROM unnest({kinds}) AS k(kind) CROSS JOIN LATERAL ({_FIRST} = k.kind {_ORDER}) h
        UNION ALL
        SELECT p.kind, h.* FROM {name} p CROSS JOIN LATERAL ({_FIRST} = p.kind AND {LINE} > p.line {_ORDER}) h)"""


@contextmanager
def queue_order(tx: Transaction) -> Iterator[None]:
    """Read the queue in the order of its index in the statements of this block."""
    tx.run(_USE)
    yield
    tx.run(_USE_ANY_ORDER)


def in_line(head: str) -> str:
    """SQL: whether a row of `jobs`, without an alias, waits in the line of `head`, a row of `line_heads`.

    Order by `place, id` to read the line through its index.
    """
    return f"state = 'queued' AND kind = {head}.kind AND {LINE} = {head}.line"
