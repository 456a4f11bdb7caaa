"""All settings of Dreamery in one class, read once, with the prefix `DREAMERY_`.

Sources, highest priority first: environment, `.env`, secret files. `dreamery doctor --settings` and
docs/configuration.md show the descriptions below. No other code reads the environment.
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from worker.core import background_rules, catalog_overrides
from worker.core.catalog import provider_data, provider_overrides
from worker.core.catalog.consent_limits import ConsentLimits

_SEVERAL_HOSTS = re.compile(r"(?P<user>[^:/]*(:[^@]*)?@)?(?P<hosts>[^/?@]*,[^/?@]*)(?P<path>/[^?]*)?(?P<query>\?.*)?")
SECRETS_DIR = Path("/run/secrets")


def _secrets_dir() -> Path | None:
    """The folder in which Docker, Podman and Kubernetes mount secrets; None if missing, because pydantic would warn."""
    return SECRETS_DIR if SECRETS_DIR.is_dir() else None


# Former names, still accepted: a rolling upgrade keeps the environment of the previous version.
FORMER_NAMES = {
    "deaf_seconds": "worker_heartbeat_timeout_seconds",
    "join_repeats": "deduplicate_requests",
    "housekeeping_replies": "answer_client_probes",
    "failed_keys_per_minute": "failed_logins_per_minute",
    "stop_seconds": "shutdown_grace_seconds",
    "talk_seconds": "conversation_timeout_seconds",
    "talk_gap_seconds": "conversation_idle_timeout_seconds",
    "talk_lease_seconds": "conversation_lease_seconds",
    "talk_concurrency": "conversation_concurrency",
    "events_days": "timeline_retention_days",
    "deliveries_days": "webhook_delivery_retention_days",
    "request_head_seconds": "request_header_timeout_seconds",
    "request_body_seconds": "request_body_timeout_seconds",
}


def _other_names(settings_cls: type[BaseSettings], source: PydanticBaseSettingsSource) -> InitSettingsSource:
    """The values that a source has under other names: former ones, and those of constants of providers."""
    variables = source.env_vars if isinstance(source, EnvSettingsSource) else {}
    found: dict[str, Any] = {new: variables.get(f"dreamery_{old}") for old, new in FORMER_NAMES.items()}
    found["provider_constants"] = provider_data.constants_in(variables) or None
    return InitSettingsSource(settings_cls, {name: value for name, value in found.items() if value is not None})


class Settings(BaseSettings):
    """Validated at start: an invalid value stops the process and names the setting, instead of failing a job later."""

    # A secret may also be a file, such as /run/secrets/dreamery_master_key.
    model_config = SettingsConfigDict(
        env_prefix="DREAMERY_", env_file=".env", secrets_dir=_secrets_dir(), extra="ignore", frozen=True
    )

    env: Literal["development", "production"] = Field("development", description="`production` refuses weak keys")
    database_url: str = Field("", description="`postgresql://...`; empty = `dreamery up` starts an embedded server")
    redis_url: str = Field(
        "", description="`redis://`, `rediss://` or `sentinel://`: docs/redis.md; empty = embedded under `dreamery up`"
    )
    data_dir: Path = Field(
        Path("data"), description="folder for embedded servers, files and generated keys (mode 0700)"
    )
    public_url: str = Field("", description="base URL of links in responses; empty = taken from the request")
    master_key: SecretStr = Field(
        SecretStr(""), description="comma-separated keys that encrypt account secrets, newest first"
    )
    admin_key: SecretStr = Field(SecretStr(""), description="bootstrap API key of the first administrator")
    session_tokens: bool = Field(False, description="accept upstream session ids as Bearer tokens (`on` under `up`)")
    default_region: str = Field("auto", description="region of a session id that does not name one")
    sandbox_url: str = Field("", description="URL of the sandbox (region `sandbox`); set by `dreamery up`")
    upstream_origin: str = Field(
        "", description="send all upstream calls to this origin (the real host goes into `X-Orig-Host`)"
    )
    fetch_allow: str = Field(
        "", description="comma-separated private `host` or `host:port` that fetches and proxies may use"
    )
    catalog_file: Path | None = Field(
        None, description="TOML file that changes models, aliases, sizes, hosts and wire constants"
    )
    sync_wait_seconds: float = Field(600, gt=0, description="longest time a request waits for its job")
    stream_heartbeat_seconds: float = Field(
        12,
        gt=0,
        description="a stream that has nothing to send sends a comment this often, so that clients keep waiting",
    )
    answer_client_probes: bool = Field(
        True, description="answer title, tag and connection-test chats of front ends without a job"
    )
    background_rules_file: Path | None = Field(
        None, description="TOML file with more rules for background chats of front ends: docs/clients.md"
    )
    deduplicate_requests: bool = Field(
        True, description="a request repeated after a dropped connection or timeout joins its first job"
    )
    repeat_failure_seconds: float = Field(
        30, ge=0, description="an identical request this soon after its own failure gets that failure again; 0 = off"
    )
    repeat_content_refusal_seconds: float = Field(
        600, ge=0, description="the same after upstream rejected the content; 0 = off"
    )
    account_max_images: int = Field(2, ge=1, description="concurrent image jobs per upstream account")
    account_max_videos: int = Field(1, ge=1, description="concurrent video jobs per upstream account")
    account_max_chats: int = Field(2, ge=1, description="concurrent agent conversations per upstream account")
    account_submits_per_minute: float = Field(20, gt=0, description="submits per minute and upstream account")
    open_jobs_per_caller: int = Field(5000, ge=1, description="unfinished jobs per caller; more are refused with 429")
    requests_per_minute: int = Field(600, ge=0, description="generation requests per caller and minute; 0 = no limit")
    jobs_per_day: int = Field(0, ge=0, description="default limit of jobs per caller and day; 0 = no limit")
    jobs_per_month: int = Field(0, ge=0, description="default limit of jobs per caller and month; 0 = no limit")
    credits_per_day: int = Field(
        0, ge=0, description="default limit of upstream credits per caller and day; 0 = no limit"
    )
    credits_per_month: int = Field(
        0, ge=0, description="default limit of upstream credits per caller and month; 0 = no limit"
    )
    usd_per_day: float = Field(0, ge=0, description="default limit of US dollars per caller and day; 0 = no limit")
    usd_per_month: float = Field(0, ge=0, description="default limit of US dollars per caller and month; 0 = no limit")
    cny_per_day: float = Field(0, ge=0, description="default limit of yuan per caller and day; 0 = no limit")
    cny_per_month: float = Field(0, ge=0, description="default limit of yuan per caller and month; 0 = no limit")
    budget_warn_percent: int = Field(
        80, ge=0, le=100, description="warn at this percentage of a limit; 0 = warn only at soft limits"
    )
    budget_time_zone: str = Field(
        "UTC", description="time zone in which days and months of limits and usage reports begin"
    )
    failed_logins_per_minute: int = Field(
        30, ge=0, description="invalid keys per network address and minute; more get 429; 0 = no limit"
    )
    open_requests: int = Field(4000, ge=1, description="concurrent HTTP requests per API process; more get 503")
    open_requests_per_caller: int = Field(
        1000, ge=1, description="concurrent requests and streams per caller and API process; more get 429"
    )
    poll_min_seconds: float = Field(0.2, gt=0, description="shortest polling interval per account")
    poll_max_seconds: float = Field(60, gt=0, description="longest polling interval per account")
    poll_eagerness: float = Field(
        1, gt=0, le=100, description="how eagerly accounts are polled: 4 = intervals half as long, within the limits"
    )
    poll_batch: int = Field(100, ge=1, le=1000, description="job ids per poll call")
    tick_seconds: float = Field(0.5, gt=0, le=5, description="how often the scheduler looks for due work")
    storage_url: str = Field("", description="`file:///folder` or `s3://bucket/prefix`; empty = `DATA_DIR/files`")
    s3_endpoint: str = Field("", description="URL of an S3-compatible storage; empty = AWS")
    s3_region: str = Field("", description="S3 region; empty = `AWS_REGION`, else us-east-1")
    s3_access_key_id: str = Field("", description="key id for `s3://`; empty = from `AWS_*` or the role of the machine")
    s3_secret_access_key: SecretStr = Field(SecretStr(""), description="secret of that key id")
    retention_days: int = Field(0, ge=0, description="delete results after this many days; 0 = keep permanently")
    link_ttl_seconds: int = Field(
        0, ge=0, description="sign file links and let them expire after this time; 0 = unguessable, permanent links"
    )
    share_max_days: int = Field(
        90, ge=0, le=3650, description="longest life of a share link in days; 0 = share links are off"
    )
    timeline_retention_days: int = Field(
        90, ge=0, description="delete job timelines after this many days; 0 = keep permanently"
    )
    webhook_delivery_retention_days: int = Field(
        30, ge=1, description="how long webhook deliveries stay in the log and can be replayed"
    )
    own_accounts_per_user: int = Field(100, ge=0, description="default limit of a user's own accounts; 0 = none")
    batch_max_lines: int = Field(10_000, ge=1, le=100_000, description="most requests of one batch")
    batch_max_bytes: int = Field(100_000_000, ge=1000, description="largest file of a batch")
    pins_per_caller: int = Field(
        1000, ge=0, description="jobs a caller may pin to exempt them from retention; 0 = none"
    )
    shutdown_grace_seconds: float = Field(
        10, gt=0, description="how long tasks and conversations may continue after SIGTERM"
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto = console on a terminal, else JSON"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level that is logged")
    metrics_token: SecretStr = Field(SecretStr(""), description="Bearer token that `/metrics` requires; empty = none")
    otel_endpoint: str = Field("", description="OTLP/HTTP URL for traces (extra `otel`); empty = no traces")
    worker_heartbeat_timeout_seconds: float = Field(
        15, ge=2, description="seconds without a processed heartbeat message before a worker counts as unhealthy"
    )

    image_deadline_seconds: float = Field(1800, gt=0, description="an image job fails this long after its submit")
    video_deadline_seconds: float = Field(14400, gt=0, description="a video job fails this long after its submit")
    queue_deadline_seconds: float = Field(86400, gt=0, description="a job fails after waiting this long for an account")
    save_deadline_seconds: float = Field(
        3600, gt=0, description="a finished job fails if its results cannot be copied within this time"
    )
    max_video_bytes: int = Field(2_000_000_000, ge=1_000_000, description="largest video that is copied")
    max_attempts: int = Field(
        3, ge=1, description="submits per job, counting those that certainly or probably had no effect"
    )
    call_timeout_seconds: float = Field(20, gt=0, description="total deadline of one upstream call")
    min_transfer_bytes_per_second: int = Field(
        8192, ge=0, description="slower downloads and uploads of files are ended, measured over ten seconds"
    )
    conversation_timeout_seconds: float = Field(
        300, gt=0, description="longest agent conversation, measured from sending the message"
    )
    conversation_idle_timeout_seconds: float = Field(
        60, gt=0, description="longest silence of the agent within a conversation"
    )
    conversation_lease_seconds: float = Field(
        30, gt=2, description="a conversation counts as lost after this long without a heartbeat of its worker"
    )
    watchdog_seconds: float = Field(40, gt=0, description="a worker exits when one of its tasks runs longer than this")
    lease_seconds: float = Field(60, gt=0, description="lease of a claimed job; another worker may claim it afterwards")
    unclear_grace_seconds: float = Field(
        30,
        gt=0,
        description="an unknown submit key counts as lost after this time (searched for: after ten times that)",
    )
    provider_constants: dict[str, str] = Field({}, description="constants of providers, by the names of their settings")
    models_refresh_seconds: float = Field(
        21600, ge=60, description="how often the model list of an account is refreshed"
    )
    account_check_seconds: float = Field(21600, ge=600, description="how often a registered account is checked")
    daily_receive: Literal["off", "when_empty", "daily"] = Field(
        "when_empty",
        description="claim the daily free credits of accounts: `when_empty`, `daily` (also `on`), or `off`",
    )
    region_cache_seconds: float = Field(86400, gt=0, description="how long a detected cluster is cached")

    api_port: int = Field(8000, ge=1, le=65535, description="port of the API")
    trusted_proxies: str = Field(
        "",
        description="comma-separated addresses or networks of proxies whose X-Forwarded-* headers are trusted; "
        "empty = none",
    )
    api_host: str = Field("127.0.0.1", description="address the API binds to")
    db_pool_size: int = Field(
        8,
        ge=1,
        description="threads per API process, and idle database connections per process (8 more when busy)",
    )
    worker_concurrency: int = Field(32, ge=1, description="threads per worker process")
    conversation_concurrency: int = Field(
        16, ge=1, description="concurrent agent conversations per worker process that runs them"
    )
    worker_with_scheduler: bool = Field(False, description="this worker is also the scheduler (set by `dreamery up`)")
    worker_status_dir: Path | None = Field(
        None, description="folder in which a worker records its status for the supervisor (set by `dreamery up`)"
    )
    profile: Literal["auto", "small", "standard"] = Field(
        "auto", description="size of `dreamery up`; `auto` = `small` with less than 1 GB of available memory"
    )
    flower_start: Literal["on_demand", "at_start", "never"] = Field(
        "on_demand", description="when `dreamery up` starts Flower; `on_demand` = at the first connection"
    )
    sandbox_start: Literal["on_demand", "at_start"] = Field(
        "on_demand", description="when `dreamery up` starts the sandbox; `on_demand` = at the first connection"
    )
    postgres_shared_buffers_mb: int = Field(
        0, ge=0, description="`shared_buffers` of the embedded Postgres in MB; 0 = 32 to 128, depending on the memory"
    )
    request_max_bytes: int = Field(1_000_000, ge=1000, description="largest JSON body")
    request_max_upload_bytes: int = Field(140_000_000, ge=1000, description="largest JSON body that may contain images")
    request_header_timeout_seconds: float = Field(20, gt=0, description="time in which the request headers must arrive")
    request_body_timeout_seconds: float = Field(600, gt=0, description="time in which the request body must arrive")
    request_stall_timeout_seconds: float = Field(
        20, gt=0, description="longest pause of a request body; in this time the lowest rate is measured"
    )
    request_bytes_under_way: int = Field(
        2_000_000_000, ge=1_000_000, description="bytes of request bodies per API process, kept on disk; more get 503"
    )
    request_bytes_under_way_per_caller: int = Field(
        512_000_000, ge=1_000_000, description="the same per caller; more get 429"
    )
    console_session_hours: float = Field(72, gt=0, description="an unused console session ends after this time")
    oidc_issuer: str = Field("", description="address of an OpenID provider that signs users in; empty = none")
    oidc_client_id: str = Field("", description="id of this platform at that provider")
    oidc_client_secret: SecretStr = Field(SecretStr(""), description="secret of this platform at that provider")
    oidc_label: str = Field("Single sign-on", description="text on the button of the sign-in page")
    oidc_scopes: str = Field("openid profile email", description="what the provider is asked for")
    oidc_groups_claim: str = Field("groups", description="claim with the groups of a user")
    oidc_roles: str = Field(
        "", description="roles by group, such as `admins=admin,designers=member,*=viewer`; empty = all are members"
    )
    mcp_confirm_above: ConsentLimits = Field("100 credits, 1 USD, 7 CNY", description="MCP tools ask above these costs")
    mcp_origins: str = Field("", description="comma-separated origins of web pages that may call `/mcp`")
    flower_url: str = Field("", description="URL of Flower, linked on the console's system page")
    flower_password: SecretStr = Field(SecretStr(""), description="password of Flower (`admin`); empty = the admin key")
    prompt_max_chars: int = Field(32_000, ge=1, description="longest prompt")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Accept former names and constants: in each source the present name wins over the former one."""
        return (
            init_settings,
            env_settings,
            _other_names(settings_cls, env_settings),
            dotenv_settings,
            _other_names(settings_cls, dotenv_settings),
            file_secret_settings,
        )

    @field_validator("daily_receive", mode="before")
    @classmethod
    def _accept_booleans(cls, value: object) -> object:
        text = str(value).strip().lower()
        return {"true": "daily", "on": "daily", "1": "daily", "false": "off", "0": "off"}.get(text, text)

    @field_validator(
        "upstream_origin", "sandbox_url", "public_url", "s3_endpoint", "otel_endpoint", "flower_url", "oidc_issuer"
    )
    @classmethod
    def _check_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/")

    @field_validator("default_region")
    @classmethod
    def _check_region(cls, value: str) -> str:
        return provider_data.check_default_region(value.strip().lower())

    @field_validator("provider_constants")
    @classmethod
    def _check_constants(cls, value: dict[str, str]) -> dict[str, str]:
        provider_overrides.check_given(value)
        return value

    @field_validator("budget_time_zone")
    @classmethod
    def _check_time_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, KeyError):
            raise ValueError("must be a time zone such as UTC or Asia/Shanghai") from None
        return value

    @field_validator("catalog_file", "background_rules_file", "worker_status_dir", mode="before")
    @classmethod
    def _empty_means_none(cls, value: object) -> object:
        return value or None

    @field_validator("catalog_file")
    @classmethod
    def _check_catalog(cls, value: Path | None) -> Path | None:
        catalog_overrides.check(value)
        return value

    @field_validator("background_rules_file")
    @classmethod
    def _check_background_rules(cls, value: Path | None) -> Path | None:
        background_rules.check(value)
        return value

    @model_validator(mode="after")
    def _check_combinations(self) -> "Settings":
        # Each must exceed the previous one: otherwise a job could be claimed again while its first call still runs.
        if not self.call_timeout_seconds < self.watchdog_seconds < self.lease_seconds:
            raise ValueError("need CALL_TIMEOUT_SECONDS < WATCHDOG_SECONDS < LEASE_SECONDS")
        if bool(self.s3_access_key_id) != bool(self.s3_secret_access_key.get_secret_value()):
            raise ValueError("S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY belong together: set both or neither")
        if self.poll_min_seconds > self.poll_max_seconds:
            raise ValueError("POLL_MIN_SECONDS must not exceed POLL_MAX_SECONDS")
        return self

    @property
    def conversation_watchdog_seconds(self) -> float:
        """Watchdog limit for a conversation, in seconds: it includes the longest allowed silence of the agent."""
        return self.conversation_idle_timeout_seconds + self.watchdog_seconds

    @property
    def files_url(self) -> str:
        """URL of the storage for results."""
        return self.storage_url or f"file://{self.data_dir.resolve()}/files"

    @property
    def sqlalchemy_url(self) -> str:
        """The database URL with the driver named; plain `postgresql://` and `postgres://` mean psycopg 3."""
        scheme, _, rest = self.database_url.partition("://")
        if several := _SEVERAL_HOSTS.fullmatch(rest):
            # The form of libpq, as the library wants it.
            hosts = "&".join(f"host={host}" for host in several["hosts"].split(","))
            query = f"{several['query']}&{hosts}" if several["query"] else f"?{hosts}"
            rest = f"{several['user'] or ''}{several['path'] or '/'}{query}"
        return f"postgresql+psycopg://{rest}" if scheme in {"postgresql", "postgres"} else self.database_url


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
