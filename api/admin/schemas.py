"""Bodies of `/admin/v1`: users, API keys, limits, accounts, jobs, the audit log."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from api.http.fields import Moment, Text, example
from api.jobs.schemas import JOB_EXAMPLE, Job
from api.jobs.timeline.schemas import Timeline
from worker.core.errors import DreameryError
from worker.db.scheduling.fair_queue import HEAD_START_PER_PRIORITY, MOST_PRIORITY

Role = Literal["admin", "member", "viewer"]
Scope = Literal["generate", "read", "admin"]
# Printable characters only: names appear on command lines and in log lines.
Name = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[^\x00-\x1f\x7f]{1,100}$")]

Group = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,49}$")]
Groups = Annotated[list[Group], Field(max_length=50)]


# Weight and priority in the fair queue: `worker/db/scheduling/fair_queue.py`.
Weight = Annotated[float, Field(ge=0.1, le=100, allow_inf_nan=False)]
Priority = Annotated[int, Field(ge=-MOST_PRIORITY, le=MOST_PRIORITY)]
_WEIGHT = "share of the accounts while other users wait; twice the weight means twice the jobs"
_PRIORITY = f"each level moves jobs {HEAD_START_PER_PRIORITY} positions ahead in the fair queue; negative = behind"


_Value = Annotated[int, Field(ge=0, le=10**9)] | Literal["unlimited"] | None
_Money = Annotated[float, Field(ge=0, le=10**6, allow_inf_nan=False)] | Literal["unlimited"] | None
_Rate = Annotated[int, Field(ge=1, le=10**6)] | Literal["unlimited"] | None


class SoftLimits(BaseModel):
    """Limits that warn: once reached, responses carry `x-budget-warning`. null = no own limit."""

    model_config = example(jobs_per_day=80, credits_per_month=4000) | ConfigDict(extra="forbid")

    open_jobs: _Value = Field(None, description="jobs that have not finished")
    jobs_per_day: _Value = None
    jobs_per_month: _Value = None
    credits_per_day: _Value = Field(None, description="upstream credits that jobs cost or are expected to cost")
    credits_per_month: _Value = None
    usd_per_day: _Money = Field(None, description="US dollars that jobs cost or are expected to cost; 3 decimals")
    usd_per_month: _Money = None
    cny_per_day: _Money = Field(None, description="the same in yuan")
    cny_per_month: _Money = None


class Limits(SoftLimits):
    """Limits that refuse requests. null = the platform's default (for a key: no limit); `unlimited` = no limit."""

    model_config = example(jobs_per_day=100, credits_per_month=5000)

    requests_per_minute: _Rate = Field(None, description="requests that create jobs")
    concurrent_jobs: _Rate = Field(
        None, description="jobs in the queue and at work at a time; further ones wait instead of being refused"
    )
    max_cost: _Money = Field(None, description="the most money that one request may cost, in the currency of its jobs")


class UserLimits(Limits):
    """Limits of a user."""

    own_accounts: _Value = Field(None, description="upstream accounts of the user")


class LimitChange(BaseModel):
    """Limits to set; omitted limits keep their value, null removes a limit."""

    limits: Limits | None = None
    soft_limits: SoftLimits | None = None

    @model_validator(mode="before")
    @classmethod
    def _limits_are_below_limits(cls, body: Any) -> Any:
        # Other unknown fields are ignored, but a caller that sends a limit relies on it.
        given = body if isinstance(body, dict) else {}
        for name in UserLimits.model_fields.keys() - cls.model_fields.keys():
            if given.get(name) is not None:
                message = f'Limits belong into `limits`: send `{{"limits": {{"{name}": ...}}}}`.'
                raise DreameryError("invalid_value", message, param=name)
        return body


class UserCreate(LimitChange):
    """A user to create."""

    model_config = example(name="alice", role="member")

    name: Name
    role: Role = "member"
    limits: UserLimits | None = None
    groups: Groups = Field([], description="groups of the user; accounts of these groups are usable")
    weight: Weight = Field(1.0, description=_WEIGHT)
    priority: Priority = Field(0, description=_PRIORITY)


class InvitationCreate(BaseModel):
    """How long an invitation works."""

    model_config = example(hours=72) | ConfigDict(extra="forbid")

    hours: float = Field(72, gt=0, le=720, description="the link works for this time, once")


class NewInvitation(BaseModel):
    """A link that signs a user in once."""

    model_config = example(
        id="invitation_01a2",
        object="invitation.created",
        user="alice",
        url="https://dreamery.example/console/invitation#q3Zc...",
        expires_at=1796032800,
    )

    id: str
    object: Literal["invitation.created"]
    user: str
    url: str = Field(description="shown only here")
    expires_at: int


class UserChange(LimitChange):
    """Changes of a user; omitted fields keep their value."""

    model_config = example(limits={"jobs_per_day": 100, "credits_per_month": None}, soft_limits={"jobs_per_day": 80})

    role: Role | None = None
    limits: UserLimits | None = None
    disabled: bool | None = Field(None, description="true = disable; the user's keys stop working immediately")
    groups: Groups | None = Field(None, description="all groups of the user, replacing the current ones")
    weight: Weight | None = Field(None, description=f"{_WEIGHT}; applies to waiting jobs too")
    priority: Priority | None = Field(None, description=_PRIORITY)
    retention_days: int | None = Field(
        None, ge=0, le=36_500, description="days to keep results; 0 = permanently, null = the platform's setting"
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
    retention_days: int | None = Field(
        description="days to keep results; 0 = permanently, null = the platform's setting"
    )
    limits: UserLimits
    soft_limits: SoftLimits
    created_at: int


class UserList(BaseModel):
    """One page of users."""

    object: Literal["list"]
    data: list[User]
    has_more: bool


class OwnKeyChange(BaseModel):
    """Changes of your own key; omitted fields keep their value."""

    model_config = example(name="laptop", account_groups=["design"])

    name: Name | None = None
    providers: list[Text] | None = Field(None, min_length=1, max_length=20, description="null = all")
    accounts: list[Text] | None = Field(
        None, min_length=1, max_length=200, description="ids or labels; null = all, if `account_groups` is null too"
    )
    account_groups: list[Group] | None = Field(None, min_length=1, max_length=50, description="null = none by group")


class ApiKeyChange(OwnKeyChange, LimitChange):
    """Changes of a key; omitted fields keep their value."""

    model_config = example(limits={"jobs_per_day": 20, "concurrent_jobs": 4}, account_groups=["design"])


class ApiKeyCreate(LimitChange):
    """An API key to create."""

    model_config = example(user="alice", name="laptop", scopes=["generate", "read"])

    user: Text = Field(description="name or id of the user who owns it", max_length=120)
    name: Name = "default"
    scopes: list[Scope] | None = Field(None, description="omitted = all scopes of the user's role")
    models: list[Text] | None = Field(None, max_length=200, description="models the key can use; omitted = all")
    providers: list[Text] | None = Field(
        None, min_length=1, max_length=20, description="providers whose accounts its jobs can use; omitted = all"
    )
    accounts: list[Text] | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="ids or labels of the accounts its jobs can use; omitted = all; with `account_groups`: both",
    )
    account_groups: list[Group] | None = Field(
        None, min_length=1, max_length=50, description="groups whose accounts its jobs can use; omitted = all"
    )
    expires_at: Moment | None = Field(None, description="ISO 8601 with zone, or unix seconds")


class ApiKey(BaseModel):
    """Metadata of a key. The key itself is never returned again."""

    id: str
    object: Literal["api_key"]
    user_id: str
    user: str
    name: str
    prefix: str
    scopes: list[Scope] | None
    models: list[str] | None
    providers: list[str] | None
    accounts: list[str] | None = Field(description="ids of the accounts its jobs can use; null = all, or by group")
    account_groups: list[str] | None
    status: Literal["active", "in_grace", "expired", "revoked"]
    expires_at: int | None
    last_used_at: int | None
    revoked_at: int | None
    limits: Limits
    soft_limits: SoftLimits
    created_at: int


class NewApiKey(ApiKey):
    """A new key; `key` is shown only in this response."""

    key: str


class ApiKeyList(BaseModel):
    """One page of keys."""

    object: Literal["list"]
    data: list[ApiKey]
    has_more: bool


class OwnKeyCreate(BaseModel):
    """Your own API key to create; omitted fields are taken from the key used for the request."""

    model_config = example(name="laptop", scopes=["generate", "read"])

    name: Name = "default"
    scopes: list[Scope] | None = Field(None, min_length=1, max_length=10)
    models: list[Text] | None = Field(None, min_length=1, max_length=200, description="models the key can use")
    providers: list[Text] | None = Field(
        None, min_length=1, max_length=20, description="providers whose accounts its jobs can use"
    )
    accounts: list[Text] | None = Field(
        None, min_length=1, max_length=200, description="ids or labels of your own accounts that its jobs can use"
    )
    account_groups: list[Group] | None = Field(
        None, min_length=1, max_length=50, description="groups whose accounts its jobs can use, beside `accounts`"
    )
    expires_at: Moment | None = Field(None, description="ISO 8601 with zone, or unix seconds")


class OwnKey(ApiKey):
    """One of your own keys."""

    current: bool = Field(description="whether it is the key used for this request")


class NewOwnKey(OwnKey):
    """A new key; `key` is shown only in this response."""

    key: str


class OwnKeyList(BaseModel):
    """One page of your own keys."""

    object: Literal["list"]
    data: list[OwnKey]
    has_more: bool


class Rotation(BaseModel):
    """How long the old key stays valid."""

    model_config = example(grace_seconds=86_400)

    grace_seconds: int = Field(0, ge=0, le=30 * 86_400)


class AuditEntry(BaseModel):
    """One entry of the audit log."""

    id: str
    at: float
    actor: str
    address: str
    action: str
    target: str
    details: dict[str, Any]
    names: dict[str, str] = Field(
        description="current names of users, keys, accounts and albums that it mentions, by id; of a job, its prompt"
    )
    users: dict[str, str] = Field(description="the user of each key that it mentions, both as ids")


class AuditList(BaseModel):
    """One page of the audit log, newest first."""

    object: Literal["list"]
    data: list[AuditEntry]
    has_more: bool


_OWNERSHIP_EXAMPLE: dict[str, Any] = {
    "user_id": "user_0197f0c2a3b47c1d8e9f0a1b2c3d4e5f",
    "user": "alice",
    "key_id": "key_0197f0c2a3b47c1d8e9f0a1b2c3d4e5f",
    "key": "laptop",
    "account_id": None,
    "account": None,
}
_TIMELINE_EXAMPLE: dict[str, Any] = {
    "object": "job.timeline",
    "id": JOB_EXAMPLE["id"],
    "status": JOB_EXAMPLE["status"],
    "data": [],
    "seconds": {"queued": 2.1},
}


class AdminJob(Job):
    """A job as its owner sees it, plus user, API key and account."""

    model_config = example(**JOB_EXAMPLE, **_OWNERSHIP_EXAMPLE)

    user_id: str | None = Field(description="null for callers with session ids")
    user: str | None
    key_id: str | None
    key: str | None
    account_id: str | None = Field(description="null until an account claims it")
    account: str | None
    charge_doubt: str | None = Field(
        None,
        description="why more may have been charged than is known: `submit_unclear` (no answer to the submit, and it "
        "cannot be checked), `charged_twice_possible`, `never_reported`",
    )


class AdminJobDetails(AdminJob):
    """One job with its timeline."""

    model_config = example(**JOB_EXAMPLE, **_OWNERSHIP_EXAMPLE, timeline=_TIMELINE_EXAMPLE)

    timeline: Timeline


class AdminJobList(BaseModel):
    """One page of jobs, newest first."""

    object: Literal["list"]
    data: list[AdminJob]
    has_more: bool
