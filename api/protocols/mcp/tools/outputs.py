"""Structured results of the tools. Null means: not known, or there is none."""

from typing import Any

from pydantic import BaseModel, Field


class File(BaseModel):
    """A picture or video of a job."""

    uri: str = Field(description="name of this file for resources/read, and as an input of other tools")
    url: str = Field(description="link for people; opens without a key")
    mime_type: str
    width: int | None
    height: int | None
    bytes: int | None
    seconds: float | None = Field(description="duration of a video")


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    message: str


class Job(BaseModel):
    """A job."""

    id: str
    uri: str = Field(description="name of the job for resources/read: everything that is known about it")
    kind: str
    status: str = Field(description="queued, in_progress, completed, failed or cancelled")
    model: str
    prompt: str | None = Field(description="its first 300 characters")
    progress: float = Field(description="0 to 100")
    queue_position: int | None
    eta_seconds: float | None
    created_at: int | None = Field(description="unix seconds, as all times")
    completed_at: int | None
    cancelling: bool = Field(description="cancelled, but the upstream has not confirmed it yet")
    files: list[File]
    text: str | None = Field(description="the answer of a chat")
    error: JobError | None
    cost: float | None = Field(description="charged; what is expected until that is known")
    currency: str | None = Field(description="of `cost`; `credits` or a currency")


class Jobs(BaseModel):
    """Jobs that a call created, or waited for."""

    jobs: list[Job]
    done: bool = Field(description="whether all of them have ended")
    next: str | None = Field(description="what to do next, if they have not")


class JobPage(BaseModel):
    """A page of a list of jobs."""

    jobs: list[Job]
    next_after: str | None = Field(description="`after` of the next page")


class Refusal(BaseModel):
    """Why a call would be refused now."""

    code: str
    message: str
    param: str | None


class Estimate(BaseModel):
    """What a call would cost and take. Nothing was created."""

    model: str
    cost: float | None = Field(description="the most that it may cost, in `currency`")
    currency: str = Field(description="`credits` or a currency")
    known: bool = Field(description="false = no price is known")
    jobs: int
    seconds: float | None = Field(description="half of such calls end within this time")
    seconds_at_most: float | None = Field(description="nine in ten such calls end within this time")
    accounts_now: int = Field(description="upstream accounts that could begin now")
    needs_confirmation: bool = Field(description="true = the user has to agree to the cost first: `confirm_cost`")
    refusals: list[Refusal]


class Model(BaseModel):
    """A model."""

    id: str
    kind: str = Field(description="image, video or chat")
    name: str
    about: str
    resolutions: list[str]
    ratios: list[str] | None
    counts: list[int] = Field(description="how many results one call makes")
    durations: list[int] | None = Field(description="seconds that a video may have; the first is the default")
    reference_images: int = Field(description="how many pictures it takes; 0 = text alone")
    first_frame: bool
    last_frame: bool
    options: list[str] = Field(description="optional fields of the REST API that it takes")


class Models(BaseModel):
    """The models that the key may use."""

    models: list[Model]


class LimitUse(BaseModel):
    """The use of a limit of the key or its user."""

    name: str = Field(description="such as `key.credits_per_day`")
    limit: float | None
    used: float | None
    remaining: float | None
    resets_at: int | None


class AccountCredits(BaseModel):
    """Credits of an upstream account of the caller."""

    account: str
    credits: float | None
    problem: str | None


class BalanceSheet(BaseModel):
    """What the key may still spend, and what it spent since the first day of the month."""

    limits: list[LimitUse] = Field(description="empty = nothing is limited")
    spent: dict[str, float] = Field(description="by currency: credits, usd, cny")
    jobs: int
    accounts: list[AccountCredits] = Field(description="of your own; the platform's accounts are not listed")
    note: str | None


def output_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a result."""
    return model.model_json_schema(mode="serialization")
