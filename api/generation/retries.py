"""Plans a retry: a new job with the parameters and inputs of a job that has ended.

Inputs are copied under keys of the new job, so that the retention of one job does not remove inputs of the other.
"""

import io
import random
from typing import Any, Literal
from uuid import UUID

from api.auth.caller import Caller
from api.generation.acceptance import GenerationPlan, fingerprint
from api.generation.model_availability import NO_OFFER
from api.generation.models.fields import check_seed
from api.generation.request_checks import check_regions
from worker import storage
from worker.core.catalog.models import get_catalog
from worker.core.errors import DreameryError
from worker.core.ids import new_id, public_id
from worker.db.engine import Row, transaction
from worker.db.jobs import inputs
from worker.db.jobs.inputs import NewInput, StoredInput
from worker.db.jobs.queries import JobView
from worker.db.jobs.state_machine import NewJob

Seed = Literal["same", "new"] | int


def plan_retry(path: str, view: JobView, seed: Seed, caller: Caller) -> GenerationPlan:
    """Return the plan of the new job. Raises `job_not_finished`, `input_expired`, or an error of the seed or model."""
    job = view.job
    if job.finished_at is None:
        message = f"Job {public_id('job', job.id)} has not ended yet. Wait for it, or cancel it first."
        raise DreameryError("job_not_finished", message)
    caller.require_model(job.model)
    _check_model(job.kind, job.model, caller)
    providers = [name for name in job.providers if caller.providers is None or name in caller.providers]
    if not providers:
        caller.require_providers(job.providers)
    order = _with_seed(job.params["order"], seed, job.model)
    new = NewJob(
        id=new_id(),
        owner=caller.owner,
        kind=job.kind,
        model=job.model,
        # The old request may have had several jobs; the retry counts only the results of this one.
        params={
            **{name: value for name, value in job.params.items() if name != "conversation"},
            "order": order,
            "n": _result_count(job.kind, order),
        },
        # Upstream knows the draft of a final on the account that made it.
        account_ids=list(job.account_ids) if order.get("options", {}).get("draft_of") else [],
        providers=providers,
        user_id=caller.user_id,
        api_key_id=caller.api_key_id,
        webhook_url=job.webhook_url,
        metadata={**job.metadata, "retry_of": public_id("job", job.id)},
    )
    with transaction() as tx:
        input_rows = inputs.original_inputs(tx, job.id)
    return GenerationPlan(
        jobs=[new],
        n=new.params["n"],
        fingerprint=fingerprint(path, {"seed": seed}, []),
        inputs=[_copy_input(row, new.id) for row in input_rows],
        wants_new_jobs=True,
    )


def _check_model(kind: str, model: str, caller: Caller) -> None:
    """Check the model again, because the catalog may have changed."""
    catalog = get_catalog()
    if kind == "image":
        check_regions(catalog.find_image(model) or catalog.image_model(model), caller, NO_OFFER)
    elif kind == "video":
        check_regions(catalog.find_video(model) or catalog.video_model(model), caller, NO_OFFER)


def _result_count(kind: str, order: dict[str, Any]) -> int:
    return int(order.get("count") or 1) if kind == "image" else int(kind == "video")


def _with_seed(order: dict[str, Any], seed: Seed, model_id: str) -> dict[str, Any]:
    if seed == "same":
        return order
    model = get_catalog().find_image(model_id) or get_catalog().find_video(model_id)
    if model is not None and model.seed != "always":
        # Without a seed every run differs.
        check_seed(model, None if seed == "new" else seed)
        return {**order, "seed": -1 if seed == "new" else seed}
    if "seed" not in order:
        if seed == "new":
            return order  # every run without a seed differs
        raise DreameryError("unsupported_parameter", "A conversation has no seed. Leave `seed` out.", param="seed")
    fresh = random.randrange(2**32) if seed == "new" else seed  # noqa: S311 - not a secret
    return {**order, "seed": fresh}


def _copy_input(row: "Row[Any]", job_id: UUID) -> NewInput:
    """Copy an input. Stored bytes are copied; a link whose bytes were removed is fetched again."""
    about = {"role": row.role, "media": row.media, "name": row.name, "origin_file_id": row.origin_file_id}
    if row.key is not None:
        key = f"inputs/{job_id.hex}/{row.n}.{row.key.rpartition('.')[2]}"
        try:
            storage.put_file(key, io.BytesIO(storage.read_file(row.key)))
        except storage.MissingFileError:
            pass
        else:
            stored = StoredInput(
                key=key,
                mime=row.mime,
                bytes=row.bytes,
                width=row.width,
                height=row.height,
                sha256=row.sha256,
                milliseconds=row.milliseconds,
            )
            return NewInput(url=row.url, stored=stored, **about)
    if row.url is None:
        message = f"Input {row.n + 1} of this job is no longer stored. Send the whole request again."
        raise DreameryError("input_expired", message)
    return NewInput(url=row.url, **about)
