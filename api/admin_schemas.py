"""Bodies of `/admin/v1`: users, API keys, the audit log."""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, Field, StringConstraints

from api.schemas import Text, example

Role = Literal["admin", "member", "viewer"]
Scope = Literal["generate", "read", "admin"]
# What can be typed on a command line and stand in a log line.
Name = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[^\x00-\x1f\x7f]{1,100}$")]


class UserWish(BaseModel):
    """A user to be made."""

    model_config = example(name="alice", role="member")

    name: Name
    role: Role = "member"


class UserChange(BaseModel):
    """What to change of a user; absent = stays."""

    model_config = example(disabled=True)

    role: Role | None = None
    disabled: bool | None = Field(None, description="a disabled user's keys stop working at once")


class User(BaseModel):
    """A user."""

    id: str
    object: Literal["user"]
    name: str
    role: Role
    disabled: bool
    created_at: int


class UserList(BaseModel):
    """One page of users."""

    object: Literal["list"]
    data: list[User]
    has_more: bool


class KeyWish(BaseModel):
    """An API key to be made."""

    model_config = example(user="alice", name="laptop", scopes=["generate", "read"])

    user: Text = Field(description="name or id of its user", max_length=120)
    name: Name = "default"
    scopes: list[Scope] | None = Field(None, description="absent = all that the user's role allows")
    models: list[Text] | None = Field(None, max_length=200, description="the only models it may use; absent = all")
    expires_at: AwareDatetime | None = Field(None, description="ISO 8601 with zone, or unix seconds")


class ApiKey(BaseModel):
    """A key without the key itself, which nobody can read again."""

    id: str
    object: Literal["api_key"]
    user_id: str
    user: str
    name: str
    prefix: str
    scopes: list[Scope] | None
    models: list[str] | None
    status: Literal["active", "in_grace", "expired", "revoked"]
    expires_at: int | None
    last_used_at: int | None
    revoked_at: int | None
    created_at: int


class NewApiKey(ApiKey):
    """A key just made; the only time `key` is shown."""

    key: str


class KeyList(BaseModel):
    """One page of keys."""

    object: Literal["list"]
    data: list[ApiKey]
    has_more: bool


class AccountWish(BaseModel):
    """Upstream accounts to be added to the pool."""

    model_config = example(tokens="us-SESSIONID", label="studio account")

    tokens: Text = Field(description="one session id or a comma list, in any notation", min_length=1, max_length=20_000)
    label: Annotated[str, StringConstraints(strip_whitespace=True, max_length=100)] = ""


class AccountChange(BaseModel):
    """What to change of an account; absent = stays."""

    model_config = example(paused=True)

    label: Name | None = None
    paused: bool | None = Field(None, description="true = takes no new job until it is false again")
    rested: bool | None = Field(None, description="true = end its rest now")
    max_images: int | None = Field(None, ge=1, le=1000, description="null = the platform's setting")
    max_videos: int | None = Field(None, ge=1, le=1000, description="null = the platform's setting")
    submits_per_minute: float | None = Field(None, gt=0, le=10_000, description="null = the platform's setting")
    daily_receive: bool | None = Field(
        None, description="true = fetch its free credits every day, false = never; null = as the setting says"
    )


class Account(BaseModel):
    """An upstream account, without its session id."""

    id: str
    object: Literal["account"]
    label: str
    region: str
    pool: bool
    state: Literal["ok", "resting", "paused", "retired"]
    rest_until: int | None
    rest_code: str | None
    max_images: int | None
    max_videos: int | None
    submits_per_minute: float | None
    credits: int | None = Field(description="as upstream told last")
    credits_at: int | None
    credits_left: int | None = Field(description="of these, less what jobs have cost since and what is held for others")
    daily_receive: bool | None = Field(description="whether its daily credits are fetched; null = as the setting says")
    last_submit_at: int | None
    in_flight: int
    has_proxy: bool
    created_at: int


class CreditReading(BaseModel):
    """A point of an account's curve."""

    at: float
    credits: int


class CreditHold(BaseModel):
    """A job on the way to upstream, or there."""

    id: str
    kind: Literal["image", "video", "chat"]
    model: str
    price: int | None = Field(description="expected credits; null = not known")
    taken: bool = Field(description="upstream has it and has charged it; false = credits are held for it")
    since: int | None


class CreditDay(BaseModel):
    """What an account's jobs of one day (UTC) did cost."""

    day: str
    jobs: int
    credits: int = Field(description="settled or expected")
    settled: int = Field(description="of these, as upstream told")
    unknown: int = Field(description="jobs whose cost nobody knows")


class CreditGift(BaseModel):
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
    open_jobs: list[CreditHold]
    spent: list[CreditDay] = Field(description="newest first")
    receives: list[CreditGift] = Field(description="newest first")


class AccountList(BaseModel):
    """One page of accounts."""

    object: Literal["list"]
    data: list[Account]
    has_more: bool


class Rotation(BaseModel):
    """How long the old key works on."""

    model_config = example(grace_seconds=86_400)

    grace_seconds: int = Field(0, ge=0, le=30 * 86_400)


class Act(BaseModel):
    """One line of the audit log."""

    id: str
    at: float
    actor: str
    address: str
    action: str
    target: str
    details: dict[str, Any]


class AuditList(BaseModel):
    """One page of the audit log, newest first."""

    object: Literal["list"]
    data: list[Act]
    has_more: bool
