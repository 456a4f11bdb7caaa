"""What a list of models says about the caller on request: price, usual time, a sample, and whether accounts can run it.

Everything is read in one transaction, with a fixed number of queries beside the cached durations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from api.auth.caller import Caller
from api.generation.model_availability import token_groups
from api.jobs.serialization import job_object
from worker.core.catalog.models import ImageModel, VideoModel, get_catalog
from worker.core.catalog.money import to_amount
from worker.core.catalog.pricing import shape_of
from worker.core.catalog.upstream_models import UpstreamModels
from worker.core.ids import public_id
from worker.db.accounts import model_listings
from worker.db.accounts.model_listings import GroupedAccounts
from worker.db.credits.learned_prices import PriceList
from worker.db.engine import Transaction, transaction
from worker.db.jobs import durations
from worker.db.jobs.results.newest_of_models import newest_jobs_of_models

Model = ImageModel | VideoModel
Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Accounts:
    """The caller's accounts of a model: those that may have it, and the ids of those that do not."""

    fitting: Sequence[GroupedAccounts]
    avoid: list[UUID]
    of_provider: bool  # there are accounts of its provider, wherever they are


def read_details(
    models: Sequence[Model], caller: Caller, offer: UpstreamModels, base: str
) -> dict[tuple[str, str], Fields]:
    """Return the additional fields of each model, by its provider and id."""
    with transaction() as tx:
        groups = _groups(tx, caller)
        prices = PriceList(tx, user_id=caller.user_id, choice=caller.account_choice)
        samples = _samples(tx, caller, base)
        found = {}
        for model in models:
            accounts = _accounts_of(model, groups, offer)
            obstacle = _obstacle(model, caller, accounts)
            found[model.provider, model.id] = {
                "available": obstacle is None,
                "obstacle": obstacle,
                "price": _price(model, caller, accounts, prices),
                "typical_seconds": _typical_seconds(tx, model),
                "sample": samples.get((model.provider, model.id)),
                "input_limits": _input_limits(model),
            }
        return found


def _groups(tx: Transaction, caller: Caller) -> list[GroupedAccounts]:
    """Return the accounts of the caller; those of session ids count as able to work, without looking at their rows."""
    if caller.tokens:
        return [GroupedAccounts(group, []) for group in token_groups(caller)]
    found = model_listings.grouped_accounts(tx, user_id=caller.user_id, choice=caller.account_choice)
    return [one for one in found if caller.providers is None or one.group.provider in caller.providers]


def _accounts_of(model: Model, groups: Sequence[GroupedAccounts], offer: UpstreamModels) -> _Accounts:
    own = [one for one in groups if one.group.provider == model.provider]
    fitting = [one for one in own if offer.may_offer(model, [one.group.region])]
    avoid = [account_id for one in own if one not in fitting for account_id in one.ids]
    return _Accounts(fitting, avoid, of_provider=bool(own))


def _obstacle(model: Model, caller: Caller, accounts: _Accounts) -> str | None:
    """Return why the caller cannot use the model now; None = an account can run it."""
    if caller.models is not None and model.id not in caller.models:
        return "not_allowed"
    if not accounts.of_provider:
        return "no_account"
    if not accounts.fitting:
        return "not_in_region"
    working = (one for one in accounts.fitting if one.group.usable and model.id not in one.group.resting)
    return None if any(working) else "resting"


def _default_order(model: Model) -> Fields:
    """Return what decides the price and the time of a request that only has a prompt."""
    if isinstance(model, VideoModel):
        resolution, ratio = model.resolutions[0], model.ratios[0]
        width, height = model.frame(ratio, resolution)
        return {
            "resolution": resolution,
            "ratio": ratio,
            "seconds": model.default_seconds,
            "width": width,
            "height": height,
        }
    size = model.size(model.ratios[0], model.default_resolution)
    count = min(model.default_count, model.max_per_job)
    return {"resolution": size.resolution, "count": count, "width": size.width, "height": size.height}


def _price(model: Model, caller: Caller, accounts: _Accounts, prices: PriceList) -> Fields | None:
    """Return the expected price of a request with the defaults, the highest of the accounts; None = not known."""
    kind = "image" if isinstance(model, ImageModel) else "video"
    params = {"order": _default_order(model)}
    if not accounts.fitting:
        return None
    currencies = [one.group.currency for one in accounts.fitting]
    currency = None if any(name is None for name in currencies) else currencies[0]
    if caller.tokens and currency is None:
        places = sorted({one.group.region for one in accounts.fitting})
        price = prices.price_of(kind=kind, model=model.id, params=params, places=places)
    else:
        price = prices.price_of_job(
            kind=kind,
            model=model.id,
            params=params,
            account_ids=[],
            avoid=accounts.avoid,
            providers=[model.provider],
            currency=currency,
        )
    if price is None:
        return None
    shape = shape_of(kind, model.id, params, get_catalog())
    return {
        "credits": price.credits,
        "currency": price.currency,
        "cost": to_amount(price.credits) if price.currency else None,
        "source": price.source,
        "resolution": params["order"]["resolution"],
        "pictures": shape.units if shape and kind == "image" else None,
        "seconds": shape.units if shape and kind == "video" else None,
    }


def _typical_seconds(tx: Transaction, model: Model) -> float | None:
    """Return the median time of such jobs; None = too few have ended."""
    kind = "image" if isinstance(model, ImageModel) else "video"
    stats = durations.find_duration_stats(tx, kind, model.id, {"order": _default_order(model)})
    return None if stats is None else round(stats.p50, 1)


def _samples(tx: Transaction, caller: Caller, base: str) -> dict[tuple[str, str], Fields]:
    """Return the first stored result of the caller's newest job of each model."""
    found = {}
    for view in newest_jobs_of_models(tx, caller.viewer(tx)):
        kept = [n for n, item in enumerate(view.files) if item.removed_at is None]
        output = job_object(view, base)["output"]
        if kept and isinstance(output, list):
            found[view.job.providers[0], view.job.model] = {**output[kept[0]], "job": public_id("job", view.job.id)}
    return found


def _input_limits(model: Model) -> dict[str, Fields]:
    """Return what upstream accepts of each kind of input, where a limit is known."""
    return {
        media: {
            "bytes": limits.bytes,
            "side": list(limits.side) if limits.side else None,
            "area": list(limits.area) if limits.area else None,
            "ratio": list(limits.ratio) if limits.ratio else None,
            "seconds": list(limits.seconds) if limits.seconds else None,
        }
        for media, limits in sorted(model.inputs.items())
    }
