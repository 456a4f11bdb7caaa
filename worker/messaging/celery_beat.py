"""The app for Celery beat (`-A worker.messaging.celery_beat:app`). It imports no tasks, to halve its memory."""

from typing import Any

from celery import signals

from worker.messaging import heartbeat
from worker.messaging.celery_app import app

__all__ = ["app"]


@signals.after_task_publish.connect(sender="dreamery.tick")
def _record_tick_sent(**_: Any) -> None:
    heartbeat.record_activity("scheduler")
