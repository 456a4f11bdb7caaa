"""Recovers open jobs after a restore from a backup, without paying for any job twice.

The platform may have run after the backup was made. A job that was queued then may have been submitted and charged
since, under an unknown submit key, so it fails with its own error code. A job that was being submitted is looked up by
its submit key from the backup, but never submitted again. Jobs already accepted upstream are polled and saved as usual.
"""

from datetime import datetime

from sqlalchemy import text

from worker.core.errors import ERRORS
from worker.core.job_state import OPEN, JobState, sql_list
from worker.core.settings import get_settings
from worker.db.engine import Transaction
from worker.db.jobs import state_machine
from worker.db.platform import state as platform_state

CODE = "interrupted_by_restore"
_PAGE = 1000

# The time between backup and restore does not count towards deadlines.
_EXTEND_DEADLINES = text(
    f"""UPDATE jobs SET nudged_at = NULL,
           deadline_at = deadline_at + (clock_timestamp() - CAST(:made_at AS timestamptz)),
           due_at = clock_timestamp()
               + make_interval(secs => CASE state WHEN 'submitting' THEN :lost_after ELSE 0 END)
       WHERE state IN {sql_list(OPEN)}"""
)
_FORBID_RESUBMIT = text("UPDATE jobs SET max_attempts = attempt WHERE state = 'submitting' RETURNING id")
_QUEUED = text("SELECT id FROM jobs WHERE state = 'queued' ORDER BY id LIMIT :limit")
_SCHEDULE_POLLS = text(
    """UPDATE accounts SET poll_due_at = clock_timestamp()
       WHERE id IN (SELECT account_id FROM jobs WHERE holds_slot AND kind <> 'chat')"""
)
_COUNT = text("SELECT state, count(*) AS n FROM jobs WHERE finished_at IS NULL GROUP BY state")


def recover_open_jobs(tx: Transaction, *, made_at: datetime, resume_open: bool) -> dict[str, int]:
    """Prepare a restored database for running. Return the number of failed jobs (`interrupted`) and open jobs by state.

    `resume_open`: the platform did not run after the backup, so queued jobs may run.
    """
    settings = get_settings()
    lost_after = settings.lease_seconds + settings.unclear_grace_seconds
    tx.run(_EXTEND_DEADLINES, {"made_at": made_at, "lost_after": lost_after})
    interrupted = 0
    if not resume_open:
        tx.all(_FORBID_RESUBMIT)
        interrupted = _fail_queued_jobs(tx)
    tx.run(_SCHEDULE_POLLS)
    # The restored database is a new installation, also for the storage, and starts without platform state.
    tx.run(text("DELETE FROM platform_state"))
    platform_state.get_installation_id(tx)
    return {"interrupted": interrupted, **{row.state: row.n for row in tx.all(_COUNT)}}


def _fail_queued_jobs(tx: Transaction) -> int:
    failed = 0
    while page := tx.all(_QUEUED, {"limit": _PAGE}):
        for row in page:
            state_machine.mark_failed(
                tx,
                job_id=row.id,
                attempt=None,
                code=CODE,
                message=ERRORS[CODE].message,
                actor="restore",
                from_states=(JobState.QUEUED,),
            )
        failed += len(page)
    return failed
