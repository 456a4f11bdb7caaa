"""Checks the URLs of database, Redis and storage before anything connects. No text contains any part of a URL but its
scheme: a part that is read wrongly may be the password.
"""

import re
from collections.abc import Callable
from urllib.parse import unquote

from worker.core.security.redis_urls import (
    ENCODE,
    RedisUrlError,
    find_tls_file_problem,
    parse_hosts,
    parse_redis_url,
    wrong_scheme,
)
from worker.core.settings import Settings

_DATABASE_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
_POSTGRES_PORT = 5432
_DATABASE_USER = re.compile(r"[^:/]*(:[^@]*)?@")
_SPACE = re.compile(r"\s")


def find_url_problems(settings: Settings, *, required: bool) -> list[str]:
    """Return one sentence for each URL that cannot work, with its setting and the remedy.

    `required` = database and Redis must be set: there are no embedded servers.
    """
    checks: list[tuple[str, str, Callable[[str], str]]] = [
        ("DREAMERY_DATABASE_URL", settings.database_url, _database_problem),
        ("DREAMERY_REDIS_URL", settings.redis_url, _redis_problem),
        ("DREAMERY_STORAGE_URL", settings.storage_url, _storage_problem),
    ]
    found = []
    for name, url, check in checks:
        if url:
            problem = (_SPACE.search(url) and "it contains a space or a line break: remove it") or check(url)
        else:
            problem = _unset(name) if required and name != "DREAMERY_STORAGE_URL" else ""
        if problem:
            found.append(f"{name} cannot be used: {problem}.")
    return found


def _unset(name: str) -> str:
    example = "postgresql://USER:PASSWORD@HOST/DATABASE" if "DATABASE" in name else "redis://:PASSWORD@HOST:6379/0"
    return f"it is not set; set it to {example}, or start everything on this machine with `dreamery up`"


def _database_problem(url: str) -> str:
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in _DATABASE_SCHEMES:
        return wrong_scheme(scheme if separator else "", "postgresql://USER:PASSWORD@HOST/DATABASE")
    # Read as the driver does: the password ends at the first @.
    rest = url.partition("://")[2]
    user = _DATABASE_USER.match(rest)
    rest = rest[user.end() :] if user else rest
    hosts = re.split(r"[/?]", rest, maxsplit=1)[0]
    return ENCODE if "@" in hosts else _hosts_problem(hosts)


def _redis_problem(url: str) -> str:
    try:
        return find_tls_file_problem(parse_redis_url(url))
    except RedisUrlError as error:
        return str(error)


def _storage_problem(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    example = "file:///FOLDER or s3://BUCKET/PREFIX"
    if not separator or scheme not in {"file", "s3"}:
        return wrong_scheme(scheme if separator else "", example)
    if scheme == "file":
        if not rest.startswith("/"):
            return "a folder needs its full path and three slashes, as in file:///srv/files"
        return "name a folder, as in file:///srv/files" if not unquote(rest).strip("/") else ""
    bucket = rest.partition("/")[0]
    if not bucket:
        return f"it names no bucket; write {example}"
    if "@" in bucket or ":" in bucket:
        return (
            "it must contain neither keys nor a server; use DREAMERY_S3_ACCESS_KEY_ID, DREAMERY_S3_SECRET_ACCESS_KEY "
            "and DREAMERY_S3_ENDPOINT"
        )
    return ""


def _hosts_problem(hosts: str) -> str:
    try:
        parse_hosts(hosts, _POSTGRES_PORT)
    except RedisUrlError as error:
        return str(error)
    return ""
