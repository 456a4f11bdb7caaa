"""The client of Redis for what is said now and then: one per address, kept, its connections shared by all threads.

Celery has its own connections, and so has what waits for messages (`events.py`) or runs in an event loop (`limits.py`).
"""

from functools import lru_cache

import redis

from worker.core.settings import get_settings


def redis_client(url: str = "") -> redis.Redis:
    """The client of this address, by default that of the settings. A call waits two seconds at most for an answer."""
    return _client(url or get_settings().redis_url)


@lru_cache(maxsize=8)
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2, health_check_interval=30)
