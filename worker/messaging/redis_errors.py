"""Says in words why Redis could not be used: for logs, readiness, `dreamery doctor` and the start of a role."""

import ssl
from collections.abc import Iterator

import redis
from redis.exceptions import MaxConnectionsError, OutOfMemoryError, RedisError
from redis.sentinel import MasterNotFoundError

# Errors of a call while Redis is unavailable.
REDIS_ERRORS: tuple[type[Exception], ...] = (RedisError, OSError)

# The first word of an answer of Redis.
_REFUSALS = {
    "OOM": "Redis refuses writes: its memory is full (`maxmemory`)",
    "READONLY": "Redis refuses writes: it is a read-only replica",
    "MISCONF": "Redis refuses writes: it cannot save its data to disk",
    "NOREPLICAS": "Redis refuses writes: it has fewer replicas than `min-replicas-to-write`",
    "MASTERDOWN": "Redis is a replica that has lost its primary",
    "LOADING": "Redis is loading its data",
    "BUSY": "Redis is busy with a script",
    "NOPERM": "Redis refuses a command: its user lacks rights (docs/redis.md)",
    "CLUSTERDOWN": "Redis is part of a cluster that is down",
}
CLIENT_CERTIFICATE = "Redis requires a certificate of its clients: name it with ssl_certfile and ssl_keyfile"
_WRONG_LOGIN = "Redis refuses its user or password"
# redis-py has classes for some answers and removes their first word. A class comes before the one it derives from.
_CLASSES: tuple[tuple[type[Exception], str], ...] = (
    (MasterNotFoundError, "the Sentinels know no primary that can be reached"),
    (OutOfMemoryError, _REFUSALS["OOM"]),
    (redis.ReadOnlyError, _REFUSALS["READONLY"]),
    (redis.BusyLoadingError, _REFUSALS["LOADING"]),
    (redis.exceptions.NoPermissionError, _REFUSALS["NOPERM"]),
    (redis.AuthenticationError, _WRONG_LOGIN),
    (MaxConnectionsError, "Redis accepts no more connections (`maxclients`)"),
)


def explain(error: BaseException) -> str:
    """Return the reason in words, without any secret. Libraries wrap errors, so the causes are read too."""
    chain = list(_chain(error))
    for one in chain:
        if reason := _reason_of_tls(one) or _reason_of_redis(one):
            return reason
    if any(isinstance(one, (redis.TimeoutError, redis.ConnectionError, OSError)) for one in chain):
        return "Redis does not respond"
    return f"Redis cannot be used: {type(error).__name__}"


def find_wrong_setting(error: BaseException) -> str:
    """Return what is wrong with the URL; an empty string = the server may only be away."""
    for one in _chain(error):
        if reason := _reason_of_tls(one):
            return reason
        if isinstance(one, redis.AuthenticationError):
            return _WRONG_LOGIN
        if isinstance(one, redis.ResponseError) and "DB index" in str(one):
            return "Redis has no database of that number: use /0"
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _reason_of_redis(error: BaseException) -> str:
    for kind, reason in _CLASSES:
        if isinstance(error, kind):
            return reason
    if "max number of clients" in str(error):
        return "Redis accepts no more connections (`maxclients`)"
    if isinstance(error, redis.ConnectionError) and "previous master is now a slave" in str(error):
        return _REFUSALS["READONLY"]
    if not isinstance(error, redis.ResponseError):
        return ""
    word = (str(error).split() or [""])[0]
    return _REFUSALS.get(word, f"Redis refuses a command: {word}" if word.isupper() else "Redis refuses a command")


def _reason_of_tls(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        name_differs = "mismatch" in error.verify_message or "not valid for" in error.verify_message
        remedy = (
            "use the name that the certificate contains"
            if name_differs
            else "name the file of its CA with ssl_ca_certs"
        )
        return f"the certificate of Redis is not accepted ({error.verify_message.split(',')[0]}): {remedy}"
    text = str(error).upper().replace(" ", "_")
    if "CERTIFICATE_REQUIRED" in text or "ALERT_HANDSHAKE_FAILURE" in text:
        return CLIENT_CERTIFICATE
    if not isinstance(error, ssl.SSLError):
        return ""
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
        return "the server does not use TLS: write redis:// instead of rediss://"
    return ""
