"""Running workers, asked and told over the broker: what they take and do now; take nothing more; take again."""

from dataclasses import dataclass, field

from worker.messaging import heartbeat
from worker.messaging.celery_app import app

_ANSWER_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker as it answers: the queues it takes messages from (none = drained), the steps it is in.

    Without the queue over which it hears itself: a drained worker that lost it would be ended as deaf.
    """

    name: str
    queues: list[str]
    steps: list[str] = field(default_factory=list)


def list_workers(name: str | None = None) -> list[WorkerState]:
    """Every worker that answers within two seconds, or the one of that name."""
    asking = app.control.inspect(timeout=_ANSWER_SECONDS, destination=[name] if name else None)
    queues = asking.active_queues() or {}
    active = asking.active() or {}
    return [
        WorkerState(
            name=worker,
            queues=sorted({queue["name"] for queue in taken or []} - {heartbeat.queue_of(worker).name}),
            steps=sorted(step["name"].removeprefix("dreamery.") for step in active.get(worker, [])),
        )
        for worker, taken in sorted(queues.items())
    ]


def drain_worker(name: str, queues: list[str]) -> None:
    """It takes no more messages from these queues; what it has begun it finishes. A restart takes this back."""
    for queue in queues:
        app.control.cancel_consumer(queue, destination=[name], reply=True, timeout=_ANSWER_SECONDS)


def refill_worker(name: str, queues: list[str]) -> None:
    """It takes messages from these queues again."""
    for queue in queues:
        app.control.add_consumer(queue, destination=[name], reply=True, timeout=_ANSWER_SECONDS)
