"""Response schemas of the job timeline."""

from typing import Literal

from pydantic import BaseModel, Field

from api.jobs.schemas import JobRoute


class TimelineText(BaseModel):
    """A description in English and Chinese."""

    en: str
    zh: str


class TimelineOther(BaseModel):
    """A candidate account that was not chosen."""

    account: str = Field(description="label of the account; `pool` for accounts of the platform")
    why: str = Field(description="why it was not chosen")
    text: TimelineText
    score: float | None = Field(description="0 to 1; null = it could not take the job at that moment")
    until: str | None = Field(description="end of its cooldown")
    code: str | None = Field(description="the error code that caused its cooldown")


class TimelineChoice(BaseModel):
    """Why the account of this attempt was chosen."""

    score: dict[str, float] | None = Field(
        description="score of the chosen account, 0 to 1: `total` and its parts health, load, success, credits and wear"
    )
    others: list[TimelineOther]


class TimelineEntry(BaseModel):
    """One state change of a job."""

    seq: int
    at: float = Field(description="unix seconds")
    from_state: str | None
    state: str = Field(description="queued, submitting, running, saving, succeeded, failed or cancelled")
    actor: str = Field(description="component that changed it: api, submit, poll, save or tick")
    attempt: int = Field(description="number of the submit attempt; 0 = not yet submitted")
    account: str | None = Field(description="label of the upstream account; `pool` for accounts of the platform")
    waited_seconds: float | None = Field(description="seconds in the previous state")
    code: str | None = Field(description="the error code that caused it")
    delay_seconds: float | None = Field(description="seconds until the next attempt")
    text: TimelineText
    choice: TimelineChoice | None = Field(None, description="only for a claim with more than one candidate account")


class Timeline(BaseModel):
    """All state changes of a job, oldest first."""

    object: Literal["job.timeline"]
    id: str
    status: str
    provider: str | None = Field(None, description="whose accounts run it")
    route: JobRoute | None = Field(None, description="how the model was chosen; null = the name meant only one")
    data: list[TimelineEntry]
    seconds: dict[str, float] = Field(description="total seconds in each state")


class WaitReasonObject(BaseModel):
    """Accounts that do not take the job now, for the same reason."""

    reason: str = Field(
        description="`ready`, `busy`, `pace`, `resting`, `model_resting`, `credits`, `off_hours`, `daily_cap`, "
        "`needs_login`, `blocked`, `paused`, `refused`; `delay` = the job itself waits before its next attempt"
    )
    accounts: int = Field(description="how many accounts; 0 for `delay`")
    labels: list[str] | None = Field(description="names of the first of them, for administrators")
    until: int | None = Field(description="unix seconds: the earliest end of it, if it is known")
    code: str | None = Field(description="the error code that caused it")
    text: TimelineText


class Waiting(BaseModel):
    """Why a job waits."""

    object: Literal["job.waiting"]
    id: str
    status: str
    position: int | None = Field(description="position in the queue, 1 = next; null = it does not wait")
    text: TimelineText
    data: list[WaitReasonObject] = Field(description="the reason of most accounts first; empty = it does not wait")
