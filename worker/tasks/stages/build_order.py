"""Builds the provider's order from a job row and its uploaded references. Part of the submit task."""

from dataclasses import replace
from typing import Any

from worker.core.catalog import upstream_models
from worker.core.catalog.models import get_catalog
from worker.db.accounts import model_listings
from worker.db.engine import Row, retry_when_database_unavailable, transaction
from worker.db.jobs.claims import Claim
from worker.providers.base import ImageOrder, Material, PromptPart, Reference, VideoOrder


def build_image_order(claim: Claim, uploaded: list[Row[Any]]) -> ImageOrder:
    """Return the order of an image, based on the uploaded images if there are any (rows of `inputs.job_inputs`)."""
    return ImageOrder(model=claim.model, **claim.params["order"], references=tuple(_reference(row) for row in uploaded))


def build_video_order(claim: Claim, uploaded: list[Row[Any]]) -> VideoOrder:
    """Return the order of a video: from text, from first and end frame, or from materials in the caller's order."""
    fields = dict(claim.params["order"])
    parts = tuple(PromptPart(**part) for part in fields.pop("parts", ()))
    frames = {row.role: _reference(row) for row in uploaded if row.role != "reference"}
    order = VideoOrder(
        model=claim.model,
        **fields,
        first_frame=frames.get("first_frame"),
        end_frame=frames.get("end_frame"),
        materials=tuple(_material(row) for row in uploaded if row.role == "reference"),
        parts=parts,
    )
    return replace(order, listed=_listed(claim, order))


@retry_when_database_unavailable
def _listed(claim: Claim, order: VideoOrder) -> dict[str, Any]:
    """Return the model as upstream lists it for the account; {} = not listed."""
    with transaction() as tx:
        models = model_listings.upstream_models(tx, claim.account.id)
    model = get_catalog().find_video(order.model)
    return upstream_models.listed_video(models, model) if model is not None else {}


def _reference(row: Row[Any]) -> Reference:
    return Reference(row.uri, row.width, row.height, row.format)


def _material(row: Row[Any]) -> Material:
    if row.media == "image":
        return Material(kind="image", image=_reference(row), width=row.width, height=row.height, name=row.name)
    return Material(
        kind=row.media,
        vid=row.uri,
        width=row.width,
        height=row.height,
        milliseconds=row.milliseconds,
        name=row.name,
    )
