"""Builds the provider's order from a job row and its references. Part of the submit task.

References are those that were uploaded to the account or, if its upstream takes them within the order, stored files.
"""

import hashlib
from dataclasses import replace
from functools import partial
from typing import Any

from worker.core.catalog import upstream_models
from worker.core.catalog.models import get_catalog
from worker.core.security.signed_links import create_input_link
from worker.core.settings import get_settings
from worker.db.accounts import model_listings
from worker.db.engine import Row, retry_when_database_unavailable, transaction
from worker.db.jobs.claims import Claim
from worker.providers.base import ImageOrder, InputFile, Material, PromptPart, Reference, VideoOrder
from worker.providers.registry import get_provider
from worker.tasks.stages.files.fetch_references import open_stored


def build_image_order(claim: Claim, uploaded: list[Row[Any]]) -> ImageOrder:
    """Return the order of an image, based on the references if there are any (rows of `inputs.job_inputs`)."""
    if _takes_files(claim):
        return ImageOrder(model=claim.model, **claim.params["order"], inputs=_files(claim, uploaded), user=_user(claim))
    return ImageOrder(model=claim.model, **claim.params["order"], references=tuple(_reference(row) for row in uploaded))


def build_video_order(claim: Claim, uploaded: list[Row[Any]]) -> VideoOrder:
    """Return the order of a video: from text, from first and end frame, or from materials in the caller's order."""
    fields = dict(claim.params["order"])
    parts = tuple(PromptPart(**part) for part in fields.pop("parts", ()))
    if _takes_files(claim):
        inputs = _files(claim, uploaded)
        return VideoOrder(model=claim.model, **fields, parts=parts, inputs=inputs, user=_user(claim))
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


def _takes_files(claim: Claim) -> bool:
    return get_provider(claim.account).capabilities.uploads is None


def _files(claim: Claim, rows: list[Row[Any]]) -> tuple[InputFile, ...]:
    base = get_settings().public_url
    return tuple(
        InputFile(
            kind=row.media,
            role=row.role,
            name=row.name,
            media_type=row.mime,
            size=row.bytes,
            open=partial(open_stored, row),
            link=create_input_link(base, claim.id, row.n) if base and _may_be_link(claim, row) else None,
        )
        for row in rows
    )


def _may_be_link(claim: Claim, row: Row[Any]) -> bool:
    """An upstream that could not open an image by its link gets it within the order; a video goes by link only."""
    return claim.attempt == 1 or row.media == "video"


def _user(claim: Claim) -> str:
    """Return a stable name of the end user that tells nothing about them."""
    named = f"{claim.owner} {claim.params.get('user') or ''}"
    return hashlib.sha256(named.encode()).hexdigest()[:40]


def _reference(row: Row[Any]) -> Reference:
    return Reference(row.uri, row.width, row.height, row.format)


def _material(row: Row[Any]) -> Material:
    if row.media == "image":
        return Material(kind="image", image=_reference(row), width=row.width, height=row.height, name=row.name)
    return Material(
        kind=row.media,
        upload_id=row.uri,
        width=row.width,
        height=row.height,
        milliseconds=row.milliseconds,
        name=row.name,
    )
