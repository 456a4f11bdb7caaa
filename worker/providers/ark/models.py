"""The models of Ark: those of the catalog that belong to it, and the text that stands for a model in calls."""

from collections.abc import Mapping
from dataclasses import dataclass

from worker.core.catalog.models import Catalog, ImageModel, VideoModel, get_catalog
from worker.providers.base import Account

__all__ = [
    "CHINA",
    "INTERNATIONAL",
    "PROVIDER",
    "ImageModel",
    "Models",
    "VideoModel",
    "built_in_models",
    "model_id",
    "models_of",
]
PROVIDER = "ark"
CHINA, INTERNATIONAL = "cn", "intl"


@dataclass(frozen=True, slots=True)
class Models:
    """The models by their public id."""

    images: Mapping[str, ImageModel]
    videos: Mapping[str, VideoModel]

    def sold_in(self, place: str) -> list[ImageModel | VideoModel]:
        """Return the models sold in `cn` or `intl` today."""
        models: list[ImageModel | VideoModel] = [*self.images.values(), *self.videos.values()]
        return [model for model in models if place in model.sold_in]

    def find_image(self, name: str) -> ImageModel | None:
        """Return the image model of this id or name of the vendor."""
        return next((model for model in self.images.values() if name in {model.id, *model.keys}), None)

    def find_video(self, name: str) -> VideoModel | None:
        """Return the video model of this id or name of the vendor."""
        return next((model for model in self.videos.values() if name in {model.id, *model.keys}), None)


def built_in_models() -> Models:
    """Return the models of the catalog, with the operator's changes."""
    return models_of(get_catalog())


def models_of(catalog: Catalog) -> Models:
    """Return the models of a catalog."""
    return Models(
        images={model.id: model for model in catalog.image_models if model.provider == PROVIDER},
        videos={model.id: model for model in catalog.video_models if model.provider == PROVIDER},
    )


def model_id(account: Account, name: str) -> str:
    """Return what is sent as the model `name`: the account's own endpoint or id, else the vendor's id of its region.

    A model that the data does not have is sent as it is.
    """
    if own := account.model_ids.get(name):
        return own
    models = built_in_models()
    found = models.find_video(name) or models.find_image(name)
    place = CHINA if account.region == "cn" else INTERNATIONAL
    return found.ids.get(place, name) if found is not None else name
