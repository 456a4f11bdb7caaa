"""Bodies of a job's timeline."""

from typing import Literal

from pydantic import BaseModel, Field


class TimelineText(BaseModel):
    """What happened, in words."""

    en: str
    zh: str


class TimelineOther(BaseModel):
    """An account that a job might have gone to."""

    account: str = Field(description="its label; `pool` for accounts of the platform")
    why: str = Field(description="why it did not take the job")
    text: TimelineText
    score: float | None = Field(description="0 to 1; null = it could not have taken the job at that moment")
    until: str | None = Field(description="when its rest ends")
    code: str | None = Field(description="the error code behind its rest")


class TimelineChoice(BaseModel):
    """Why the account of this try was chosen."""

    score: dict[str, float] | None = Field(
        description="of the chosen account, 0 to 1: `total`, and its parts health, load, success, credits and wear"
    )
    others: list[TimelineOther]


class TimelineEntry(BaseModel):
    """One change of a job's state."""

    seq: int
    at: float = Field(description="unix seconds")
    from_state: str | None
    state: str = Field(description="queued, submitting, running, saving, succeeded, failed or cancelled")
    actor: str = Field(description="who changed it: api, submit, poll, save or tick")
    attempt: int = Field(description="which try to submit it belongs to; 0 = none yet")
    account: str | None = Field(description="label of the upstream account; `pool` for accounts of the platform")
    waited_seconds: float | None = Field(description="how long it was in the state before")
    code: str | None = Field(description="the error code behind it")
    delay_seconds: float | None = Field(description="after how long it is tried again")
    text: TimelineText
    choice: TimelineChoice | None = Field(None, description="of a claim with more than one account to choose from")


class Timeline(BaseModel):
    """A job's whole way, oldest first."""

    object: Literal["job.timeline"]
    id: str
    status: str
    data: list[TimelineEntry]
    seconds: dict[str, float] = Field(description="in each state, together")
