"""For whoever runs this: is the process alive, and can it work?"""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from starlette.concurrency import run_in_threadpool

from api.errors import error_responses
from api.metrics import CONTENT_TYPE, exposition
from api.render import json_response
from worker.bus.events import redis_answers
from worker.db import reports
from worker.db.engine import DATABASE_ERRORS, transaction

router = APIRouter(tags=["operations"])


@router.get("/healthz", summary="Is the process alive?", responses=error_responses())
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


def _ready() -> dict[str, bool]:
    try:
        with transaction() as tx:
            database = reports.database_check(tx)["revision"] is not None
    except DATABASE_ERRORS:
        database = False
    return {"database": database, "redis": redis_answers()}


@router.get("/readyz", summary="Can it work?", responses=error_responses())
async def readyz() -> Response:
    """200 when database and Redis answer, else 503; the body says which."""
    checks = await run_in_threadpool(_ready)
    ready = all(checks.values())
    return json_response({"status": "ready" if ready else "not ready", "checks": checks}, status=200 if ready else 503)


@router.get("/metrics", summary="Numbers for Prometheus", responses=error_responses())
def metrics() -> Response:
    """Counts of all processes of this platform together, and the state of queue and accounts now."""
    return Response(exposition(), media_type=CONTENT_TYPE)
