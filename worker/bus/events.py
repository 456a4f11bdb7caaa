"""Publish and subscribe: "this job changed". Lossy by nature; whoever waits also reads the row now and then."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

import orjson
import redis
import redis.asyncio
from redis.exceptions import RedisError

from worker.core.log import get_logger
from worker.core.settings import get_settings

log = get_logger("events")

# What a subscriber may meet when Redis goes away.
BUS_ERRORS: tuple[type[Exception], ...] = (RedisError, OSError)

CHANNEL = "dreamery:jobs"


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A committed change of a job: its state and the number of its newest event."""

    job_id: UUID
    state: str
    seq: int


@lru_cache(maxsize=1)
def _client() -> redis.Redis:
    return redis.Redis.from_url(
        get_settings().redis_url, socket_timeout=2, socket_connect_timeout=2, health_check_interval=30
    )


def announce(job_id: UUID, state: str, seq: int) -> None:
    """Tell every API process that a job changed. After the commit only (I2); a failure is logged and forgotten."""
    try:
        _client().publish(CHANNEL, orjson.dumps([job_id.hex, state, seq]))
    except RedisError as error:
        log.warning("event_lost", job_id=str(job_id), reason=type(error).__name__)


def redis_answers() -> bool:
    """Whether Redis answers a PING now."""
    try:
        return bool(_client().ping())
    except RedisError:
        return False


async def subscribe() -> AsyncIterator[JobChanged]:
    """Changes of all jobs, on one connection, until Redis goes away (then RedisError or OSError is raised)."""
    client = redis.asyncio.Redis.from_url(get_settings().redis_url, socket_connect_timeout=2, health_check_interval=15)
    try:
        async with client.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(CHANNEL)
            while True:
                # A bounded wait keeps the health check running, so a dead connection is noticed.
                message = await pubsub.get_message(timeout=10)
                if message is not None:
                    job, state, seq = orjson.loads(message["data"])
                    yield JobChanged(job_id=UUID(hex=job), state=state, seq=seq)
    finally:
        await client.aclose()
