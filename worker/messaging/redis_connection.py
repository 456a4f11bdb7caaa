"""The Redis client for occasional commands: one cached client per URL, its connections shared by all threads.

Celery, the subscriber (`pubsub.py`) and the asynchronous rate limiter (`rate_limits.py`) have their own connections.
"""

from functools import lru_cache

import redis

from worker.core.settings import get_settings


def redis_client(url: str = "") -> redis.Redis:
    """Return the client of this URL (default: from the settings). Each call times out after two seconds."""
    return _client(url or get_settings().redis_url)


@lru_cache(maxsize=8)
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2, health_check_interval=30)
