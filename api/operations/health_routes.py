"""For whoever runs this: is the process alive, and can it work?"""

import hmac
from typing import Annotated, Literal

from fastapi import APIRouter, Header, HTTPException, Query, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from api.http.errors import error_responses
from api.http.responses import base_url, json_response
from api.operations.metrics import CONTENT_TYPE, exposition
from api.operations.readiness import Check, examine
from worker.core.errors import DreameryError
from worker.core.settings import get_settings
from worker.db.engine import DATABASE_ERRORS, transaction
from worker.db.platform import state as platform_state

router = APIRouter(tags=["operations"])


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Everything needed is there."""

    status: Literal["ready"]
    checks: dict[Check, Literal[True]]
    draining: bool = Field(description="it finishes what is open and takes no new jobs")


@router.get("/", include_in_schema=False)
async def front_page(request: Request) -> Response:
    """A browser is led to the console; a program has the wrong URL."""
    if "text/html" not in request.headers.get("accept", ""):
        raise HTTPException(404)
    return RedirectResponse(f"{base_url(request)}/console")


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


def _draining() -> bool:
    try:
        with transaction() as tx:
            return platform_state.draining(tx) is not None
    except DATABASE_ERRORS:
        return False


@router.get(
    "/readyz",
    summary="Can it work?",
    responses={200: {"model": Readiness, "description": "It can."}, **error_responses(400, 503)},
)
async def readyz(
    exclude: Annotated[list[Check] | None, Query(description="checks to leave out; may be repeated")] = None,
) -> Response:
    """200 when all checks pass, else 503; the message says what is wrong.

    `database` and `redis` answer, the `schema` is not older than this version, a `tick` ran lately, a `worker` takes
    messages. A load balancer should exclude `tick` and `worker`: without them jobs are still accepted and shown. Also
    200 while the platform drains, for reading, waiting and open jobs go on.
    """
    found = await run_in_threadpool(examine, exclude or ())
    wrong = [reason for reason in found.values() if reason]
    if wrong:
        raise DreameryError("overloaded", f"Not ready: {'; '.join(wrong)}.")
    draining = await run_in_threadpool(_draining)
    return json_response({"status": "ready", "checks": dict.fromkeys(found, True), "draining": draining})


@router.get(
    "/metrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format."},
        **error_responses(401),
    },
)
def metrics(authorization: Annotated[str | None, Header(include_in_schema=False)] = None) -> Response:
    """Counts of all processes of this platform together, and the state of queue and accounts now.

    Open, unless `DREAMERY_METRICS_TOKEN` is set: then it is asked for as `Authorization: Bearer`.
    """
    wanted = get_settings().metrics_token.get_secret_value()
    if wanted and not hmac.compare_digest(f"Bearer {wanted}".encode(), (authorization or "").encode()):
        raise DreameryError("invalid_api_key", "Send the value of DREAMERY_METRICS_TOKEN as a Bearer token.")
    return Response(exposition(), media_type=CONTENT_TYPE)
