"""Response of `GET /admin/v1/system`."""

from typing import Literal

from pydantic import BaseModel, Field

Kind = Literal["image", "video", "chat"]


class OpenJobs(BaseModel):
    """Open jobs of one kind."""

    kind: Kind
    queued: int
    running: int = Field(description="jobs with an account: submitting, running or saving")
    oldest_queued_seconds: float | None = Field(description="age of the oldest queued job; null if there is none")


class EndedJobs(BaseModel):
    """Jobs that ended within one hour."""

    at: int = Field(description="start of the hour, unix seconds")
    succeeded: int
    failed: int
    cancelled: int


class ErrorCount(BaseModel):
    """How often an error occurred in the last 24 hours."""

    code: str
    fault: str = Field(description="cause of the error: content, request, account, upstream or platform")
    failed: int = Field(description="jobs that failed with it")
    survived: int = Field(description="refusals after which the job was retried")


class AccountCount(BaseModel):
    """Number of upstream accounts by region and state."""

    region: str
    pool: bool
    state: str
    accounts: int
    credits: int = Field(description="last known credits")


class SchemaVersion(BaseModel):
    """The schema revision of the database, and the newest one of this version."""

    present: str | None
    newest: str


class Defaults(BaseModel):
    """Limits of accounts without own limits."""

    max_images: int
    max_videos: int
    submits_per_minute: float
    poll_min_seconds: float
    poll_max_seconds: float
    poll_eagerness: float


class System(BaseModel):
    """The platform now and in the last 24 hours."""

    object: Literal["system"]
    at: int
    version: str
    schema_: SchemaVersion = Field(alias="schema")
    checks: dict[str, str | None] = Field(description="as in `/readyz`: null = passed, else the problem")
    draining: bool
    open: list[OpenJobs]
    hours: list[EndedJobs] = Field(description="the last 24 hours, oldest first; the last one is not over")
    outcomes: dict[str, int] = Field(
        description="jobs that ended in the last 24 hours: succeeded, cancelled, and failures by cause"
    )
    errors: list[ErrorCount] = Field(description="most frequent first")
    accounts: list[AccountCount]
    webhooks_waiting: int
    defaults: Defaults
    flower_url: str | None = Field(description="DREAMERY_FLOWER_URL")
