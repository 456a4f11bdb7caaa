"""The answer of `GET /admin/v1/system`."""

from typing import Literal

from pydantic import BaseModel, Field

Kind = Literal["image", "video", "chat"]


class OpenJobs(BaseModel):
    """Open jobs of a kind."""

    kind: Kind
    queued: int
    running: int = Field(description="with an account: submitting, running or saving")
    oldest_queued_seconds: float | None = Field(description="age of the oldest that waits; null when none does")


class EndedJobs(BaseModel):
    """Jobs that ended within an hour."""

    at: int = Field(description="when the hour began, unix seconds")
    succeeded: int
    failed: int
    cancelled: int


class ErrorCount(BaseModel):
    """How often an error was met in the last 24 hours."""

    code: str
    fault: str = Field(description="who has to change something: content, request, account, upstream or platform")
    failed: int = Field(description="jobs that ended with it")
    survived: int = Field(description="refusals after which the job went on, elsewhere or later")


class AccountCount(BaseModel):
    """Upstream accounts of a region in a state."""

    region: str
    pool: bool
    state: str
    accounts: int
    credits: int = Field(description="as last told")


class SchemaVersion(BaseModel):
    """The revision of the database, and the one this version brings."""

    present: str | None
    newest: str


class Defaults(BaseModel):
    """What accounts without limits of their own have."""

    max_images: int
    max_videos: int
    submits_per_minute: float


class System(BaseModel):
    """The platform at this moment and in the last 24 hours."""

    object: Literal["system"]
    at: int
    version: str
    schema_: SchemaVersion = Field(alias="schema")
    checks: dict[str, str | None] = Field(description="as in `/readyz`: null = fine, else what is wrong")
    draining: bool
    open: list[OpenJobs]
    hours: list[EndedJobs] = Field(description="the last 24, oldest first; the last one is not over")
    outcomes: dict[str, int] = Field(
        description="jobs that ended in the last 24 hours: succeeded, cancelled, and failures by whose fault they were"
    )
    errors: list[ErrorCount] = Field(description="most frequent first")
    accounts: list[AccountCount]
    webhooks_waiting: int
    defaults: Defaults
    flower_url: str | None = Field(description="DREAMERY_FLOWER_URL")
