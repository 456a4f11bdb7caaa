"""Remote control of running workers over the broker: list their queues and tasks, drain them, resume them."""

from dataclasses import dataclass, field

from worker.messaging import heartbeat
from worker.messaging.celery_app import app

_TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class WorkerState:
    """Status of a worker: the queues it consumes (none = drained) and the tasks it is running.

    The heartbeat queue is left out and never drained: a worker without it would be restarted as unresponsive.
    """

    name: str
    queues: list[str]
    steps: list[str] = field(default_factory=list)


def list_workers(name: str | None = None) -> list[WorkerState]:
    """Return all workers that respond within two seconds, or only the one with this name."""
    inspector = app.control.inspect(timeout=_TIMEOUT_SECONDS, destination=[name] if name else None)
    queues = inspector.active_queues() or {}
    active = inspector.active() or {}
    return [
        WorkerState(
            name=worker,
            queues=sorted({queue["name"] for queue in consumed or []} - {heartbeat.heartbeat_queue(worker).name}),
            steps=sorted(step["name"].removeprefix("dreamery.") for step in active.get(worker, [])),
        )
        for worker, consumed in sorted(queues.items())
    ]


def drain_worker(name: str, queues: list[str]) -> None:
    """Stop consuming these queues; running tasks finish. A restart of the worker undoes this."""
    for queue in queues:
        app.control.cancel_consumer(queue, destination=[name], reply=True, timeout=_TIMEOUT_SECONDS)


def resume_worker(name: str, queues: list[str]) -> None:
    """Consume these queues again."""
    for queue in queues:
        app.control.add_consumer(queue, destination=[name], reply=True, timeout=_TIMEOUT_SECONDS)
