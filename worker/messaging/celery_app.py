"""The Celery app and the `nudge_*` functions: messages that only say "go and look", and carry ids only.

Any message may be lost, doubled or late. A nudge that cannot be sent is counted and forgotten: the tick finds the row.
Settings and why: docs/architecture.md, "Celery".
"""

from functools import partial
from typing import Any
from uuid import UUID

from celery import Celery, signals

from worker.core.observability import metrics
from worker.core.observability.logging import configure_logging, get_logger
from worker.core.settings import get_settings
from worker.messaging.debounce import Debounce
from worker.messaging.timer import Timer

log = get_logger("queue")

# A worker that was away must not wake to a pile of old nudges; the tick sends what is still true.
MESSAGE_EXPIRES_SECONDS = 30
# One thread saves the jobs of a message one after the other, so they are few.
MOST_SAVES_PER_MESSAGE = 4

# A message that a worker sends to itself, over a queue of its own (`worker/messaging/heartbeat.py`).
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
}


def _make_app() -> Celery:
    celery = Celery("dreamery")
    celery.conf.update(
        broker_url=get_settings().redis_url,
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
        # Cancelling on connection loss would end steps between two effects for nothing: they finish without the broker.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_publish_retry_policy={
            "max_retries": 2,
            "interval_start": 0.1,
            "interval_step": 0.2,
            "interval_max": 0.5,
        },
        # No `retry_on_timeout`: with it redis-py opens a lost connection again where it was, but not what it had
        # subscribed to, so Flower and the workers' remote control stay deaf. Without it Celery begins anew.
        broker_transport_options={
            "visibility_timeout": 3600,
            "socket_keepalive": True,
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
            "health_check_interval": 10,
        },
        task_create_missing_queues=True,
        task_default_queue="fast",
        task_routes={name: {"queue": queue} for name, queue in QUEUE_OF.items()},
        beat_schedule={
            "tick": {
                "task": "dreamery.tick",
                "schedule": get_settings().tick_seconds,
                "options": {"expires": 2, "queue": "fast"},
            },
            "sweep": {"task": "dreamery.sweep", "schedule": 2.0, "options": {"expires": 4, "queue": "fast"}},
            "refresh": {"task": "dreamery.refresh", "schedule": 60.0, "options": {"expires": 50, "queue": "bulk"}},
            "ledger": {"task": "dreamery.ledger", "schedule": 60.0, "options": {"expires": 50, "queue": "bulk"}},
            "upkeep": {"task": "dreamery.upkeep", "schedule": 600.0, "options": {"expires": 300, "queue": "bulk"}},
        },
        beat_max_loop_interval=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    return celery


app = _make_app()


@signals.setup_logging.connect
def _logging(**_: Any) -> None:
    configure_logging(get_settings())


def _send(name: str, **ids: str) -> bool:
    try:
        app.send_task(name, kwargs=ids, expires=MESSAGE_EXPIRES_SECONDS, queue=QUEUE_OF[name], ignore_result=True)
    except Exception as error:  # noqa: BLE001
        # Beside its own errors kombu raises AttributeError from a connection that the consumer has just closed.
        log.warning("nudge_lost", task=name, reason=type(error).__name__)
        metrics.count("dreamery_nudges_lost", name.removeprefix("dreamery."))
        return False
    return True


def enqueue_submit(*, job_id: UUID | None = None, account_id: UUID | None = None) -> bool:
    """A job is waiting, or an account has a free slot."""
    return _send("dreamery.submit", **({"job_id": job_id.hex} if job_id else {"account_id": account_id.hex}))  # type: ignore[union-attr]


def enqueue_converse(*, job_id: UUID | None = None, account_id: UUID | None = None) -> bool:
    """A conversation is waiting, or an account may hold one more."""
    return _send("dreamery.converse", **({"job_id": job_id.hex} if job_id else {"account_id": account_id.hex}))  # type: ignore[union-attr]


def enqueue_claim(kind: str, *, job_id: UUID | None = None, account_id: UUID | None = None) -> bool:
    """A job of this kind is waiting, or an account has a free slot for one: the step that claims it."""
    nudge = enqueue_converse if kind == "chat" else enqueue_submit
    return nudge(job_id=job_id, account_id=account_id)


_timer = Timer()
_submit_soon = Debounce[UUID](
    lambda account_id: enqueue_submit(account_id=account_id), window_seconds=0.02, timer=_timer
)


def enqueue_submit_soon(account_id: UUID) -> None:
    """A job is waiting for this account: like `enqueue_submit`, but a burst of jobs shares messages."""
    _submit_soon.wish(account_id)


def enqueue_upload_references(account_id: UUID) -> bool:
    """A job waits for this account whose references must be fetched and uploaded first."""
    return _send("dreamery.bring", account_id=account_id.hex)


_bring_soon = Debounce[UUID](enqueue_upload_references, window_seconds=0.1, timer=_timer)


def enqueue_upload_references_soon(account_id: UUID) -> None:
    """Like `enqueue_upload_references`, but several findings of the same job share messages."""
    _bring_soon.wish(account_id)


def enqueue_poll(account_id: UUID) -> bool:
    """An account's poll is due."""
    return _send("dreamery.poll", account_id=account_id.hex)


def enqueue_poll_later(account_id: UUID, *, seconds: float) -> None:
    """An account's poll will be due: to the moment, where the tick would come up to half a second late."""
    _timer.after(seconds, partial(enqueue_poll, account_id))


def enqueue_save(*job_ids: UUID) -> bool:
    """The results of these jobs wait to be copied; one worker thread copies them one after the other."""
    return _send("dreamery.save", job_ids=",".join(job_id.hex for job_id in job_ids))


def enqueue_notify(delivery_id: UUID) -> bool:
    """A webhook delivery is due."""
    return _send("dreamery.notify", delivery_id=delivery_id.hex)


def enqueue_check(check_id: UUID) -> bool:
    """Somebody waits for what upstream says about a session id."""
    return _send("dreamery.check", check_id=check_id.hex)
