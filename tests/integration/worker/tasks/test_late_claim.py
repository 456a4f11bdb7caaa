"""A worker that stood still between its claim and the call (a frozen container) must not order what others took over."""

import time
from dataclasses import replace

import pytest

from tests.support.engine import Engine
from worker.db.engine import transaction
from worker.db.jobs import state_machine
from worker.providers.base import NotSentError
from worker.tasks import submit as submit_step


def test_i4_a_claim_is_ordered_only_while_the_call_ends_before_the_lease(engine: Engine) -> None:
    account = engine.add_account()
    engine.add_job(account)
    with transaction() as tx:
        claim = state_machine.claim_next(tx, account_id=account)
    assert claim is not None
    with pytest.raises(NotSentError):
        submit_step._order(replace(claim, until=time.monotonic() + 1))
    assert engine.submits() == []
    submit_step._order(claim)
    assert len(engine.submits()) == 1
