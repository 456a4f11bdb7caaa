"""Publish and subscribe: job changes, agent text, changes of permissions. Messages get lost, so subscribers reread."""

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

# Errors of a call while Redis is unavailable.
REDIS_ERRORS: tuple[type[Exception], ...] = (RedisError, OSError)

CHANNEL = "dreamery:jobs"
AGENT_TEXT_CHANNEL = "dreamery:words"
PERMISSIONS_CHANNEL = "dreamery:permissions"


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A committed change of a job: its state and the number of its latest event."""

    job_id: UUID
    state: str
    seq: int


@dataclass(frozen=True, slots=True)
class AgentText:
    """A piece of the agent's text; `offset` is the number of characters before it."""

    job_id: UUID
    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class PermissionsChanged:
    """A key, a user or a console session was changed or ended: open requests must be checked again."""


class _Batch(threading.local):
    """Changes of this thread that will be sent in one message; None = send each at once."""

    changes: list[tuple[str, str, int]] | None = None


_batch = _Batch()


def publish_job_change(job_id: UUID, state: str, seq: int) -> None:
    """Notify all API processes that a job changed. Call it only after the commit (I2). A failure is only logged."""
    if _batch.changes is None:
        _publish([(job_id.hex, state, seq)])
    else:
        _batch.changes.append((job_id.hex, state, seq))


@contextlib.contextmanager
def batch_job_changes() -> Iterator[None]:
    """Send all job changes that this thread publishes inside the block as one message at its end."""
    _batch.changes = []
    try:
        yield
    finally:
        changes, _batch.changes = _batch.changes, None
        if changes:
            _publish(changes)


def _publish(changes: list[tuple[str, str, int]]) -> None:
    try:
        redis_client().publish(CHANNEL, orjson.dumps(changes))
    except RedisError as error:
        log.warning("events_lost", jobs=len(changes), reason=type(error).__name__)


def publish_agent_text(job_id: UUID, offset: int, text: str) -> None:
    """Publish new text of the agent. It is not committed yet; a subscriber that misses it rereads the row."""
    try:
        redis_client().publish(AGENT_TEXT_CHANNEL, orjson.dumps([job_id.hex, offset, text]))
    except RedisError as error:
        log.warning("words_lost", job_id=str(job_id), reason=type(error).__name__)


def publish_permissions_change() -> None:
    """Notify all API processes that permissions changed. Call it only after the commit; they also check regularly."""
    try:
        redis_client().publish(PERMISSIONS_CHANNEL, b"")
    except RedisError as error:
        log.warning("permissions_message_lost", reason=type(error).__name__)


def is_redis_available() -> bool:
    """Return whether Redis answers a PING."""
    try:
        return bool(redis_client().ping())
    except RedisError:
        return False


async def subscribe() -> AsyncIterator[JobChanged | AgentText | PermissionsChanged]:
    """Yield the changes of all jobs and of permissions, and the text of all conversations, on one connection.

    Raises RedisError or OSError when Redis becomes unavailable.
    """
    client = redis.asyncio.Redis.from_url(get_settings().redis_url, socket_connect_timeout=2, health_check_interval=15)
    try:
        async with client.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(CHANNEL, AGENT_TEXT_CHANNEL, PERMISSIONS_CHANNEL)
            while True:
                # A bounded wait keeps the health check running, which detects a dead connection.
                message = await pubsub.get_message(timeout=10)
                if message is None:
                    continue
                if message["channel"] == PERMISSIONS_CHANNEL.encode():
                    yield PermissionsChanged()
                elif message["channel"] == AGENT_TEXT_CHANNEL.encode():
                    job, offset, text = orjson.loads(message["data"])
                    yield AgentText(job_id=UUID(hex=job), offset=offset, text=text)
                else:
                    for job, state, seq in orjson.loads(message["data"]):
                        yield JobChanged(job_id=UUID(hex=job), state=state, seq=seq)
    finally:
        await client.aclose()
