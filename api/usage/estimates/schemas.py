"""Bodies of `POST /v1/estimate`."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

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


class EstimateRequest(BaseModel):
    """A generation call to estimate."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "endpoint": "/v1/images/generations",
                    "body": {"model": IMAGE_MODEL, "prompt": "a red paper boat", "resolution": "4k", "n": 4},
                }
            ]
        },
    )

    endpoint: Endpoint = Field(description="path of the generation call")
    body: dict[str, Any] = Field(description="JSON body of the call, as it would be sent there")


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
