"""Request and response schemas of jobs.

Unknown request fields are ignored (clients add many); a known field with an invalid value is a 400 with `param`. The
response models are for the OpenAPI document and the tests: `serialization.py` writes the JSON without them.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.http.fields import IMAGE_MODEL, example
from worker.db.scheduling.queue_positions import MOST_AHEAD


class JobQueue(BaseModel):
    """Position of a job in the queues."""

    position: int | None = Field(
        description=f"position in our own queue, 1 = next, {MOST_AHEAD + 1} = there or further behind; null once it "
        "has left it"
    )
    upstream_position: int | None
    eta_seconds: int | None = Field(
        description="seconds until the result, `eta.p50` rounded; null while the job is late and once it has ended"
    )


class JobEta(BaseModel):
    """Seconds from now until the result, learned from finished jobs of the same model and size."""

    p50: float = Field(description="median: half of the jobs end earlier")
    p90: float = Field(description="90th percentile: nine in ten jobs end earlier")


class RemainingTime(BaseModel):
    """Seconds from now until the result; null for a late job, because then nothing is known."""

    p50: float | None = Field(description="median: half of the jobs that ran this long end earlier")
    p90: float | None = Field(description="90th percentile: nine in ten end earlier")
    late: bool = Field(description="it takes longer than nine in ten similar jobs did")
    text: str = Field(description="the same in words: `about 20 s left`, `at least 900 s left` or `longer than usual`")


class JobFile(BaseModel):
    """One stored result."""

    id: str
    n: int = Field(description="its number in the job, from 0; deleted results leave a gap")
    favourite: bool
    pinned: bool = Field(description="kept permanently")
    expires_at: int | None = Field(description="when it is removed; null = never, or it is already")
    expired: bool = Field(description="it was removed; its link answers 410 `file_expired`")
    url: str
    mime: str
    width: int | None
    height: int | None
    bytes: int
    seconds: float | None
    thumbnail_url: str | None = Field(None, description="(videos) a JPEG of the first frame")
    spritesheet_url: str | None = Field(None, description="(videos) a JPEG of small frames in rows")
    last_frame_url: str | None = Field(None, description="(videos) the last frame, if `return_last_frame` was set")
    layer: dict[str, Any] | None = Field(None, description="(layers) `name`, `description` and `box` in pixels")


class JobConversation(BaseModel):
    """Output of a conversation with the agent."""

    text: str = Field(description="text of the agent so far")
    jobs: list[str] = Field(description="ids of the image and video jobs that it started")


class JobError(BaseModel):
    """Why a job failed; the same four keys as in an error response."""

    message: str
    type: str
    param: str | None
    code: str


class JobUrls(BaseModel):
    """URLs of the job."""

    get: str
    events: str
    cancel: str
    retry: str
    timeline: str


class JobUsage(BaseModel):
    """Results of a job and their upstream cost."""

    images: int | None = Field(None, description="(images) once completed")
    videos: int | None = Field(None, description="(videos) once completed")
    seconds: int | None = Field(None, description="(videos) once completed")
    credits_estimated: int | None = Field(description="expected upstream credits; null = unknown")
    credits_charged: int | None = Field(
        description="actual upstream credits: when the job ends, the expected ones; later, as upstream reports; "
        "0 = certainly nothing; null = not known (yet)"
    )
    currency: str | None = Field(
        None, description="(jobs for money) the currency; the credits are thousandths of it, and of the account"
    )
    cost_estimated: float | None = Field(None, description="(jobs for money) the most that it may cost")
    cost_charged: float | None = Field(
        None, description="(jobs for money) what it cost by the usage that upstream reported; before that as estimated"
    )


JOB_EXAMPLE: dict[str, Any] = {
    "id": "job_0197f0c2a3b47c1d8e9f0a1b2c3d4e5f",
    "object": "job",
    "kind": "image",
    "type": "image",
    "status": "in_progress",
    "model": IMAGE_MODEL,
    "group": "job_0197f0c2a3b47c1d8e9f0a1b2c3d4e5f",
    "parent": None,
    "created_at": 1763000000,
    "queued_at": 1763000000,
    "started_at": 1763000001,
    "completed_at": None,
    "expires_at": None,
    "expired_at": None,
    "pinned": False,
    "progress": 42,
    "queue": {"position": None, "upstream_position": 3, "eta_seconds": 20},
    "eta": {"p50": 20, "p90": 45, "late": False, "text": "about 20 s left"},
    "input": {"prompt": "a red paper boat", "size": "2048x2048", "n": 1},
    "output": None,
    "error": None,
    "metadata": {},
    "favourite": False,
    "sandbox": False,
    "cancelling": False,
    "urls": {
        "get": "http://127.0.0.1:8000/v1/jobs/job_...",
        "events": "http://127.0.0.1:8000/v1/jobs/job_.../events",
        "cancel": "http://127.0.0.1:8000/v1/jobs/job_.../cancel",
        "retry": "http://127.0.0.1:8000/v1/jobs/job_.../retry",
        "timeline": "http://127.0.0.1:8000/v1/jobs/job_.../timeline",
    },
    "usage": {"credits_estimated": 2, "credits_charged": None},
}


class RouteOption(BaseModel):
    """A model that the requested name could have meant."""

    provider: str
    model: str


class JobRoute(BaseModel):
    """The choice between models of several providers that have the requested name."""

    requested: str
    model: str
    rule: Literal["default", "operator"] = Field(
        description="`operator` = by a route of the operator, `default` = the first provider with an account"
    )
    options: list[RouteOption]


class JobSchedule(BaseModel):
    """When a job runs."""

    held: bool = Field(description="it waits before the queue: for its time, its batch, its key's limit, idle accounts")
    not_before: int | None = Field(description="(held) no earlier than this")
    expires_at: int | None = Field(description="it fails with `job_expired` if no account has begun it by then")
    priority: Literal["normal", "idle"]


class Job(BaseModel):
    """A job. Nullable keys are always present; times are unix seconds."""

    model_config = example(**JOB_EXAMPLE)

    id: str
    object: Literal["job"]
    kind: Literal["image", "video", "chat"]
    type: Literal["image", "video", "chat"] = Field(description="the same as `kind`")
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled"]
    model: str
    provider: str | None = Field(None, description="whose accounts run it, see `GET /v1/accounts/providers`")
    route: JobRoute | None = Field(None, description="how the model was chosen; null = the name meant only one")
    group: str = Field(description="the first job of the request that created it")
    batch: str | None = Field(None, description="the batch that it is a part of, if any")
    schedule: JobSchedule | None = Field(None, description="when it runs, if its request or its batch said so")
    parent: str | None = Field(description="the conversation that started it, if any")
    created_at: int
    queued_at: int
    started_at: int | None
    completed_at: int | None
    expires_at: int | None = Field(description="when the results are removed; null = never")
    expired_at: int | None = Field(description="when the results were removed; their links answer 410 `file_expired`")
    pinned: bool = Field(description="all of its results are kept permanently")
    progress: int = Field(ge=0, le=100, description="never falls while the job is open; 100 = completed, 0 = failed")
    queue: JobQueue
    eta: RemainingTime | None = Field(description="null while the job is held, and once it has ended")
    input: dict[str, Any]
    output: list[JobFile] | JobConversation | None
    error: JobError | None
    metadata: dict[str, str]
    favourite: bool = Field(description="marked by its owner, or some of its results are favourites")
    sandbox: bool = Field(description="its account is one of the sandbox: results are test images and videos")
    cancelling: bool = Field(description="cancellation was requested and is not complete yet")
    urls: JobUrls
    usage: JobUsage | None = Field(description="null = no results and no known price")


class JobList(BaseModel):
    """One page of jobs."""

    object: Literal["list"]
    data: list[Job]
    first_id: str | None
    last_id: str | None
    has_more: bool
    missing: list[str] | None = Field(None, description="with `ids`: ids that are not your jobs")


class DeletedJob(BaseModel):
    """Response to a deletion."""

    id: str
    object: Literal["job.deleted"]
    deleted: Literal[True]


class RetryRequest(BaseModel):
    """Body of `POST /v1/jobs/{id}/retry`; optional."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"seed": "new"}]})

    seed: Literal["same", "new"] | Annotated[int, Field(ge=0, le=2**32 - 1)] = Field(
        "same", description="`same` = as before, `new` = another random seed, or a seed number"
    )


class AcceptedJob(Job):
    """Response to `respond-async`: the job, and all jobs if the request created several."""

    jobs: list[Job] | None = None
