"""What upstream offers accounts now (protocol section 10.3), as it is stored with them, laid over the catalog.

Foreign data that a step has read into plain JSON: `{"images": [{key, name, tip, resolutions, counts, references}],
"videos": [{key, name, tip, durations, ratios, fps, first_frame, end_frame, benefit}]}`. It only ever adds to what the
catalog knows, for being listed does not mean that an account may use it, and lists are narrower than what is taken.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from worker.core.catalog.models import DEFAULT_COUNT, Catalog, ImageModel, VideoModel

_EVERYWHERE = frozenset({"cn", "us", "asia"})


@dataclass(frozen=True, slots=True)
class Listing:
    """What one account is offered."""

    account_id: UUID
    region: str
    models: dict[str, Any]

    def has(self, *keys: str) -> bool:
        """Whether a model with one of these keys is on it."""
        return any(row["key"] in keys for kind in ("images", "videos") for row in self.models.get(kind, ()))


@dataclass(slots=True)
class _Image:
    name: str = ""
    tip: str = ""
    resolutions: dict[str, None] = field(default_factory=dict)  # an ordered set
    counts: set[int] = field(default_factory=set)
    references: int = 0
    regions: set[str] = field(default_factory=set)
    account_ids: list[UUID] = field(default_factory=list)


class Offer:
    """The lists of a caller's accounts joined."""

    def __init__(self, listings: Iterable[Listing] = ()) -> None:
        self._images: dict[str, _Image] = {}
        self._videos: dict[str, dict[str, Any]] = {}
        for listing in listings:
            self._add(listing)

    def _add(self, listing: Listing) -> None:
        for row in listing.models.get("images", ()):
            known = self._images.setdefault(row["key"], _Image())
            known.name, known.tip = known.name or row["name"], known.tip or row["tip"]
            known.resolutions |= dict.fromkeys(row["resolutions"])
            known.counts |= set(row["counts"])
            known.references = max(known.references, row["references"])
            known.regions.add(listing.region)
            known.account_ids.append(listing.account_id)
        for row in listing.models.get("videos", ()):
            self._videos.setdefault(row["key"], row)

    def image_models(self, catalog: Catalog) -> list[ImageModel]:
        """The models of the catalog as they are now, and after them those that it does not know."""
        known = {key for model in catalog.image_models for key in (model.key, model.key_cn)}
        new = [self._new_image(key, catalog) for key in self._images if key not in known]
        return [self._over(model, catalog) for model in catalog.image_models] + [model for model in new if model]

    def image_model(self, catalog: Catalog, name: str | None) -> ImageModel:
        """The model of that public id, alias, or key that upstream lists. Raises `model_not_found`."""
        if name and name in self._images and not catalog.knows_image(name):
            if by_key := next((m for m in catalog.image_models if name in {m.key, m.key_cn}), None):
                return self._over(by_key, catalog)
            if new := self._new_image(name, catalog):
                return new
        return self._over(catalog.image_model(name), catalog)

    def accounts_with(self, key: str) -> list[UUID]:
        """The accounts whose list has a picture model of that key."""
        known = self._images.get(key)
        return known.account_ids if known else []

    def texts(self, *keys: str) -> tuple[str, str]:
        """Upstream's own name and tip of the model with one of these keys; "" = it says nothing."""
        for key in keys:
            row = self._images.get(key)
            if row is not None:
                return row.name, row.tip
            if video := self._videos.get(key):
                return str(video["name"]), str(video["tip"])
        return "", ""

    def _over(self, model: ImageModel, catalog: Catalog) -> ImageModel:
        rows = [self._images[key] for key in dict.fromkeys((model.key, model.key_cn)) if key in self._images]
        for row in rows:
            more = [name for name in row.resolutions if name in catalog.sizes and name not in model.resolutions]
            model = replace(
                model,
                resolutions=(*model.resolutions, *more),
                # A model that the catalog knows to ignore counts goes on ignoring them.
                counts=tuple(sorted(row.counts)) if model.counts and row.counts else model.counts,
                references=row.references or model.references,
                where=model.where | {_place(region) for region in row.regions if region not in {"auto", "sandbox"}},
            )
        return model

    def _new_image(self, key: str, catalog: Catalog) -> ImageModel | None:
        """A model that only upstream's list tells of, its key as its id; None when its sizes are not known here."""
        row = self._images[key]
        resolutions = tuple(name for name in row.resolutions if name in catalog.sizes)
        if not resolutions:
            return None
        return ImageModel(
            id=key,
            name=row.name or key,
            key=key,
            key_cn=key,
            where=frozenset(_place(region) for region in row.regions - {"auto", "sandbox"}) or _EVERYWHERE,
            resolutions=resolutions,
            counts=tuple(sorted(row.counts)),
            default_count=DEFAULT_COUNT,
            references=row.references,
            listed=True,
        )


def _place(region: str) -> str:
    return "asia" if region in {"sg", "hk", "jp"} else region


def video_benefit(
    models: dict[str, Any] | None, model: VideoModel, *, seconds: int, resolution: str, omni: bool = False
) -> str:
    """The benefit type that upstream's list names for a video model; "" = take the catalog's.

    The list knows one for the plain case only, so where the catalog has an exception (by length, resolution or
    references) the exception stays.
    """
    if model.benefit_for(seconds=seconds, resolution=resolution, omni=omni) != model.benefit:
        return ""
    rows = (models or {}).get("videos", ())
    return next((str(row["benefit"]) for row in rows if row["key"] == model.key and not omni), "")
