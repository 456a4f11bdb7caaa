"""Tests of scheduling that must hold for the accounts of each provider: `pytest.mark.usefixtures("each_provider")`."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.support import factories
from worker.db.engine import Transaction
from worker.db.jobs.state_machine import NewJob

_MODELS = {"image": "seedream-5.0-flash", "video": "seedance-2.0-mini"}


@pytest.fixture(params=["dreamina", "ark"])
def each_provider(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the rows of the test be of one provider after the other."""
    name = str(request.param)
    if name == "ark":
        monkeypatch.setattr(factories, "make_account", _account_of(factories.make_account))
        monkeypatch.setattr(factories, "new_job", _job_of(factories.new_job))
    return name


def _account_of(make: Any) -> Any:
    def make_account(tx: Transaction, **changes: Any) -> UUID:
        account: UUID = make(tx, **changes)
        tx.run(text("UPDATE accounts SET provider = 'ark', currency = 'USD' WHERE id = :id"), {"id": account})
        return account

    return make_account


def _job_of(make: Any) -> Any:
    def new_job(account_ids: list[UUID], **changes: Any) -> NewJob:
        model = _MODELS.get(changes.get("kind", "image"))
        own = {"providers": ["ark"], "currency": "USD"} | ({"model": model} if model else {})
        job: NewJob = make(account_ids, **{**own, **changes})
        return job

    return new_job
