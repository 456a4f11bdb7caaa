"""Which account runs a job if accounts belong to several providers, have a currency, or a model rests on them."""

import json
import time
from typing import Any
from uuid import UUID

import pytest

from tests.support.engine import Engine
from worker.db.accounts.eligibility import CLOSED
from worker.db.engine import transaction
from worker.db.jobs.claims import ClaimRequest, claim_batch
from worker.db.scheduling import account_scoring, due_work, unschedulable


def chosen(engine: Engine, job: UUID, account: UUID) -> dict[str, bool]:
    """Return what each question about a job and an account answers."""
    engine.make_due()
    with transaction() as tx:
        found = account_scoring.find_best_account(tx, job) == account
    with transaction() as tx:
        due = due_work.take_due_submits(tx, again_after=1.0, limit=10) == [job]
    engine.sql("UPDATE jobs SET nudged_at = NULL")
    with transaction() as tx:
        claimed = [claim.id for claim in claim_batch(tx, account, ClaimRequest()).claims] == [job]
    return {"scored": found, "due": due, "claimed": claimed}


@pytest.mark.parametrize(
    ("of_account", "of_job", "may"),
    [
        ({}, {}, True),
        ({"provider": "ark"}, {}, False),
        ({}, {"providers": ["ark"]}, False),
        ({"provider": "ark"}, {"providers": ["ark"]}, True),
        ({"provider": "ark"}, {"providers": ["dreamina", "ark"]}, True),
        ({"provider": "ark", "currency": "CNY"}, {"providers": ["ark"], "currency": "CNY"}, True),
        ({"provider": "ark", "currency": "USD"}, {"providers": ["ark"], "currency": "CNY"}, False),
        ({"provider": "ark"}, {"providers": ["ark"], "currency": "CNY"}, False),
    ],
)
def test_an_account_runs_jobs_of_its_provider_and_currency(
    engine: Engine, of_account: dict[str, Any], of_job: dict[str, Any], may: bool
) -> None:
    account = engine.add_account()
    job = engine.add_job(account)
    for table, changes in (("accounts", of_account), ("jobs", of_job)):
        for name, value in changes.items():
            engine.sql(f"UPDATE {table} SET {name} = :value", value=value)
    assert set(chosen(engine, job, account).values()) == {may}


@pytest.mark.parametrize(
    ("until", "may", "reason"),
    [
        (None, True, None),
        (-1.0, True, None),
        (30.0, False, None),
        (CLOSED, False, "no_account_available"),
    ],
)
@pytest.mark.parametrize("own_model", [True, False])
def test_a_model_rests_on_one_account_only(
    engine: Engine, until: float | str | None, may: bool, reason: str | None, own_model: bool
) -> None:
    account = engine.add_account()
    job = engine.add_job(account)
    model = engine.job_row(job).model if own_model else "another-model"
    if until is not None:
        end = until if isinstance(until, str) else time.time() + until
        engine.sql("UPDATE accounts SET model_rests = CAST(:rests AS jsonb)", rests=json.dumps({model: {"until": end}}))
    with transaction() as tx:
        assert unschedulable.unschedulable_reason(tx, job) == (reason if own_model else None)
        assert unschedulable.find_unschedulable_jobs(tx, limit=10) == ([job] if reason and own_model else [])
    assert set(chosen(engine, job, account).values()) == {may or not own_model}
