"""The database of single results: pages of a rare filter, pins against the retention, and crashes of deletions."""

from uuid import UUID

import pytest

from tests.support.engine import Engine
from worker import storage
from worker.db.engine import transaction
from worker.db.jobs import retention
from worker.db.jobs.queries import Viewer
from worker.db.jobs.results import listing, marks
from worker.db.jobs.results.listing import Position, ResultFilter, ResultPage
from worker.tasks.stages.files import expire_results


def page(account: UUID, filters: ResultFilter, after: Position | None = None) -> ResultPage:
    viewer = Viewer(account_ids=[account])
    with transaction() as tx:
        return listing.list_results(tx, viewer, filters, after=after, limit=10, newest_first=True)


def test_rare_filter_continues_after_its_window(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    account = engine.add_account()
    oldest, *others = (engine.add_succeeded_job(account) for _ in range(5))
    engine.sql("UPDATE files SET width = 2 * height WHERE job_id = :id", id=oldest)
    monkeypatch.setattr(listing, "WINDOW", 2)
    rare, pages, after = ResultFilter(shape="landscape"), [], None
    while not pages or after is not None:
        found = page(account, rare, after)
        pages.append([row.job_id for row in found.rows])
        after = found.next
    assert pages == [[], [], [oldest]]
    monkeypatch.undo()
    assert [row.job_id for row in page(account, ResultFilter()).rows] == [*reversed(others), oldest]


def mark(engine: Engine, account: UUID, action: str, *files: UUID) -> None:
    with transaction() as tx:
        rows = marks.lock_results(tx, Viewer(account_ids=[account]), files)
        if action == "delete":
            marks.delete_results(tx, rows)
        else:
            marks.pin_results(tx, rows, pinned=action == "pin")


def expire(engine: Engine) -> None:
    with transaction() as tx:
        retention.expire_files(tx, retention.Retention(None, 1), after=UUID(int=0), limit=10)
    expire_results.delete_expired_files()


def live(engine: Engine, job: UUID) -> list[int]:
    return [row.n for row in engine.files(job) if row.removed_at is None]


def test_retention_keeps_pinned_results_of_a_job(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_succeeded_job(account, count=3)
    first, second, third = (row.id for row in engine.files(job))
    engine.sql(
        "UPDATE jobs SET finished_at = finished_at - interval '3 days', created_at = created_at - interval '3 days'"
    )
    mark(engine, account, "pin", first, second)
    expire(engine)
    assert live(engine, job) == [0, 1]
    mark(engine, account, "unpin", first)
    expire(engine)
    assert live(engine, job) == [1]
    # A pin of the whole job also holds for what was unpinned by itself.
    mark(engine, account, "unpin", second)
    with transaction() as tx:
        assert not retention.pin_job(tx, job), "the other results are removed"
    expire(engine)
    assert live(engine, job) == [1]
    assert third not in {row.id for row in engine.files(job) if row.erased_at is None}


def test_cleanup_erases_what_a_crash_left_of_a_deletion(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_succeeded_job(account, count=2)
    [kept, gone] = engine.files(job)
    mark(engine, account, "delete", gone.id)
    assert storage.read_file(gone.key), "the process died before it deleted the bytes"
    assert [row.id for row in page(account, ResultFilter()).rows] == [kept.id]
    expire_results.delete_expired_files()
    with pytest.raises(storage.MissingFileError):
        storage.read_file(gone.key)
    assert storage.read_file(kept.key)
    assert live(engine, job) == [kept.n]
