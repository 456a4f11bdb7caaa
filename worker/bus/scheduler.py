"""The scheduler as Celery starts it (`-A worker.bus.scheduler:app`): no steps, little more than half of the memory."""

from typing import Any

from celery import signals

from worker.bus import heartbeat
from worker.bus.queue import app

__all__ = ["app"]


@signals.after_task_publish.connect(sender="dreamery.tick")
def _note_beat(**_: Any) -> None:
    heartbeat.note_seen("scheduler")
