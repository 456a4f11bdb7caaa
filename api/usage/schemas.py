"""Bodies of usage reports and of the price list."""

from typing import Literal

from pydantic import BaseModel, Field

from api.http.fields import example


class UsageNumbers(BaseModel):
    """Numbers of jobs and their results."""

    accepted: int = Field(description="jobs, counted on the day they were accepted")
    succeeded: int
    failed: int
    cancelled: int
    open: int = Field(description="jobs that have not finished yet")
    pictures: int = Field(description="images generated, including removed ones")
    video_seconds: float
    credits: int = Field(description="upstream credits that jobs cost or are expected to cost; unknown counts as 0")
    usd: float = Field(description="US dollars that jobs on accounts in this currency cost or are expected to cost")
    cny: float = Field(description="the same in yuan")


class UsageRow(UsageNumbers):
    """The numbers of one group. Keys of other groupings are omitted."""

    day: str | None = Field(None, description="`YYYY-MM-DD` in `time_zone`")
    user_id: str | None = Field(None, description="null for callers with session ids")
    user: str | None = None
    key_id: str | None = Field(None, description="rotated keys count as the original key")
    key: str | None = None
    kind: str | None = None
    model: str | None = None
    account_id: str | None = Field(None, description="null for jobs that no account has claimed")
    account: str | None = None


class LimitStatus(BaseModel):
    """The current use of a limit."""

    scope: Literal["user", "key"] = Field(description="`user` = sum of all keys of the user")
    name: str
    soft: float | None = Field(description="a number of jobs or credits, or an amount of money")
    hard: float | None
    used: float | None = Field(description="null = currently unknown")
    remaining: float | None = Field(description="null = no hard limit, or currently unknown")
    resets_at: int | None = Field(description="unix seconds; null = when an open job finishes")
    state: Literal["ok", "warning", "reached"]


class UsageReport(BaseModel):
    """Usage by group, the total, and the current use of limits."""

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
                    "usd": 0.0,
                    "cny": 0.0,
                }
            ],
        }
    )

    object: Literal["usage"]
    from_: str = Field(alias="from", description="the first day")
    to: str = Field(description="the last day, inclusive")
    time_zone: str
    group_by: list[str]
    data: list[UsageRow]
    total: UsageNumbers
    limits: list[LimitStatus] = Field(description="of the caller, or of the requested user or key")


class PriceLine(BaseModel):
    """A price learned from upstream charges, a starting value of the catalog, or a list price in money."""

    place: str = Field(description="region of the accounts the price applies to; of list prices their currency")
    kind: Literal["image", "video"]
    model: str = Field(description="`image` or `video` in catalog entries: all models of that kind")
    shape: str = Field(
        description="`2k x4` = four images, `720p 10s` = ten seconds; without a number: price per image or second"
    )
    credits: float = Field(description="of list prices: thousandths of the currency")
    currency: str | None = None
    price: float | None = Field(None, description="list price in the currency")
    unit: str | None = Field(None, description="what costs that: `image`, `layer`, `input image`, `million tokens`")
    source: Literal["history", "catalog", "list"]
    at: int | None = Field(description="when upstream charged it last")
    jobs: int = Field(description="number of consecutive jobs with this price")


class PriceList(BaseModel):
    """All known prices."""

    object: Literal["list"]
    data: list[PriceLine]
    has_more: bool
