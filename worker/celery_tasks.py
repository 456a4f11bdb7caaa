"""The switchboard: Celery's names for the steps. Each body is one call; what it returns is what Flower shows."""

import sys
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from celery import signals

import worker.core.gc_tuning  # noqa: F401 - before what is large
from worker.core.observability import metrics, tracing
from worker.core.observability.logging import get_logger
from worker.core.security import production_checks
from worker.core.settings import get_settings
from worker.core.shutdown import stopping
from worker.core.watchdog import watchdog
from worker.db.engine import AWAY_ERRORS
from worker.messaging import heartbeat
from worker.messaging import metrics_store as carried
from worker.messaging.celery_app import HEARTBEAT, QUEUE_OF, app
from worker.tasks import check_session as check_step
from worker.tasks import cleanup as upkeep_step
from worker.tasks import converse as converse_step
from worker.tasks import deliver_webhooks as notify_step
from worker.tasks import dispatch as tick_step
from worker.tasks import poll as poll_step
from worker.tasks import refresh_accounts as refresh_step
from worker.tasks import save as save_step
from worker.tasks import submit as submit_step
from worker.tasks import sync_credits as ledger_step

log = get_logger("tasks")

if "flower" in sys.argv:
    production_checks.refuse_open_flower(get_settings(), sys.argv)

# A step that met a restarting database is put off, not broken: its row is still due. Worth a line, not a traceback.
_task = partial(app.task, throws=AWAY_ERRORS)


@signals.task_prerun.connect
def _bind(task: Any = None, kwargs: dict[str, str] | None = None, **_: Any) -> None:
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(step=task.name, **(kwargs or {}))
    if task.name != HEARTBEAT:
        heartbeat.note_start()


@signals.celeryd_after_setup.connect
def _hear_oneself(sender: str = "", instance: Any = None, **_: Any) -> None:
    instance.app.amqp.queues.select_add(heartbeat.queue_of(sender))


@signals.worker_ready.connect
def _begin(sender: Any = None, **_: Any) -> None:
    carried.start()
    tracing.configure("dreamery-worker")
    queues = [name for name in app.amqp.queues.consume_from if name in set(QUEUE_OF.values())]
    heartbeat.start(sender.hostname, queues=queues, threads=sender.controller.pool.limit)


@signals.worker_shutting_down.connect
def _leave(**_: Any) -> None:
    heartbeat.leave()


@signals.worker_shutting_down.connect
def _stop(**_: Any) -> None:
    stopping.ask()


@signals.task_postrun.connect
def _note_step(task: Any = None, state: str | None = None, **_: Any) -> None:
    if task.name != HEARTBEAT:
        heartbeat.note_end()
    metrics.count("dreamery_steps", task.name.removeprefix("dreamery."), (state or "unknown").lower())


@signals.task_failure.connect
def _put_off(exception: BaseException | None = None, **_: Any) -> None:
    if isinstance(exception, AWAY_ERRORS):
        log.warning("step_put_off", reason=type(exception).__name__)


def _id(value: str) -> UUID | None:
    return UUID(hex=value) if value else None


@_task(name="dreamery.submit")
def submit(job_id: str = "", account_id: str = "") -> str:
    """Submit one job."""
    with watchdog.watch("submit"):
        return submit_step.submit_waiting(job_id=_id(job_id), account_id=_id(account_id))


@_task(name="dreamery.bring")
def bring(account_id: str) -> str:
    """Bring the references of one job to its account and submit it."""
    with watchdog.watch("bring"):
        return submit_step.bring(account_id=UUID(hex=account_id))


@_task(name="dreamery.poll")
def poll(account_id: str) -> str:
    """Poll one account."""
    with watchdog.watch("poll"):
        return poll_step.poll(account_id=UUID(hex=account_id))


@_task(name="dreamery.converse")
def converse(job_id: str = "", account_id: str = "") -> str:
    """Hold one conversation with the agent, to its end."""
    with watchdog.watch("converse", seconds=get_settings().talk_watchdog_seconds):
        return converse_step.converse(job_id=_id(job_id), account_id=_id(account_id))


@_task(name="dreamery.save")
def save(job_ids: str) -> str:
    """Save the results of a few jobs."""
    with watchdog.watch("save"):
        return save_step.save_each(job_ids=[UUID(hex=job_id) for job_id in job_ids.split(",")])


@_task(name="dreamery.notify")
def notify(delivery_id: str) -> str:
    """Deliver one webhook, and what else is due to its receiver."""
    with watchdog.watch("notify"):
        return notify_step.notify_lane(delivery_id=UUID(hex=delivery_id))


@_task(name="dreamery.tick", send_events=False)
def tick() -> str:
    """Nudge what is due."""
    with watchdog.watch("tick"):
        line = tick_step.tick()
    heartbeat.note_seen("tick")
    return line


@_task(name=HEARTBEAT, send_events=False)
def heard() -> str:
    """A worker hears itself."""
    heartbeat.note_heard()
    return "heard"


@_task(name="dreamery.sweep", send_events=False)
def sweep() -> str:
    """End what is overdue, mend what a crash left."""
    with watchdog.watch("sweep"):
        return tick_step.sweep()


@_task(name="dreamery.check")
def check(check_id: str) -> str:
    """Answer one question about a session id."""
    with watchdog.watch("check"):
        return check_step.check(check_id=UUID(hex=check_id))


@_task(name="dreamery.refresh")
def refresh() -> str:
    """Ask a few accounts what upstream offers them, and resting ones whether they work again."""
    with watchdog.watch("refresh"):
        return refresh_step.refresh()


@_task(name="dreamery.ledger")
def ledger() -> str:
    """Read what jobs did cost, and take the daily credits of accounts where that is wanted."""
    with watchdog.watch("ledger"):
        return ledger_step.ledger()


@_task(name="dreamery.upkeep")
def upkeep() -> str:
    """Remove what is past its retention."""
    with watchdog.watch("upkeep"):
        return upkeep_step.upkeep()
