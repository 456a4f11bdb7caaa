"""Applies what a refusal says about others than the job: a model, an account or a customer rests. Part of submit."""

from uuid import UUID

from worker.db.accounts import health, limit_groups
from worker.db.engine import Transaction, retry_when_database_unavailable, transaction
from worker.db.jobs import queries
from worker.db.jobs.claims import Claim
from worker.providers.refusals import RefusedError, Scope, Verdict

_GROUPS = frozenset({Scope.GROUP_PAIR, Scope.GROUP})
_PAIRS = frozenset({Scope.PAIR, Scope.GROUP_PAIR})


@retry_when_database_unavailable
def apply(claim: Claim, error: RefusedError) -> None:
    """Let rest what the refusal names, before the job goes back into the queue: nobody takes it in vain."""
    verdict = error.verdict
    if verdict.scope is Scope.JOB:
        return
    with transaction() as tx:
        group = claim.account.limit_group if verdict.scope in _GROUPS or verdict.slower else None
        locked = limit_groups.lock(tx, claim.account.id, group)
        if verdict.slower:
            limit_groups.slow_down(tx, locked, per_minute=claim.account.submits_per_minute)
        _let_rest(tx, claim, error, verdict, locked if verdict.scope in _GROUPS else [claim.account.id])


def _let_rest(tx: Transaction, claim: Claim, error: RefusedError, verdict: Verdict, accounts: list[UUID]) -> None:
    if verdict.stops:
        limit_groups.stop(tx, accounts, state=verdict.stops, code=error.code, checks_after=verdict.checks_after)
    elif verdict.scope in _PAIRS:
        limit_groups.rest_model(
            tx,
            accounts,
            claim.model,
            seconds=verdict.seconds,
            code=error.name or error.code,
            detail=error.detail or error.message,
            grows=verdict.grows,
        )
    else:
        for account_id in accounts:
            health.cool_down(tx, account_id, seconds=verdict.seconds, code=error.code)


@retry_when_database_unavailable
def count_refusals(claim: Claim, error: RefusedError) -> int:
    """Return how often accounts have refused the job with this code before."""
    with transaction() as tx:
        return queries.count_refusals(tx, claim.id, code=error.code)
