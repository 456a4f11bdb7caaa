"""Health, readiness and metrics endpoints for operators."""

import hmac
from typing import Annotated, Literal

import anyio
import anyio.to_thread
from fastapi import APIRouter, Header, HTTPException, Query, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from pydantic import BaseModel, Field

from api.http.clients.address import is_on_this_machine
from api.http.errors import error_responses
from api.http.responses import base_url, json_response
from api.operations.metrics import CONTENT_TYPE, render_metrics
from api.operations.readiness import DEGRADED, Check, run_checks
from worker.core.errors import DreameryError
from worker.core.settings import get_settings
from worker.db.engine import DATABASE_ERRORS, transaction
from worker.db.platform import state as platform_state

router = APIRouter(tags=["operations"])

# Threads of their own: when the other threads all wait for a database that is gone, the answer is needed most.
_threads = anyio.CapacityLimiter(4)


class Health(BaseModel):
    """The process responds."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """The platform serves requests."""

    status: Literal["ready", "degraded"] = Field(description="degraded = results wait until the storage takes them")
    checks: dict[Check, bool]
    problems: list[str] = Field(description="why it is degraded; empty if it is not")
    draining: bool = Field(description="true = open jobs are finished and new ones refused")


@router.get("/", include_in_schema=False)
async def front_page(request: Request) -> Response:
    """Redirect a browser to the console; for a program this URL does not exist."""
    if "text/html" not in request.headers.get("accept", ""):
        raise HTTPException(404)
    return RedirectResponse(f"{base_url(request)}/console")


@router.get(
    "/healthz",
    summary="Is the process alive?",
    responses={200: {"model": Health, "description": "The process is alive."}, **error_responses()},
)
async def healthz() -> Response:
    """200 as long as the process responds."""
    return json_response({"status": "ok"})


@router.get(
    "/ping",
    summary="Ping (compatible with Seed)",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"const": "pong"}}}, "description": "The process is alive."},
        **error_responses(),
    },
)
async def ping() -> Response:
    """Always answers `pong`."""
    return PlainTextResponse("pong")


def _draining() -> bool:
    try:
        with transaction() as tx:
            return platform_state.get_drain_reason(tx) is not None
    except DATABASE_ERRORS:
        return False


@router.get(
    "/readyz",
    summary="Is the platform ready?",
    responses={200: {"model": Readiness, "description": "It is ready."}, **error_responses(400, 503)},
)
async def readyz(
    exclude: Annotated[list[Check] | None, Query(description="checks to leave out; may be repeated")] = None,
) -> Response:
    """200 when all checks pass, otherwise 503 with the failed checks in the message.

    Checks: `database` can be written to, `redis` responds, the `schema` is not older than this version, a `tick` ran
    recently, a `worker` accepts messages, and workers can write to the `storage`. If only `storage` fails, the answer
    is 200 with the status `degraded`: requests are served, and finished results wait. A load balancer should exclude
    `tick` and `worker`, because without them jobs are still accepted and shown. The answer is also 200 while the
    platform drains: reading, waiting and open jobs continue.
    """
    results = await anyio.to_thread.run_sync(run_checks, exclude or (), limiter=_threads)
    failed = [problem for name, problem in results.items() if problem and name not in DEGRADED]
    if failed:
        raise DreameryError("overloaded", f"Not ready: {'; '.join(failed)}.")
    problems = [problem for problem in results.values() if problem]
    body = {
        "status": "degraded" if problems else "ready",
        "checks": {name: problem is None for name, problem in results.items()},
        "problems": problems,
        "draining": await anyio.to_thread.run_sync(_draining, limiter=_threads),
    }
    return json_response(body)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format."},
        **error_responses(401, 403),
    },
)
def metrics(request: Request, authorization: Annotated[str | None, Header(include_in_schema=False)] = None) -> Response:
    """Counters of all processes of this platform, and the current state of queue and accounts.

    Send the value of `DREAMERY_METRICS_TOKEN` as `Authorization: Bearer`. While it is not set, only clients on the same
    machine may read, and not through a proxy.
    """
    token = get_settings().metrics_token.get_secret_value()
    if not token and not is_on_this_machine(request):
        message = "Metrics are shown on this machine only. Set DREAMERY_METRICS_TOKEN and send it as a Bearer token."
        raise DreameryError("forbidden", message)
    if token and not hmac.compare_digest(f"Bearer {token}".encode(), (authorization or "").encode()):
        raise DreameryError("invalid_api_key", "Send the value of DREAMERY_METRICS_TOKEN as a Bearer token.")
    return Response(render_metrics(), media_type=CONTENT_TYPE)
