"""For whoever runs this: is the process alive, and can it work?"""

from typing import Literal

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from api.errors import error_responses
from api.metrics import CONTENT_TYPE, exposition
from api.render import json_response
from worker.bus.events import redis_answers
from worker.core.errors import DreameryError
from worker.db import platform_state, reports
from worker.db.engine import DATABASE_ERRORS, transaction

router = APIRouter(tags=["operations"])


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Checks(BaseModel):
    """What is needed to work."""

    database: Literal[True]
    redis: Literal[True]


class Readiness(BaseModel):
    """Everything needed is there."""

    status: Literal["ready"]
    checks: Checks
    draining: bool = Field(description="it finishes what is open and takes no new jobs")


@router.get(
    "/healthz",
    summary="Is the process alive?",
    responses={200: {"model": Health, "description": "It is."}, **error_responses()},
)
async def healthz() -> Response:
    """200 as long as the process answers."""
    return json_response({"status": "ok"})


@router.get(
    "/ping",
    summary="Seed's ping",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"const": "pong"}}}, "description": "It answers."},
        **error_responses(),
    },
)
async def ping() -> Response:
    """`pong`."""
    return PlainTextResponse("pong")


def _ready() -> tuple[dict[str, bool], bool]:
    draining = False
    try:
        with transaction() as tx:
            database = reports.database_check(tx)["revision"] is not None
            draining = platform_state.draining(tx) is not None
    except DATABASE_ERRORS:
        database = False
    return {"database": database, "redis": redis_answers()}, draining


@router.get(
    "/readyz",
    summary="Can it work?",
    responses={200: {"model": Readiness, "description": "It can."}, **error_responses(503)},
)
async def readyz() -> Response:
    """200 when database and Redis answer, else 503; the message says which does not.

    Also 200 while the platform drains, for reading, waiting and open jobs go on.
    """
    checks, draining = await run_in_threadpool(_ready)
    away = [name for name, answers in checks.items() if not answers]
    if away:
        raise DreameryError("overloaded", f"Not ready: no answer from {' and '.join(away)}.")
    return json_response({"status": "ready", "checks": checks, "draining": draining})


@router.get(
    "/metrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format."},
        **error_responses(),
    },
)
def metrics() -> Response:
    """Counts of all processes of this platform together, and the state of queue and accounts now."""
    return Response(exposition(), media_type=CONTENT_TYPE)
