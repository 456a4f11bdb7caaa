"""Publish and subscribe: "this job changed". Lossy by nature; whoever waits also reads the row now and then."""

import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from uuid import UUID

import orjson
import redis.asyncio
from redis.exceptions import RedisError

from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.messaging.redis_connection import redis_client

log = get_logger("events")

# What a subscriber may meet when Redis goes away.
BUS_ERRORS: tuple[type[Exception], ...] = (RedisError, OSError)

CHANNEL = "dreamery:jobs"
WORDS = "dreamery:words"


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A committed change of a job: its state and the number of its newest event."""

    job_id: UUID
    state: str
    seq: int


@dataclass(frozen=True, slots=True)
class Words:
    """A piece of what the agent says, and how many characters came before it."""

    job_id: UUID
    offset: int
    text: str


class _Gathering(threading.local):
    """Changes of this thread that wait to be sent in one message; None = each is sent at once."""

    changes: list[tuple[str, str, int]] | None = None


_gathering = _Gathering()


def announce(job_id: UUID, state: str, seq: int) -> None:
    """Tell every API process that a job changed. After the commit only (I2); a failure is logged and forgotten."""
    if _gathering.changes is None:
        _publish([(job_id.hex, state, seq)])
    else:
        _gathering.changes.append((job_id.hex, state, seq))


@contextlib.contextmanager
def gathered() -> Iterator[None]:
    """What this thread announces inside the block goes out as one message at its end: reading one costs as much."""
    _gathering.changes = []
    try:
        yield
    finally:
        changes, _gathering.changes = _gathering.changes, None
        if changes:
            _publish(changes)


def _publish(changes: list[tuple[str, str, int]]) -> None:
    try:
        redis_client().publish(CHANNEL, orjson.dumps(changes))
    except RedisError as error:
        log.warning("events_lost", jobs=len(changes), reason=type(error).__name__)


def publish_words(job_id: UUID, offset: int, text: str) -> None:
    """Tell what the agent has just said. Not committed yet: whoever misses it reads the row a moment later."""
    try:
        redis_client().publish(WORDS, orjson.dumps([job_id.hex, offset, text]))
    except RedisError as error:
        log.warning("words_lost", job_id=str(job_id), reason=type(error).__name__)


def redis_answers() -> bool:
    """Whether Redis answers a PING now."""
    try:
        return bool(redis_client().ping())
    except RedisError:
        return False


async def subscribe() -> AsyncIterator[JobChanged | Words]:
    """Changes of all jobs and words of all conversations, on one connection, until Redis goes away.

    Then RedisError or OSError is raised.
    """
    client = redis.asyncio.Redis.from_url(get_settings().redis_url, socket_connect_timeout=2, health_check_interval=15)
    try:
        async with client.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(CHANNEL, WORDS)
            while True:
                # A bounded wait keeps the health check running, so a dead connection is noticed.
                message = await pubsub.get_message(timeout=10)
                if message is None:
                    continue
                if message["channel"] == WORDS.encode():
                    job, offset, text = orjson.loads(message["data"])
                    yield Words(job_id=UUID(hex=job), offset=offset, text=text)
                else:
                    for job, state, seq in orjson.loads(message["data"]):
                        yield JobChanged(job_id=UUID(hex=job), state=state, seq=seq)
    finally:
        await client.aclose()
