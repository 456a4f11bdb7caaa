"""The scheduler: Celery beat as a process (`-A worker.messaging.celery_beat:app`) or as a thread of a worker.

The process imports no tasks, to halve its memory, and sends all messages at their intervals. The thread runs on a
machine with a single worker. It knows from the database whether work is open, and sends tick and sweep less often while
there is none. Ticks of several schedulers do no harm, because tasks claim rows.

Both measure time with the monotonic clock: Celery's own scheduler sends nothing for an hour when the clock of the
machine is set back by one. A scheduler that is stuck ends its process, so that whatever runs it starts it again.
"""

import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from celery import beat, signals

from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.messaging import heartbeat
from worker.messaging.celery_app import app
from worker.messaging.redis_connection import require_usable_redis
from worker.messaging.redis_errors import explain

__all__ = ["SchedulerThread", "app"]

log = get_logger("scheduler")

# How often the thread asks whether work is open: a job whose wake-up was lost waits this long for the tick.
CHECK_SECONDS = 1.5
# While work is open, the question is asked less often, because the tick runs anyway.
RECHECK_SECONDS = 2.0
IDLE_SWEEP_SECONDS = 15.0
# Idle ticks per heartbeat timeout: the time of the last one shows that the platform works.
_IDLE_TICKS = 3
# The longest sleep of the thread, so that it stops soon.
_NAP_SECONDS = 0.5
# The shortest time after which a scheduler without a turn is stuck. Its calls to database and Redis end earlier.
_STUCK_SECONDS = 30.0


@signals.after_task_publish.connect(sender="dreamery.tick")
def _record_tick_sent(**_: Any) -> None:
    heartbeat.record_activity("scheduler")


class PacedScheduler(beat.Scheduler):
    """Sends tick and sweep at their intervals while work is open, otherwise rarely. Keeps no file.

    `has_open_work` returns whether any job or delivery is unfinished. When it raises, work counts as open.
    """

    has_open_work: Callable[[], bool] = staticmethod(lambda: True)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._sent: dict[str, float] = {}
        self._open = True
        self._check_at = -math.inf

    def tick(self, *_args: Any, **_options: Any) -> float:
        """Send what is due. Return the seconds until the next call. Never raises, as that would end the thread."""
        try:
            return self._send_due()
        except Exception as error:  # noqa: BLE001 - Redis may be away; the next call connects again
            log.warning("schedule_not_sent", reason=explain(error))
            for cached in ("producer", "connection"):
                self.__dict__.pop(cached, None)
            return _NAP_SECONDS
        finally:
            heartbeat.record_scheduler_turn()

    def _ensure_connected(self) -> Any:
        # Celery's own version waits for Redis without end, and would look stuck.
        return self.connection.ensure_connection(max_retries=1, interval_start=0.2)

    def _send_due(self) -> float:
        self._check(time.monotonic())
        for name, entry in self.schedule.items():
            if time.monotonic() >= self._due_at(name, entry):
                self._sent[name] = time.monotonic()
                # Not `apply_entry`, which logs a traceback and keeps the broken connection while Redis is away.
                self.apply_async(entry, producer=self.producer, advance=False)
                if name == "tick" and not self._open:  # it finds what the question would find
                    self._check_at = max(self._check_at, time.monotonic() + CHECK_SECONDS)
        now = time.monotonic()
        next_at = min([self._check_at, *(self._due_at(name, entry) for name, entry in self.schedule.items())])
        return min(max(next_at - now, 0.0), _NAP_SECONDS)

    def _check(self, now: float) -> None:
        if now < self._check_at:
            return
        try:
            self._open = self.has_open_work()
        except Exception as error:  # noqa: BLE001 - the database may be away; a tick finds out later
            log.warning("open_work_unknown", reason=type(error).__name__)
            self._open = True
        self._check_at = now + (RECHECK_SECONDS if self._open else CHECK_SECONDS)

    def _due_at(self, name: str, entry: Any) -> float:
        interval = float(entry.schedule.run_every.total_seconds())
        if name not in self._sent:
            # Tick and sweep at once; what runs every few minutes soon, also if the worker restarts often.
            self._sent[name] = time.monotonic() - interval * (1.0 if interval <= IDLE_SWEEP_SECONDS else 0.9)
        if not self._open:
            interval = max(interval, self._idle_interval(name))
        return self._sent[name] + interval

    @staticmethod
    def _idle_interval(name: str) -> float:
        idle = {"tick": get_settings().worker_heartbeat_timeout_seconds / _IDLE_TICKS, "sweep": IDLE_SWEEP_SECONDS}
        return idle.get(name, 0.0)


class SchedulerThread:
    """The scheduler as a thread of this process."""

    def __init__(self, has_open_work: Callable[[], bool]) -> None:
        kind = type("WorkerScheduler", (PacedScheduler,), {"has_open_work": staticmethod(has_open_work)})
        self._thread = beat.EmbeddedService(app, thread=True, scheduler_cls=kind)
        self._watch = SchedulerWatch()

    def start(self) -> None:
        """Start to send messages."""
        self._thread.start()
        self._watch.start()

    @property
    def is_running(self) -> bool:
        """Whether the thread runs."""
        return bool(self._thread.is_alive())

    def request_stop(self) -> None:
        """End the thread within half a second. Safe in a signal handler."""
        self._watch.stop()
        self._thread.service.stop()


class SchedulerWatch(threading.Thread):
    """Ends this process when its scheduler is stuck. `alone` = no worker runs in it, which would record the status."""

    def __init__(self, *, alone: bool = False) -> None:
        super().__init__(name="scheduler-watch", daemon=True)
        self._alone = alone
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the thread soon."""
        self._stopped.set()

    def run(self) -> None:
        """Look several times per limit; a process that was paused gets a turn before the second look."""
        limit = max(2 * get_settings().worker_heartbeat_timeout_seconds, _STUCK_SECONDS)
        heartbeat.record_scheduler_turn()
        stuck_before = False
        while not self._stopped.wait(limit / 20):
            if self._alone:
                heartbeat.record_status(threads=0, redis=True)
            age = heartbeat.seconds_since_scheduler_turn() or 0.0
            if age > limit and stuck_before:
                log.error("scheduler_stuck", seconds=round(age))
                os._exit(1)
            stuck_before = age > limit


@signals.beat_init.connect
def _start_process(**_: Any) -> None:
    # Celery sends this signal for the thread of a worker too, which has a watch of its own.
    if threading.current_thread() is not threading.main_thread():
        return
    require_usable_redis()
    SchedulerWatch(alone=True).start()
