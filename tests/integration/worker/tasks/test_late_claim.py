"""A worker that was paused between claim and call (frozen container) must not order a job that others took over."""

import time
from dataclasses import replace

import pytest

from tests.support.engine import Engine
from worker.core.concurrency import event_loop
from worker.db.engine import transaction
from worker.db.jobs import claims
from worker.providers.base import NotSentError
from worker.tasks import submit as submit_step


def test_i4_claim_is_ordered_only_if_the_call_ends_before_the_lease(engine: Engine) -> None:
    account = engine.add_account()
    engine.add_job(account)
    with transaction() as tx:
        claim = claims.claim_next(tx, account_id=account)
    assert claim is not None
    with pytest.raises(NotSentError):
        event_loop.run(submit_step._order(replace(claim, expires_at=time.monotonic() + 1), submit_step._Orders()))
    assert engine.submits() == []
    event_loop.run(submit_step._order(claim, submit_step._Orders()))
    assert len(engine.submits()) == 1
