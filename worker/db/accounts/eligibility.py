"""Eligibility: which jobs may run on which account, and when an account is available. SQL fragments for selection.

`account` and `job` are table aliases in the surrounding statement. `BOUND` stands for the account that `bound` binds.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from worker.db.accounts.available_credits import covers, credits_left
from worker.db.accounts.concurrency import free_slots

BOUND = ":account"
# Account choice of a request: the user's own accounts first, only those, or only the platform's.
CHOICES = ("any", "own", "pool")
# An own account whose pace allows a submit within this time counts as free, so no platform account takes the job.
_OWN_PACE_SECONDS = 10

_BOUND_AS = {
    "id": "CAST(:account_id AS uuid)",
    "pool": "CAST(:pool AS boolean)",
    "user_id": "CAST(:account_user AS uuid)",
    "groups": "CAST(:account_groups AS text[])",
    "provider": "CAST(:account_provider AS text)",
    "currency": "CAST(:account_currency AS text)",
    "model_rests": "CAST(:account_model_rests AS jsonb)",
}
# SQL: the needs of a job that is only asked for in general (see `Needs`).
NO_NEEDS = "CAST(NULL AS text[]) AS providers, CAST(NULL AS text) AS currency, CAST(NULL AS text) AS model"
# SQL: the needs of a job without a row, of the bind values of `Needs`.
NEEDS = "CAST(:providers AS text[]) AS providers, CAST(:currency AS text) AS currency, CAST(:model AS text) AS model"
# `until` of a model that rests until an operator looks, as JSON and as SQL.
CLOSED = "Infinity"


@dataclass(frozen=True, slots=True)
class Needs:
    """What a job without a row needs of an account: its providers and currency, and its model. None = anything."""

    providers: Sequence[str] | None = None
    currency: str | None = None
    model: str | None = None

    def values(self) -> dict[str, Any]:
        """Return the bind values of `NEEDS`."""
        providers = None if self.providers is None else list(self.providers)
        return {"providers": providers, "currency": self.currency, "model": self.model}


ANY_NEEDS = Needs()


def bound(account: Any) -> dict[str, Any]:
    """Return the bind values of `BOUND` for an `AccountRow`."""
    return {
        "account_id": account.id,
        "pool": account.pool,
        "account_user": account.user_id,
        "account_groups": list(account.groups),
        "account_provider": account.provider,
        "account_currency": account.currency,
        "account_model_rests": json.dumps(account.model_rests),
    }


def may_use(account: str, job: str) -> str:
    """SQL: whether the account may run the job.

    A job with session ids runs on exactly those accounts. A job of a user runs, according to its `account_choice`, on
    the user's own accounts and on platform accounts that are open to all or to one of the user's groups. `account_ids`
    can only narrow this, so naming another user's account gives no access to it. The account must be of one of the
    job's providers, in its currency, and the job's model must not be closed on it.
    """
    of = _of(account)
    named = f"{of['id']} = ANY({job}.account_ids)"
    return f"""(({job}.providers IS NULL OR {of["provider"]} = ANY({job}.providers))
        AND ({job}.currency IS NULL OR {job}.currency = {of["currency"]})
        AND ({of["model_rests"]} = '{{}}' OR {_rest_end(of["model_rests"], job)} IS DISTINCT FROM '{CLOSED}')
        AND CASE WHEN {job}.user_id IS NULL AND {job}.account_ids <> '{{}}' THEN {named}
        ELSE ({job}.account_ids = '{{}}' OR {named}) AND CASE
            WHEN {of["user_id"]} IS NOT NULL
                THEN {of["user_id"]} = {job}.user_id AND {job}.account_choice <> 'pool'
            ELSE {of["pool"]} AND {job}.account_choice <> 'own' AND ({of["groups"]} = '{{}}' OR EXISTS (
                SELECT 1 FROM users g WHERE g.id = {job}.user_id AND g.groups && {of["groups"]})) END END)"""


def _of(account: str) -> dict[str, str]:
    return _BOUND_AS if account == BOUND else {name: f"{account}.{name}" for name in _BOUND_AS}


def _rest_end(model_rests: str, job: str) -> str:
    return f"({model_rests} #>> ARRAY[{job}.model, 'until'])"


def model_works(account: str, job: str) -> str:
    """SQL: whether the job's model does not rest on the account now."""
    rests = _of(account)["model_rests"]
    return f"""({rests} = '{{}}'
        OR coalesce(CAST({_rest_end(rests, job)} AS float8) <= extract(epoch FROM clock_timestamp()), true))"""


def names_one_of(named: str, ids: str) -> str:
    """SQL: whether the accounts that a job names (the column `account_ids`) include one of these.

    Each change of a job writes its entries of all indexes again. That of a GIN index takes a kilobyte, so the many jobs
    that name one account have a tree instead.
    """
    return (
        f"""(cardinality({named}) = 1 AND {named}[1] = ANY({ids}) OR cardinality({named}) > 1 AND {named} && {ids})"""
    )


def candidates(job: str) -> str:
    """SQL for FROM: the accounts, as `a`, that the job may run on.

    Each branch uses an index; one combined condition would read every account for every job.
    """
    return f"""LATERAL (SELECT a.* FROM (
        SELECT * FROM accounts WHERE id = ANY({job}.account_ids)
        UNION ALL SELECT * FROM accounts WHERE {job}.account_ids = '{{}}' AND pool
        UNION ALL SELECT * FROM accounts WHERE {job}.account_ids = '{{}}' AND user_id = {job}.user_id) a
        WHERE {may_use("a", job)}) a"""


def may_take(account: str, job: str) -> str:
    """SQL: whether the account may run the job now. A platform account yields to a free own account that can pay.

    Needs the bind values of `concurrency.slot_limits()`.
    """
    own = f"""SELECT 1 FROM accounts o WHERE o.user_id = {job}.user_id AND {works("o")} AND {model_works("o", job)}
        AND o.provider = ANY({job}.providers) AND ({job}.currency IS NULL OR {job}.currency = o.currency)
        AND o.next_submit_at <= clock_timestamp() + interval '{_OWN_PACE_SECONDS} seconds'
        AND NOT (o.id = ANY({job}.avoid_accounts)) AND ({job}.account_ids = '{{}}' OR o.id = ANY({job}.account_ids))
        AND {free_slots("o", f"{job}.kind")} > 0 AND {covers(credits_left("o"), f"{job}.price")}"""
    owner = _BOUND_AS["user_id"] if account == BOUND else f"{account}.user_id"
    return f"""({may_use(account, job)} AND {model_works(account, job)}
        AND ({owner} IS NOT NULL OR {job}.user_id IS NULL OR {job}.account_choice <> 'any' OR NOT EXISTS ({own})))"""


def works(account: str) -> str:
    """SQL: whether the account is available: state ok, no cooldown, within its working hours and its daily cap."""
    return f"""({account}.state = 'ok' AND ({account}.rest_until IS NULL OR {account}.rest_until <= clock_timestamp())
        AND {is_open(account)} AND {under_cap(account)})"""


def ready(account: str) -> str:
    """SQL: whether the account is available and its pace allows a submit now."""
    return f"({account}.next_submit_at <= clock_timestamp() AND {works(account)})"


def is_open(account: str, at: str = "clock_timestamp()") -> str:
    """SQL: whether the moment is within the account's working hours.

    These are wall-clock hours in a named time zone, so the database handles daylight saving time. Hours that end no
    later than they start continue past midnight and belong to the day on which they started.
    """
    return f"""({account}.hours_zone IS NULL OR (
        SELECT CASE WHEN {account}.hours_from < {account}.hours_to
            THEN extract(isodow FROM l.at)::int = ANY({account}.hours_days)
                 AND l.at::time >= {account}.hours_from AND l.at::time < {account}.hours_to
            ELSE (extract(isodow FROM l.at)::int = ANY({account}.hours_days) AND l.at::time >= {account}.hours_from)
                 OR (extract(isodow FROM l.at - interval '1 day')::int = ANY({account}.hours_days)
                     AND l.at::time < {account}.hours_to) END
        FROM (SELECT {at} AT TIME ZONE {account}.hours_zone AS at) l))"""


def opens_at(account: str, at: str = "clock_timestamp()") -> str:
    """SQL: the next start of the account's working hours after the moment; NULL without working hours."""
    return f"""(SELECT min(d.begins) FROM (
        SELECT (l.today + make_interval(days => n) + {account}.hours_from) AT TIME ZONE {account}.hours_zone AS begins,
            extract(isodow FROM l.today + make_interval(days => n))::int AS day
        FROM (SELECT date_trunc('day', {at} AT TIME ZONE {account}.hours_zone) AS today) l
            CROSS JOIN generate_series(0, 8) n) d
        WHERE d.day = ANY({account}.hours_days) AND d.begins > {at})"""


def jobs_today(account: str) -> str:
    """SQL: jobs of the account that upstream accepted today, plus those being submitted.

    The day is in the time zone of the working hours, or UTC.
    """
    return f"""((SELECT count(*) FROM jobs d
            WHERE d.account_id = {account}.id AND d.submitted_at >= {day_began(account)})
        + (SELECT count(*) FROM jobs d
           WHERE d.account_id = {account}.id AND d.holds_slot AND d.state = 'submitting'))"""


def day_began(account: str) -> str:
    """SQL: midnight of the account's day. Uses `now()`, which is constant in a statement, so an index can be used."""
    zone = f"coalesce({account}.hours_zone, 'UTC')"
    return f"(date_trunc('day', now() AT TIME ZONE {zone}) AT TIME ZONE {zone})"


def under_cap(account: str) -> str:
    """SQL: whether the account is below its daily cap."""
    return f"({account}.max_jobs_per_day IS NULL OR {jobs_today(account)} < {account}.max_jobs_per_day)"


def free_at(account: str) -> str:
    """SQL: when cooldown, working hours and daily cap allow the next job; a past time = now."""
    return f"""greatest({account}.rest_until, CASE WHEN NOT {is_open(account)} THEN {opens_at(account)} END,
        CASE WHEN NOT {under_cap(account)} THEN {day_began(account)} + interval '1 day' END)"""
