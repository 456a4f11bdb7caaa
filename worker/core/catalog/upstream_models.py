"""The models that upstream currently lists for accounts, merged into the catalog.

A task stores the lists as JSON: `{"images": [{key, name, tip, resolutions, counts, references}], "videos": [{key, name,
tip, durations, ratios, fps, first_frame, end_frame, own}]}`. They only add to the catalog: a listed model is not
always usable by the account, and upstream accepts more than it lists.
"""

import copy
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Generic
from uuid import UUID

from worker.core.catalog.models import DEFAULT_COUNT, Catalog, ImageModel, Kind, Route, VideoModel
from worker.core.catalog.provider_data import all_providers, first_provider
from worker.core.errors import DreameryError


@dataclass(frozen=True, slots=True)
class ModelListing:
    """The model list of one account."""

    account_id: UUID
    region: str
    models: dict[str, Any]
    provider: str = field(default_factory=first_provider)

    def has(self, keys: Collection[str]) -> bool:
        """Return whether the list contains a model with one of these keys."""
        return any(row["key"] in keys for kind in ("images", "videos") for row in self.models.get(kind, ()))

    def offers(self, model: ImageModel | VideoModel) -> bool | None:
        """Return whether the list contains the model; None when the account's models of its kind are not known."""
        if self.provider != model.provider:
            return False
        if not self.models.get("images" if isinstance(model, ImageModel) else "videos"):
            return None
        return self.has(model.keys)


@dataclass(frozen=True, slots=True)
class AccountGroup:
    """Accounts of a caller that are alike. `usable` = one of them can work now; `resting` = models that none of these
    can make now.
    """

    provider: str
    region: str
    currency: str | None = None  # None = credits of the upstream
    usable: bool = True
    resting: frozenset[str] = frozenset()


def may_offer(
    model: ImageModel | VideoModel, region: str, listing: ModelListing | None, provider: str | None = None
) -> bool:
    """Return whether an account of this region may have the model. The catalog gives way to the account's own list.

    A list adds to the catalog, and decides where sources disagree; without a list such a model is tried: a refusal by
    upstream costs nothing. `provider` = the account's, None = the model's.
    """
    if provider not in {None, model.provider}:
        return False
    if model.is_available_in(region):
        return True
    listed = listing.offers(model) if listing is not None else None
    return bool(listed) or (listed is None and model.is_disputed_in(region))


@dataclass(frozen=True, slots=True)
class Choice(Generic[Kind]):
    """The model that a name means for a caller, and all that it could have meant."""

    model: Kind
    options: tuple[Kind, ...]
    by_route: bool  # the operator's file has a route for the name


@dataclass(slots=True)
class _Image:
    name: str = ""
    tip: str = ""
    resolutions: dict[str, None] = field(default_factory=dict)  # an ordered set
    counts: set[int] = field(default_factory=set)
    references: int = 0
    provider: str = ""
    regions: set[str] = field(default_factory=set)
    account_ids: list[UUID] = field(default_factory=list)


class UpstreamModels:
    """The merged model lists of a caller's accounts."""

    def __init__(
        self,
        listings: Iterable[ModelListing] = (),
        accounts: Iterable[AccountGroup] = (),
        *,
        only: Collection[str] | None = None,
    ) -> None:
        """`only` = providers that the caller chose; None = any."""
        self.accounts = tuple(accounts)
        self._only = only
        self._images: dict[str, _Image] = {}
        self._videos: dict[str, dict[str, Any]] = {}
        self._listings = list(listings)
        for listing in self._listings:
            self._add(listing)

    @property
    def providers(self) -> tuple[str, ...]:
        """The providers of the caller's accounts, in their order. Without accounts: those chosen, else the first."""
        own = {group.provider for group in self.accounts} or self._only or {first_provider()}
        return tuple(name for name in all_providers() if name in own)

    def regions(self, provider: str) -> set[str]:
        """Return the regions of the caller's accounts of a provider, as far as known."""
        return {group.region for group in self.accounts if group.provider == provider}

    def narrowed(self, providers: Collection[str]) -> "UpstreamModels":
        """Return what the accounts of these providers offer, for a job that stays with its provider."""
        found = copy.copy(self)
        found._only = providers if self._only is None else [name for name in providers if name in self._only]  # noqa: SLF001
        found.accounts = tuple(group for group in self.accounts if group.provider in providers)
        return found

    def choose(self, route: Route[Kind]) -> Choice[Kind]:
        """Return the model that a name means: the first one of which the caller has an account.

        With a route of the operator, the first one of which an account can work now, if there is any. Without an
        account of any, the first of a provider of the caller, else the first. Raises `model_not_found` if the caller
        chose providers that do not have it.
        """
        if self._only is not None:
            allowed = tuple(model for model in route.models if model.provider in self._only)
            if not allowed:
                names = " or ".join(sorted(self._only))
                others = ", ".join(sorted({model.provider for model in route.models}))
                message = f"Accounts of {names} do not have this model; it is one of {others}. Choose other accounts."
                raise DreameryError("model_not_found", message, param="model")
            route = replace(route, models=allowed)
        offered: list[Kind] = [model for model in route.models if self._has_account(model)]
        usable: list[Kind] = (
            [model for model in offered if self._has_account(model, usable=True)] if route.chosen else []
        )
        known: list[Kind] = [model for model in route.models if model.provider in self.providers]
        best = next((found[0] for found in (usable, offered, known) if found), route.models[0])
        options = route.models if route.chosen else tuple(offered)
        return Choice(best, options, route.chosen)

    def _has_account(self, model: ImageModel | VideoModel, *, usable: bool = False) -> bool:
        return any(
            (group.usable and model.id not in group.resting) or not usable
            for group in self.accounts
            if group.provider == model.provider and self.may_offer(model, [group.region])
        )

    def may_offer(self, model: ImageModel | VideoModel, regions: Iterable[str]) -> bool:
        """Return whether an account of the model's provider in one of these regions may have it, by `may_offer`."""
        for region in regions:
            listings: list[ModelListing | None] = [
                one for one in self._listings if one.region == region and one.provider == model.provider
            ]
            if any(may_offer(model, region, listing) for listing in listings or [None]):
                return True
        return False

    def _add(self, listing: ModelListing) -> None:
        for row in listing.models.get("images", ()):
            image = self._images.setdefault(row["key"], _Image())
            image.name, image.tip = image.name or row["name"], image.tip or row["tip"]
            image.resolutions |= dict.fromkeys(row["resolutions"])
            image.counts |= set(row["counts"])
            image.references = max(image.references, row["references"])
            image.provider = listing.provider
            image.regions.add(listing.region)
            image.account_ids.append(listing.account_id)
        for row in listing.models.get("videos", ()):
            self._videos.setdefault(row["key"], row)

    def lists(self, model: ImageModel | VideoModel) -> bool:
        """Return whether the list of an account contains the model."""
        return any(listing.offers(model) for listing in self._listings)

    def image_models(self, catalog: Catalog) -> list[ImageModel]:
        """Return the catalog's models with upstream's additions, followed by models that only upstream lists."""
        known = {key for model in catalog.image_models for key in model.keys}
        new = [self._new_image(key, catalog) for key in self._images if key not in known]
        return [self._apply_listing(model) for model in catalog.image_models] + [model for model in new if model]

    def image_model(self, catalog: Catalog, name: str | None) -> ImageModel:
        """Return the model with this public id, alias, or upstream key. Raises `model_not_found`."""
        return self.image_choice(catalog, name).model

    def image_choice(self, catalog: Catalog, name: str | None) -> Choice[ImageModel]:
        """Return what a public id, alias, or upstream key means for the caller. Raises `model_not_found`."""
        if name and name in self._images and not catalog.knows_image(name):
            by_key = next((model for model in catalog.image_models if name in model.keys), None)
            found = self._apply_listing(by_key) if by_key else self._new_image(name, catalog)
            if found:
                return Choice(found, (found,), by_route=False)
        choice = self.choose(catalog.image_route(name))
        return replace(choice, model=self._apply_listing(choice.model))

    def accounts_with(self, key: str) -> list[UUID]:
        """Return the accounts whose list contains the image model with this key."""
        image = self._images.get(key)
        return image.account_ids if image else []

    def name_and_tip(self, model: ImageModel | VideoModel) -> tuple[str, str]:
        """Return upstream's name and tip of the model; "" if it is not listed."""
        for key in dict.fromkeys(model.ids.values()):
            row = self._images.get(key)
            if row is not None:
                return row.name, row.tip
            if video := self._videos.get(key):
                return str(video["name"]), str(video["tip"])
        return "", ""

    def _apply_listing(self, model: ImageModel) -> ImageModel:
        rows = [self._images[key] for key in dict.fromkeys(model.ids.values()) if key in self._images]
        for row in rows:
            more = [name for name in row.resolutions if name in model.sizes and name not in model.resolutions]
            places = {place for region in row.regions for place in self._places(model, region)}
            model = replace(
                model,
                resolutions=(*model.resolutions, *more),
                # A model without counts in the catalog ignores them, so the listed ones are not used.
                counts=tuple(sorted(row.counts)) if model.counts and row.counts else model.counts,
                references=row.references or model.references,
                where=model.where | places,
            )
        return model

    @staticmethod
    def _places(model: ImageModel, region: str) -> tuple[str, ...]:
        """Return the place of a region; none for accounts that may be anywhere."""
        places = model.places.of(region)
        return places if len(places) == 1 and region not in model.places.undetected else ()

    def _new_image(self, key: str, catalog: Catalog) -> ImageModel | None:
        """Return a model that only upstream lists, with its key as id, or None when none of its sizes is known."""
        row = self._images[key]
        like = next((model for model in catalog.image_models if model.provider == row.provider), None)
        if like is None:
            return None
        resolutions = tuple(name for name in row.resolutions if name in like.sizes)
        if not resolutions:
            return None
        places = {place for region in row.regions for place in self._places(like, region)}
        everywhere = {place for places in like.places.of_region.values() for place in places}
        return ImageModel(
            id=key,
            name=row.name or key,
            provider=row.provider,
            ids={"any": key},
            where=frozenset(places or everywhere),
            places=like.places,
            resolutions=resolutions,
            fields=like.fields,
            seed=like.seed,
            inputs=like.inputs,
            sizes=like.sizes,
            counts=tuple(sorted(row.counts)),
            default_count=DEFAULT_COUNT,
            references=row.references,
            formats=like.formats,
            listed=True,
        )


def listed_video(models: dict[str, Any] | None, model: VideoModel) -> dict[str, Any]:
    """Return the row of a video model in upstream's list; {} if the list does not have it."""
    rows = (models or {}).get("videos", ())
    return next((dict(row) for row in rows if row["key"] in model.keys), {})
