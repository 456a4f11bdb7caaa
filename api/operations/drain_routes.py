"""Maintenance (`/admin/v1/drain`, `/admin/v1/workers`): finish what is open, take nothing new; rest single workers.

Draining is a state of the platform, in the database: every API process refuses new jobs, and all that is open runs on.
A worker is drained over the broker, for it to be stopped; it takes messages again when it is told, or started anew.
"""

from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from api.auth.dependencies import AdminDep, actor_of
from api.http.errors import error_responses
from api.http.fields import Text, example
from api.http.responses import json_response
from worker.core.errors import DreameryError
from worker.db.engine import Transaction, transaction
from worker.db.platform import state as platform_state
from worker.db.users import audit_log
from worker.messaging import worker_control

router = APIRouter(prefix="/admin/v1", tags=["admin"], responses=error_responses(400, 401, 403))


class DrainWish(BaseModel):
    """Whether the platform shall take new jobs."""

    model_config = example(draining=True, reason="moving to a larger machine")

    draining: bool
    reason: Text = Field("", max_length=200, description="told to callers whose jobs are refused")


class Drain(BaseModel):
    """Whether it takes new jobs, and what is open."""

    object: Literal["drain"]
    draining: bool
    reason: str
    open_jobs: dict[str, int] = Field(description="by state: queued, submitting, running, saving")


class WorkerWish(BaseModel):
    """Whether a worker shall take messages."""

    model_config = example(draining=True)

    draining: bool


class Worker(BaseModel):
    """A worker process that answers."""

    object: Literal["worker"]
    name: str
    draining: bool = Field(description="it takes no messages")
    queues: list[str]
    steps: list[str] = Field(description="what it does now")


class WorkerList(BaseModel):
    """All workers that answer within two seconds."""

    object: Literal["list"]
    data: list[Worker]
    has_more: Literal[False]


def _drain_object(tx: Transaction) -> dict[str, Any]:
    drain = platform_state.draining(tx)
    return {
        "object": "drain",
        "draining": drain is not None,
        "reason": drain or "",
        "open_jobs": platform_state.open_jobs(tx),
    }


def _worker_object(state: worker_control.WorkerState) -> dict[str, Any]:
    return {"object": "worker", "draining": not state.queues, **asdict(state)}


@router.get("/drain", summary="Does it take new jobs?", responses={200: {"model": Drain}})
def see_drain(_admin: AdminDep) -> Response:
    """Whether the platform drains, and how many jobs are open."""
    with transaction() as tx:
        return json_response(_drain_object(tx))


@router.patch("/drain", summary="Take no new jobs, or take them again", responses={200: {"model": Drain}})
def set_drain(request: Request, wish: DrainWish, admin: AdminDep) -> Response:
    """While it drains, new jobs are refused with 503 `draining`. Open ones are finished, reading goes on."""
    with transaction() as tx:
        platform_state.set_draining(tx, wish.reason if wish.draining else None)
        audit_log.note_act(tx, actor_of(request, admin), "platform.drain", "platform", **wish.model_dump())
        return json_response(_drain_object(tx))


@router.get("/workers", summary="List the workers", responses={200: {"model": WorkerList}})
def see_workers(_admin: AdminDep) -> Response:
    """Those that answer: what they take, what they do."""
    data = [_worker_object(state) for state in worker_control.list_workers()]
    return json_response({"object": "list", "data": data, "has_more": False})


@router.patch(
    "/workers/{name}/drain",
    summary="Drain a worker",
    responses={200: {"model": Worker}, **error_responses(404)},
)
def drain_worker(request: Request, name: str, wish: WorkerWish, admin: AdminDep) -> Response:
    """It takes no more messages and finishes what it has begun; the other workers go on with its jobs."""
    known = worker_control.list_workers(name)
    if not known:
        message = f"No worker {name[:100]!r} answers; `GET /admin/v1/workers` lists them."
        raise DreameryError("worker_not_found", message)
    # Which queues it is for, only the worker itself knows, while it takes from them.
    with transaction() as tx:
        if wish.draining and known[0].queues:
            platform_state.write(tx, f"worker:{name}", {"queues": known[0].queues})
        noted = platform_state.read(tx, f"worker:{name}")
    queues: list[str] = noted["queues"] if noted else []
    (worker_control.drain_worker if wish.draining else worker_control.refill_worker)(name, queues)
    with transaction() as tx:
        audit_log.note_act(tx, actor_of(request, admin), "worker.drain", name, draining=wish.draining)
    now = worker_control.list_workers(name) or known
    return json_response(_worker_object(now[0]))
