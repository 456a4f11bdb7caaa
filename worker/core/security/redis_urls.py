"""Reads DREAMERY_REDIS_URL once for all clients: Celery, redis-py, the rate limits, Flower.

Each library reads such a URL in its own way: one verifies certificates and another does not, one ignores what the other
obeys. So none of them gets the URL. No message contains any part of it: what is read wrongly may be the password.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

ENCODE = (
    "percent-encode the special characters of its user and password (@ is %40, : is %3A, / is %2F, ? is %3F, # is %23, "
    "% is %25)"
)
REDIS_EXAMPLE = "redis://:PASSWORD@HOST:6379/0 (rediss:// with TLS)"
_SENTINEL_EXAMPLE = "sentinel://:PASSWORD@HOST1:26379,HOST2:26379/0?master_name=NAME"
_PORTS = {"redis": 6379, "rediss": 6379, "sentinel": 26379}
_HIGHEST_PORT = 65535
# One host with an optional port; an IPv6 address is in brackets.
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\[\]:@/\s]*)(:(?P<port>\d*))?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS_OPTIONS = (*_TLS_FILES, "ssl_cert_reqs", "ssl_check_hostname")
_SENTINEL_OPTIONS = ("master_name", "ssl", "sentinel_username", "sentinel_password", "sentinel_ssl")
_VERIFY = {"required": "required", "optional": "optional", "none": "none"}
_VERIFY |= {f"cert_{name}": name for name in tuple(_VERIFY)}
_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


class RedisUrlError(ValueError):
    """The URL cannot be used. The text is half a sentence that says why and what to write."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is and how to reach it. With `master_name`, `hosts` are Sentinels, which know the primary.

    `tls` = the arguments `ssl_*` of redis-py; None = no TLS.
    """

    hosts: tuple[tuple[str, int], ...]
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: dict[str, Any] | None = None
    master_name: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    sentinel_tls: bool = False


def wrong_scheme(scheme: str, example: str) -> str:
    """Return the sentence for a URL of another kind; an empty scheme = there is none."""
    # Without `://`, the beginning may be a user and a password.
    return f"{f'{scheme}:// is not supported' if _SCHEME.fullmatch(scheme) else 'it has no scheme'}; write {example}"


def parse_hosts(text: str, default_port: int) -> tuple[tuple[str, int], ...]:
    """Return the hosts and ports of `HOST:PORT,HOST:PORT`. Raises RedisUrlError."""
    found = []
    for one in text.split(","):
        match = _HOST.fullmatch(one)
        port = int(match["port"] or default_port) if match else 0
        if match is None or not 0 < port <= _HIGHEST_PORT:
            raise RedisUrlError(
                f"the port must be a number up to {_HIGHEST_PORT}, and an IPv6 address must be in brackets"
            )
        found.append((match["host"].strip("[]") or "localhost", port))
    return tuple(found)


@lru_cache(maxsize=8)
def parse_redis_url(url: str) -> RedisAddress:
    """Return what the URL says. Raises RedisUrlError."""
    scheme, separator, rest = url.partition("://")
    if separator and "cluster" in scheme:
        raise RedisUrlError("Redis Cluster is not supported; name a single server, or use Redis Sentinel")
    if not separator or scheme not in _PORTS:
        example = _SENTINEL_EXAMPLE if separator and "sentinel" in scheme else REDIS_EXAMPLE
        raise RedisUrlError(wrong_scheme(scheme if separator else "", example))
    # The first / ? or # ends what contains the password.
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if ("@" in rest and "@" not in authority) or "#" in rest:
        raise RedisUrlError(ENCODE)
    user, _, hosts = authority.rpartition("@")
    username, _, password = user.partition(":")
    path, _, query = rest[len(authority) :].partition("?")
    if scheme != "sentinel" and "," in hosts:
        raise RedisUrlError(f"it names several servers; name a single one, or their Sentinels: {_SENTINEL_EXAMPLE}")
    options = _parse_options(query, scheme)
    return RedisAddress(
        hosts=parse_hosts(hosts, _PORTS[scheme]),
        database=_database_number(path, options),
        username=unquote(username) or None,
        password=unquote(password) or None,
        tls=_tls_options(options) if _uses_tls(scheme, options) else None,
        **_sentinel_part(scheme, options),
    )


def _parse_options(query: str, scheme: str) -> dict[str, str]:
    """Read `a=b&c=d`. A plus is a plus, because these values are paths, names and passwords."""
    known = ["db", *(_TLS_OPTIONS if scheme != "redis" else ()), *(_SENTINEL_OPTIONS if scheme == "sentinel" else ())]
    found: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name not in known:
            if scheme == "redis" and name in _TLS_OPTIONS:
                raise RedisUrlError("options of TLS need a URL that begins with rediss://")
            raise RedisUrlError(f"it has an unknown option; {scheme}:// knows {', '.join(known)}")
        found[name] = unquote(value)
    return found


def _database_number(path: str, options: dict[str, str]) -> int:
    number = path.strip("/") or options.get("db", "0")
    if not (number.isascii() and number.isdigit()):
        raise RedisUrlError("the part after the host must be the number of a database, such as /0")
    return int(number)


def _uses_tls(scheme: str, options: dict[str, str]) -> bool:
    if scheme == "sentinel":
        return _boolean(options, "ssl", default=any(name in options for name in _TLS_OPTIONS))
    return scheme == "rediss"


def _tls_options(options: dict[str, str]) -> dict[str, Any]:
    verify = _VERIFY.get(options.get("ssl_cert_reqs", "required").lower())
    if verify is None:
        raise RedisUrlError("ssl_cert_reqs must be required or none")
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise RedisUrlError("ssl_keyfile needs ssl_certfile, the certificate that belongs to the key")
    return {
        "ssl_cert_reqs": verify,
        "ssl_check_hostname": verify != "none" and _boolean(options, "ssl_check_hostname", default=True),
        **{name: options[name] for name in _TLS_FILES if options.get(name)},
    }


def _sentinel_part(scheme: str, options: dict[str, str]) -> dict[str, Any]:
    if scheme != "sentinel":
        return {}
    if not options.get("master_name"):
        raise RedisUrlError(f"it does not say which primary the Sentinels watch; write {_SENTINEL_EXAMPLE}")
    return {
        "master_name": options["master_name"],
        "sentinel_username": options.get("sentinel_username") or None,
        "sentinel_password": options.get("sentinel_password") or None,
        "sentinel_tls": _boolean(options, "sentinel_ssl", default=_uses_tls(scheme, options)),
    }


def _boolean(options: dict[str, str], name: str, *, default: bool) -> bool:
    value = _BOOLEANS.get(options[name].lower()) if name in options else default
    if value is None:
        raise RedisUrlError(f"{name} must be true or false")
    return value


def find_tls_file_problem(address: RedisAddress) -> str:
    """Return which file of the TLS options cannot be used; an empty string = all can, or there are none."""
    if address.tls is None:
        return ""
    import ssl  # here, because the supervisor reads the URL too and needs no TLS

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca, certificate = address.tls.get("ssl_ca_certs"), address.tls.get("ssl_certfile")
    if ca:
        try:
            context.load_verify_locations(ca)
        except OSError as error:
            return f"the file of ssl_ca_certs cannot be used ({_file_reason(error)})"
    if certificate:
        try:
            context.load_cert_chain(certificate, address.tls.get("ssl_keyfile"), password=lambda: "")
        except OSError as error:
            return f"the files of ssl_certfile and ssl_keyfile cannot be used ({_file_reason(error)})"
    return ""


def _file_reason(error: OSError) -> str:
    # An error of the TLS library is an OSError too, whose text names functions of the library.
    missing = isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError))
    return str(error.strerror).lower() if missing else "they are no PEM files of a certificate and its key"
