"""Bodies of `/v1/accounts` and `/admin/v1/accounts`: upstream accounts."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator

from api.admin.schemas import Groups, Name
from api.http.fields import Text, example

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
# The first is ISO's day 1.
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Clock = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$")]
_ALL_DAYS: list[Day] = list(DAYS)


class AccountCreate(BaseModel):
    """Upstream accounts to be added."""

    model_config = example(tokens="us-SESSIONID\nSESSIONID:cn", label="studio account")

    tokens: Text = Field(
        description="session ids in any notation, one per line or a comma list; lines that begin with # are left out",
        min_length=1,
        max_length=100_000,
    )
    label: Annotated[str, StringConstraints(strip_whitespace=True, max_length=100)] = ""
    check: bool = Field(True, description="wait for a check-up of each; false = it comes within a minute")


class AdminAccountCreate(AccountCreate):
    """Upstream accounts to be added for the platform, or for a user."""

    groups: Groups = Field([], description="only users of these groups may use them; none = all users")
    user: Text | None = Field(None, description="name or id of the user whose own they become", max_length=120)


class WorkingHours(BaseModel):
    """When an account takes jobs, by the clock of a time zone. An end not after the begin lies on the next day."""

    model_config = example(days=["mon", "tue", "wed", "thu", "fri"], start="09:00", end="18:30", zone="Asia/Shanghai")

    days: list[Day] = Field(_ALL_DAYS, min_length=1, max_length=7, description="days on which they begin")
    start: Clock = Field(description="HH:MM")
    end: Clock = Field(description="HH:MM; 24:00 = the end of the day")
    zone: Text = Field(description="IANA name, such as Asia/Shanghai", max_length=60)

    @field_validator("start")
    @classmethod
    def _begins_within_the_day(cls, value: str) -> str:
        if value == "24:00":
            raise ValueError("must be 00:00 to 23:59")
        return value

    @field_validator("days")
    @classmethod
    def _each_once(cls, value: list[Day]) -> list[Day]:
        return [day for day in DAYS if day in value]


class AccountChange(BaseModel):
    """What to change of an account; absent = stays."""

    model_config = example(paused=True)

    label: Name | None = None
    paused: bool | None = Field(
        None, description="true = takes no new job until it is false again; false also ends `blocked`"
    )
    rested: bool | None = Field(None, description="true = end its rest now")
    session: Text | None = Field(
        None, description="a new session id of the same upstream account, in any notation", max_length=2000
    )
    max_images: int | None = Field(None, ge=1, le=1000, description="null = the platform's setting")
    max_videos: int | None = Field(None, ge=1, le=1000, description="null = the platform's setting")
    submits_per_minute: float | None = Field(None, gt=0, le=10_000, description="null = the platform's setting")
    max_jobs_per_day: int | None = Field(None, ge=1, le=1_000_000, description="null = no cap")
    daily_receive: bool | None = Field(
        None, description="true = fetch its free credits every day, false = never; null = as the setting says"
    )
    working_hours: WorkingHours | None = Field(None, description="null = always")
    proxy: Text | None = Field(
        None, description="http|https|socks5://[user:password@]host:port; null = none", max_length=1200
    )


class AdminAccountChange(AccountChange):
    """What an administrator may change besides."""

    groups: Groups | None = Field(None, description="only users of these groups may use it; [] = all users")


class CheckError(BaseModel):
    """Why a check-up or an entry failed."""

    code: str
    message: str


class AccountCheck(BaseModel):
    """What a check-up found."""

    done: bool = Field(description="false = no worker has answered yet; it is done later")
    live: bool | None = Field(None, description="whether upstream knows the session; null = not known")
    credits: int | None = None
    region: str | None = Field(None, description="where it is; the country that was looked up for region `auto`")
    models: dict[str, int] | None = Field(None, description="how many models upstream lists, by kind")
    error: CheckError | None = None


class Account(BaseModel):
    """An upstream account, without its session id."""

    id: str
    object: Literal["account"]
    label: str
    region: str
    country: str | None = Field(description="where a session of region `auto` was found")
    pool: bool = Field(description="whether it is the platform's")
    user_id: str | None = Field(description="whose own it is")
    user: str | None
    groups: list[str]
    state: Literal["ok", "resting", "needs_login", "blocked", "paused", "retired"]
    state_code: str | None = Field(description="why it rests, needs a login or is blocked")
    state_since: int | None
    rest_until: int | None
    rest_code: str | None
    max_images: int | None
    max_videos: int | None
    submits_per_minute: float | None
    max_jobs_per_day: int | None
    jobs_today: int
    working_hours: WorkingHours | None
    open_now: bool = Field(description="whether it is within its working hours")
    opens_at: int | None
    credits: int | None = Field(description="as upstream told last")
    credits_at: int | None
    credits_left: int | None = Field(description="of these, less what jobs have cost since and what is held for others")
    daily_receive: bool | None = Field(description="whether its daily credits are fetched; null = as the setting says")
    models: dict[str, int] | None
    checked_at: int | None
    check_code: str | None = Field(description="what went wrong in its last check-up")
    next_check_at: int | None
    last_submit_at: int | None
    in_flight: int
    has_proxy: bool
    proxy: str | None = Field(description="kind, host and port of its proxy; never its credentials")
    created_at: int


class AccountList(BaseModel):
    """One page of accounts."""

    object: Literal["list"]
    data: list[Account]
    has_more: bool


class ImportedAccount(Account):
    """An account as an import left it."""

    line: int = Field(description="which entry it was, from 1")
    outcome: Literal["added", "returned", "duplicate"] = Field(
        description="`returned`: it was known, and serves again; `duplicate`: an account already, unchanged"
    )
    check: AccountCheck | None


class RejectedEntry(BaseModel):
    """An entry that made no account."""

    line: int
    token: str | None = Field(description="masked; null when it could not be read")
    error: CheckError


class AccountImportResult(BaseModel):
    """What became of every entry of an import."""

    object: Literal["list"]
    data: list[ImportedAccount]
    refused: list[RejectedEntry]
    has_more: bool


class CheckedAccount(Account):
    """An account after a check-up."""

    check: AccountCheck


def model_counts(models: dict[str, Any] | None) -> dict[str, int] | None:
    """How many models of each kind a stored list has."""
    return None if models is None else {kind: len(rows) for kind, rows in models.items()}


class CreditReading(BaseModel):
    """A point of an account's curve."""

    at: float
    credits: int


class CreditReservation(BaseModel):
    """A job on the way to upstream, or there."""

    id: str
    kind: Literal["image", "video", "chat"]
    model: str
    price: int | None = Field(description="expected credits; null = not known")
    taken: bool = Field(description="upstream has it and has charged it; false = credits are held for it")
    since: int | None


class DailySpending(BaseModel):
    """What an account's jobs of one day (UTC) did cost."""

    day: str
    jobs: int
    credits: int = Field(description="settled or expected")
    settled: int = Field(description="of these, as upstream told")
    unknown: int = Field(description="jobs whose cost nobody knows")


class DailyCreditClaim(BaseModel):
    """A day on which the free credits were asked for."""

    day: str
    how: Literal["daily", "empty", "asked"]
    gained: int | None = Field(description="null = the answer is not known, or it was refused")
    error: str | None


class AccountCredits(BaseModel):
    """What an account has, holds and spent."""

    object: Literal["account.credits"]
    id: str
    credits: int | None = Field(description="as upstream told last; null = never asked")
    credits_at: int | None
    left: int | None = Field(description="what a new job may cost at most")
    reserved: int = Field(description="held for jobs on their way to upstream")
    readings: list[CreditReading] = Field(description="oldest first; of days long past the last one")
    open_jobs: list[CreditReservation]
    spent: list[DailySpending] = Field(description="newest first")
    receives: list[DailyCreditClaim] = Field(description="newest first")
