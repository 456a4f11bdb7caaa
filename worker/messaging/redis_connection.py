"""Every connection to Redis begins here: clients, pools and the settings of Celery from one reading of the URL.

`redis_client` is for occasional commands, its connections shared by all threads. The subscriber (`pubsub.py`), the rate
limiter (`rate_limits.py`), Celery and Flower have connections of their own. All of them give up a server that does not
answer within ten seconds.
"""

import contextlib
import socket
import ssl
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.retry
import redis.sentinel
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError

from worker.core.security.redis_urls import RedisAddress, RedisUrlError, parse_redis_url
from worker.core.settings import get_settings
from worker.messaging.redis_errors import CLIENT_CERTIFICATE, REDIS_ERRORS, explain, find_wrong_setting

_SECONDS = 2.0
_SENTINEL_SECONDS = 1.0
# Celery waits for messages without a timeout and asks the server this often whether it still lives.
_CELERY_CHECK_SECONDS = 4
_ERRORS: tuple[type[Exception], ...] = (*REDIS_ERRORS, RedisUrlError)
# The queue that every role uses.
_QUEUE = "fast"


def _keepalive_options() -> dict[int, int]:
    """The kernel ends a connection whose other end has not acknowledged anything for eight seconds."""
    wanted = {"TCP_KEEPIDLE": 4, "TCP_KEEPALIVE": 4, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": 8000}
    # Each system has some of them: TCP_KEEPALIVE is the first one on macOS.
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


def _connection_options(address: RedisAddress, *, seconds: float) -> dict[str, Any]:
    return {
        "db": address.database,
        "username": address.username,
        "password": address.password,
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "socket_keepalive": True,
        "socket_keepalive_options": _keepalive_options(),
        **(address.tls or {}),
    }


def _sentinel_options(address: RedisAddress) -> dict[str, Any]:
    """Options for the connections to the Sentinels themselves."""
    return {
        "username": address.sentinel_username,
        "password": address.sentinel_password,
        "socket_timeout": _SENTINEL_SECONDS,
        "socket_connect_timeout": _SENTINEL_SECONDS,
        "socket_keepalive": True,
        # The next Sentinel is asked at once.
        "retry": redis.retry.Retry(NoBackoff(), 0),
        **({"ssl": True, **(address.tls or {})} if address.sentinel_tls else {}),
    }


def create_client(url: str, *, seconds: float = _SECONDS) -> redis.Redis:
    """Return a client of its own, which the caller closes. Raises RedisUrlError."""
    address = parse_redis_url(url)
    options = {**_connection_options(address, seconds=seconds), "health_check_interval": 30}
    pool: redis.ConnectionPool
    if address.master_name:
        sentinels = redis.sentinel.Sentinel(address.hosts, sentinel_kwargs=_sentinel_options(address))  # type: ignore[no-untyped-call]
        pool = redis.sentinel.SentinelConnectionPool(
            address.master_name, sentinels, ssl=address.tls is not None, **options
        )  # type: ignore[no-untyped-call]
    else:
        (host, port), kind = address.hosts[0], redis.SSLConnection if address.tls else redis.Connection
        pool = redis.ConnectionPool(connection_class=kind, host=host, port=port, **options)
    return redis.Redis.from_pool(pool)


class _BlockingSentinelPool(redis.asyncio.sentinel.SentinelConnectionPool, redis.asyncio.BlockingConnectionPool):
    """A pool that follows the primary, and whose callers wait for a free connection."""


def create_async_pool(
    url: str, *, connections: int, wait_seconds: float, seconds: float = _SECONDS
) -> redis.asyncio.BlockingConnectionPool:
    """Return a pool for one event loop. Callers wait up to `wait_seconds` for one of its connections."""
    address = parse_redis_url(url)
    options = {
        **_connection_options(address, seconds=seconds),
        "max_connections": connections,
        "timeout": wait_seconds,
    }
    if address.master_name:
        of_sentinels = {**_sentinel_options(address), "retry": redis.asyncio.retry.Retry(NoBackoff(), 0)}
        sentinels = redis.asyncio.Sentinel(address.hosts, sentinel_kwargs=of_sentinels)  # type: ignore[no-untyped-call]
        return _BlockingSentinelPool(address.master_name, sentinels, ssl=address.tls is not None, **options)  # type: ignore[no-untyped-call]
    (host, port), kind = address.hosts[0], redis.asyncio.SSLConnection if address.tls else redis.asyncio.Connection
    return redis.asyncio.BlockingConnectionPool(connection_class=kind, host=host, port=port, **options)


def celery_settings(url: str) -> dict[str, Any]:
    """Return the settings of Celery for this URL. A URL that cannot work is returned as it is: the start refuses it."""
    try:
        address = parse_redis_url(url)
    except RedisUrlError:
        return {"broker_url": url}
    options = _connection_options(address, seconds=_SECONDS)
    transport = {name: value for name, value in options.items() if name.startswith("socket_")}
    # No `retry_on_timeout`: redis-py would reopen a lost connection without its subscriptions, and Flower and the
    # remote control of workers would receive nothing. Without it, Celery reconnects from scratch.
    transport |= {"visibility_timeout": 3600, "health_check_interval": _CELERY_CHECK_SECONDS}
    if address.master_name:
        transport |= {"master_name": address.master_name, "sentinel_kwargs": _sentinel_options(address)}
    scheme = "sentinel" if address.master_name else "rediss" if address.tls else "redis"
    login = f"{quote(address.username or '', safe='')}:{quote(address.password or '', safe='')}@"
    prefix = f"{scheme}://{login if address.username or address.password else ''}"
    hosts = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in address.hosts]
    # With its own `ssl` option and without any, Celery verifies no certificate.
    tls = {**address.tls, "ssl_cert_reqs": _VERIFY_MODES[address.tls["ssl_cert_reqs"]]} if address.tls else None
    return {
        "broker_url": ";".join(f"{prefix}{host}/{address.database}" for host in hosts),
        "broker_use_ssl": tls,
        "broker_transport_options": transport,
    }


_VERIFY_MODES = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


def redis_client(url: str = "") -> redis.Redis:
    """Return the client of this URL (default: from the settings). Each call times out after two seconds."""
    return _client(url or get_settings().redis_url)


@lru_cache(maxsize=8)
def _client(url: str) -> redis.Redis:
    return create_client(url)


def find_redis_problem() -> str | None:
    """Return why Redis cannot be used, in words; None = it answers and accepts writes."""
    try:
        refused = _try_in_vain(redis_client(), _WRITES)
    except _ERRORS as error:
        return explain(error)
    return explain(refused[0][1]) if refused else None


def diagnose_redis() -> str:
    """Return what is wrong with the URL, the server or the rights of its user; an empty string = nothing."""
    if wrong := find_wrong_redis_url():
        return wrong
    if lacking := _find_missing_rights():
        return f"its user may not run {', '.join(lacking)}"
    return find_redis_problem() or ""


def _find_missing_rights() -> list[str]:
    """Return the commands that the user of the URL may not run, each with an example of a key."""
    database = parse_redis_url(get_settings().redis_url).database
    commands = [tuple(line.format(database).split()) for line in _NEEDED.split("\n") if line.strip()]
    try:
        refused = _try_in_vain(redis_client(), [*_WRITES, *commands])
    except _ERRORS:
        return []
    return [" ".join(command[:2]) for command, error in refused if isinstance(error, NoPermissionError)]


# One command for each right, key and channel. Most would fail, or do nothing, if they were run.
_WRITES: list[tuple[str, ...]] = [("LPUSH", _QUEUE, "-"), ("SET", "dreamery:probe", "-")]
_NEEDED = """
    BRPOP fast bulk talk outbox self:worker 1
    RPOP fast
    RPUSH fast -
    LLEN outbox
    EXPIRE self:worker 1
    HSET unacked - -
    HDEL unacked -
    HGET dreamery:seen -
    HGETALL dreamery:workers
    HINCRBYFLOAT dreamery:metrics - 0
    ZADD unacked_index 1 -
    ZREM unacked_index -
    ZRANGE unacked_index 0 0
    ZREVRANGEBYSCORE unacked_index 0 0
    SADD _kombu.binding.fast -
    SREM _kombu.binding.fast -
    SMEMBERS _kombu.binding.fast
    ZRANGEBYSCORE _kombu.binding_deadlines 0 0
    EXISTS dreamery:limits
    DEL dreamery:limits
    GET dreamery:limits
    PTTL dreamery:limits
    INCRBY dreamery:limits 1
    RENAME dreamery:limits dreamery:limits
    LPUSH reply.celery.pidbox -
    LPUSH celeryev -
    PUBLISH dreamery:jobs -
    PUBLISH /{0}.celeryev/worker -
    SUBSCRIBE dreamery:jobs
    PSUBSCRIBE /{0}.celery.pidbox
    PSUBSCRIBE /{0}.celeryev/*
    UNSUBSCRIBE dreamery:jobs
    PUNSUBSCRIBE /{0}.celery.pidbox
    EVALSHA - 0
    SCRIPT LOAD -
    SCRIPT EXISTS -
    INFO
    TIME
"""


def _try_in_vain(
    client: redis.Redis, commands: list[tuple[str, ...]]
) -> list[tuple[tuple[str, ...], redis.ResponseError]]:
    """Return what Redis refuses, without running anything. Raises RedisError or OSError.

    The commands are queued in a transaction that is given up: rights, memory and role are checked all the same.
    """
    pool = client.connection_pool
    connection = pool.get_connection()
    refused: list[tuple[tuple[str, ...], redis.ResponseError]] = []
    try:
        connection.send_command("MULTI")  # type: ignore[no-untyped-call]
        connection.read_response()
        everything = [*commands, ("DISCARD",)]
        connection.send_packed_command(connection.pack_commands(everything))  # type: ignore[no-untyped-call]
        for command in everything:
            try:
                connection.read_response()
            except redis.ResponseError as error:
                refused.append((command, error))
    except BaseException:
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise
    finally:
        pool.release(connection)
    return refused


def require_usable_redis() -> None:
    """Check what the server says before anything waits for it. Raises SystemExit with one sentence.

    A server that does not answer is no reason: it may come back.
    """
    if problem := find_wrong_redis_url():
        raise SystemExit(f"Error: {problem}")


def find_wrong_redis_url() -> str:
    """Return what is wrong with DREAMERY_REDIS_URL according to the server; an empty string = nothing is known."""
    url = get_settings().redis_url
    try:
        with contextlib.closing(create_client(url)) as client:
            info = client.info("server")
    except _ERRORS as error:
        wrong = find_wrong_setting(error) or _find_wrong_server(parse_redis_url(url), error)
        return f"DREAMERY_REDIS_URL is wrong: {wrong}. Correct it." if wrong else ""
    mode = info.get("redis_mode") or info.get("server_mode")
    if mode == "sentinel":
        remedy = "write sentinel://HOST:26379/0?master_name=NAME"
    elif mode == "cluster":
        remedy = "that is not supported, so name a single server, or use Redis Sentinel"
    else:
        return ""
    return f"DREAMERY_REDIS_URL names a server in {mode} mode: {remedy}."


def _find_wrong_server(address: RedisAddress, error: BaseException) -> str:
    """Return why these hosts can never work: no Sentinels, TLS or none; an empty string = nothing is known."""
    if address.master_name:
        return _find_wrong_sentinel(address)
    # The library reports a lost connection or a timeout, so the server is asked, without a password.
    if address.tls is None:
        speaks_tls = isinstance(error, redis.ConnectionError) and _begin_tls(*address.hosts[0]) is not None
        return "the server uses TLS: write rediss:// instead of redis://" if speaks_tls else ""
    if _speaks_without_tls(*address.hosts[0]):
        return "the server does not use TLS: write redis:// instead of rediss://"
    wants_certificate = "ssl_certfile" not in address.tls and "CERTIFICATE_REQUIRED" in (
        _begin_tls(*address.hosts[0]) or ""
    )
    return CLIENT_CERTIFICATE if wants_certificate else ""


def _find_wrong_sentinel(address: RedisAddress) -> str:
    unknown = False
    for host, port in address.hosts:
        try:
            with contextlib.closing(redis.Redis(host, port, **_sentinel_options(address))) as client:
                known = client.sentinel_masters()
        except redis.AuthenticationError:
            return "a Sentinel refuses sentinel_username or sentinel_password"
        except redis.ResponseError as error:
            if "unknown command" in str(error).lower():
                return "it names a server that is no Sentinel"
        except REDIS_ERRORS as error:
            if wrong := find_wrong_setting(error):
                return wrong
        else:
            unknown = unknown or address.master_name not in known
            if address.master_name in known:
                return ""
    return "the Sentinels know no primary of that master_name" if unknown else ""


def _begin_tls(host: str, port: int) -> str | None:
    """Return what the server says after a TLS handshake: an alert, or an empty string. None = it uses no TLS.

    Nothing is sent to it, so its certificate does not matter.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), _SECONDS) as plain, context.wrap_socket(plain) as encrypted:
            try:
                encrypted.settimeout(_SENTINEL_SECONDS)
                encrypted.recv(1)
            except OSError as error:
                return str(error)
            return ""
    except OSError:
        return None


def _speaks_without_tls(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), _SECONDS) as plain:
            plain.sendall(b"PING\r\n")
            return plain.recv(1) in {b"+", b"-"}
    except OSError:
        return False
