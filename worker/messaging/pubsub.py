"""Publish and subscribe: job changes, agent text, changes of permissions. Messages get lost, so subscribers reread."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import redis.asyncio

from worker.core.concurrency.circuit_breaker import CircuitBreaker
from worker.core.job_state import JobState
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.messaging import redis_errors
from worker.messaging.redis_connection import create_async_pool, redis_client

log = get_logger("events")

REDIS_ERRORS = redis_errors.REDIS_ERRORS

CHANNEL = "dreamery:jobs"
AGENT_TEXT_CHANNEL = "dreamery:words"
PERMISSIONS_CHANNEL = "dreamery:permissions"
# The subscriber asks a silent server this often whether it lives, and gives it up after an unanswered question.
_QUESTION_SECONDS = 4.0
_MOST_QUESTIONS = 1
# A message is parsed at once by each API process.
_MOST_IN_MESSAGE = 500

_breaker = CircuitBreaker()


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


def publish_job_changes(rows: Iterable[Any]) -> None:
    """Notify all API processes of changed jobs (`id`, `state`, `event_seq`) with one message, after the commit (I2)."""
    with batch_job_changes():
        for row in rows:
            publish_job_change(row.id, row.state, row.event_seq)


def publish_accepted_jobs(job_ids: Sequence[UUID]) -> None:
    """Notify all API processes of new jobs, in few messages. Call it only after the commit (I2)."""
    for start in range(0, len(job_ids), _MOST_IN_MESSAGE):
        _publish([(job_id.hex, JobState.QUEUED, 1) for job_id in job_ids[start : start + _MOST_IN_MESSAGE]])


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
    _try_to_publish(CHANNEL, orjson.dumps(changes), "events_lost", jobs=len(changes))


def _try_to_publish(channel: str, message: bytes, loss: str, **what: object) -> None:
    """Publish a message; log its loss under the name `loss` if Redis is away."""
    if not _breaker.may_call():
        return
    try:
        redis_client().publish(channel, message)
    except REDIS_ERRORS as error:
        _breaker.record(success=False)
        log.warning(loss, reason=redis_errors.explain(error), **what)
    else:
        _breaker.record(success=True)


def publish_agent_text(job_id: UUID, offset: int, text: str) -> None:
    """Publish new text of the agent. It is not committed yet; a subscriber that misses it rereads the row."""
    _try_to_publish(AGENT_TEXT_CHANNEL, orjson.dumps([job_id.hex, offset, text]), "words_lost", job_id=str(job_id))


def publish_permissions_change() -> None:
    """Notify all API processes that permissions changed. Call it only after the commit; they also check regularly."""
    _try_to_publish(PERMISSIONS_CHANNEL, b"", "permissions_message_lost")


async def subscribe() -> AsyncIterator[JobChanged | AgentText | PermissionsChanged]:
    """Yield the changes of all jobs and of permissions, and the text of all conversations, on one connection.

    Raises RedisError or OSError when Redis becomes unavailable.
    """
    pool = create_async_pool(get_settings().redis_url, connections=1, wait_seconds=1.0)
    client = redis.asyncio.Redis.from_pool(pool)
    try:
        async with client.pubsub() as pubsub:
            await pubsub.subscribe(CHANNEL, AGENT_TEXT_CHANNEL, PERMISSIONS_CHANNEL)
            async for channel, data in _messages(pubsub):
                if channel == PERMISSIONS_CHANNEL.encode():
                    yield PermissionsChanged()
                elif channel == AGENT_TEXT_CHANNEL.encode():
                    job, offset, text = orjson.loads(data)
                    yield AgentText(job_id=UUID(hex=job), offset=offset, text=text)
                else:
                    for job, state, seq in orjson.loads(data):
                        yield JobChanged(job_id=UUID(hex=job), state=state, seq=seq)
    finally:
        await client.aclose()


async def _messages(pubsub: redis.asyncio.client.PubSub) -> AsyncIterator[tuple[bytes, bytes]]:
    """Yield channel and data of each message. Raises RedisError when the server is silent to questions too.

    Without them, a connection whose other end has disappeared would look like one without messages.
    """
    questions = 0
    while True:
        message = await pubsub.get_message(timeout=_QUESTION_SECONDS)
        if message is None:
            if questions == _MOST_QUESTIONS:
                raise redis.TimeoutError("the server does not answer")
            questions += 1
            await asyncio.wait_for(pubsub.ping(), _QUESTION_SECONDS)
            continue
        questions = 0
        if message["type"] == "message":
            yield message["channel"], message["data"]
