"""What jobs that do not exist yet would cost and wait for: the accounts that may run them, prices and queues."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from api.auth.caller import Caller
from api.generation.account_assignment import (
    accounts_without_model,
    choose_currency,
    find_catalog_model,
    named_accounts,
    usable_accounts,
)
from api.generation.model_availability import token_groups
from worker.core.catalog.pricing import Price
from worker.core.errors import DreameryError
from worker.core.messages.cooldown import cooldown_message
from worker.db.accounts import accounts, model_listings
from worker.db.accounts.eligibility import Needs
from worker.db.credits.learned_prices import PriceList
from worker.db.engine import Transaction
from worker.db.jobs.state_machine import NewJob
from worker.db.scheduling import fair_queue
from worker.db.scheduling.availability_estimate import Availability, JobRequirements
from worker.db.scheduling.unschedulable import LONGEST_COOLDOWN_SECONDS

PricedJob = tuple[NewJob, Price | None]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The accounts that a job may use, and the regions whose prices apply."""

    account_ids: list[UUID]  # empty without unknown sessions = the pool
    avoid: list[UUID]
    unknown_sessions: int  # session ids without a row
    places: list[str]
    currency: str | None = None


def try_find_candidates(
    tx: Transaction, job: NewJob, caller: Caller, prices: PriceList
) -> tuple[Candidates, DreameryError | None]:
    """Return the accounts that may run a job, or none and the reason."""
    try:
        return _find_candidates(tx, job, caller, prices), None
    except DreameryError as error:
        return Candidates([], [], 0, []), error


def job_requirements(
    tx: Transaction, first: NewJob, caller: Caller, candidates: Candidates, jobs: list[PricedJob]
) -> JobRequirements:
    """Return what the first of new jobs needs of accounts, with its place in the queue."""
    needs = Needs(first.providers, candidates.currency, first.model)
    request = fair_queue.QueueRequest(first.kind, candidates.account_ids, candidates.avoid, first.account_choice, needs)
    position = fair_queue.preview(tx, caller.owner, caller.user_id, request)
    return JobRequirements(
        kind=first.kind,
        price=max((price.credits for _, price in jobs if price), default=None),
        user_id=caller.user_id,
        account_choice=caller.account_choice,
        account_ids=candidates.account_ids,
        avoid=candidates.avoid,
        place=position.place,
        unknown_sessions=candidates.unknown_sessions,
        needs=needs,
    )


def _find_candidates(tx: Transaction, job: NewJob, caller: Caller, prices: PriceList) -> Candidates:
    """Return the accounts as in acceptance, without rows for unknown sessions. Raises `no_account_available`."""
    if not caller.tokens:
        usable = usable_accounts(tx, caller, [job])
        avoid = accounts_without_model(tx, job, caller, usable)
        currency = choose_currency(job, [one.group for one in usable])
        allowed = model_listings.selected_accounts(tx, caller.accounts, caller.account_groups)
        named = named_accounts(job, allowed)
        places = prices.places(named, avoid=avoid, providers=job.providers)
        return Candidates(named, avoid, 0, places, currency)
    known, model = accounts.find_tokens(tx, [digest for digest, _ in caller.tokens]), find_catalog_model(job)
    own = [(h, t) for h, t in caller.tokens if t.provider in job.providers]
    tokens = [(h, t) for h, t in own if model is None or model.is_available_in(t.region)] or own
    if job.account_ids:
        tokens = [(h, t) for h, t in tokens if known.get(h) in job.account_ids]
    ids = [known[h] for h, _ in tokens if h in known]
    regions = {token.region for h, token in tokens if h not in known}
    places = sorted({*regions, *(prices.places(ids, avoid=[]) if ids else [])})
    return Candidates(ids, [], len(tokens) - len(ids), places, choose_currency(job, token_groups(caller)))


def price_jobs(new_jobs: Sequence[NewJob], prices: PriceList, candidates: Candidates) -> list[PricedJob]:
    """Return alike jobs with their currency and expected price; None = no price is known."""
    jobs = [replace(job, currency=candidates.currency) for job in new_jobs]
    return [(job, _price(job, prices, candidates)) for job in jobs]


def _price(job: NewJob, prices: PriceList, candidates: Candidates) -> Price | None:
    if job.currency is None:
        return prices.price_of(kind=job.kind, model=job.model, params=job.params, places=candidates.places)
    return prices.price_of_job(
        kind=job.kind,
        model=job.model,
        params=job.params,
        account_ids=candidates.account_ids,
        avoid=candidates.avoid,
        providers=job.providers,
        currency=job.currency,
    )


def unschedulable_error(availability: Availability) -> DreameryError | None:
    """Return why no account would run the job; None if one would."""
    if availability.usable == 0:
        return DreameryError("insufficient_quota" if availability.insufficient else "no_account_available")
    if availability.cooldown_seconds > LONGEST_COOLDOWN_SECONDS:
        code, now = availability.cooldown_code or "no_account_available", datetime.now(UTC)
        until = now + timedelta(seconds=availability.cooldown_seconds)
        return DreameryError(code, cooldown_message(code, until, now))
    return None
