"""Bodies of `/admin/v1`: users, API keys, limits, accounts, jobs, the audit log."""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from api.http.fields import Text, example
from api.jobs.schemas import JOB_EXAMPLE, Job
from api.jobs.timeline_schemas import Timeline
from worker.db.scheduling.fair_queue import HEAD_START_PER_PRIORITY, MOST_PRIORITY

Role = Literal["admin", "member", "viewer"]
Scope = Literal["generate", "read", "admin"]
# What can be typed on a command line and stand in a log line.
Name = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[^\x00-\x1f\x7f]{1,100}$")]

Group = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,49}$")]
Groups = Annotated[list[Group], Field(max_length=50)]


# When several wait for the same accounts: `worker/db/scheduling/fair_queue.py`.
Weight = Annotated[float, Field(ge=0.1, le=100, allow_inf_nan=False)]
Priority = Annotated[int, Field(ge=-MOST_PRIORITY, le=MOST_PRIORITY)]
_WEIGHT = "share of the accounts while others wait too; twice the weight, twice the jobs"
_PRIORITY = f"each step goes before {HEAD_START_PER_PRIORITY} turns of the others; negative = behind them"


_Value = Annotated[int, Field(ge=0, le=10**9)] | Literal["unlimited"] | None
_Rate = Annotated[int, Field(ge=1, le=10**6)] | Literal["unlimited"] | None


class SoftLimits(BaseModel):
    """Limits that warn: from there on answers carry `x-budget-warning`. null = none of its own."""

    model_config = example(jobs_per_day=80, credits_per_month=4000) | ConfigDict(extra="forbid")

    open_jobs: _Value = Field(None, description="jobs that have not ended")
    jobs_per_day: _Value = None
    jobs_per_month: _Value = None
    credits_per_day: _Value = Field(None, description="upstream credits: what jobs did cost, or are expected to")
    credits_per_month: _Value = None


class Limits(SoftLimits):
    """Limits that refuse. null = the platform's default (of a key: none); `unlimited` = none."""

    model_config = example(jobs_per_day=100, credits_per_month=5000)

    requests_per_minute: _Rate = Field(None, description="creating requests")


class LimitChange(BaseModel):
    """Limits to be set; a name that is absent stays, null takes one away."""

    limits: Limits | None = None
    soft_limits: SoftLimits | None = None


class UserWish(LimitChange):
    """A user to be made."""

    model_config = example(name="alice", role="member")

    name: Name
    role: Role = "member"
    groups: Groups = Field([], description="whose accounts, kept for these groups, it may use")
    weight: Weight = Field(1.0, description=_WEIGHT)
    priority: Priority = Field(0, description=_PRIORITY)


class UserChange(LimitChange):
    """What to change of a user; absent = stays."""

    model_config = example(limits={"jobs_per_day": 100, "credits_per_month": None}, soft_limits={"jobs_per_day": 80})

    role: Role | None = None
    disabled: bool | None = Field(None, description="a disabled user's keys stop working at once")
    groups: Groups | None = Field(None, description="all groups it is in from now on")
    weight: Weight | None = Field(None, description=f"{_WEIGHT}; counts for what waits already, too")
    priority: Priority | None = Field(None, description=_PRIORITY)
    retention_days: int | None = Field(
        None, ge=0, le=36_500, description="how long results are kept; 0 = for ever, null = the platform's setting"
    )


class User(BaseModel):
    """A user."""

    id: str
    object: Literal["user"]
    name: str
    role: Role
    disabled: bool
    groups: list[str]
    weight: float
    priority: int
    retention_days: int | None = Field(description="how long results are kept; 0 = for ever, null = the setting's")
    limits: Limits
    soft_limits: SoftLimits
    created_at: int


class UserList(BaseModel):
    """One page of users."""

    object: Literal["list"]
    data: list[User]
    has_more: bool


class KeyChange(LimitChange):
    """What to change of a key; absent = stays."""

    model_config = example(limits={"jobs_per_day": 20})

    name: Name | None = None


class KeyWish(LimitChange):
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
    limits: Limits
    soft_limits: SoftLimits
    created_at: int


class NewApiKey(ApiKey):
    """A key just made; the only time `key` is shown."""

    key: str


class KeyList(BaseModel):
    """One page of keys."""

    object: Literal["list"]
    data: list[ApiKey]
    has_more: bool


class OwnKeyWish(BaseModel):
    """An API key of one's own to be made; what is absent is as of the key one calls with."""

    model_config = example(name="laptop", scopes=["generate", "read"])

    name: Name = "default"
    scopes: list[Scope] | None = Field(None, min_length=1, max_length=10)
    models: list[Text] | None = Field(None, min_length=1, max_length=200, description="the only models it may use")
    expires_at: AwareDatetime | None = Field(None, description="ISO 8601 with zone, or unix seconds")


class OwnKey(ApiKey):
    """A key of one's own."""

    current: bool = Field(description="whether it is the one you call with")


class NewOwnKey(OwnKey):
    """A key just made; the only time `key` is shown."""

    key: str


class OwnKeyList(BaseModel):
    """One page of one's own keys."""

    object: Literal["list"]
    data: list[OwnKey]
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


_WHOSE: dict[str, Any] = {
    "user_id": "user_0197f0c2a3b47c1d8e9f0a1b2c3d4e5f",
    "user": "alice",
    "key_id": "key_0197f0c2a3b47c1d8e9f0a1b2c3d4e5f",
    "key": "laptop",
    "account_id": None,
    "account": None,
}
_TIMELINE: dict[str, Any] = {
    "object": "job.timeline",
    "id": JOB_EXAMPLE["id"],
    "status": JOB_EXAMPLE["status"],
    "data": [],
    "seconds": {"queued": 2.1},
}


class AdminJob(Job):
    """A job as its owner sees it, with whose it is and where it runs."""

    model_config = example(**JOB_EXAMPLE, **_WHOSE)

    user_id: str | None = Field(description="null for callers with session ids")
    user: str | None
    key_id: str | None
    key: str | None
    account_id: str | None = Field(description="null while no account has taken it")
    account: str | None


class AdminJobDetails(AdminJob):
    """One job with its whole way."""

    model_config = example(**JOB_EXAMPLE, **_WHOSE, timeline=_TIMELINE)

    timeline: Timeline


class AdminJobList(BaseModel):
    """One page of jobs, newest first."""

    object: Literal["list"]
    data: list[AdminJob]
    has_more: bool
