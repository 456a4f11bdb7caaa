"""Checks the limits of a user and an API key inside the accepting transaction, and the most that a request may cost.

The latter (`max_cost` of the request, its key and its user, `X-Max-Cost`) is compared with the price of the jobs before
they are accepted, so nothing was submitted when it refuses. It counts money; jobs for an upstream's own credits cost
none.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from api.auth.caller import Caller
from api.http.cors_and_compression import format_utc
from worker.core.catalog.money import CostLimit, to_amount
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.observability.logging import get_logger
from worker.core.quotas import CONCURRENT_JOBS, MAX_COST, OPEN_JOBS, REQUESTS, Limit
from worker.core.settings import get_settings
from worker.db.engine import Transaction
from worker.db.jobs import queries
from worker.db.jobs.state_machine import NewJob
from worker.db.users import audit_log, quotas
from worker.db.users.audit_log import Actor
from worker.db.users.quotas import Cost, QuotaUsage

log = get_logger("budgets")

# Retry-After of a full queue.
_QUEUE_FULL_RETRY_SECONDS = 30
# SDKs retry within a minute or two; a limit that resets later is answered with `x-should-retry: false`.
_MAX_SDK_RETRY_SECONDS = 120
_SUBJECTS = {"user": "of your user", "key": "of this API key"}


class QuotaCheck:
    """Checks the limits of a caller for new jobs. A request is accepted as a whole or not at all.

    Create it before the rows are written, so that a rejection costs no write. Call `check_cost` afterwards.
    """

    def __init__(self, tx: Transaction, caller: Caller, *, new_jobs: int, held: bool = False) -> None:
        """Raise `queue_full` or `budget_exceeded` when the number of jobs exceeds a limit or no credit is left.

        `held` = the jobs are not in the queue at once, so the platform's own limit of open jobs does not apply.
        """
        self._tx, self._caller, self._new_jobs = tx, caller, new_jobs
        self._before: list[QuotaUsage] = []
        limits = _counted_limits(caller)
        if OPEN_JOBS not in caller.user_limits.hard and not held:
            _check_open_jobs(tx, caller, new_jobs)
        if not limits:
            return  # the common case needs no lock and no count
        quotas.lock_owner(tx, caller.owner)
        self._before = quotas.get_usage(tx, caller.subject, limits)
        for one in self._before:
            self._check(one, adds=0 if one.limit.counts_cost else new_jobs)

    def check_cost(self, job_ids: list[UUID], *, requests: int = 1) -> tuple[QuotaUsage, ...]:
        """Check the expected cost of written jobs and return the usage of limits whose soft value is reached.

        Raises `budget_exceeded` when they may cost more than is left, or their price is unknown and nothing is left.
        For jobs of several `requests`, also when only some orders of these requests would be accepted.
        """
        costs: Mapping[str | None, Cost] = {}
        if any(one.limit.counts_cost for one in self._before):
            costs = quotas.expected_costs(self._tx, job_ids)
        after = []
        for one in self._before:
            adds = self._new_jobs
            if one.limit.counts_cost:
                cost = costs.get(one.limit.currency)
                if cost is None:
                    continue  # the jobs cost nothing of this kind
                adds = cost.amount
                # An unknown price needs at least one credit; of several requests, one that is left by the others.
                unknown = max(adds, 1) if requests == 1 else adds + 1
                self._check(one, adds=adds, minimum=adds if cost.known else unknown)
            after.append(QuotaUsage(one.limit, one.used + adds, one.period, one.resets_at))
        warned = tuple(one for one in after if one.limit.soft is not None and one.used >= one.limit.soft)
        for one in warned:
            self._record_warning(one)
        return warned

    def _check(self, one: QuotaUsage, *, adds: int, minimum: int = 0) -> None:
        if not _exceeds(one, max(adds, minimum)):
            return
        log.info("budget_refused", owner=self._caller.owner, limit=one.limit.full_name, used=one.used, asked=adds)
        raise _limit_error(one, adds)

    def _record_warning(self, one: QuotaUsage) -> None:
        """Warn the operator once per period. Session-id callers are skipped: their number is unlimited."""
        caller = self._caller
        if caller.user_id is None or not quotas.record_warning(self._tx, caller.subject, one):
            return
        target = public_id("user", caller.user_id)
        if one.limit.scope == "key" and caller.key_root is not None:
            target = public_id("key", caller.key_root)
        limit = one.limit
        shown = {"used": one.used, "soft": limit.soft, "hard": limit.hard}
        facts = {"limit": limit.name, **{name: limit.shown(value) for name, value in shown.items()}}
        platform = Actor(name="platform", user_id=None, address="")
        audit_log.record_action(self._tx, platform, "budget.warn", target, user=caller.name, **facts)
        self._tx.on_commit(lambda: log.warning("budget_warning", target=target, user=caller.name, **facts))


def quota_errors(
    tx: Transaction, caller: Caller, prices: list[tuple[str | None, int | None]], *, held: bool = False
) -> list[DreameryError]:
    """Return the errors that new jobs would be rejected with now. Takes no lock and records nothing.

    `prices` = the currency (None = credits) and the expected cost (None = unknown) of each.
    """
    found = []
    if OPEN_JOBS not in caller.user_limits.hard and not held:
        try:
            _check_open_jobs(tx, caller, len(prices))
        except DreameryError as error:
            found.append(error)
    for one in quotas.get_usage(tx, caller.subject, _counted_limits(caller)):
        adds, known = len(prices), True
        if one.limit.counts_cost:
            of_kind = [price for currency, price in prices if currency == one.limit.currency]
            if not of_kind:
                continue
            adds, known = sum(price or 0 for price in of_kind), None not in of_kind
        if _exceeds(one, adds if known else max(adds, 1)):
            found.append(_limit_error(one, adds))
    return found


def _counted_limits(caller: Caller) -> list[Limit]:
    return [limit for limit in caller.limits if limit.name not in {REQUESTS, MAX_COST, CONCURRENT_JOBS}]


def _exceeds(one: QuotaUsage, adds: int) -> bool:
    return one.limit.hard is not None and one.used + adds > one.limit.hard


def _check_open_jobs(tx: Transaction, caller: Caller, new_jobs: int) -> None:
    """Limit the open jobs of a caller. Without a lock, so concurrent requests may exceed the limit slightly."""
    most = get_settings().open_jobs_per_caller
    if queries.open_job_count(tx, caller.owner, at_most=most) + new_jobs > most:
        raise DreameryError("queue_full", retry_after=_QUEUE_FULL_RETRY_SECONDS)


def _limit_error(one: QuotaUsage, adds: int) -> DreameryError:
    limit = one.limit
    used, hard, needed = (
        limit.shown(one.used),
        limit.shown(limit.hard),
        f"; this request needs {limit.shown(adds)} more",
    )
    message = f"The limit '{limit.words}' {_SUBJECTS[limit.scope]} is reached: {used} of {hard} used"
    message += f"{needed}." if adds else "."
    can_never_fit = limit.hard is not None and adds > limit.hard
    headers = {"X-Budget-Limit": limit.full_name}
    if one.resets_at is None:
        hint = "Send fewer jobs at once." if can_never_fit else "Try again when some jobs have ended."
        headers |= {"x-should-retry": "false"} if can_never_fit else {}
        return DreameryError("queue_full", f"{message} {hint}", retry_after=_QUEUE_FULL_RETRY_SECONDS, headers=headers)
    seconds = (one.resets_at - datetime.now(UTC)).total_seconds()
    headers["X-Budget-Reset"] = str(format_utc(one.resets_at))
    if can_never_fit or seconds > _MAX_SDK_RETRY_SECONDS:
        headers["x-should-retry"] = "false"
    hint = "Request less, wait, or ask an administrator for a higher limit."
    moment = f"{one.resets_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return DreameryError(
        "budget_exceeded", f"{message} It resets at {moment}. {hint}", retry_after=math.ceil(seconds), headers=headers
    )


def with_cost_limit(caller: Caller, requested: CostLimit | None, jobs: Sequence[NewJob]) -> list[NewJob]:
    """Return the priced jobs of one request, each with the most that it may cost if there is a limit.

    The worker compares that again before it submits: prices and accounts may have changed. Raises `max_cost_exceeded`.
    """
    if (error := cost_error(caller, requested, jobs)) is not None:
        raise error
    limits = [limit.amount for limit, _ in _limits(caller, requested)]
    paid = [job for job in jobs if job.currency is not None and job.price is not None]
    if not paid or not limits:
        return list(jobs)
    spare = (min(limits) - sum(job.price or 0 for job in paid)) // len(paid)
    return [
        replace(job, params={**job.params, MAX_COST: job.price + spare})
        if job.currency is not None and job.price is not None
        else job
        for job in jobs
    ]


def cost_error(caller: Caller, requested: CostLimit | None, jobs: Sequence[NewJob]) -> DreameryError | None:
    """Return why these priced jobs of one request may not be accepted; None = they may."""
    paid = [job for job in jobs if job.currency is not None]
    limits = _limits(caller, requested)
    if not paid or not limits:
        return None
    currency, cost = paid[0].currency, sum(job.price or 0 for job in paid)
    known = all(job.price is not None for job in paid)
    for limit, whose in limits:
        if limit.currency is not None and limit.currency != currency:
            message = f"`max_cost` is in {limit.currency}, but the accounts of this request pay in {currency}."
            return DreameryError("max_cost_exceeded", f"{message} Name that currency, or none.", param=MAX_COST)
        if not known:
            message = f"The limit `max_cost` {whose} applies, but the price of this request is not known."
            return DreameryError(
                "max_cost_exceeded", f"{message} Leave the limit out, or use another model.", param=MAX_COST
            )
        if cost > limit.amount:
            most, needed = f"{to_amount(limit.amount)} {currency}", f"{to_amount(cost)} {currency}"
            message = f"The limit `max_cost` {whose} is {most}, and this request may cost {needed}."
            return DreameryError("max_cost_exceeded", f"{message} Request less, or raise the limit.", param=MAX_COST)
    return None


def _limits(caller: Caller, requested: CostLimit | None) -> list[tuple[CostLimit, str]]:
    own = [(one, "of this request") for one in (requested, caller.max_cost) if one is not None]
    return own + [
        (CostLimit(limit.hard), _SUBJECTS[limit.scope])
        for limit in caller.limits
        if limit.name == MAX_COST and limit.hard is not None
    ]
