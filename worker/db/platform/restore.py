"""Open jobs of a database that was restored from a backup: what may go on, and what must not be paid twice.

Between the backup and the loss the platform went on. A job that was queued may have been submitted and paid since,
under a key that nobody knows any more; so it ends, with a code that says so. One that was being submitted is asked for
by its key, which the backup has, but never sent again. What upstream had is polled and saved as ever: it is paid.
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

# The time between backup and restore counts for nobody.
_GIVE_TIME = text(
    f"""UPDATE jobs SET nudged_at = NULL,
           deadline_at = deadline_at + (clock_timestamp() - CAST(:made_at AS timestamptz)),
           due_at = clock_timestamp()
               + make_interval(secs => CASE state WHEN 'submitting' THEN :lost_after ELSE 0 END)
       WHERE state IN {sql_list(OPEN)}"""
)
_NEVER_AGAIN = text("UPDATE jobs SET max_attempts = attempt WHERE state = 'submitting' RETURNING id")
_QUEUED = text("SELECT id FROM jobs WHERE state = 'queued' ORDER BY id LIMIT :limit")
_ASK_SOON = text(
    """UPDATE accounts SET poll_due_at = clock_timestamp()
       WHERE id IN (SELECT account_id FROM jobs WHERE holds_slot AND kind <> 'chat')"""
)
_COUNT = text("SELECT state, count(*) AS n FROM jobs WHERE finished_at IS NULL GROUP BY state")


def recover_open_jobs(tx: Transaction, *, made_at: datetime, resume_open: bool) -> dict[str, int]:
    """Make a restored database fit to be run; how many jobs were ended (`interrupted`), and are open, by state.

    `resume_open`: nothing ran since the backup, so what was queued then may run.
    """
    settings = get_settings()
    lost_after = settings.lease_seconds + settings.unclear_grace_seconds
    tx.run(_GIVE_TIME, {"made_at": made_at, "lost_after": lost_after})
    interrupted = 0
    if not resume_open:
        tx.all(_NEVER_AGAIN)
        interrupted = _end_queued(tx)
    tx.run(_ASK_SOON)
    # It is another platform now, to storage too, and begins without what the old one was told.
    tx.run(text("DELETE FROM platform_state"))
    platform_state.get_installation_id(tx)
    return {"interrupted": interrupted, **{row.state: row.n for row in tx.all(_COUNT)}}


def _end_queued(tx: Transaction) -> int:
    ended = 0
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
        ended += len(page)
    return ended
