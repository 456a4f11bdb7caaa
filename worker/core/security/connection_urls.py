"""Checks the URLs of database, Redis and storage before anything connects. No text contains any part of a URL but its
scheme: a part that is read wrongly may be the password.
"""

import re
from collections.abc import Callable
from urllib.parse import parse_qs, unquote, urlsplit

from worker.core.settings import Settings

_DATABASE_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
_REDIS_SCHEMES = ("redis", "rediss")
_ENCODE = (
    "percent-encode the special characters of its user and password (@ is %40, : is %3A, / is %2F, ? is %3F, # is %23, "
    "% is %25)"
)
_DATABASE_USER = re.compile(r"[^:/]*(:[^@]*)?@")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_SPACE = re.compile(r"\s")
# One host with an optional port; an IPv6 address is in brackets.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:@/\s]*)(:(?P<port>\d*))?")
_HIGHEST_PORT = 65535


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
        return _wrong_scheme(scheme if separator else "", "postgresql://USER:PASSWORD@HOST/DATABASE")
    # Read as the driver does: the password ends at the first @.
    rest = url.partition("://")[2]
    user = _DATABASE_USER.match(rest)
    rest = rest[user.end() :] if user else rest
    hosts = re.split(r"[/?]", rest, maxsplit=1)[0]
    return _ENCODE if "@" in hosts else _hosts_problem(hosts)


def _redis_problem(url: str) -> str:
    scheme, separator, _ = url.partition("://")
    for kind in ("Sentinel", "Cluster"):
        if separator and kind.lower() in scheme:
            return f"Redis {kind} is not supported; name a single server, or an address that follows the primary"
    if not separator or scheme not in _REDIS_SCHEMES:
        return _wrong_scheme(scheme if separator else "", "redis://:PASSWORD@HOST:6379/0 (rediss:// with TLS)")
    # Read as its clients do: the first / ? or # ends what contains the password.
    rest = url.partition("://")[2]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in rest and "@" not in authority:
        return _ENCODE
    hosts = authority.rpartition("@")[2]
    if "," in hosts:
        return "it names several servers; name a single one, or an address that follows the primary"
    return _hosts_problem(hosts) or _redis_number_problem(url)


def _redis_number_problem(url: str) -> str:
    parts = urlsplit(url)
    number = parts.path.strip("/") or parse_qs(parts.query).get("db", ["0"])[-1]
    good = number.isascii() and number.isdigit()
    return "" if good else "the part after the host must be the number of a database, such as /0"


def _storage_problem(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    example = "file:///FOLDER or s3://BUCKET/PREFIX"
    if not separator or scheme not in {"file", "s3"}:
        return _wrong_scheme(scheme if separator else "", example)
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


def _wrong_scheme(scheme: str, example: str) -> str:
    # Without `://`, the beginning may be a user and a password.
    return f"{f'{scheme}:// is not supported' if _SCHEME.fullmatch(scheme) else 'it has no scheme'}; write {example}"


def _hosts_problem(hosts: str) -> str:
    for host in hosts.split(","):
        match = _HOST.fullmatch(host)
        if match is None or (match["port"] and not 0 < int(match["port"]) <= _HIGHEST_PORT):
            return f"the port must be a number up to {_HIGHEST_PORT}, and an IPv6 address must be in brackets"
    return ""
