"""The models of Ark: those of the catalog that belong to it."""

from collections.abc import Mapping
from dataclasses import dataclass

from worker.core.catalog.models import Catalog, ImageModel, VideoModel, get_catalog

__all__ = ["CHINA", "INTERNATIONAL", "ImageModel", "Models", "VideoModel", "built_in_models", "models_of"]
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
