"""`GET /admin/v1/metrics/history`: what the platform did over time, from its own samples, without Prometheus."""

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field, create_model

from api.auth.dependencies import AdminDep
from api.http.errors import error_responses
from api.http.responses import json_response
from worker.core.errors import DreameryError
from worker.core.observability.samples import COUNTS, DURATIONS, LEVELS, STEPS, shown, step_for
from worker.db.engine import transaction
from worker.db.monitoring import samples

router = APIRouter(prefix="/admin/v1", tags=["admin"], responses=error_responses(400, 401, 403))

_DAY = 86_400
MOST_POINTS = 1600
_LATEST = 4_000_000_000

_MEASURES: dict[str, Any] = {
    **dict.fromkeys((*COUNTS, *LEVELS), (float | None, Field(description="null = not known"))),
    **{
        f"{name}_{share}": (float | None, Field(description="seconds; null = nothing was measured"))
        for name in DURATIONS
        for share in ("p50", "p95")
    },
}


class _Window(BaseModel):
    """What was measured from `at` on, for one step."""

    at: int = Field(description="begin of the window, unix seconds")


Sample = create_model("Sample", __base__=_Window, **_MEASURES)


class MetricsHistory(BaseModel):
    """Samples, oldest first. A window without a sample is missing: the platform did not run, or had no worker."""

    object: Literal["metrics.history"]
    first: int = Field(serialization_alias="from", alias="from")
    to: int
    step: int = Field(description="seconds that a sample stands for")
    sampled_at: int | None = Field(description="begin of the last minute with a sample; null = there is none")
    data: list[Sample]


_Step = Annotated[Literal["60", "600", "3600"] | None, Query(description="seconds; default: as the time needs")]


@router.get("/metrics/history", summary="Get measurements over time", responses={200: {"model": MetricsHistory}})
def get_history(
    _admin: AdminDep,
    first: Annotated[
        int | None, Query(alias="from", ge=0, le=_LATEST, description="unix seconds; default: a day before `to`")
    ] = None,
    to: Annotated[int | None, Query(ge=0, le=_LATEST, description="unix seconds; default: now")] = None,
    step: _Step = None,
) -> Response:
    """Jobs, queue, delays, credits, upstream, requests, workers, storage, database and Redis over time.

    Samples of a minute are kept for 26 hours, of ten minutes for 8 days, of an hour for 92 days. Counts are sums of the
    step, levels are means, `_p50` and `_p95` are percentiles in seconds. At most 1600 samples: a longer time needs a
    longer step.
    """
    end = int(time.time()) + 1 if to is None else to
    begin = end - _DAY if first is None else first
    if begin >= end:
        raise DreameryError("invalid_value", "`from` must be before `to`.", param="from")
    seconds = int(step) if step is not None else step_for(end - begin)
    if (end - begin) / seconds > MOST_POINTS:
        longest = MOST_POINTS * STEPS[-1]
        message = f"This time has more than {MOST_POINTS} samples. Use a longer `step`, or at most {longest} seconds."
        raise DreameryError("invalid_value", message, param="step")
    with transaction() as tx:
        found = samples.history(tx, begin, end, seconds)
        last = samples.last_at(tx)
    return json_response(
        {
            "object": "metrics.history",
            "from": begin,
            "to": end,
            "step": seconds,
            "sampled_at": None if last is None else int(last.timestamp()),
            "data": [{"at": at, **shown(measures)} for at, measures in found],
        }
    )
