"""From a job row and its uploaded references to the order a provider takes. Part of the submit step."""

from dataclasses import replace
from typing import Any

from worker.core.catalog import upstream_models
from worker.core.catalog.models import get_catalog
from worker.db.accounts import model_listings
from worker.db.engine import Row, retry_when_database_away, transaction
from worker.db.jobs import state_machine
from worker.providers.base import ImageOrder, Material, PromptPart, Reference, VideoOrder


def image_order(claim: state_machine.Claim, brought: list[Row[Any]]) -> ImageOrder:
    """A picture, made from these pictures when there are any. Rows as `inputs.job_inputs` gives them."""
    return ImageOrder(model=claim.model, **claim.params["order"], references=tuple(_reference(row) for row in brought))


def video_order(claim: state_machine.Claim, brought: list[Row[Any]]) -> VideoOrder:
    """A video from text, from its first and last frame, or (role `reference`) from materials in the caller's order."""
    given = dict(claim.params["order"])
    parts = tuple(PromptPart(**part) for part in given.pop("parts", ()))
    frames = {row.role: _reference(row) for row in brought if row.role != "reference"}
    order = VideoOrder(
        model=claim.model,
        **given,
        first_frame=frames.get("first_frame"),
        end_frame=frames.get("end_frame"),
        materials=tuple(_material(row) for row in brought if row.role == "reference"),
        parts=parts,
    )
    return replace(order, benefit=_benefit(claim, order))


@retry_when_database_away
def _benefit(claim: state_machine.Claim, order: VideoOrder) -> str:
    """What upstream's list charges such a video of this account as; "" = the list says nothing, the catalog may."""
    with transaction() as tx:
        models = model_listings.live_models(tx, claim.account.id)
    model = get_catalog().video_model(order.model)
    return upstream_models.video_benefit(
        models, model, seconds=order.seconds, resolution=order.resolution, omni=bool(order.materials)
    )


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
