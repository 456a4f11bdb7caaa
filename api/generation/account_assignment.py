"""Chooses the accounts of new jobs inside the accepting transaction, and their expected price and duration."""

import math
from dataclasses import replace
from uuid import UUID

from api.auth.dependencies import Caller
from api.http.cors_and_compression import format_utc
from worker.core.catalog.models import ImageModel, VideoModel, get_catalog
from worker.core.catalog.upstream_models import ModelListing, may_offer
from worker.core.errors import ERRORS, DreameryError
from worker.core.messages.cooldown import add_cooldown
from worker.db.accounts import management, model_listings
from worker.db.credits.learned_prices import PriceList
from worker.db.engine import Transaction
from worker.db.jobs import durations
from worker.db.jobs.state_machine import NewJob
from worker.db.scheduling import unschedulable
from worker.db.scheduling.unschedulable import Cooldown


def assign_accounts(tx: Transaction, jobs: list[NewJob], caller: Caller) -> list[NewJob]:
    """Return the new jobs of a caller with their accounts, expected price and usual duration.

    Raises the reason when no account can run one of them. What the jobs have in common is read once.
    """
    account_ids = caller.account_ids(tx)
    usable = {} if account_ids else usable_regions(tx, caller)
    listed = _Listings(tx, caller)
    # Accounts are assigned here, not while planning: session ids get rows only with an accepted job.
    prices = PriceList(tx, user_id=caller.user_id, choice=caller.account_choice)
    assigned = [
        _assign(
            tx,
            job,
            caller,
            account_ids=_eligible_accounts(job, caller, account_ids, listed),
            avoid=_avoided_accounts(job, usable, listed),
            prices=prices,
        )
        for job in jobs
    ]
    _reject_during_cooldowns(tx, assigned, caller)
    return assigned


class _Listings:
    """Upstream's model lists of a caller's accounts, read when they are first needed and then once."""

    def __init__(self, tx: Transaction, caller: Caller) -> None:
        self._tx, self._caller = tx, caller
        self._found: dict[UUID, ModelListing] | None = None

    def get(self, account_id: UUID) -> ModelListing | None:
        """Return the list of an account; None = not known."""
        if self._found is None:
            caller = self._caller
            hashes = [digest for digest, _ in caller.tokens]
            user_id, choice = (None, "any") if hashes else (caller.user_id, caller.account_choice)
            rows = model_listings.listings(self._tx, hashes, user_id=user_id, choice=choice)
            self._found = {row.account_id: row for row in rows}
        return self._found.get(account_id)


def _reject_during_cooldowns(tx: Transaction, jobs: list[NewJob], caller: Caller) -> None:
    """Raise the reason of the cooldown when all accounts that could run a job are in one: it would only fail."""
    checked: set[tuple[object, ...]] = set()
    for job in jobs:
        accounts = (tuple(job.account_ids), tuple(job.avoid_accounts), job.price)
        if accounts in checked:
            continue  # the jobs of one request rarely differ in this
        checked.add(accounts)
        cooldown = unschedulable.first_cooldown_for_new_job(
            tx,
            user_id=caller.user_id,
            account_ids=job.account_ids,
            choice=job.account_choice,
            avoid=job.avoid_accounts,
            price=job.price,
        )
        if cooldown is not None:
            raise cooldown_error(cooldown, has_tokens=caller.user_id is None)


def cooldown_error(cooldown: Cooldown, *, has_tokens: bool) -> DreameryError:
    """Return the error of a request that no account can take before the end of the cooldown."""
    kind = ERRORS[cooldown.code]
    seconds = math.ceil((cooldown.until - cooldown.now).total_seconds())
    return DreameryError(
        cooldown.code,
        add_cooldown(kind.message, cooldown.until, cooldown.now),
        retry_after=seconds,
        # With accounts of the platform, an expired session is no fault of the caller's key.
        status=kind.status if has_tokens or kind.status != 401 else 503,
        # SDKs would repeat the request at most a minute later.
        headers={"x-should-retry": "false", "X-Cooldown-Reset": format_utc(cooldown.until) or ""},
    )


def usable_regions(tx: Transaction, caller: Caller) -> dict[str, list[UUID]]:
    """Return the accounts that the user's jobs may run on, by region. Raises the reason when there are none."""
    usable = management.usable_regions(tx, user_id=caller.user_id, choice=caller.account_choice)
    if usable:
        return usable
    code, message = management.unusable_reason(tx, user_id=caller.user_id, choice=caller.account_choice), None
    if code == "no_account_available" and caller.account_choice == "own":
        message = "You have no usable account of your own. Add one with `POST /v1/accounts`, or leave out `X-Accounts`."
    raise DreameryError(code, message, retry_after=60)


def _assign(
    tx: Transaction, job: NewJob, caller: Caller, *, account_ids: list[UUID], avoid: list[UUID], prices: PriceList
) -> NewJob:
    usual = durations.find_duration_stats(tx, job.kind, job.model, job.params)
    price = prices.price_of_job(
        kind=job.kind,
        model=job.model,
        params=job.params,
        account_ids=account_ids,
        avoid=avoid,
        providers=job.providers,
        currency=job.currency,
    )
    return replace(
        job,
        account_ids=account_ids,
        avoid_accounts=avoid,
        account_choice=caller.account_choice,
        usual_seconds=usual.p50 if usual else None,
        price=price.credits if price else None,
    )


def find_catalog_model(job: NewJob) -> ImageModel | VideoModel | None:
    """Return the catalog model of a job; None for conversations and for models that only upstream lists."""
    catalog = get_catalog()
    if job.kind == "image":
        return catalog.find_image(job.model)
    return catalog.find_video(job.model) if job.kind == "video" else None


def _eligible_accounts(job: NewJob, caller: Caller, account_ids: list[UUID], listed: _Listings) -> list[UUID]:
    """Return the caller's accounts that may run the job. An account without the model would fail it permanently.

    A plan may name accounts (those that upstream lists the model for); otherwise the region and the lists decide.
    """
    if job.account_ids:
        return [a for a in account_ids if a in job.account_ids] if account_ids else job.account_ids
    model = find_catalog_model(job)
    if model is None or not account_ids:
        return account_ids
    pairs = list(zip(account_ids, caller.tokens, strict=True))
    certain = [a for a, (_, token) in pairs if model.is_available_in(token.region)]
    if certain:
        return certain
    return [a for a, (_, token) in pairs if may_offer(model, token.region, listed.get(a))] or account_ids


def accounts_without_model(tx: Transaction, job: NewJob, caller: Caller, usable: dict[str, list[UUID]]) -> list[UUID]:
    """Return usable accounts that do not offer the model, by their region and upstream's model list.

    The job avoids these accounts instead of naming the others, so that an account added later may run it. Raises
    `no_account_available` when no account offers the model.
    """
    return _avoided_accounts(job, usable, _Listings(tx, caller))


def _avoided_accounts(job: NewJob, usable: dict[str, list[UUID]], listed: _Listings) -> list[UUID]:
    model = None if job.account_ids else find_catalog_model(job)
    if model is None or all(model.is_available_in(region) for region in usable):
        return []
    without_model = [a for region, ids in usable.items() for a in ids if not may_offer(model, region, listed.get(a))]
    if len(without_model) == sum(map(len, usable.values())):
        where = ", ".join(sorted(model.where))
        message = f"None of your accounts is in a region that offers model {job.model!r} (regions: {where}). Add one."
        raise DreameryError("no_account_available", message, param="model", retry_after=60)
    return without_model
