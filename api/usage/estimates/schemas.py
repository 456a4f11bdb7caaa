"""Bodies of `POST /v1/estimate`."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.generation.variants.request_matrix import RequestMatrix
from api.http.errors import ErrorObject
from api.http.fields import IMAGE_MODEL, example
from api.jobs.schemas import JobEta

Endpoint = Literal[
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/images/compositions",
    "/v1/videos",
    "/v1/videos/generations",
    "/v1/video/generations",
    "/v1/chat/completions",
]


# Requests of one estimate: all of them are planned while the caller waits.
MOST_REQUESTS = 500


class PlannedCall(BaseModel):
    """A generation call: where it would be sent, and its body."""

    model_config = ConfigDict(extra="ignore")

    endpoint: Endpoint = Field(description="path of the generation call")
    body: dict[str, Any] = Field(description="JSON body of the call, as it would be sent there")


class EstimateRequest(BaseModel):
    """A generation call to estimate; or many, as a list or as a matrix."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "endpoint": "/v1/images/generations",
                    "body": {"model": IMAGE_MODEL, "prompt": "a red paper boat", "resolution": "4k", "n": 4},
                },
                {"matrix": {"prompts": ["a {red|blue} boat"], "variants": True, "ratios": ["1:1", "16:9"], "n": 1}},
            ]
        },
    )

    endpoint: Endpoint | None = Field(None, description="path of the generation call")
    body: dict[str, Any] | None = Field(None, description="JSON body of the call, as it would be sent there")
    requests: list[PlannedCall] | None = Field(
        None, min_length=1, max_length=MOST_REQUESTS, description="many calls, instead of `endpoint` and `body`"
    )
    matrix: RequestMatrix | None = Field(
        None, description=f"up to {MOST_REQUESTS} calls as prompts times models, ratios and sizes, instead of a list"
    )


class EstimatedJob(BaseModel):
    """One of the upstream jobs that the call would create."""

    kind: Literal["image", "video", "chat"]
    model: str
    resolution: str | None
    pictures: int | None = Field(description="(images) number of images")
    seconds: int | None = Field(description="(videos) duration in seconds")
    credits: int | None = Field(
        description="expected cost, in thousandths of `currency` if there is one; null = unknown"
    )
    currency: str | None = Field(description="the currency in which the accounts pay; null = credits of upstream's own")
    cost: float | None = Field(description="the expected cost in `currency`: the most that it may be")
    source: Literal["learned", "scaled", "catalog", "unknown"] = Field(
        description="`learned`: charged by upstream for such a job; `scaled`: from another count or duration; "
        "`catalog`: an initial value; `unknown`: no price"
    )
    learned_at: int | None = Field(description="when upstream charged it")


class AccountsFor(BaseModel):
    """Number of upstream accounts that could run the first job."""

    candidates: int = Field(description="accounts with the model that you may use")
    at_all: int = Field(description="of these, usable accounts not known to lack credits")
    now: int = Field(description="of these, accounts with a free slot, no cooldown and enough credits now")


class Refusal(ErrorObject):
    """Why the call would be rejected now, or its jobs would fail."""

    status: int


class Estimate(BaseModel):
    """Expected cost and time of a generation call. Nothing was created."""

    model_config = example(
        object="estimate",
        endpoint="/v1/images/generations",
        model=IMAGE_MODEL,
        jobs=[
            {
                "kind": "image",
                "model": IMAGE_MODEL,
                "resolution": "4k",
                "pictures": 4,
                "seconds": None,
                "credits": 16,
                "currency": None,
                "cost": None,
                "source": "learned",
                "learned_at": 1763000000,
            }
        ],
        credits=16,
        currency=None,
        cost=None,
        known=True,
        eta={"p50": 20, "p90": 45},
        time_source="learned",
        accounts={"candidates": 3, "at_all": 3, "now": 2},
        refusals=[],
    )

    object: Literal["estimate"]
    endpoint: Endpoint
    model: str
    jobs: list[EstimatedJob] = Field(description="empty: answered without a job, free of charge")
    credits: int | None = Field(description="sum of all jobs; null = one price is unknown")
    currency: str | None = Field(description="as in the jobs")
    cost: float | None = Field(description="the sum in `currency`; null = for credits, or one price is unknown")
    known: bool = Field(description="whether `credits` is known")
    eta: JobEta | None = Field(description="seconds until the last result; null = no job, or no account could run it")
    time_source: Literal["learned", "default"] | None = Field(
        description="`learned`: from the times of such jobs; `default`: no such job has ended yet; null = no `eta`"
    )
    accounts: AccountsFor
    refusals: list[Refusal] = Field(description="empty: the call would be accepted")


class EstimatedRequest(BaseModel):
    """One of many calls: what it makes and costs, or why it would be refused."""

    endpoint: Endpoint
    model: str | None
    prompt: str | None
    ratio: str | None
    resolution: str | None
    seconds: int | None = Field(description="(videos) duration")
    results: int = Field(description="number of pictures or videos in its answer")
    jobs: int = Field(description="number of upstream jobs")
    credits: int | None = Field(description="as in the estimate of one call")
    currency: str | None
    cost: float | None
    known: bool = Field(description="whether `credits` is known")
    error: Refusal | None = Field(description="why this call would be refused; null = it would not")


class EstimatedTotal(BaseModel):
    """The sum of all calls that pay in one currency."""

    currency: str | None = Field(description="null = credits of upstream's own")
    credits: int = Field(description="the sum of the known prices, in thousandths of `currency` if there is one")
    cost: float | None = Field(description="the sum in `currency`")
    jobs: int
    known: bool = Field(description="whether all prices are known")


class EstimateOfMany(BaseModel):
    """Expected cost and time of many calls together. Nothing was created."""

    object: Literal["estimate.list"]
    requests: list[EstimatedRequest] = Field(description="in the order of the list or the matrix")
    results: int = Field(description="number of pictures and videos of all calls")
    jobs: int = Field(description="number of upstream jobs of all calls")
    totals: list[EstimatedTotal] = Field(description="one for each currency; none if every call has an error")
    known: bool = Field(description="whether all prices are known")
    eta: JobEta | None = Field(description="seconds until the last result; null = no account could run one of the jobs")
    errors: int = Field(description="number of calls with an error")
    refusals: list[Refusal] = Field(description="why all of them together would be refused or some would fail")
    acceptable: bool = Field(description="no call has an error and there is no refusal")
