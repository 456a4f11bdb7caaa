"""Maintenance (`/admin/v1/drain`, `/admin/v1/workers`): drain the platform or a single worker.

Draining the platform is a state in the database: every API process refuses new jobs, and open jobs are finished.
Draining a worker happens over the broker, before it is stopped; it resumes on request, or when it restarts.
"""

from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from api.auth.dependencies import AdminDep, audit_actor
from api.http.errors import error_responses
from api.http.fields import Text, example
from api.http.responses import json_response
from worker.core.errors import DreameryError
from worker.db.engine import Transaction, transaction
from worker.db.platform import state as platform_state
from worker.db.users import audit_log
from worker.messaging import worker_control

router = APIRouter(prefix="/admin/v1", tags=["admin"], responses=error_responses(400, 401, 403))


class DrainUpdate(BaseModel):
    """Start or stop draining the platform."""

    model_config = example(draining=True, reason="moving to a larger machine")

    draining: bool
    reason: Text = Field("", max_length=200, description="shown to callers whose jobs are refused")


class Drain(BaseModel):
    """Whether the platform drains, and the number of open jobs."""

    object: Literal["drain"]
    draining: bool
    reason: str
    open_jobs: dict[str, int] = Field(description="by state: queued, submitting, running, saving")


class WorkerDrainUpdate(BaseModel):
    """Start or stop draining a worker."""

    model_config = example(draining=True)

    draining: bool


class Worker(BaseModel):
    """A worker process that responds."""

    object: Literal["worker"]
    name: str
    draining: bool = Field(description="true = it accepts no messages")
    queues: list[str]
    steps: list[str] = Field(description="tasks it runs now")


class WorkerList(BaseModel):
    """All workers that respond within two seconds."""

    object: Literal["list"]
    data: list[Worker]
    has_more: Literal[False]


def _drain_object(tx: Transaction) -> dict[str, Any]:
    drain = platform_state.get_drain_reason(tx)
    return {
        "object": "drain",
        "draining": drain is not None,
        "reason": drain or "",
        "open_jobs": platform_state.count_open_jobs(tx),
    }


def _worker_object(state: worker_control.WorkerState) -> dict[str, Any]:
    return {"object": "worker", "draining": not state.queues, **asdict(state)}


@router.get("/drain", summary="Get the drain state", responses={200: {"model": Drain}})
def see_drain(_admin: AdminDep) -> Response:
    """Whether the platform drains, and how many jobs are open, by state."""
    with transaction() as tx:
        return json_response(_drain_object(tx))


@router.patch("/drain", summary="Start or stop draining the platform", responses={200: {"model": Drain}})
def set_drain(request: Request, update: DrainUpdate, admin: AdminDep) -> Response:
    """While the platform drains, new jobs are refused with 503 `draining`; open jobs are finished, reading works."""
    with transaction() as tx:
        platform_state.set_drain_reason(tx, update.reason if update.draining else None)
        audit_log.record_action(tx, audit_actor(request, admin), "platform.drain", "platform", **update.model_dump())
        return json_response(_drain_object(tx))


@router.get("/workers", summary="List the workers", responses={200: {"model": WorkerList}})
def see_workers(_admin: AdminDep) -> Response:
    """The workers that respond, with their queues and current tasks."""
    data = [_worker_object(state) for state in worker_control.list_workers()]
    return json_response({"object": "list", "data": data, "has_more": False})


@router.patch(
    "/workers/{name}/drain",
    summary="Drain a worker",
    responses={200: {"model": Worker}, **error_responses(404)},
)
def drain_worker(request: Request, name: str, update: WorkerDrainUpdate, admin: AdminDep) -> Response:
    """The worker accepts no more messages and finishes its current tasks; other workers continue its jobs."""
    known = worker_control.list_workers(name)
    if not known:
        message = f"No worker {name[:100]!r} responds; `GET /admin/v1/workers` lists them."
        raise DreameryError("worker_not_found", message)
    # Only the worker itself knows its queues, and only while it consumes them: store them to restore them later.
    with transaction() as tx:
        if update.draining and known[0].queues:
            platform_state.write(tx, f"worker:{name}", {"queues": known[0].queues})
        stored = platform_state.read(tx, f"worker:{name}")
    queues: list[str] = stored["queues"] if stored else []
    (worker_control.drain_worker if update.draining else worker_control.resume_worker)(name, queues)
    with transaction() as tx:
        audit_log.record_action(tx, audit_actor(request, admin), "worker.drain", name, draining=update.draining)
    current = worker_control.list_workers(name) or known
    return json_response(_worker_object(current[0]))
