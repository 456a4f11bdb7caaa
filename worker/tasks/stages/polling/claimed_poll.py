"""Claims polls of accounts, those of several accounts together, and computes when each is polled next. Part of poll."""

from collections.abc import Collection
from dataclasses import dataclass, field
from uuid import UUID

from worker.core.job_state import JobState
from worker.core.polling import OpenJob as JobInFlight
from worker.core.polling import PollingPolicy, duration_to_learn, next_poll
from worker.core.settings import get_settings
from worker.db.accounts import polling
from worker.db.accounts.accounts import AccountRow
from worker.db.accounts.polling import OpenJob, PollClaim
from worker.db.engine import Transaction, retry_when_database_unavailable, transaction
from worker.db.jobs import durations
from worker.providers.registry import poll_rules


@dataclass(slots=True)
class ClaimedPoll:
    """A claimed poll with all open jobs of its account, and the durations of similar jobs."""

    claim: PollClaim
    jobs: list[OpenJob]
    durations: dict[UUID, tuple[float, ...] | None]
    lost: list[OpenJob] = field(default_factory=list)  # those that upstream has to be searched for
    look_in: float | None = None  # seconds to the next search

    @property
    def account(self) -> AccountRow:
        """The account."""
        return self.claim.account

    def duration_of(self, job: OpenJob) -> float | None:
        """Return how long a job took whose end this poll has found."""
        return None if job.age is None else duration_to_learn(job.age, self.claim.since_last)

    def next_in(self, left: set[UUID]) -> float | None:
        """Return the seconds to the next poll, without the jobs that left the account; None without open jobs."""
        known = self._next_poll(left)
        return min((one for one in (known, self.look_in) if one is not None), default=None)

    def _next_poll(self, left: set[UUID]) -> float | None:
        settings, claim = get_settings(), self.claim
        sparse = poll_rules(self.account).sparse
        policy = PollingPolicy(
            floor=claim.floor or settings.poll_min_seconds,
            ceiling=claim.ceiling or settings.poll_max_seconds,
            eagerness=claim.eagerness or settings.poll_eagerness,
        )
        in_flight = [JobInFlight(job.age or 0.0, self.durations[job.id], job.kind) for job in self.jobs]
        kept = [one for job, one in zip(self.jobs, in_flight, strict=True) if job.id not in left]
        return next_poll(kept, policy) if sparse is None else sparse.next_poll(kept)


@retry_when_database_unavailable
def claim_polls(account_ids: list[UUID]) -> list[ClaimedPoll | None]:
    """Claim the polls of these accounts. Return for each the poll, or None if it is not due."""
    with transaction(plan_once=True) as tx:
        polls = claim_due_polls(tx, account_ids)
    # An account that is named twice was claimed once.
    return [polls.pop(account_id, None) for account_id in account_ids]


def claim_due_polls(tx: Transaction, account_ids: Collection[UUID]) -> dict[UUID, ClaimedPoll]:
    """Claim those polls of these accounts that are due."""
    claims = polling.claim_polls(tx, set(account_ids))
    rules = {account_id: poll_rules(claim.account) for account_id, claim in claims.items()}
    detailed = {account_id for account_id, one in rules.items() if one.needs_orders}
    jobs = polling.open_jobs(tx, claims, detailed=detailed)
    if idle := [account_id for account_id in claims if not jobs[account_id]]:
        polling.end_polls(tx, dict.fromkeys(idle))
    return {
        account_id: _claimed(tx, claim, jobs[account_id], searches=bool(rules[account_id].look_up_after))
        for account_id, claim in claims.items()
    }


def _claimed(tx: Transaction, claim: PollClaim, jobs: list[OpenJob], *, searches: bool) -> ClaimedPoll:
    lost = [job for job in jobs if searches and job.state == JobState.SUBMITTING]
    known = [job for job in jobs if not (searches and job.state == JobState.SUBMITTING)]
    return ClaimedPoll(claim, known, {job.id: _known_durations(tx, job) for job in known}, lost)


def _known_durations(tx: Transaction, job: OpenJob) -> tuple[float, ...] | None:
    stats = durations.find_by_size(tx, job.kind, job.model, job.size)
    return stats.generation if stats else None
