"""Bodies of usage reports and of the list of prices."""

from typing import Literal

from pydantic import BaseModel, Field

from api.http.fields import example


class UsageNumbers(BaseModel):
    """What was accepted and what came of it."""

    accepted: int = Field(description="jobs; each counts on the day on which it was accepted")
    succeeded: int
    failed: int
    cancelled: int
    open: int = Field(description="jobs that have not ended yet")
    pictures: int = Field(description="pictures made, also those that are removed by now")
    video_seconds: float
    credits: int = Field(description="upstream credits: what jobs did cost, or are expected to; unknown counts as 0")


class UsageRow(UsageNumbers):
    """The numbers of one group; of what is not grouped by, the keys are absent."""

    day: str | None = Field(None, description="`YYYY-MM-DD` in `time_zone`")
    user_id: str | None = Field(None, description="null for callers with session ids")
    user: str | None = None
    key_id: str | None = Field(None, description="a rotated key counts with the first of its line")
    key: str | None = None
    kind: str | None = None
    model: str | None = None
    account_id: str | None = Field(None, description="null for jobs that no account has taken")
    account: str | None = None


class LimitStanding(BaseModel):
    """Where a limit stands now."""

    scope: Literal["user", "key"] = Field(description="`user` = all keys of the user together")
    name: str
    soft: int | None
    hard: int | None
    used: int | None = Field(description="null = cannot be told now")
    remaining: int | None = Field(description="null = no hard limit, or cannot be told now")
    resets_at: int | None = Field(description="unix seconds; null = whenever an open job ends")
    state: Literal["ok", "warning", "reached"]


class UsageReport(BaseModel):
    """Usage by group, all of it together, and where limits stand."""

    model_config = example(
        **{
            "object": "usage",
            "from": "2026-11-01",
            "to": "2026-11-25",
            "time_zone": "UTC",
            "group_by": ["day"],
            "data": [
                {
                    "day": "2026-11-25",
                    "accepted": 3,
                    "succeeded": 2,
                    "failed": 1,
                    "cancelled": 0,
                    "open": 0,
                    "pictures": 8,
                    "video_seconds": 0.0,
                    "credits": 8,
                }
            ],
        }
    )

    object: Literal["usage"]
    from_: str = Field(alias="from", description="the first day")
    to: str = Field(description="the last day, included")
    time_zone: str
    group_by: list[str]
    data: list[UsageRow]
    total: UsageNumbers
    limits: list[LimitStanding] = Field(description="of the caller, or of the one user or key that was asked about")


class PriceLine(BaseModel):
    """A price that upstream was seen to charge, or a starting value of the catalog."""

    place: str = Field(description="the region of the accounts it holds for")
    kind: Literal["image", "video"]
    model: str = Field(description="`image` or `video` in lines of the catalog: all models of that kind")
    shape: str = Field(description="`2k x4` = four pictures, `720p 10s` = ten seconds; without a number: of each one")
    credits: float
    source: Literal["history", "catalog"]
    at: int | None = Field(description="when upstream charged it")
    jobs: int = Field(description="how many jobs in a row cost so")


class PriceList(BaseModel):
    """Every price that is known."""

    object: Literal["list"]
    data: list[PriceLine]
    has_more: bool
