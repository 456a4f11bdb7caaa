"""The operations that `make bench ARGS=--scale` measures. Each runs in a transaction that is rolled back."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from api.operations.metrics import render_metrics
from tests.bench.scale_rows import ACCOUNT, HEAVY_USER, SMALL_USER
from worker.db.accounts import polling
from worker.db.credits import settlement
from worker.db.engine import Transaction
from worker.db.jobs import claims, feed, queries, retention, state_machine
from worker.db.jobs.queries import JobFilter, Viewer
from worker.db.jobs.state_machine import NewJob
from worker.db.platform import activity
from worker.db.scheduling import due_work, fair_queue, job_selection, unschedulable
from worker.db.users import quotas, usage
from worker.db.webhooks import outbox

_ROWS = 300
_PAGE = 50
_OWNER = f"user:{HEAVY_USER}"
_HEAVY, _ADMIN = Viewer(user_id=HEAVY_USER), Viewer(all_jobs=True)


@dataclass(frozen=True)
class Operation:
    """Something that the platform does with rows. `target`: it may cost at most twice as much.

    `plan_once` = its transactions are opened so.
    """

    name: str
    run: Callable[[Transaction], object]
    target: bool = False
    plan_once: bool = False
    prepare: Callable[[Transaction], object] = lambda _: None


def _claim(tx: Transaction) -> None:
    claims.claim_next(tx, account_id=ACCOUNT)


def _accept(tx: Transaction) -> None:
    params = {"order": {"prompt": "a boat"}, "n": 1}
    job = NewJob(_OWNER, "image", "bench-model-1", params, [], user_id=HEAVY_USER, api_key_id=HEAVY_USER, price=4)
    state_machine.accept(tx, [job])


def _tick(tx: Transaction) -> None:
    queries.accounts_to_poll(tx, limit=_ROWS)
    due_work.take_due_submits(tx, again_after=1.0, limit=_ROWS)
    due_work.take_due_conversations(tx, again_after=1.0, limit=_ROWS)
    due_work.take_due_saves(tx, again_after=3.0, limit=_ROWS)


def _sweep(tx: Transaction) -> None:
    queries.overdue_jobs(tx, limit=_ROWS)
    unschedulable.find_unschedulable_jobs(tx, limit=_ROWS)
    due_work.find_lost_conversations(tx, limit=_ROWS)
    due_work.find_answered_conversations(tx, limit=_ROWS)
    due_work.schedule_missing_polls(tx)
    due_work.release_expired_slots(tx)
    outbox.due_deliveries(tx, limit=_ROWS)
    fair_queue.find_owners_to_rebase(tx, limit=_ROWS)


def _poll_due(tx: Transaction) -> None:
    tx.run(text("UPDATE accounts SET poll_due_at = now(), polled_at = NULL WHERE id = :id"), {"id": ACCOUNT})


def _poll(tx: Transaction) -> None:
    polling.claim_polls(tx, [ACCOUNT])
    polling.open_jobs(tx, [ACCOUNT])
    polling.end_polls(tx, {ACCOUNT: 1.0})
    job_selection.is_any_queued(tx)


def _list(viewer: Viewer, after: Callable[[], UUID] | None = None, **filters: Any) -> Callable[[Transaction], object]:
    def run(tx: Transaction) -> object:
        cursor = after() if after else None
        return queries.list_jobs(tx, viewer, JobFilter(**filters), after=cursor, limit=_PAGE, newest_first=True)

    return run


def _days_ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def _usage(days: int, group: str, owner: str | None = None) -> Callable[[Transaction], object]:
    def run(tx: Transaction) -> object:
        span = usage.DateRange(_days_ago(days - 1).date(), _days_ago(0).date())
        return usage.report(tx, span, usage.UsageFilter(owner=owner), [group], limit=20_000)

    return run


def _budget(tx: Transaction) -> None:
    values = {"owner": _OWNER, "key_root": None, "zone": "UTC", "monthly": True}
    tx.all(quotas._USED, values)


def _expire(tx: Transaction) -> None:
    for kept in retention.find_retentions(tx, days=0):
        after: UUID | None = UUID(int=0)
        while after is not None:
            _, after = retention.expire_files(tx, kept, after=after, limit=10_000)


def _short_retention(tx: Transaction) -> None:
    # What is past the retention loses its files here, so that the clean-ups after the first one are measured.
    tx.run(text("UPDATE users SET retention_days = 7 WHERE id = :id"), {"id": SMALL_USER})
    _expire(tx)


OPERATIONS = (
    Operation("claim the next job of an account", _claim, target=True, plan_once=True),
    Operation("accept a job of the heavy user", _accept, target=True, plan_once=True),
    Operation("tick", _tick, target=True),
    Operation("sweep", _sweep, target=True),
    Operation("poll: claim, open jobs, end", _poll, target=True, plan_once=True, prepare=_poll_due),
    Operation("jobs: first page, heavy user", _list(_HEAVY), target=True),
    Operation("jobs: first page, administrator", _list(_ADMIN), target=True),
    Operation("jobs: created before 80 days ago", _list(_HEAVY, created_before=_days_ago(80)), target=True),
    Operation("jobs: a word in one of 5,000 prompts", _list(_HEAVY, prompt="zeppelin"), target=True),
    Operation("jobs: a word in no prompt", _list(_HEAVY, prompt="xylophone"), target=True),
    Operation("jobs: a word in no prompt, administrator", _list(_ADMIN, prompt="xylophone"), target=True),
    Operation("jobs: a pair of metadata", _list(_HEAVY, metadata={"project": "p15"}), target=True),
    Operation("jobs: succeeded, heavy user", _list(_HEAVY, states=["succeeded"]), target=True),
    Operation("jobs: queued, administrator", _list(_ADMIN, states=["queued"]), target=True),
    Operation("metrics page", lambda _: render_metrics(), target=True),
    Operation("system page: queues", activity.queues),
    Operation("feed: start", lambda tx: feed.find_changed_jobs(tx, _HEAVY, since=None, limit=_ROWS)),
    Operation(
        "feed: changes of a minute", lambda tx: feed.find_changed_jobs(tx, _HEAVY, since=time.time() - 60, limit=_ROWS)
    ),
    Operation(
        "claim an account for its credit history", lambda tx: settlement.claim_account(tx, providers=["dreamina"])
    ),
    Operation("month of the heavy user for a budget", _budget),
    Operation("own usage, 90 days by day", _usage(90, "day", _OWNER)),
    Operation("usage of all, 30 days by user", _usage(30, "user")),
    Operation("usage of all, 90 days by day", _usage(90, "day")),
    Operation("retention, one user has 7 days", _expire, prepare=_short_retention),
)
