"""May these jobs be accepted? The limits of a user and a key, judged inside the accepting transaction."""

import math
from datetime import UTC, datetime
from uuid import UUID

from api.auth.dependencies import Caller
from api.http.cors_and_compression import utc_text
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.observability.logging import get_logger
from worker.core.quotas import OPEN_JOBS, REQUESTS
from worker.core.settings import get_settings
from worker.db.engine import Transaction
from worker.db.jobs import queries
from worker.db.users import audit_log, quotas
from worker.db.users.audit_log import Actor
from worker.db.users.quotas import Used

log = get_logger("budgets")

# How soon a place among the open jobs may be free.
_OPEN_RETRY_SECONDS = 30
# SDKs repeat a refused request within a minute or two: beyond that they are told not to.
_WORTH_REPEATING_SECONDS = 120
_SUBJECTS = {"user": "of your user", "key": "of this API key"}


class Budget:
    """The budget that new jobs of a caller use. All of a request is admitted, or nothing.

    Made before the rows are written, for then a refusal costs no write; `take` is called when they are.
    """

    def __init__(self, tx: Transaction, caller: Caller, *, new_jobs: int) -> None:
        """Raises `queue_full` or `budget_exceeded` when the number of jobs alone is too much, or no credit is left."""
        self._tx, self._caller, self._new_jobs = tx, caller, new_jobs
        self._before: list[Used] = []
        limits = [limit for limit in caller.limits if limit.name != REQUESTS]
        if OPEN_JOBS not in caller.user_limits.hard:
            _check_open_jobs(tx, caller, new_jobs)
        if not limits:
            return  # the usual case: no lock, no count
        quotas.lock_owner(tx, caller.owner)
        self._before = quotas.used(tx, caller.subject, limits)
        for one in self._before:
            self._check(one, adds=0 if one.limit.counts_credits else new_jobs)

    def take(self, job_ids: list[UUID]) -> tuple[Used, ...]:
        """The jobs have rows, with what they are expected to cost. What is used now of limits that warn.

        Raises `budget_exceeded` when they may cost more than is left, or nobody knows what and nothing is left.
        """
        cost, known = 0, True
        if any(one.limit.counts_credits for one in self._before):
            cost, known = quotas.expected_credits(self._tx, job_ids)
        after = []
        for one in self._before:
            adds = cost if one.limit.counts_credits else self._new_jobs
            if one.limit.counts_credits:
                # What nobody can tell the price of needs at least something left.
                self._check(one, adds=adds, least=adds if known else max(adds, 1))
            after.append(Used(one.limit, one.used + adds, one.period, one.resets_at))
        warned = tuple(one for one in after if one.limit.soft is not None and one.used >= one.limit.soft)
        for one in warned:
            self._note(one)
        return warned

    def _check(self, one: Used, *, adds: int, least: int = 0) -> None:
        if not _exceeds(one, max(adds, least)):
            return
        log.info("budget_refused", owner=self._caller.owner, limit=one.limit.full_name, used=one.used, asked=adds)
        raise _refusal(one, adds)

    def _note(self, one: Used) -> None:
        """Tell the operator once per period. Callers with session ids would fill the log: anybody can be many."""
        caller = self._caller
        if caller.user_id is None or not quotas.note_warning(self._tx, caller.subject, one):
            return
        whose = public_id("user", caller.user_id)
        if one.limit.scope == "key" and caller.key_root is not None:
            whose = public_id("key", caller.key_root)
        facts = {"limit": one.limit.name, "used": one.used, "soft": one.limit.soft, "hard": one.limit.hard}
        platform = Actor(name="platform", user_id=None, address="")
        audit_log.note_act(self._tx, platform, "budget.warn", whose, user=caller.name, **facts)
        self._tx.on_commit(lambda: log.warning("budget_warning", target=whose, user=caller.name, **facts))


def refusals(tx: Transaction, caller: Caller, credits_each: list[int | None]) -> list[DreameryError]:
    """What new jobs would be refused with now, given what each is expected to cost (None = not known). Takes no lock
    and tells nobody.
    """
    found = []
    if OPEN_JOBS not in caller.user_limits.hard:
        try:
            _check_open_jobs(tx, caller, len(credits_each))
        except DreameryError as refusal:
            found.append(refusal)
    cost, known = sum(one or 0 for one in credits_each), None not in credits_each
    limits = [limit for limit in caller.limits if limit.name != REQUESTS]
    for one in quotas.used(tx, caller.subject, limits):
        adds = cost if one.limit.counts_credits else len(credits_each)
        if _exceeds(one, adds if known else max(adds, 1)):
            found.append(_refusal(one, adds))
    return found


def _exceeds(one: Used, adds: int) -> bool:
    return one.limit.hard is not None and one.used + adds > one.limit.hard


def _check_open_jobs(tx: Transaction, caller: Caller, new_jobs: int) -> None:
    """The platform's guard against a flood. Without a lock, so some more may slip in at the same moment."""
    most = get_settings().open_jobs_per_caller
    if queries.open_job_count(tx, caller.owner) + new_jobs > most:
        raise DreameryError("queue_full", retry_after=_OPEN_RETRY_SECONDS)


def _refusal(one: Used, adds: int) -> DreameryError:
    limit, reset = one.limit, utc_text(one.resets_at)
    asked = f"; this request needs {adds} more" if adds else ""
    message = f"The limit `{limit.name}` {_SUBJECTS[limit.scope]} is reached: {one.used} of {limit.hard} used{asked}."
    never = limit.hard is not None and adds > limit.hard
    headers = {"X-Budget-Limit": limit.full_name}
    if one.resets_at is None:
        hint = "Ask for fewer at once." if never else "Try again when some of them have ended."
        headers |= {"x-should-retry": "false"} if never else {}
        return DreameryError("queue_full", f"{message} {hint}", retry_after=_OPEN_RETRY_SECONDS, headers=headers)
    seconds = (one.resets_at - datetime.now(UTC)).total_seconds()
    headers["X-Budget-Reset"] = str(reset)
    if never or seconds > _WORTH_REPEATING_SECONDS:
        headers["x-should-retry"] = "false"
    hint = "Ask for less, wait, or ask an administrator for more."
    return DreameryError(
        "budget_exceeded", f"{message} resets_at: {reset}. {hint}", retry_after=math.ceil(seconds), headers=headers
    )
