"""Routes for the webhook delivery log and replays. See docs/webhooks.md."""

from functools import partial
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.auth.dependencies import FullReadDep, WebhookManagementDep
from api.http.errors import error_responses
from api.http.fields import Text
from api.http.responses import json_response, page_object
from api.jobs.webhooks.schemas import DeliveryList, DeliveryObject, DeliveryStatus, delivery_object
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id
from worker.db.engine import transaction
from worker.db.webhooks import delivery_log, endpoints
from worker.db.webhooks.delivery_log import Delivery, DeliveryFilter
from worker.messaging import celery_app

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

_Limit = Annotated[int, Query(ge=1, le=100)]
_After = Annotated[str | None, Query(description="last id of the previous page")]
_Event = Annotated[Text | None, Query(max_length=100, description="for example `job.completed`")]
_PAGE: dict[int | str, dict[str, object]] = {200: {"model": DeliveryList, "description": "One page, newest first."}}


def _not_found(delivery_id: str) -> DreameryError:
    return DreameryError("webhook_not_found", f"No webhook delivery {delivery_id[:60]!r}.")


def _parse_id(delivery_id: str) -> UUID:
    parsed_id = parse_public_id("msg", delivery_id)
    if parsed_id is None:
        raise _not_found(delivery_id)
    return parsed_id


def _filter_id(prefix: str, value: str | None, param: str) -> UUID | None:
    parsed_id = parse_public_id(prefix, value) if value is not None else None
    if value is not None and parsed_id is None:
        message = f"`{param}` must be an id like `{prefix}_...`; got {value[:60]!r}."
        raise DreameryError("invalid_value", message, param=param)
    return parsed_id


async def _page(
    caller: Caller, delivery_filter: DeliveryFilter, *, after: str | None, limit: int, order: str
) -> Response:
    cursor = _filter_id("msg", after, "after")

    def read() -> tuple[list[Delivery], bool] | None:
        with transaction() as tx:
            return delivery_log.list_deliveries(
                tx, caller.owner, delivery_filter, after=cursor, limit=limit, newest_first=order == "desc"
            )

    page = await run_in_threadpool(read)
    if page is None:
        raise DreameryError("invalid_value", "`after` is not the id of one of your deliveries.", param="after")
    deliveries, more = page
    return json_response(page_object([delivery_object(delivery) for delivery in deliveries], more=more))


@router.get("/deliveries", summary="List webhook deliveries", responses={**_PAGE, **error_responses(400, 401)})
async def list_deliveries(
    caller: FullReadDep,
    *,
    limit: _Limit = 20,
    after: _After = None,
    order: Literal["asc", "desc"] = "desc",
    endpoint_id: Annotated[str | None, Query(description="only deliveries to this endpoint")] = None,
    job_id: Annotated[str | None, Query(description="only deliveries about this job")] = None,
    event: _Event = None,
    status: DeliveryStatus | None = None,
) -> Response:
    """Lists the deliveries to your endpoints and to the `webhook` of your jobs, with all attempts. Kept for 30 days."""
    delivery_filter = DeliveryFilter(
        endpoint_id=_filter_id("whe", endpoint_id, "endpoint_id"),
        job_id=_filter_id("job", job_id, "job_id"),
        event=event,
        status=status,
    )
    return await _page(caller, delivery_filter, after=after, limit=limit, order=order)


@router.get(
    "/endpoints/{endpoint_id}/deliveries",
    summary="List the deliveries of an endpoint",
    responses={**_PAGE, **error_responses(400, 401, 404)},
)
async def list_endpoint_deliveries(
    endpoint_id: str,
    caller: FullReadDep,
    *,
    limit: _Limit = 20,
    after: _After = None,
    order: Literal["asc", "desc"] = "desc",
    event: _Event = None,
    status: DeliveryStatus | None = None,
) -> Response:
    """Lists the deliveries to one endpoint, with all attempts."""
    endpoint = parse_public_id("whe", endpoint_id)

    def exists() -> bool:
        with transaction() as tx:
            return endpoint is not None and endpoints.get_endpoint(tx, endpoint, caller.owner) is not None

    if not await run_in_threadpool(exists):
        raise DreameryError("webhook_not_found", f"No webhook endpoint {endpoint_id[:60]!r}.")
    delivery_filter = DeliveryFilter(endpoint_id=endpoint, event=event, status=status)
    return await _page(caller, delivery_filter, after=after, limit=limit, order=order)


@router.get(
    "/deliveries/{delivery_id}",
    summary="Get a webhook delivery",
    responses={200: {"model": DeliveryObject, "description": "The delivery."}, **error_responses(401, 404)},
)
async def get_delivery(delivery_id: str, caller: FullReadDep) -> Response:
    """Returns one delivery by its `webhook-id`, with all attempts."""
    parsed_id = _parse_id(delivery_id)

    def read() -> Delivery | None:
        with transaction() as tx:
            return delivery_log.get_delivery(tx, parsed_id, caller.owner)

    delivery = await run_in_threadpool(read)
    if delivery is None:
        raise _not_found(delivery_id)
    return json_response(delivery_object(delivery))


def _replay(caller: Caller, delivery_id: UUID) -> Delivery | None:
    with transaction() as tx:
        delivery = delivery_log.get_delivery(tx, delivery_id, caller.owner)
        if delivery is None:
            return None
        if delivery.row.endpoint_id is not None:
            endpoint = endpoints.get_endpoint(tx, delivery.row.endpoint_id, caller.owner)
            if endpoint is not None and endpoint.disabled_at is not None:
                raise DreameryError("webhook_endpoint_disabled")
        if delivery_log.replay(tx, delivery_id):
            tx.on_commit(partial(celery_app.enqueue_notify, delivery_id))
        return delivery_log.get_delivery(tx, delivery_id, caller.owner)


@router.post(
    "/deliveries/{delivery_id}/replay",
    summary="Replay a webhook delivery",
    status_code=202,
    responses={
        202: {"model": DeliveryObject, "description": "The delivery, now pending."},
        **error_responses(401, 404, 409),
    },
)
async def replay_delivery(delivery_id: str, caller: WebhookManagementDep) -> Response:
    """Sends the event again immediately, delivered or not, with the same `webhook-id` and a new retry schedule.

    Receivers can use the id to detect duplicates. While an attempt is in progress, the call changes nothing.
    """
    delivery = await run_in_threadpool(_replay, caller, _parse_id(delivery_id))
    if delivery is None:
        raise _not_found(delivery_id)
    return json_response(delivery_object(delivery), status=202)
