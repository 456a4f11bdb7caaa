"""Settles jobs that run for money by the final records of their upstream, and stops what has become too expensive.

Used by submit and poll.
"""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from worker.core.catalog.models import get_catalog
from worker.core.catalog.money import find_cost
from worker.core.catalog.pricing import find_pricing
from worker.core.errors import DreameryError
from worker.db.credits import money
from worker.db.credits.money import Reported
from worker.db.engine import Transaction
from worker.db.jobs.claims import Claim
from worker.providers.base import Record, RecordState


class Attempt(Protocol):
    """An attempt of a job: a claim, or an open job of a poll."""

    @property
    def id(self) -> UUID:
        """The id of the job."""

    @property
    def attempt(self) -> int:
        """The number of the attempt."""


def settle(tx: Transaction, currency: str | None, ended: Sequence[tuple[Attempt, Record | None]]) -> None:
    """Settle what upstream has ended, after the changes of state. `currency` = of the account; None = not for money."""
    if currency is None:
        return
    found = [_reported(job, record) for job, record in ended if record is not None]
    money.settle_reported(tx, [one for one in found if one is not None])


def settle_free(tx: Transaction, currency: str | None, job: Attempt) -> None:
    """Settle an attempt that upstream has certainly not charged: cancelled while it was queued, or refused."""
    if currency is not None:
        money.settle_reported(tx, [Reported(job.id, job.attempt, credits=0)])


def check_limit(claim: Claim) -> None:
    """Raises `max_cost_exceeded` if a job may cost more on this account than its request allows."""
    limit, account = claim.params.get("max_cost"), claim.account
    if limit is None or account.currency is None:
        return
    pricing = find_pricing(get_catalog(), claim.kind, claim.model)
    found = pricing and find_cost(pricing, claim.params, account.currency, account.prices)
    if not found or found[1] > limit:
        raise DreameryError("max_cost_exceeded", detail=f"{found[1] if found else 'unknown'} above {limit} thousandths")


def _reported(job: Attempt, record: Record) -> Reported | None:
    """Return what a record says about the cost; None = nothing yet. Upstream charges nothing for a failure."""
    if record.state is RecordState.FAILED:
        return Reported(job.id, job.attempt, credits=record.charged or 0)
    if record.state is RecordState.DONE:
        return Reported(job.id, job.attempt, record.usage, record.charged)
    return None
