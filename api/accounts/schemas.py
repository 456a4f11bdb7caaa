"""Bodies of `/v1/accounts` and `/admin/v1/accounts`: upstream accounts."""

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, Field, StringConstraints, field_validator

from api.admin.schemas import Groups, Name
from api.http.fields import Text, example

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
# In ISO order: Monday is day 1.
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Clock = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$")]
_ALL_DAYS: list[Day] = list(DAYS)
PollMinSeconds = Annotated[float, Field(ge=0.05, le=60)]
PollMaxSeconds = Annotated[float, Field(ge=0.05, le=600)]
PollEagerness = Annotated[float, Field(ge=0.01, le=100)]


UpstreamModel = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[!-~]{1,200}$")]
ModelIds = Annotated[dict[Annotated[str, StringConstraints(max_length=100)], UpstreamModel], Field(max_length=200)]
_MODEL_IDS = "model -> its id or your endpoint (`ep-...`) upstream, where it differs; not for session ids"
LimitGroup = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]{0,59}$")]
_LIMIT_GROUP = "name for the keys of one paying customer: they share limits and overdue payments; null = alone"


class AccountCreate(BaseModel):
    """Upstream accounts to add."""

    model_config = example(tokens="us-SESSIONID\nSESSIONID:cn", label="studio account")

    tokens: Text = Field(
        description="session ids in any notation or keys, one per line or comma-separated; lines that start with # are "
        "ignored",
        min_length=1,
        max_length=100_000,
        validation_alias=AliasChoices("tokens", "token", "key", "api_key"),
    )
    provider: Text | None = Field(
        None,
        description="upstream of the accounts, see `GET /v1/accounts/providers`; null = session ids",
        max_length=60,
    )
    region: Text | None = Field(
        None, description="region of entries that name none, or the base address that a key came with", max_length=200
    )
    model_ids: ModelIds = Field({}, description=_MODEL_IDS)
    limit_group: LimitGroup | None = Field(None, description=_LIMIT_GROUP)
    label: Annotated[Text, StringConstraints(strip_whitespace=True, max_length=100)] = ""
    check: bool = Field(
        True, description="wait for the first check of each account; false = check it in the background within a minute"
    )
    poll_min_seconds: PollMinSeconds | None = Field(
        None, description="shortest polling interval; null = the platform's setting"
    )
    poll_max_seconds: PollMaxSeconds | None = Field(
        None, description="longest polling interval; null = the platform's setting"
    )
    poll_eagerness: PollEagerness | None = Field(
        None, description="4 = polling intervals half as long, within the two limits; null = the platform's setting"
    )


class AdminAccountCreate(AccountCreate):
    """Upstream accounts to add for the platform or for a user."""

    groups: Groups = Field([], description="only users of these groups can use them; empty = all users")
    user: Text | None = Field(
        None, description="name or id of the user who owns them; null = the platform", max_length=120
    )


class WorkingHours(BaseModel):
    """Hours in which an account accepts jobs. If `end` is not after `start`, it is on the next day."""

    model_config = example(days=["mon", "tue", "wed", "thu", "fri"], start="09:00", end="18:30", zone="Asia/Shanghai")

    days: list[Day] = Field(_ALL_DAYS, min_length=1, max_length=7, description="days on which the hours start")
    start: Clock = Field(description="HH:MM")
    end: Clock = Field(description="HH:MM; 24:00 = the end of the day")
    zone: Text = Field(description="IANA name, such as Asia/Shanghai", max_length=60)

    @field_validator("start")
    @classmethod
    def _start_before_24(cls, value: str) -> str:
        if value == "24:00":
            raise ValueError("must be 00:00 to 23:59")
        return value

    @field_validator("days")
    @classmethod
    def _unique_sorted_days(cls, value: list[Day]) -> list[Day]:
        return [day for day in DAYS if day in value]


class AccountChange(BaseModel):
    """Changes of an account; omitted fields keep their value."""

    model_config = example(paused=True)

    label: Name | None = None
    paused: bool | None = Field(None, description="true = accepts no new jobs; false = resume, also ends `blocked`")
    rested: bool | None = Field(None, description="true = end its cooldown now")
    session: Text | None = Field(
        None,
        description="a new session id of the same upstream account, in any notation, or a new key",
        max_length=2000,
    )
    max_images: int | None = Field(None, ge=1, le=1000, description="null = the platform's setting")
    max_videos: int | None = Field(None, ge=1, le=1000, description="null = the platform's setting")
    submits_per_minute: float | None = Field(None, gt=0, le=10_000, description="null = the platform's setting")
    max_jobs_per_day: int | None = Field(None, ge=1, le=1_000_000, description="null = no limit")
    poll_min_seconds: PollMinSeconds | None = Field(
        None, description="shortest polling interval; null = the platform's setting"
    )
    poll_max_seconds: PollMaxSeconds | None = Field(
        None, description="longest polling interval; null = the platform's setting"
    )
    poll_eagerness: PollEagerness | None = Field(
        None, description="4 = polling intervals half as long, within the two limits; null = the platform's setting"
    )
    daily_receive: bool | None = Field(
        None, description="true = claim the free credits every day, false = never, null = the platform's setting"
    )
    working_hours: WorkingHours | None = Field(None, description="null = always")
    model_ids: ModelIds | None = Field(None, description=_MODEL_IDS)
    limit_group: LimitGroup | None = Field(None, description=_LIMIT_GROUP)
    reopen_models: list[Annotated[Text, StringConstraints(max_length=100)]] | None = Field(
        None, description="models that may be used again on this account; `*` = all", max_length=200
    )
    proxy: Text | None = Field(
        None, description="http|https|socks5://[user:password@]host:port; null = none", max_length=1200
    )


class AdminAccountChange(AccountChange):
    """Changes of an account by an administrator."""

    groups: Groups | None = Field(None, description="only users of these groups can use it; [] = all users")
    prices: dict[str, Any] | None = Field(
        None,
        description="prices of this customer: model, or `*` for all -> `factor` of the list price, or `prices` as in "
        "the catalog; null = list prices",
        max_length=200,
    )


class CheckError(BaseModel):
    """Why a check or an entry failed."""

    code: str
    message: str


class ModelRest(BaseModel):
    """A model that rests on an account, while its other models work."""

    model: str
    code: str = Field(description="upstream's reason")
    detail: str | None
    closed: bool = Field(description="true = until an administrator reopens it (`reopen_models`)")
    until: int | None = Field(description="null = until it is reopened")
    since: int | None


class AccountKey(BaseModel):
    """What checks learned about a key."""

    scope: Literal["all", "custom"] | None = Field(
        description="`custom` = it is limited to some models or endpoints; null = unknown"
    )
    models: list[str] | None = Field(
        description="models that upstream has and this platform knows, activated or not; null = unknown"
    )
    unknown_models: int | None = Field(description="how many more upstream has")
    tasks: int | None = Field(description="video tasks of the last 7 days that it can see")
    echo_proved: bool = Field(description="whether a video whose answer is lost can be found again")
    checked_at: int | None


class AccountCheck(BaseModel):
    """The result of an account check."""

    done: bool = Field(description="false = no worker has answered yet; the check runs later")
    live: bool | None = Field(None, description="whether upstream accepts the session; null = unknown")
    credits: int | None = None
    region: str | None = Field(None, description="the region, or the detected country for region `auto`")
    models: dict[str, int] | None = Field(None, description="how many models upstream lists, by kind")
    error: CheckError | None = None


class Account(BaseModel):
    """An upstream account, without its session id or key."""

    id: str
    object: Literal["account"]
    label: str
    provider: str
    region: str
    currency: str | None = Field(description="in which its jobs are paid; null = upstream has credits of its own")
    limit_group: str | None = Field(description="accounts of the same group share their limits; null = alone")
    model_ids: dict[str, str] = Field(description="model -> its id upstream, where it differs")
    model_rests: list[ModelRest] = Field(description="models that rest or are closed on this account")
    prices: dict[str, Any] = Field(description="prices of its own; empty = list prices")
    key: AccountKey | None = Field(description="null = the credential is a session id")
    country: str | None = Field(description="the detected country of a session with region `auto`")
    pool: bool = Field(description="whether the account belongs to the platform")
    user_id: str | None = Field(description="the user who owns it; null = the platform or a session-id caller")
    user: str | None
    groups: list[str]
    state: Literal["ok", "resting", "needs_login", "blocked", "paused", "retired"]
    state_code: str | None = Field(description="why it is in cooldown, needs a login or is blocked")
    state_since: int | None
    rest_until: int | None
    rest_code: str | None
    max_images: int | None
    max_videos: int | None
    submits_per_minute: float | None
    max_jobs_per_day: int | None
    poll_min_seconds: float | None = Field(description="shortest polling interval; null = the platform's setting")
    poll_max_seconds: float | None = Field(description="longest polling interval; null = the platform's setting")
    poll_eagerness: float | None = Field(description="null = the platform's setting")
    jobs_today: int
    working_hours: WorkingHours | None
    open_now: bool = Field(description="whether the current time is within its working hours")
    opens_at: int | None
    credits: int | None = Field(description="last known credits from upstream")
    credits_at: int | None
    credits_left: int | None = Field(description="`credits` minus the cost of jobs since then and minus reservations")
    daily_receive: bool | None = Field(
        description="whether its daily credits are claimed; null = the platform's setting"
    )
    models: dict[str, int] | None
    checked_at: int | None
    check_code: str | None = Field(description="error code of its last check")
    next_check_at: int | None
    last_submit_at: int | None
    in_flight: int
    has_proxy: bool
    proxy: str | None = Field(description="scheme, host and port of its proxy, without credentials")
    created_at: int


class AccountList(BaseModel):
    """One page of accounts."""

    object: Literal["list"]
    data: list[Account]
    has_more: bool


class ImportedAccount(Account):
    """An account after an import."""

    line: int = Field(description="place of the entry, from 1; comments and empty lines count")
    outcome: Literal["added", "returned", "duplicate"] = Field(
        description="`returned`: a known account that is usable again; `duplicate`: already an account, unchanged"
    )
    check: AccountCheck | None


class RejectedEntry(BaseModel):
    """An entry that could not be imported."""

    line: int = Field(description="place of the entry, from 1; comments and empty lines count")
    token: str | None = Field(description="masked session id, or the first letters of an entry that is not readable")
    error: CheckError


class AccountImportResult(BaseModel):
    """The outcome of every entry of an import."""

    object: Literal["list"]
    data: list[ImportedAccount]
    refused: list[RejectedEntry]
    warnings: list[str]
    has_more: bool


class CredentialSite(BaseModel):
    """A web site where people find a credential of their account."""

    title: str
    address: str
    region: str = Field(description="region of the credentials that are found there")
    cookie: str | None = Field(description="name of the cookie whose value is the session id; null = it shows a key")


class ProviderInfo(BaseModel):
    """An upstream that accounts can belong to."""

    name: str
    title: str
    credential: Literal["session", "key"]
    regions: list[str]
    currencies: dict[str, str] = Field(description="region -> currency; a region without one has credits")
    sites: list[CredentialSite]
    models: list[str] = Field(description="models that `model_ids` may name")


class ProviderList(BaseModel):
    """All providers."""

    object: Literal["list"]
    data: list[ProviderInfo]


class CheckedAccount(Account):
    """An account with the result of a check."""

    check: AccountCheck


class CreditClaim(BaseModel):
    """The result of a claim of the daily credits."""

    gained: int | None = Field(description="0 = there were none to claim; null = upstream did not answer")
    error: CheckError | None = None


class AccountAfterClaim(Account):
    """An account after a claim of its daily credits."""

    receive: CreditClaim


class AvailableAccounts(BaseModel):
    """What the caller's jobs run on."""

    object: Literal["account.availability"]
    own: int = Field(description="number of your own accounts")
    platform: bool = Field(description="whether you may use accounts of the platform")
    sandbox_only: bool = Field(
        description="true = all of them are accounts of the sandbox: results are test images and videos"
    )


def model_counts(models: dict[str, Any] | None) -> dict[str, int] | None:
    """Return the number of models of each kind in a stored model list."""
    return None if models is None else {kind: len(rows) for kind, rows in models.items()}


class CreditReading(BaseModel):
    """The credits of an account at one point in time."""

    at: float
    credits: int


class CreditReservation(BaseModel):
    """An open job that holds or has spent credits."""

    id: str
    kind: Literal["image", "video", "chat"]
    model: str
    price: int | None = Field(description="expected credits; null = unknown")
    taken: bool = Field(description="true = upstream has accepted and charged it; false = credits are reserved")
    since: int | None


class DailySpending(BaseModel):
    """Credits spent by the jobs of one day (UTC)."""

    day: str
    jobs: int
    credits: int = Field(description="settled, or expected where not settled yet")
    settled: int = Field(description="the part confirmed by upstream")
    unknown: int = Field(description="number of jobs with unknown cost")


class DailyCreditClaim(BaseModel):
    """A claim of the daily free credits."""

    day: str
    how: Literal["daily", "empty", "asked"]
    gained: int | None = Field(description="null = the outcome is unknown, or upstream refused")
    error: str | None


class AccountCredits(BaseModel):
    """Credits of an account: balance, reservations and spending."""

    object: Literal["account.credits"]
    id: str
    currency: str | None = Field(description="in which the account pays; amounts of credits are thousandths of it")
    credits: int | None = Field(description="last known credits from upstream; null = never read, or it pays money")
    credits_at: int | None
    left: int | None = Field(description="available for new jobs")
    reserved: int = Field(description="reserved for jobs that upstream has not accepted yet")
    readings: list[CreditReading] = Field(description="oldest first; older days have one reading each")
    open_jobs: list[CreditReservation]
    spent: list[DailySpending] = Field(description="newest first")
    receives: list[DailyCreditClaim] = Field(description="newest first")
