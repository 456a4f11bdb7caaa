"""The models that upstream currently lists for accounts, merged into the catalog.

A task stores the lists as JSON: `{"images": [{key, name, tip, resolutions, counts, references}], "videos": [{key, name,
tip, durations, ratios, fps, first_frame, end_frame, benefit}]}`. They only add to the catalog: a listed model is not
always usable by the account, and upstream accepts more than it lists.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from worker.core.catalog.models import DEFAULT_COUNT, Catalog, ImageModel, VideoModel, place_of

_EVERYWHERE = frozenset({"cn", "us", "asia"})


@dataclass(frozen=True, slots=True)
class ModelListing:
    """The model list of one account."""

    account_id: UUID
    region: str
    models: dict[str, Any]

    def has(self, *keys: str) -> bool:
        """Return whether the list contains a model with one of these keys."""
        return any(row["key"] in keys for kind in ("images", "videos") for row in self.models.get(kind, ()))

    def offers(self, model: ImageModel | VideoModel) -> bool | None:
        """Return whether the list contains the model; None when the account's models of its kind are not known."""
        if not self.models.get("images" if isinstance(model, ImageModel) else "videos"):
            return None
        return self.has(*upstream_keys(model))


def upstream_keys(model: ImageModel | VideoModel) -> set[str]:
    """Return the keys of a model in upstream's lists."""
    return {model.key, model.key_cn} if isinstance(model, ImageModel) else {model.key}


def may_offer(model: ImageModel | VideoModel, region: str, listing: ModelListing | None) -> bool:
    """Return whether an account of this region may have the model. The catalog gives way to the account's own list.

    A list adds to the catalog, and decides where sources disagree; without a list such a model is tried: a refusal by
    upstream costs nothing.
    """
    if model.is_available_in(region):
        return True
    listed = listing.offers(model) if listing is not None else None
    return bool(listed) or (listed is None and model.is_disputed_in(region))


@dataclass(slots=True)
class _Image:
    name: str = ""
    tip: str = ""
    resolutions: dict[str, None] = field(default_factory=dict)  # an ordered set
    counts: set[int] = field(default_factory=set)
    references: int = 0
    regions: set[str] = field(default_factory=set)
    account_ids: list[UUID] = field(default_factory=list)


class UpstreamModels:
    """The merged model lists of a caller's accounts."""

    def __init__(self, listings: Iterable[ModelListing] = ()) -> None:
        self._images: dict[str, _Image] = {}
        self._videos: dict[str, dict[str, Any]] = {}
        self._listings = list(listings)
        for listing in self._listings:
            self._add(listing)

    def may_offer(self, model: ImageModel | VideoModel, regions: Iterable[str]) -> bool:
        """Return whether an account in one of these regions may have the model, by `may_offer`."""
        for region in regions:
            listings: list[ModelListing | None] = [one for one in self._listings if one.region == region]
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
            image.regions.add(listing.region)
            image.account_ids.append(listing.account_id)
        for row in listing.models.get("videos", ()):
            self._videos.setdefault(row["key"], row)

    def lists(self, model: ImageModel | VideoModel) -> bool:
        """Return whether the list of an account contains the model."""
        return any(listing.offers(model) for listing in self._listings)

    def image_models(self, catalog: Catalog) -> list[ImageModel]:
        """Return the catalog's models with upstream's additions, followed by models that only upstream lists."""
        known = {key for model in catalog.image_models for key in (model.key, model.key_cn)}
        new = [self._new_image(key, catalog) for key in self._images if key not in known]
        return [self._apply_listing(model, catalog) for model in catalog.image_models] + [
            model for model in new if model
        ]

    def image_model(self, catalog: Catalog, name: str | None) -> ImageModel:
        """Return the model with this public id, alias, or upstream key. Raises `model_not_found`."""
        if name and name in self._images and not catalog.knows_image(name):
            if by_key := next((m for m in catalog.image_models if name in {m.key, m.key_cn}), None):
                return self._apply_listing(by_key, catalog)
            if new := self._new_image(name, catalog):
                return new
        return self._apply_listing(catalog.image_model(name), catalog)

    def accounts_with(self, key: str) -> list[UUID]:
        """Return the accounts whose list contains the image model with this key."""
        image = self._images.get(key)
        return image.account_ids if image else []

    def name_and_tip(self, *keys: str) -> tuple[str, str]:
        """Return upstream's name and tip of the model with one of these keys; "" if it is not listed."""
        for key in keys:
            row = self._images.get(key)
            if row is not None:
                return row.name, row.tip
            if video := self._videos.get(key):
                return str(video["name"]), str(video["tip"])
        return "", ""

    def _apply_listing(self, model: ImageModel, catalog: Catalog) -> ImageModel:
        rows = [self._images[key] for key in dict.fromkeys((model.key, model.key_cn)) if key in self._images]
        for row in rows:
            more = [name for name in row.resolutions if name in catalog.sizes and name not in model.resolutions]
            model = replace(
                model,
                resolutions=(*model.resolutions, *more),
                # A model without counts in the catalog ignores them, so the listed ones are not used.
                counts=tuple(sorted(row.counts)) if model.counts and row.counts else model.counts,
                references=row.references or model.references,
                where=model.where | {place_of(region) for region in row.regions if region not in {"auto", "sandbox"}},
            )
        return model

    def _new_image(self, key: str, catalog: Catalog) -> ImageModel | None:
        """Return a model that only upstream lists, with its key as id, or None when none of its sizes is known."""
        row = self._images[key]
        resolutions = tuple(name for name in row.resolutions if name in catalog.sizes)
        if not resolutions:
            return None
        return ImageModel(
            id=key,
            name=row.name or key,
            key=key,
            key_cn=key,
            where=frozenset(place_of(region) for region in row.regions - {"auto", "sandbox"}) or _EVERYWHERE,
            resolutions=resolutions,
            counts=tuple(sorted(row.counts)),
            default_count=DEFAULT_COUNT,
            references=row.references,
            listed=True,
        )


def listed_benefit(
    models: dict[str, Any] | None, model: VideoModel, *, seconds: int, resolution: str, omni: bool = False
) -> str:
    """Return the benefit type of a video model in upstream's list; "" = use the catalog's.

    The list has only the standard one, so exceptions of the catalog (by length, resolution or references) stay.
    """
    if model.benefit_for(seconds=seconds, resolution=resolution, omni=omni) != model.benefit:
        return ""
    rows = (models or {}).get("videos", ())
    return next((str(row["benefit"]) for row in rows if row["key"] == model.key and not omni), "")
