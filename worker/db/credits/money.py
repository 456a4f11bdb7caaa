"""Jobs that run for money: the unit prices of their submission, and what they cost.

A job holds its price, the most that it may cost, from its acceptance on. Upstream reports at its end what it measured;
that settles the job at the unit prices of its submission. Nothing is charged for what upstream has refused, cancelled
or failed. A cost that stays unknown counts as the price, and is booked as spent after a week.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.catalog.models import get_catalog
from worker.core.catalog.money import Rates, charge_of, find_cost
from worker.core.catalog.pricing import find_pricing
from worker.db.accounts.accounts import AccountRow
from worker.db.column_values import clamp
from worker.db.engine import Transaction

UNKNOWN_DAYS = 7

# A new attempt owes nothing of an earlier one: upstream has not charged that, or `charge_doubt` says that it may have.
_KEEP_RATES = text(
    """/* keep_rates */
    UPDATE jobs SET rates = c.rates, price = coalesce(c.price, jobs.price), charged = NULL, settled_at = NULL
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS c(id uuid, rates jsonb, price integer)
    WHERE jobs.id = c.id AND jobs.state = 'submitting'"""
)


def keep_rates(tx: Transaction, account: AccountRow, jobs: Sequence[Row[Any]]) -> None:
    """Keep the account's unit prices with jobs that were just claimed for it (rows with id, kind, model and params)."""
    if account.currency is None or not jobs:
        return
    catalog, rows = get_catalog(), []
    for job in jobs:
        pricing = find_pricing(catalog, job.kind, job.model)
        found = pricing and find_cost(pricing, job.params, account.currency, account.prices)
        rates, price = found or (None, None)
        rows.append({"id": str(job.id), "rates": rates.as_dict() if rates else None, "price": price})
    tx.run(_KEEP_RATES, {"rows": json.dumps(rows)})


@dataclass(frozen=True, slots=True)
class Reported:
    """What upstream said about the cost of an attempt that it has ended.

    `credits` if it named the amount itself (0 = nothing), else the `usage` that it measured.
    """

    job_id: UUID
    attempt: int
    usage: Mapping[str, Any] = field(default_factory=dict)
    credits: int | None = None


_RATES = text("SELECT id, rates FROM jobs WHERE id = ANY(:ids) AND currency IS NOT NULL AND settled_at IS NULL")
_SETTLE = text(
    """/* settle_reported */
    UPDATE jobs SET charged = c.charged, settled_at = clock_timestamp()
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS c(id uuid, attempt integer, charged integer)
    WHERE jobs.id = c.id AND jobs.attempt = c.attempt AND currency IS NOT NULL AND settled_at IS NULL"""
)


def settle_reported(tx: Transaction, reported: Sequence[Reported]) -> None:
    """Settle jobs that run for money by what upstream reported. Others, and those without a report, stay as they are.

    Call it after the state change, which counts the price where no charge is known (and which locks the account first).
    """
    if not reported:
        return
    rates = {row.id: row.rates for row in tx.all(_RATES, {"ids": [one.job_id for one in reported]})}
    rows = [
        {"id": str(one.job_id), "attempt": one.attempt, "charged": clamp(charged)}
        for one in sorted(reported, key=lambda one: one.job_id)
        if one.job_id in rates and (charged := _charge(one, rates[one.job_id])) is not None
    ]
    if rows:
        tx.run(_SETTLE, {"rows": json.dumps(rows)})


def _charge(one: Reported, rates: dict[str, Any] | None) -> int | None:
    if one.credits is not None or not rates:
        return one.credits
    return charge_of(Rates.from_dict(rates), one.usage)


_BOOK = text(
    f"""/* book_unknown */
    WITH batch AS MATERIALIZED (
        SELECT id FROM jobs WHERE currency IS NOT NULL AND finished_at IS NOT NULL AND settled_at IS NULL
            AND finished_at < now() - interval '{UNKNOWN_DAYS} days' ORDER BY finished_at LIMIT :limit
        FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE jobs SET charged = coalesce(charged, price, 0), settled_at = clock_timestamp(),
        charge_doubt = coalesce(charge_doubt, 'never_reported')
    FROM batch WHERE jobs.id = batch.id RETURNING jobs.id"""
)


def book_unknown(tx: Transaction, *, limit: int) -> int:
    """Book costs that stayed unknown for a week as spent; their `charge_doubt` stays as the mark. Return how many."""
    return len(tx.all(_BOOK, {"limit": limit}))
