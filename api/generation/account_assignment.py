"""Chooses the accounts of new jobs inside the accepting transaction, their currency, expected price and duration."""

import math
from collections.abc import Collection, Iterable
from dataclasses import replace
from uuid import UUID

from api.auth.caller import Caller
from api.generation.model_availability import token_groups
from api.http.cors_and_compression import format_utc
from worker.core.catalog.models import ImageModel, VideoModel, get_catalog
from worker.core.catalog.upstream_models import AccountGroup, ModelListing, may_offer
from worker.core.errors import ERRORS, DreameryError
from worker.core.messages.cooldown import cooldown_message
from worker.db.accounts import management, model_listings
from worker.db.accounts.eligibility import Needs
from worker.db.accounts.model_listings import GroupedAccounts
from worker.db.credits.learned_prices import PriceList
from worker.db.engine import Transaction
from worker.db.jobs import durations
from worker.db.jobs.state_machine import NewJob
from worker.db.scheduling import unschedulable
from worker.db.scheduling.unschedulable import Cooldown


def assign_accounts(tx: Transaction, jobs: list[NewJob], caller: Caller, *, may_wait: bool = False) -> list[NewJob]:
    """Return the new jobs of a caller with their accounts, currency, expected price and usual duration.

    Raises the reason when no account can run one of them; with `may_wait`, accounts in a cooldown can. What the jobs
    have in common is read once.
    """
    account_ids = caller.account_ids(tx)
    usable = [] if account_ids else usable_accounts(tx, caller, jobs)
    groups = token_groups(caller) if account_ids else [one.group for one in usable]
    listed = _Listings(tx, caller)
    allowed = None if account_ids else model_listings.selected_accounts(tx, caller.accounts, caller.account_groups)
    # Accounts are assigned here, not while planning: session ids get rows only with an accepted job.
    prices = PriceList(tx, user_id=caller.user_id, choice=caller.account_choice)
    assigned = [
        _assign(
            tx,
            replace(job, currency=choose_currency(job, groups)),
            caller,
            account_ids=_eligible_accounts(job, caller, account_ids, listed, allowed),
            avoid=_avoided_accounts(job, usable, listed),
            prices=prices,
        )
        for job in jobs
    ]
    if not may_wait:
        _reject_during_cooldowns(tx, assigned, caller)
    return assigned


def choose_currency(job: NewJob, groups: Iterable[AccountGroup]) -> str | None:
    """Return the currency of the accounts that the job will run on; None = they have credits of the upstream.

    If accounts in several currencies fit, one of those that can work now, in the operator's order of currencies.
    """
    model = find_catalog_model(job)
    fitting = [one for one in groups if one.provider in job.providers]
    offered = [one for one in fitting if model is None or model.is_available_in(one.region)] or fitting
    if not offered or any(one.currency is None for one in offered):
        return None
    working = [one for one in offered if one.usable and job.model not in one.resting] or offered
    order = get_catalog().currencies
    return min((one.currency or "" for one in working), key=lambda name: order.index(name) if name in order else 99)


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
        needs = Needs(tuple(job.providers), job.currency, job.model)
        accounts = (tuple(job.account_ids), tuple(job.avoid_accounts), job.price, needs)
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
            needs=needs,
        )
        if cooldown is not None:
            raise cooldown_error(cooldown, has_tokens=caller.user_id is None)


def cooldown_error(cooldown: Cooldown, *, has_tokens: bool) -> DreameryError:
    """Return the error of a request that no account can take before the end of the cooldown."""
    kind = ERRORS[cooldown.code]
    seconds = math.ceil((cooldown.until - cooldown.now).total_seconds())
    return DreameryError(
        cooldown.code,
        cooldown_message(cooldown.code, cooldown.until, cooldown.now),
        retry_after=seconds,
        # With accounts of the platform, an expired session is no fault of the caller's key.
        status=kind.status if has_tokens or kind.status != 401 else 503,
        # SDKs would repeat the request at most a minute later.
        headers={"x-should-retry": "false", "X-Cooldown-Reset": format_utc(cooldown.until) or ""},
    )


def usable_accounts(tx: Transaction, caller: Caller, jobs: Collection[NewJob]) -> list[GroupedAccounts]:
    """Return the healthy accounts that the user's jobs may run on. Raises the reason when there are none for a job."""
    groups = model_listings.grouped_accounts(tx, user_id=caller.user_id, choice=caller.account_choice)
    allowed = model_listings.selected_accounts(tx, caller.accounts, caller.account_groups)
    if allowed is not None:
        groups = [replace(one, ids=[id_ for id_ in one.ids if id_ in allowed]) for one in groups]
    found = [one for one in groups if one.ids]
    if caller.providers is not None:
        found = [one for one in found if one.group.provider in caller.providers]
    own = {one.group.provider for one in found}
    missing = next((job for job in jobs if own.isdisjoint(job.providers)), None)
    if missing is None:
        return found
    providers = list(missing.providers)
    if allowed is not None and not found:
        reason = "This key may only use some accounts, and none of them is usable. Ask an administrator."
        raise DreameryError("no_account_available", reason, retry_after=60)
    code = management.unusable_reason(
        tx, user_id=caller.user_id, choice=caller.account_choice, needs=Needs(providers=providers)
    )
    message = None
    if code == "no_account_available" and caller.account_choice == "own":
        message = "You have no usable account of your own. Add one with `POST /v1/accounts`, or leave out `X-Accounts`."
    elif code == "no_account_available" and found:
        names = " or ".join(providers)
        message = f"Model {missing.model!r} runs on accounts of {names}, and there is no usable one. Add one."
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


def named_accounts(job: NewJob, allowed: set[UUID] | None) -> list[UUID]:
    """Return the accounts that a user's job names: those of its plan, of its key, or of both; [] = all of the user.

    `allowed` = those of the key, None = all. Raises `no_account_available` if they have none in common.
    """
    if allowed is None:
        return job.account_ids
    named = sorted(allowed.intersection(job.account_ids) if job.account_ids else allowed)
    if not named:
        message = f"None of the accounts that this key may use can run model {job.model!r}. Ask an administrator."
        raise DreameryError("no_account_available", message, retry_after=60)
    return named


def _eligible_accounts(
    job: NewJob, caller: Caller, account_ids: list[UUID], listed: _Listings, allowed: set[UUID] | None
) -> list[UUID]:
    """Return the caller's accounts that may run the job. An account without the model would fail it permanently.

    A plan may name accounts (those that upstream lists the model for); otherwise the region and the lists decide.
    """
    if not account_ids:
        return named_accounts(job, allowed)
    if job.account_ids:
        return [a for a in account_ids if a in job.account_ids]
    model = find_catalog_model(job)
    pairs = [
        (a, token.region)
        for a, (_, token) in zip(account_ids, caller.tokens, strict=True)
        if token.provider in job.providers
    ]
    if not pairs:
        names = " or ".join(job.providers)
        message = (
            f"Model {job.model!r} runs on accounts of {names}, and none of your session ids is one. "
            "Send such a session id, or choose another model."
        )
        raise DreameryError("model_not_found", message, param="model")
    certain = [a for a, region in pairs if model is None or model.is_available_in(region)]
    if certain or model is None:
        return certain
    return [a for a, region in pairs if may_offer(model, region, listed.get(a))] or [a for a, _ in pairs]


def accounts_without_model(
    tx: Transaction, job: NewJob, caller: Caller, usable: Collection[GroupedAccounts]
) -> list[UUID]:
    """Return usable accounts that do not offer the model, by their region and upstream's model list.

    The job avoids these accounts instead of naming the others, so that an account added later may run it. Raises
    `no_account_available` when no account offers the model.
    """
    return _avoided_accounts(job, usable, _Listings(tx, caller))


def _avoided_accounts(job: NewJob, usable: Collection[GroupedAccounts], listed: _Listings) -> list[UUID]:
    model = None if job.account_ids else find_catalog_model(job)
    fitting = [one for one in usable if one.group.provider in job.providers]
    if model is None or all(model.is_available_in(one.group.region) for one in fitting):
        return []
    without_model = [a for one in fitting for a in one.ids if not may_offer(model, one.group.region, listed.get(a))]
    if len(without_model) == sum(len(one.ids) for one in fitting):
        where = ", ".join(sorted(model.sold_in))
        message = f"None of your accounts is in a region that offers model {job.model!r} (regions: {where}). Add one."
        raise DreameryError("no_account_available", message, param="model", retry_after=60)
    return without_model
