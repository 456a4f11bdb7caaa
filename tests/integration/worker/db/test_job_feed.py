"""The queries of the feed of jobs: each viewer finds the changes of its own jobs and no others."""

from uuid import UUID

from tests.support.engine import Engine
from worker.db.engine import transaction
from worker.db.jobs.feed import find_changed_jobs
from worker.db.jobs.queries import Viewer


def test_viewer_finds_its_own_open_and_ended_jobs(engine: Engine) -> None:
    mine, theirs = engine.add_account(), engine.add_account()
    ended, other_ended = engine.add_succeeded_job(mine), engine.add_succeeded_job(theirs)
    waiting, other_waiting = engine.add_job(mine), engine.add_job(theirs)

    def changed(account: UUID, *, since: float | None, limit: int = 2) -> tuple[set[UUID], bool]:
        with transaction() as tx:
            found = find_changed_jobs(tx, Viewer(account_ids=[account]), since=since, limit=limit)
        return set(found.versions), found.has_more

    assert changed(mine, since=0.0) == ({ended, waiting}, False), "jobs of others do not count towards the limit"
    assert changed(theirs, since=0.0) == ({other_ended, other_waiting}, False)
    assert changed(mine, since=None) == ({waiting}, False)
    assert changed(mine, since=0.0, limit=1) == ({waiting}, True)
