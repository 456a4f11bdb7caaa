"""Every setting of Dreamery: one class, read once, prefix `DREAMERY_` (environment, then `.env`, then secret files).

`dreamery doctor --settings` and the README list them from the descriptions here. Nothing else reads the environment.
"""

from functools import lru_cache
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.core import catalog_overrides

Region = Literal["auto", "cn", "us", "sg", "hk", "jp", "sandbox"]


_SECRETS_DIR = Path("/run/secrets")


def _secrets_dir() -> Path | None:
    """Where Docker, Podman and Kubernetes put secrets as files; pydantic warns of a folder that is not there."""
    return _SECRETS_DIR if _SECRETS_DIR.is_dir() else None


class Settings(BaseSettings):
    """Values are validated at start, so a wrong one stops the process with its name instead of failing a job later."""

    # A secret may also be a file: /run/secrets/dreamery_master_key. The environment wins over `.env`, both over files.
    model_config = SettingsConfigDict(
        env_prefix="DREAMERY_", env_file=".env", secrets_dir=_secrets_dir(), extra="ignore", frozen=True
    )

    env: Literal["development", "production"] = Field("development", description="`production` refuses weak keys")
    database_url: str = Field("", description="`postgresql://...`; empty = `dreamery up` starts an embedded server")
    redis_url: str = Field("", description="`redis://...`; empty = `dreamery up` starts an embedded server")
    data_dir: Path = Field(Path("data"), description="embedded servers, files, generated keys (mode 0700)")
    public_url: str = Field("", description="prefix of links in answers; empty = taken from the request")
    master_key: SecretStr = Field(
        SecretStr(""), description="comma list of keys that encrypt account secrets, newest first"
    )
    admin_key: SecretStr = Field(SecretStr(""), description="bootstrap API key of the first admin")
    session_tokens: bool = Field(False, description="accept upstream session ids as Bearer tokens (`on` under `up`)")
    default_region: Region = Field("auto", description="region of a token that names none")
    sandbox_url: str = Field("", description="where region `sandbox` lives; set by `dreamery up`")
    upstream_origin: str = Field("", description="reach every upstream host at this origin (real host: `X-Orig-Host`)")
    fetch_allow: str = Field("", description="comma list of private host or host:port that fetcher and proxies may use")
    catalog_file: Path | None = Field(
        None, description="TOML that changes models, aliases, sizes, hosts, wire constants"
    )
    sync_wait_seconds: float = Field(600, gt=0, description="longest blocking wait of a request")
    housekeeping_replies: bool = Field(True, description="answer front ends' title, tag and test chats without a job")
    join_repeats: bool = Field(True, description="a request repeated after a cut or timeout joins its first job")
    account_max_images: int = Field(2, ge=1, description="picture jobs in flight per upstream account")
    account_max_videos: int = Field(1, ge=1, description="video jobs in flight per upstream account")
    account_max_chats: int = Field(2, ge=1, description="conversations with the agent at once per upstream account")
    account_submits_per_minute: float = Field(20, gt=0, description="pace of submits per upstream account")
    open_jobs_per_caller: int = Field(5000, ge=1, description="unfinished jobs a caller may have; then 429")
    requests_per_minute: int = Field(600, ge=0, description="creating requests per caller and minute; 0 = no limit")
    jobs_per_day: int = Field(0, ge=0, description="jobs per caller and day, without a limit of their own; 0 = any")
    jobs_per_month: int = Field(0, ge=0, description="jobs per caller and month; 0 = any")
    credits_per_day: int = Field(0, ge=0, description="upstream credits per caller and day; 0 = any")
    credits_per_month: int = Field(0, ge=0, description="upstream credits per caller and month; 0 = any")
    budget_warn_percent: int = Field(
        80, ge=0, le=100, description="part of a limit that warns; 0 = only soft limits do"
    )
    budget_time_zone: str = Field("UTC", description="where days and months of limits and usage begin")
    failed_keys_per_minute: int = Field(
        30, ge=0, description="wrong keys per network address and minute; then 429; 0 = no limit"
    )
    open_requests: int = Field(4000, ge=1, description="HTTP requests open at once per API process; then 503")
    open_requests_per_caller: int = Field(
        1000, ge=1, description="requests and streams a caller may have open per API process; then 429"
    )
    poll_min_seconds: float = Field(1, gt=0, description="shortest polling interval per account")
    poll_max_seconds: float = Field(20, gt=0, description="longest polling interval per account")
    poll_batch: int = Field(100, ge=1, le=1000, description="ids asked in one poll call")
    tick_seconds: float = Field(0.5, gt=0, le=5, description="how often the scheduler looks for what is due")
    storage_url: str = Field("", description="`file:///folder` or `s3://bucket/prefix`; empty = `DATA_DIR/files`")
    s3_endpoint: str = Field("", description="address of an S3-compatible storage; empty = AWS")
    s3_region: str = Field("", description="its region; empty = as `AWS_REGION` says, else us-east-1")
    s3_access_key_id: str = Field("", description="key id for `s3://`; empty = as `AWS_*` or the machine's role say")
    s3_secret_access_key: SecretStr = Field(SecretStr(""), description="secret of that key id")
    retention_days: int = Field(0, ge=0, description="results older than this are removed; 0 = kept for ever")
    link_ttl_seconds: int = Field(
        0, ge=0, description="links to files are signed and expire after this; 0 = unguessable links for ever"
    )
    events_days: int = Field(90, ge=0, description="timelines of jobs older than this are removed; 0 = kept for ever")
    deliveries_days: int = Field(30, ge=1, description="webhook deliveries are kept so long, for the log and replays")
    pins_per_caller: int = Field(1000, ge=0, description="jobs a caller may keep beyond the retention; 0 = none")
    stop_seconds: float = Field(10, gt=0, description="after SIGTERM, how long steps and conversations may go on")
    log_format: Literal["auto", "console", "json"] = Field("auto", description="auto = console on a terminal")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    metrics_token: SecretStr = Field(SecretStr(""), description="Bearer token that `/metrics` asks for; empty = none")
    otel_endpoint: str = Field("", description="OTLP/HTTP address that traces go to (extra `otel`); empty = no traces")
    deaf_seconds: float = Field(15, ge=2, description="a worker that hears no message for so long is ill")

    image_deadline_seconds: float = Field(1800, gt=0, description="a picture job fails this long after its submit")
    video_deadline_seconds: float = Field(14400, gt=0, description="a video job fails this long after its submit")
    queue_deadline_seconds: float = Field(86400, gt=0, description="a job that waited this long for an account fails")
    save_deadline_seconds: float = Field(3600, gt=0, description="a finished job whose results cannot be copied fails")
    max_video_bytes: int = Field(2_000_000_000, ge=1_000_000, description="largest video that is copied")
    max_attempts: int = Field(3, ge=1, description="submits per job that surely or probably had no effect")
    call_timeout_seconds: float = Field(20, gt=0, description="total deadline of one upstream call")
    talk_seconds: float = Field(300, gt=0, description="longest conversation with the agent, from its sending")
    talk_gap_seconds: float = Field(60, gt=0, description="longest silence of the agent within a conversation")
    talk_lease_seconds: float = Field(30, gt=2, description="a conversation whose worker shows no life so long is lost")
    watchdog_seconds: float = Field(40, gt=0, description="a worker whose step overstays this exits")
    lease_seconds: float = Field(60, gt=0, description="a claim is free again after this")
    unclear_grace_seconds: float = Field(30, gt=0, description="an unknown submit key is believed lost after this")
    upstream_sign_ver: str = Field("8.4.0", description="`Appvr` of upstream calls")
    upstream_da_version: str = Field("3.3.9", description="`da_version` and draft version")
    upstream_agent_da_version: str = Field("3.1.3", description="`da_version` of conversations with the agent")
    upstream_web_version: str = Field("7.5.0", description="`web_version` of upstream calls")
    models_refresh_seconds: float = Field(21600, ge=60, description="how often an account is asked what models it has")
    account_check_seconds: float = Field(21600, ge=600, description="how often an account that is kept gets a check-up")
    daily_receive: Literal["off", "when_empty", "daily"] = Field(
        "when_empty", description="fetch an account's daily free credits: `when_empty`, `daily` (also `on`), or `off`"
    )
    region_cache_seconds: float = Field(86400, gt=0, description="how long a looked-up cluster is believed")

    api_port: int = Field(8000, ge=1, le=65535, description="port of the API")
    trusted_proxies: str = Field(
        "127.0.0.1,::1", description="comma list of proxies' addresses or networks whose X-Forwarded-* is believed"
    )
    api_host: str = Field("127.0.0.1", description="address the API binds")
    db_pool_size: int = Field(16, ge=1, description="database connections per API process, and its thread-pool size")
    worker_concurrency: int = Field(32, ge=1, description="threads per worker process")
    talk_concurrency: int = Field(16, ge=1, description="threads of the process that holds conversations")
    request_max_bytes: int = Field(1_000_000, ge=1000, description="largest JSON body")
    request_max_upload_bytes: int = Field(140_000_000, ge=1000, description="largest JSON body that may hold pictures")
    request_head_seconds: float = Field(20, gt=0, description="headers that have not arrived by then are given up")
    request_body_seconds: float = Field(600, gt=0, description="a body that has not arrived by then is given up")
    console_session_hours: float = Field(72, gt=0, description="a console session without use ends after so long")
    flower_url: str = Field("", description="where people reach Flower, for a link on the console's system page")
    prompt_max_chars: int = Field(32_000, ge=1, description="longest prompt")

    @field_validator("daily_receive", mode="before")
    @classmethod
    def _in_words(cls, value: object) -> object:
        said = str(value).strip().lower()
        return {"true": "daily", "on": "daily", "1": "daily", "false": "off", "0": "off"}.get(said, said)

    @field_validator("upstream_origin", "sandbox_url", "public_url", "s3_endpoint", "otel_endpoint", "flower_url")
    @classmethod
    def _bare_origin(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/")

    @field_validator("budget_time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, KeyError):
            raise ValueError("must be a time zone such as UTC or Asia/Shanghai") from None
        return value

    @field_validator("catalog_file", mode="before")
    @classmethod
    def _unset(cls, value: object) -> object:
        return value or None  # an empty variable is no file

    @field_validator("catalog_file")
    @classmethod
    def _usable_catalog(cls, value: Path | None) -> Path | None:
        catalog_overrides.check(value)
        return value

    @model_validator(mode="after")
    def _times_in_order(self) -> "Settings":
        # Each must outlast the one before it, or a late twin of a call may be in flight when the row is re-driven.
        if not self.call_timeout_seconds < self.watchdog_seconds < self.lease_seconds:
            raise ValueError("need CALL_TIMEOUT_SECONDS < WATCHDOG_SECONDS < LEASE_SECONDS")
        if bool(self.s3_access_key_id) != bool(self.s3_secret_access_key.get_secret_value()):
            raise ValueError("S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY belong together: set both or neither")
        if self.poll_min_seconds > self.poll_max_seconds:
            raise ValueError("POLL_MIN_SECONDS must not exceed POLL_MAX_SECONDS")
        return self

    @property
    def talk_watchdog_seconds(self) -> float:
        """Like `watchdog_seconds`, for the piece of a conversation that may be a silence."""
        return self.talk_gap_seconds + self.watchdog_seconds

    @property
    def files_url(self) -> str:
        """Where results live, as a URL."""
        return self.storage_url or f"file://{self.data_dir.resolve()}/files"

    @property
    def sqlalchemy_url(self) -> str:
        """The database URL with the driver named; plain `postgresql://` and `postgres://` mean psycopg 3."""
        scheme, _, rest = self.database_url.partition("://")
        return f"postgresql+psycopg://{rest}" if scheme in {"postgresql", "postgres"} else self.database_url


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
