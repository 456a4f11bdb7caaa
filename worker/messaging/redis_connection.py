"""The Redis client for occasional commands: one cached client per URL, its connections shared by all threads.

Celery, the subscriber (`pubsub.py`) and the asynchronous rate limiter (`rate_limits.py`) have their own connections.
"""

import contextlib
from functools import lru_cache

import redis

from worker.core.settings import get_settings


def redis_client(url: str = "") -> redis.Redis:
    """Return the client of this URL (default: from the settings). Each call times out after two seconds."""
    return _client(url or get_settings().redis_url)


def require_usable_redis() -> None:
    """Check what the server says before anything waits for it. Raises SystemExit with one sentence.

    A server that does not answer is no reason: it may come back.
    """
    try:
        with contextlib.closing(_client.__wrapped__(get_settings().redis_url)) as client:
            info = client.info("server")
            mode = info.get("redis_mode") or info.get("server_mode")
    except redis.AuthenticationError:
        raise SystemExit(
            "Error: DREAMERY_REDIS_URL is wrong: Redis refuses its user or password. Correct it."
        ) from None
    except redis.ResponseError as error:
        if "DB index" in str(error):
            text = "Error: DREAMERY_REDIS_URL is wrong: Redis has no database of that number. Use /0."
            raise SystemExit(text) from None
        return  # a user without the permission to ask
    except (redis.RedisError, OSError):
        return
    if mode in {"sentinel", "cluster"}:
        raise SystemExit(
            f"Error: DREAMERY_REDIS_URL names a server in {mode} mode, which is not supported: name a single server, "
            "or an address that follows the primary."
        )


@lru_cache(maxsize=8)
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2, health_check_interval=30)
