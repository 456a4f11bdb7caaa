"""Bodies of `POST /v1/estimate`."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.http.errors import ErrorObject
from api.http.fields import example
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
    """A creating call that is not to be made yet."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "endpoint": "/v1/images/generations",
                    "body": {"model": "jimeng-4.0", "prompt": "a red paper boat", "resolution": "4k", "n": 4},
                }
            ]
        },
    )

    endpoint: Endpoint = Field(description="the path of the creating call")
    body: dict[str, Any] = Field(description="its JSON body, exactly as it would be sent there")


class EstimatedJob(BaseModel):
    """One of the upstream jobs that the call would make."""

    kind: Literal["image", "video", "chat"]
    model: str
    resolution: str | None
    pictures: int | None = Field(description="(pictures) how many it makes")
    seconds: int | None = Field(description="(videos) how long it is")
    credits: int | None = Field(description="what it will cost; null = not known")
    source: Literal["learned", "scaled", "catalog", "unknown"] = Field(
        description="`learned`: upstream charged it for such a job; `scaled`: for another number or length of them; "
        "`catalog`: a starting value; `unknown`: nobody knows"
    )
    learned_at: int | None = Field(description="when upstream charged it")


class AccountsFor(BaseModel):
    """How many upstream accounts could take the first of the jobs."""

    candidates: int = Field(description="those that have the model and may be used by you")
    at_all: int = Field(description="of these, those that work and are not known to lack the credits")
    now: int = Field(description="of these, those with a free slot, rest over and enough credits at this moment")


class Refusal(ErrorObject):
    """Why the call would be refused, or its jobs would fail, as things stand."""

    status: int


class Estimate(BaseModel):
    """What a creating call would cost and how long it would take. Nothing was made."""

    model_config = example(
        object="estimate",
        endpoint="/v1/images/generations",
        model="jimeng-4.0",
        jobs=[
            {
                "kind": "image",
                "model": "jimeng-4.0",
                "resolution": "4k",
                "pictures": 4,
                "seconds": None,
                "credits": 16,
                "source": "learned",
                "learned_at": 1763000000,
            }
        ],
        credits=16,
        known=True,
        eta={"p50": 20, "p90": 45},
        accounts={"candidates": 3, "at_all": 3, "now": 2},
        refusals=[],
    )

    object: Literal["estimate"]
    endpoint: Endpoint
    model: str
    jobs: list[EstimatedJob] = Field(description="empty: answered without a job, at no cost")
    credits: int | None = Field(description="of all jobs; null = the price of one is not known")
    known: bool = Field(description="whether `credits` is known")
    eta: JobEta | None = Field(description="seconds until the last result; null = nothing is made, or no account could")
    accounts: AccountsFor
    refusals: list[Refusal] = Field(description="empty: the call would be accepted")
