"""What is wrong with the settings is said before anything connects: URLs that cannot work, and misspelled names."""

import os
from pathlib import Path

import pytest

from worker.core.security import setting_names
from worker.core.security.configuration import require_usable
from worker.core.security.connection_urls import find_url_problems
from worker.core.security.setting_names import find_misspelled
from worker.core.settings import Settings

DATABASE = "postgresql://user:pw@db/dreamery"
REDIS = "redis://redis:6379/0"
SECRET = "hunter2"


def problems(database: str = DATABASE, redis: str = REDIS, storage: str = "") -> list[str]:
    settings = Settings.model_construct(database_url=database, redis_url=redis, storage_url=storage)
    return find_url_problems(settings, required=True)


@pytest.mark.parametrize(
    "url",
    [
        DATABASE,
        "postgres://user@db:5432/dreamery?sslmode=verify-full",
        "postgresql+psycopg:///dreamery?host=/run/postgresql",
        "postgresql://[::1]:5432/dreamery",
        "postgresql://user:pw@db1:5432,db2:5433/dreamery?target_session_attrs=read-write",
        "postgresql://user:p%40ss@db/dreamery?options=-c%20work_mem=8MB",
        # The driver reads these as they are meant, so platforms may already use them.
        "postgresql://user:a/b:c#d@db/dreamery",
    ],
)
def test_database_urls_that_work(url: str) -> None:
    assert problems(database=url) == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "it is not set"),
        (f"user:{SECRET}@db/dreamery", "it has no scheme"),
        (f"postgresql:/user:{SECRET}@db/dreamery", "it has no scheme"),
        ("db:5432/dreamery", "it has no scheme"),
        (f"mysql://user:{SECRET}@db/dreamery", "mysql:// is not supported"),
        (f"postgresql+asyncpg://user:{SECRET}@db/dreamery", "postgresql+asyncpg:// is not supported"),
        (f"postgresql://user:{SECRET}@{SECRET}@db/dreamery", "percent-encode"),
        (f"postgresql://user:{SECRET}@db:54x2/dreamery", "the port must be a number"),
        (f"postgresql://user:{SECRET}@db:99999/dreamery", "the port must be a number"),
        ("postgresql://::1/dreamery", "in brackets"),
        (f"postgresql://user:{SECRET}@db/dreamery\n", "a space or a line break"),
    ],
)
def test_database_urls_that_cannot_work(url: str, reason: str) -> None:
    [text] = problems(database=url)
    assert text.startswith("DREAMERY_DATABASE_URL cannot be used: ")
    assert reason in text
    assert SECRET not in text


@pytest.mark.parametrize(
    "url",
    [
        REDIS,
        "rediss://:pw@redis",
        "redis://u:p@ss:word%@redis/3",
        "redis://redis?db=2",
        "redis://[::1]:6379/0",
        "rediss://redis/0?ssl_cert_reqs=none",
        "sentinel://:pw@a:26379,b/0?master_name=main",
    ],
)
def test_redis_urls_that_work(url: str) -> None:
    assert problems(redis=url) == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "it is not set"),
        ("redis:6379", "it has no scheme"),
        ("amqp://rabbit", "amqp:// is not supported"),
        (f"sentinel://:{SECRET}@a:26379", "which primary the Sentinels watch"),
        (f"redis+sentinel://:{SECRET}@a:26379/mymaster", "write sentinel://"),
        ("redis-cluster://a:7000", "Redis Cluster is not supported"),
        ("redis://a:7000,b:7000", "several servers"),
        (f"redis://:{SECRET}/x@redis:6379/0", "percent-encode"),
        (f"redis://:{SECRET}?x@redis:6379/0", "percent-encode"),
        (f"redis://:{SECRET}#x@redis:6379/0", "percent-encode"),
        (f"rediss://redis/0?{SECRET}=1", "unknown option"),
        ("redis://redis/0?ssl_ca_certs=/ca.pem", "a URL that begins with rediss://"),
        ("rediss://redis/0?ssl_cert_reqs=maybe", "ssl_cert_reqs must be"),
        ("rediss://redis/0?ssl_check_hostname=perhaps", "ssl_check_hostname must be true or false"),
        ("rediss://redis/0?ssl_keyfile=/key.pem", "ssl_keyfile needs ssl_certfile"),
        ("rediss://redis/0?ssl_ca_certs=/no/such/file.pem", "ssl_ca_certs cannot be used (no such file"),
        (f"rediss://redis/0?ssl_ca_certs={__file__}", "they are no PEM files"),
        (f"rediss://redis/0?ssl_certfile={__file__}", "ssl_certfile and ssl_keyfile cannot be used"),
        ("redis://redis:70000/0", "the port must be a number"),
        ("redis://redis/first", "the number of a database"),
    ],
)
def test_redis_urls_that_cannot_work(url: str, reason: str) -> None:
    [text] = problems(redis=url)
    assert text.startswith("DREAMERY_REDIS_URL cannot be used: ")
    assert reason in text
    assert SECRET not in text


@pytest.mark.parametrize("url", ["", "file:///srv/files", "s3://bucket", "s3://bucket/prefix"])
def test_storage_urls_that_work(url: str) -> None:
    assert problems(storage=url) == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("/srv/files", "it has no scheme"),
        ("file:srv", "it has no scheme"),
        ("file://srv/files", "three slashes"),
        ("file:///", "name a folder"),
        ("gs://bucket", "gs:// is not supported"),
        ("s3:///prefix", "no bucket"),
        (f"s3://key:{SECRET}@bucket/prefix", "DREAMERY_S3_ACCESS_KEY_ID"),
        ("s3://minio:9000/bucket", "DREAMERY_S3_ENDPOINT"),
    ],
)
def test_storage_urls_that_cannot_work(url: str, reason: str) -> None:
    [text] = problems(storage=url)
    assert text.startswith("DREAMERY_STORAGE_URL cannot be used: ")
    assert reason in text
    assert SECRET not in text


def test_every_wrong_url_is_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.model_construct(database_url="db", redis_url="", storage_url="x")
    with pytest.raises(SystemExit) as stop:
        require_usable(settings)
    assert [line.split()[1] for line in str(stop.value).splitlines()] == [
        "DREAMERY_DATABASE_URL",
        "DREAMERY_REDIS_URL",
        "DREAMERY_STORAGE_URL",
    ]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory for `.env` with a folder `secrets`, and an environment without our settings."""
    for name in list(os.environ):
        if name.startswith("DREAM"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setting_names, "SECRETS_DIR", tmp_path / "secrets")
    (tmp_path / "secrets").mkdir()
    return tmp_path


def test_misspelled_names_are_found_everywhere(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMERY_REDIS_ULR", f"redis://:{SECRET}@x")
    monkeypatch.setenv("DREAMRY_MASTER_KEY", SECRET)
    (places / ".env").write_text(f"DREAMERY_SESION_TOKENS=on\nDREAMERY_MASTERKEY={SECRET}\nDREAMERY_API_PORT=1\n")
    (places / "secrets" / "dreamery_admn_key").write_text(SECRET)
    found = find_misspelled()
    assert [text.split()[0] for text in found] == [
        "DREAMERY_REDIS_ULR", "DREAMRY_MASTER_KEY", "DREAMERY_MASTERKEY", "DREAMERY_SESION_TOKENS", "dreamery_admn_key",
    ]  # fmt: skip
    nearest = ["REDIS_URL", "MASTER_KEY", "MASTER_KEY", "SESSION_TOKENS", "ADMIN_KEY"]
    assert [text.rpartition(" ")[2] for text in found] == [f"DREAMERY_{name}?" for name in nearest]
    assert SECRET not in " ".join(found)


def test_name_without_a_near_one_points_to_the_list(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMERY_QQ", "1")
    [text] = find_misspelled()
    assert "doctor --settings" in text


def test_names_with_a_meaning_are_not_reported(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "dreamery_env",  # names are not case-sensitive
        "DREAMERY_DEAF_SECONDS",  # former
        "DREAMERY_URL",  # of the command line
        "DREAMERY_PORT",  # of the compose file
        "DREAMERY_API_SERVICE_HOST",  # Kubernetes
        "DREAMERY_API_PORT_8000_TCP_ADDR",
        "DATABASE_URL",
        "DREAM_MACHINE",
        "REDIS_URL",
    ):
        monkeypatch.setenv(name, "1")
    assert find_misspelled() == []


def test_misspelled_name_is_a_warning(
    places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DREAMERY_ADMINKEY", "x")
    require_usable(Settings.model_construct(database_url=DATABASE, redis_url=REDIS, storage_url=""))
    assert "did you mean DREAMERY_ADMIN_KEY?" in capsys.readouterr().err
