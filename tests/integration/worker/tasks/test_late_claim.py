"""A worker that was paused between claim and call (frozen container) must not order a job that others took over."""

import time
from dataclasses import replace

import pytest

from tests.support.engine import Engine
from worker.core.concurrency import event_loop
from worker.db.engine import transaction
from worker.db.jobs import claims
from worker.tasks import submit as submit_step
from worker.tasks.stages.account_session import decrypt_account


def test_i4_claim_is_ordered_only_if_the_call_ends_before_the_lease(engine: Engine) -> None:
    account = engine.add_account()
    engine.add_job(account)
    with transaction() as tx:
        claim = claims.claim_next(tx, account_id=account)
    assert claim is not None
    attempts_left = engine.job_row(claim.id).max_attempts
    late = replace(claim, expires_at=time.monotonic() + 1)
    with pytest.raises(submit_step.ClaimTooOldError):
        event_loop.run(submit_step._prepare(late, decrypt_account(claim.account), []))
    event_loop.run(submit_step._submit_claimed(late, submit_step._Orders()))
    row = engine.job_row(claim.id)
    assert (engine.submits(), row.state, row.max_attempts - row.attempt) == ([], "queued", attempts_left)
    engine.submit(claim.id)
    assert len(engine.submits()) == 1
