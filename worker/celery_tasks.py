"""Registry of the Celery tasks. Each body calls one task function and returns the line that Flower shows."""

import sys
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any
from uuid import UUID

import structlog
from celery import signals

from worker.core import gc_tuning  # first, before the large imports
from worker.core.concurrency import continuations, event_loop, long_calls
from worker.core.concurrency.event_loop import run_for
from worker.core.concurrency.shutdown import BUSY_SECONDS, stopping
from worker.core.concurrency.watchdog import watchdog
from worker.core.observability import metrics, tracing
from worker.core.observability.faults import ends_work
from worker.core.observability.logging import get_logger
from worker.core.security import production_checks
from worker.core.settings import get_settings
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, reason_for_operators, transaction
from worker.db.platform import startup
from worker.db.scheduling import open_work
from worker.messaging import heartbeat, metrics_store
from worker.messaging.celery_app import HEARTBEAT, QUEUE_OF, app
from worker.messaging.conversation_permits import conversation_permits
from worker.messaging.redis_connection import require_usable_redis
from worker.tasks import check_session as check_session_task
from worker.tasks import cleanup as cleanup_task
from worker.tasks import converse as converse_task
from worker.tasks import deliver_webhooks as deliver_webhooks_task
from worker.tasks import dispatch as dispatch_task
from worker.tasks import monitor as monitor_task
from worker.tasks import poll as poll_task
from worker.tasks import refresh_accounts as refresh_accounts_task
from worker.tasks import save as save_task
from worker.tasks import submit as submit_task
from worker.tasks import sync_credits as sync_credits_task
from worker.tasks.stages.lease_renewal import LeaseLostError

log = get_logger("tasks")

_IN_BACKGROUND = "its calls continue in the background"

if "flower" in sys.argv:
    production_checks.require_flower_login(get_settings(), sys.argv)


def _task(**options: Any) -> Callable[[Callable[..., str]], Any]:
    """Register a task.

    When the database restarts, the row stays due and the task runs again: one line is logged instead of a traceback.
    What is no Exception, for example a panic in a library, fails the task too: Celery would take it for a lost worker.
    """

    def register(body: Callable[..., str]) -> Any:
        @wraps(body)
        def contained(*args: Any, **values: Any) -> str:
            try:
                return body(*args, **values)
            except Exception:
                raise
            except BaseException as error:
                if ends_work(error):
                    raise
                raise RuntimeError(f"{type(error).__name__} in a task") from error

        return app.task(throws=DATABASE_UNAVAILABLE_ERRORS, **options)(contained)

    return register


@signals.task_prerun.connect
def _bind_log_context(task: Any = None, kwargs: dict[str, str] | None = None, **_: Any) -> None:
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(step=task.name, **(kwargs or {}))
    if task.name != HEARTBEAT:
        heartbeat.record_task_start()


@signals.worker_init.connect
def _require_root_key(**_: Any) -> None:
    # Before the first message: a worker with another master key would refuse every job that it takes.
    require_usable_redis()
    startup.require_root_key()


@signals.celeryd_after_setup.connect
def _subscribe_to_heartbeat_queue(sender: str = "", instance: Any = None, **_: Any) -> None:
    instance.app.amqp.queues.select_add(heartbeat.heartbeat_queue(sender))


@signals.worker_ready.connect
def _start_worker(sender: Any = None, **_: Any) -> None:
    metrics_store.start()
    tracing.configure("dreamery-worker")
    queues = [name for name in app.amqp.queues.consume_from if name in set(QUEUE_OF.values())]
    heartbeat.start(sender.hostname, queues=queues, threads=sender.controller.pool.limit)
    event_loop.expect(*DATABASE_UNAVAILABLE_ERRORS, LeaseLostError)
    event_loop.limit_waiting(sender.controller.pool.limit)
    if "fast" in queues:
        continuations.register(
            poll=_as_step("poll", poll_task.poll_account),
            poll_claimed=_as_step("poll", poll_task.poll_claimed),
            submit=_as_step("submit", submit_task.serve),
        )
    if "bulk" in queues:
        continuations.register(save_claimed=_as_step("save", save_task.save_claimed))
    if get_settings().worker_with_scheduler:
        _start_scheduler()


def _as_step(name: str, work: Callable[..., Coroutine[Any, Any, str]]) -> Callable[..., Coroutine[Any, Any, None]]:
    """Return work that continues without a message, with the log context and the metrics of a task."""

    async def step(*args: Any) -> None:
        structlog.contextvars.bind_contextvars(step=f"dreamery.{name}")
        state = "failure"
        try:
            log.debug("continued", result=await work(*args))
            state = "success"
        finally:
            metrics.count("dreamery_steps", name, state)

    return step


def _start_scheduler() -> None:
    from worker.messaging.celery_beat import SchedulerThread

    scheduler = SchedulerThread(_has_open_work)
    signals.worker_shutting_down.connect(lambda **_: scheduler.request_stop(), weak=False)
    scheduler.start()


def _has_open_work() -> bool:
    with transaction() as tx:
        return open_work.has_open_work(tx)


@signals.worker_shutting_down.connect
def _deregister_worker(**_: Any) -> None:
    heartbeat.mark_leaving()


@signals.worker_shutting_down.connect
def _request_stop(**_: Any) -> None:
    stopping.request()
    long_calls.announce()


@signals.worker_shutdown.connect
def _finish_background_work(**_: Any) -> None:
    # The threads have ended; what they left to the event loop gets the rest of the time.
    drained = event_loop.drain(get_settings().shutdown_grace_seconds / 2)
    if not drained and long_calls.number_open():
        drained = event_loop.drain(BUSY_SECONDS)
    long_calls.withdraw()
    if not drained:
        log.warning("background_work_cut")


@signals.task_postrun.connect
def _record_task_end(task: Any = None, state: str | None = None, **_: Any) -> None:
    if task.name != HEARTBEAT:
        heartbeat.record_task_end()
    metrics.count("dreamery_steps", task.name.removeprefix("dreamery."), (state or "unknown").lower())


@signals.task_failure.connect
def _log_database_outage(exception: BaseException | None = None, **_: Any) -> None:
    if isinstance(exception, DATABASE_UNAVAILABLE_ERRORS):
        log.warning("step_put_off", reason=reason_for_operators(exception))


def _id(value: str) -> UUID | None:
    return UUID(hex=value) if value else None


@_task(name="dreamery.submit")
def submit(job_id: str = "", account_id: str = "", job_ids: str = "") -> str:
    """Submit the jobs of an account, or these jobs."""
    wanted = [UUID(hex=one) for one in (job_ids or job_id).split(",") if one]
    with watchdog.watch("submit"):
        return submit_task.submit_batch(job_ids=wanted, account_id=_id(account_id))


@_task(name="dreamery.bring")
def upload_references(account_id: str) -> str:
    """Upload the references of one job to its account and submit it."""
    with watchdog.watch("bring"):
        return submit_task.upload_and_submit(account_id=UUID(hex=account_id))


@_task(name="dreamery.poll")
def poll(account_id: str) -> str:
    """Poll one account."""
    with watchdog.watch("poll"):
        return poll_task.poll(account_id=UUID(hex=account_id))


@_task(name="dreamery.converse")
def converse(job_id: str = "", account_id: str = "") -> str:
    """Run one agent conversation to its end, if this process may run one more."""
    with conversation_permits().hold() as permitted:
        if not permitted:
            return "as many conversations as allowed are running: this one stays due"
        return _converse(job_id, account_id)


def _converse(job_id: str, account_id: str) -> str:
    with watchdog.watch("converse", seconds=get_settings().conversation_watchdog_seconds):
        return converse_task.converse(job_id=_id(job_id), account_id=_id(account_id))


@_task(name="dreamery.save")
def save(job_ids: str) -> str:
    """Save the results of the given jobs."""
    with watchdog.watch("save"):
        return save_task.save_batch(job_ids=[UUID(hex=job_id) for job_id in job_ids.split(",")])


@_task(name="dreamery.notify")
def notify(delivery_id: str) -> str:
    """Deliver one webhook, then the other due deliveries to the same receiver."""
    with watchdog.watch("notify"):
        return run_for(deliver_webhooks_task.deliver_lane(UUID(hex=delivery_id)), otherwise=_IN_BACKGROUND)


@_task(name="dreamery.tick", send_events=False)
def tick() -> str:
    """Enqueue all due work."""
    with watchdog.watch("tick"):
        line = dispatch_task.tick()
    heartbeat.record_activity("tick")
    return line


@_task(name=HEARTBEAT, send_events=False)
def process_heartbeat() -> str:
    """Record that this worker processed its own heartbeat message."""
    heartbeat.record_heartbeat()
    return "heard"


@_task(name="dreamery.sweep", send_events=False)
def sweep() -> str:
    """End overdue jobs and repair rows that a crash left behind."""
    with watchdog.watch("sweep"):
        return dispatch_task.sweep()


@_task(name="dreamery.check")
def check(check_id: str) -> str:
    """Check one session id with the upstream."""
    with watchdog.watch("check"):
        return run_for(check_session_task.check_lane(UUID(hex=check_id)), otherwise=_IN_BACKGROUND)


@_task(name="dreamery.refresh")
def refresh() -> str:
    """Refresh the model lists of a few accounts and test whether accounts in cooldown work again."""
    with watchdog.watch("refresh"):
        return run_for(refresh_accounts_task.refresh(), otherwise=_IN_BACKGROUND)


@_task(name="dreamery.ledger")
def ledger() -> str:
    """Read the actual cost of jobs and claim daily credits for the accounts that have this enabled."""
    with watchdog.watch("ledger"):
        return run_for(sync_credits_task.sync(), otherwise=_IN_BACKGROUND)


@_task(name="dreamery.upkeep")
def upkeep() -> str:
    """Delete data past its retention."""
    with watchdog.watch("upkeep"):
        return cleanup_task.clean_up()


@_task(name="dreamery.monitor", send_events=False)
def monitor() -> str:
    """Write the sample of this minute and send alerts."""
    with watchdog.watch("monitor"):
        return monitor_task.monitor()


gc_tuning.keep_imports()
