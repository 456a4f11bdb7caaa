"""Fetches the records of an account's jobs, and keeps one that cannot be read apart from the others. Part of poll."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from worker.core.concurrency.event_loop import in_thread
from worker.core.errors import DreameryError
from worker.core.observability.faults import UnexpectedError
from worker.core.observability.logging import get_logger
from worker.db.accounts.accounts import AccountRow
from worker.db.accounts.polling import OpenJob
from worker.db.engine import transaction
from worker.providers.base import Record
from worker.tasks.stages.fail_job import record_fault

log = get_logger("poll")

Fetch = Callable[[AccountRow, list[OpenJob]], Awaitable[dict[str, Record]]]

# Calls of one poll that look for a record which cannot be read.
_MOST_CALLS = 24
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 2.0, 60.0


class KnownFaults:
    """What this process knows about jobs whose news cannot be handled, by account. Losing it costs a few calls."""

    def __init__(self) -> None:
        self._jobs: dict[UUID, set[UUID]] = {}
        self._pauses: dict[UUID, float] = {}

    def remember(self, account_id: UUID, job_ids: set[UUID]) -> None:
        """These jobs are asked for alone from now on."""
        self._jobs[account_id] = self._jobs.get(account_id, set()) | job_ids

    def of(self, account_id: UUID) -> set[UUID]:
        """Return the jobs that are asked for alone."""
        return self._jobs.get(account_id, set())

    def keep(self, account_id: UUID, open_ids: set[UUID]) -> None:
        """Forget jobs that are not open any more."""
        if kept := self.of(account_id) & open_ids:
            self._jobs[account_id] = kept
        else:
            self._jobs.pop(account_id, None)

    def next_pause(self, account_id: UUID) -> float:
        """Return the seconds to the next poll after one that could handle nothing: longer each time."""
        pause = self._pauses.get(account_id, _FIRST_PAUSE_SECONDS)
        self._pauses[account_id] = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        return pause

    def reset_pause(self, account_id: UUID) -> None:
        """A poll handled something."""
        self._pauses.pop(account_id, None)


known_faults = KnownFaults()


async def fetch_apart(
    account: AccountRow, jobs: list[OpenJob], fetch: Fetch
) -> tuple[list[OpenJob], dict[str, Record]]:
    """Return the records of the jobs. One whose record cannot be read is asked for alone, apart from the others.

    Normally that is one call. After an unexpected exception the halves are asked for, until the one job is found.
    Raises upstream's refusal if it comes first.
    """
    answered, records = list[OpenJob](), dict[str, Record]()
    alone = known_faults.of(account.id)
    groups = [[job for job in jobs if job.id not in alone], *([job] for job in jobs if job.id in alone)]
    for calls, group in enumerate(filter(None, groups)):
        try:
            found = await fetch(account, group)
            records |= {
                str(job.submit_key): found[str(job.submit_key)] for job in group if str(job.submit_key) in found
            }
        except UnexpectedError as fault:
            half = len(group) // 2
            if half and calls + len(groups) < _MOST_CALLS:
                groups += [group[:half], group[half:]]
            else:
                await in_thread(note_fault, account, group, fault)
        except DreameryError as error:
            if not answered:
                raise
            log.warning("poll_incomplete", account=account.label, code=error.code, detail=error.detail)
            break
        else:
            answered += group
    return answered, records


def note_fault(account: AccountRow, jobs: list[OpenJob], fault: UnexpectedError) -> None:
    """Record a fault in the timelines of these jobs. They stay open and are asked for again."""
    ids = [str(job.id) for job in jobs]
    log.error("record_not_settled", account=account.label, jobs=ids, detail=fault.detail, trace=fault.frames)
    known_faults.remember(account.id, {job.id for job in jobs})
    with transaction() as tx:
        record_fault(tx, [(job.id, job.attempt) for job in jobs], fault, actor="poll")
