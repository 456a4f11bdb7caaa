"""The Celery app and the `enqueue_*` functions. Messages are wake-ups: they carry ids only, the work is in the rows.

A message may be lost, duplicated or late. One that cannot be sent is counted and dropped, because the tick finds the
row anyway. docs/architecture.md, "Celery", explains the configuration.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from celery import Celery, signals

from worker.core.concurrency.circuit_breaker import CircuitBreaker
from worker.core.observability import metrics
from worker.core.observability.logging import configure_logging, get_logger
from worker.core.settings import get_settings
from worker.messaging.debounce import Debounce
from worker.messaging.message_expiry import ExpiringTask
from worker.messaging.redis_connection import celery_settings
from worker.messaging.redis_errors import explain
from worker.messaging.timer import Timer

log = get_logger("queue")

# The jobs of a message are saved side by side.
MOST_SAVES_PER_MESSAGE = 50

# A worker sends this message to itself over its own queue (`worker/messaging/heartbeat.py`).
HEARTBEAT = "dreamery.heartbeat"

QUEUE_OF = {
    "dreamery.tick": "fast",
    "dreamery.sweep": "fast",
    "dreamery.submit": "fast",
    "dreamery.bring": "bulk",
    "dreamery.poll": "fast",
    "dreamery.converse": "talk",
    "dreamery.save": "bulk",
    "dreamery.notify": "outbox",
    "dreamery.upkeep": "bulk",
    "dreamery.check": "bulk",
    "dreamery.refresh": "bulk",
    "dreamery.ledger": "bulk",
    "dreamery.monitor": "bulk",
}


def _create_app() -> Celery:
    celery = Celery("dreamery", task_cls=ExpiringTask)
    celery.conf.update(
        **celery_settings(get_settings().redis_url),
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        task_acks_late=False,
        worker_enable_remote_control=True,
        worker_send_task_events=True,
        task_send_sent_event=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A Redis that refuses writes is away, and no reason to end the worker.
        broker_channel_error_retry=True,
        worker_consumer="worker.messaging.celery_consumer:PatientConsumer",
        # Do not cancel tasks on connection loss: they can finish without the broker.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_publish_retry_policy={
            "max_retries": 1,
            "interval_start": 0.1,
            "interval_step": 0.2,
            "interval_max": 0.5,
        },
        task_create_missing_queues=True,
        task_default_queue="fast",
        task_routes={name: {"queue": queue} for name, queue in QUEUE_OF.items()},
        beat_schedule={
            "tick": {
                "task": "dreamery.tick",
                "schedule": get_settings().tick_seconds,
                "options": {"queue": "fast"},
            },
            "sweep": {"task": "dreamery.sweep", "schedule": 2.0, "options": {"queue": "fast"}},
            "refresh": {"task": "dreamery.refresh", "schedule": 60.0, "options": {"queue": "bulk"}},
            "ledger": {"task": "dreamery.ledger", "schedule": 60.0, "options": {"queue": "bulk"}},
            "monitor": {"task": "dreamery.monitor", "schedule": 60.0, "options": {"queue": "bulk"}},
            "upkeep": {"task": "dreamery.upkeep", "schedule": 600.0, "options": {"queue": "bulk"}},
        },
        beat_max_loop_interval=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    return celery


app = _create_app()


@signals.setup_logging.connect
def _logging(**_: Any) -> None:
    configure_logging(get_settings())


_breaker = CircuitBreaker()


def _send(name: str, **ids: str) -> bool:
    if _breaker.may_call():
        try:
            app.send_task(name, kwargs=ids, queue=QUEUE_OF[name], ignore_result=True)
        except Exception as error:  # noqa: BLE001
            # kombu also raises AttributeError when the consumer has just closed the connection.
            _breaker.record(success=False)
            log.warning("nudge_lost", task=name, reason=explain(error))
        else:
            _breaker.record(success=True)
            return True
    metrics.count("dreamery_nudges_lost", name.removeprefix("dreamery."))
    return False


def enqueue_submit(*, job_id: UUID | None = None, account_id: UUID | None = None) -> bool:
    """Wake the submit task for a queued job or for an account with a free slot; False if the message was lost."""
    return _send("dreamery.submit", **({"job_id": job_id.hex} if job_id else {"account_id": account_id.hex}))  # type: ignore[union-attr]


def enqueue_converse(*, job_id: UUID | None = None, account_id: UUID | None = None) -> bool:
    """Wake the conversation task for a queued conversation or for an account with a free slot."""
    return _send("dreamery.converse", **({"job_id": job_id.hex} if job_id else {"account_id": account_id.hex}))  # type: ignore[union-attr]


def enqueue_claim(kind: str, *, job_id: UUID | None = None, account_id: UUID | None = None) -> bool:
    """Wake the task that claims jobs of this kind, for a queued job or for an account with a free slot."""
    enqueue = enqueue_converse if kind == "chat" else enqueue_submit
    return enqueue(job_id=job_id, account_id=account_id)


_timer = Timer()
_submit_soon = Debounce[UUID](
    lambda account_id: enqueue_submit(account_id=account_id), window_seconds=0.02, timer=_timer
)


def enqueue_submit_soon(account_id: UUID) -> None:
    """Like `enqueue_submit` for an account, but debounced: a burst of jobs shares messages."""
    _submit_soon.request(account_id)


def enqueue_submit_later(account_id: UUID, *, seconds: float) -> None:
    """Wake the submit task of an account after a delay, when its pace allows the next submit."""
    _timer.after(seconds, partial(enqueue_submit_soon, account_id))


def enqueue_submit_jobs(job_ids: Sequence[UUID]) -> bool:
    """Wake the submit task for several queued jobs, whose accounts it chooses."""
    return _send("dreamery.submit", job_ids=",".join(job_id.hex for job_id in job_ids))


def enqueue_jobs(jobs: Iterable[Any]) -> None:
    """Wake the tasks for queued jobs (`id`, `kind` and `account_ids` of each), with few messages for many jobs."""
    others = []
    for job in jobs:
        if job.kind == "chat":
            # Each conversation occupies one thread, so each gets its own message.
            enqueue_converse(job_id=job.id)
        else:
            others.append(job)
    # With one account the worker does not need to score accounts.
    for account_id in {job.account_ids[0] for job in others if len(job.account_ids) == 1}:
        enqueue_submit_soon(account_id)
    scored = [job.id for job in others if len(job.account_ids) != 1]
    if len(scored) == 1:
        enqueue_submit(job_id=scored[0])
    elif scored:
        enqueue_submit_jobs(scored)


def enqueue_upload_references(account_id: UUID) -> bool:
    """Wake the upload task: a job of this account has references that must be fetched and uploaded first."""
    return _send("dreamery.bring", account_id=account_id.hex)


_upload_references_soon = Debounce[UUID](enqueue_upload_references, window_seconds=0.1, timer=_timer)


def enqueue_upload_references_soon(account_id: UUID) -> None:
    """Like `enqueue_upload_references`, but debounced."""
    _upload_references_soon.request(account_id)


def enqueue_poll(account_id: UUID) -> bool:
    """Wake the poll task of an account."""
    return _send("dreamery.poll", account_id=account_id.hex)


def enqueue_poll_later(account_id: UUID, *, seconds: float) -> None:
    """Wake the poll task after a delay. The tick alone would be up to half a second late."""
    if seconds <= 0:
        enqueue_poll(account_id)
    else:
        _timer.after(seconds, partial(enqueue_poll, account_id))


def enqueue_save(*job_ids: UUID) -> bool:
    """Wake the save task for these jobs; one worker thread copies their results sequentially."""
    return _send("dreamery.save", job_ids=",".join(job_id.hex for job_id in job_ids))


def enqueue_notify(delivery_id: UUID) -> bool:
    """Wake the webhook task for a due delivery."""
    return _send("dreamery.notify", delivery_id=delivery_id.hex)


def enqueue_check(check_id: UUID) -> bool:
    """Wake the session check task."""
    return _send("dreamery.check", check_id=check_id.hex)
