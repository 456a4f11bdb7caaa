"""Routes for webhook endpoints and their signing secrets. See docs/webhooks.md."""

from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.auth.dependencies import FullReadDep, WebhookManagementDep
from api.http.errors import error_responses
from api.http.responses import json_response
from api.jobs.webhooks.schemas import (
    BatchEventBody,
    DeletedEndpoint,
    DeliveryObject,
    Endpoint,
    EndpointChange,
    EndpointCreate,
    EndpointList,
    EndpointWithSecret,
    EventBody,
    WebhookSecret,
    delivery_object,
    endpoint_object,
)
from worker.core.errors import DreameryError
from worker.core.ids import new_id, parse_public_id
from worker.core.security.encryption import encrypt_secret, new_webhook_secret, webhook_secret
from worker.core.webhook_policy import BATCH_EVENTS, ROTATION_HOURS, WEBHOOK_EVENTS
from worker.db.engine import Row, transaction
from worker.db.webhooks import delivery_log, endpoints, outbox
from worker.db.webhooks.delivery_log import Delivery
from worker.db.webhooks.endpoints import NewEndpoint, secret_context
from worker.messaging import celery_app

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

# Documents the events that receivers get, under `webhooks` in the OpenAPI document.
documented_events = APIRouter(tags=["webhooks"])


def _parse_id(endpoint_id: str) -> UUID:
    parsed_id = parse_public_id("whe", endpoint_id)
    if parsed_id is None:
        raise _not_found(endpoint_id)
    return parsed_id


def _not_found(endpoint_id: str) -> DreameryError:
    return DreameryError("webhook_not_found", f"No webhook endpoint {endpoint_id[:60]!r}.")


def _require_found(row: "Row[Any] | None", endpoint_id: str) -> "Row[Any]":
    if row is None:
        raise _not_found(endpoint_id)
    return row


@router.get(
    "/secret",
    summary="Get your webhook secret",
    responses={200: {"model": WebhookSecret, "description": "The secret."}, **error_responses(401, 403)},
)
async def get_secret(caller: WebhookManagementDep) -> Response:
    """Returns the `whsec_...` secret that signs deliveries to the `webhook` of your jobs (Standard Webhooks).

    It signs the deliveries of all keys of the user, so the key needs `generate` and `read`. Each endpoint has its own
    secret.
    """
    return json_response({"object": "webhook.secret", "secret": webhook_secret(caller.owner)})


@router.get(
    "/endpoints",
    summary="List your webhook endpoints",
    responses={200: {"model": EndpointList, "description": "All endpoints, oldest first."}, **error_responses(401)},
)
async def list_endpoints(caller: FullReadDep) -> Response:
    """Lists your endpoints with the reason why one is disabled and since when one fails. Secrets are not shown."""

    def read() -> list[Row[Any]]:
        with transaction() as tx:
            return endpoints.list_endpoints(tx, caller.owner)

    rows = await run_in_threadpool(read)
    return json_response({"object": "list", "data": [endpoint_object(row) for row in rows], "has_more": False})


def _key_of_scope(body: EndpointCreate, caller: Caller) -> UUID | None:
    """Return the key an endpoint with scope `key` is limited to. Raises invalid_value for an unsupported scope."""
    possible = ("user", "key") if caller.user_id is not None else ("tokens",)
    if body.scope is not None and body.scope not in possible:
        message = f"`scope` must be {' or '.join(f'`{name}`' for name in possible)} for this credential."
        raise DreameryError("invalid_value", message, param="scope")
    return caller.api_key_id if body.scope == "key" else None


@router.post(
    "/endpoints",
    summary="Create a webhook endpoint",
    status_code=201,
    responses={
        201: {"model": EndpointWithSecret, "description": "The endpoint. Store the secret: it is shown only here."},
        **error_responses(400, 401),
    },
)
async def create_endpoint(body: EndpointCreate, caller: WebhookManagementDep) -> Response:
    """Creates an endpoint that receives the events of your jobs, signed with its own secret. At most 20 endpoints."""
    endpoint_id, secret = new_id(), new_webhook_secret()
    new = NewEndpoint(
        id=endpoint_id,
        owner=caller.owner,
        url=body.url,
        events=body.selected_events(),
        secret=encrypt_secret(secret, context=secret_context(endpoint_id)),
        description=body.description,
        user_id=caller.user_id,
        api_key_id=_key_of_scope(body, caller),
    )

    def write() -> Row[Any] | None:
        with transaction() as tx:
            return endpoints.add_endpoint(tx, new)

    row = await run_in_threadpool(write)
    if row is None:
        raise DreameryError("webhook_endpoint_limit")
    return json_response(endpoint_object(row, secret=secret), status=201)


@router.get(
    "/endpoints/{endpoint_id}",
    summary="Get a webhook endpoint",
    responses={200: {"model": Endpoint, "description": "The endpoint."}, **error_responses(401, 404)},
)
async def get_endpoint(endpoint_id: str, caller: FullReadDep) -> Response:
    """Returns one of your endpoints."""
    row = await run_in_threadpool(_get, caller, _parse_id(endpoint_id))
    return json_response(endpoint_object(_require_found(row, endpoint_id)))


def _get(caller: Caller, endpoint_id: UUID) -> "Row[Any] | None":
    with transaction() as tx:
        return endpoints.get_endpoint(tx, endpoint_id, caller.owner)


def _change(caller: Caller, endpoint_id: UUID, body: EndpointChange) -> "Row[Any] | None":
    with transaction() as tx:
        row = endpoints.change_endpoint(
            tx, endpoint_id, caller.owner, url=body.url, description=body.description, events=body.events
        )
        if row is None or body.disabled is None:
            return row
        if body.disabled and endpoints.disable_endpoint(tx, endpoint_id, reason="paused by its owner"):
            outbox.give_up_pending(tx, endpoint_id)
        if not body.disabled:
            endpoints.enable_endpoint(tx, endpoint_id, caller.owner)
        return endpoints.get_endpoint(tx, endpoint_id, caller.owner)


@router.patch(
    "/endpoints/{endpoint_id}",
    summary="Change a webhook endpoint",
    responses={200: {"model": Endpoint, "description": "The endpoint as it is now."}, **error_responses(400, 401, 404)},
)
async def change_endpoint(endpoint_id: str, body: EndpointChange, caller: WebhookManagementDep) -> Response:
    """Changes the URL, the description or the events; disables or enables the endpoint.

    Disabling gives up pending deliveries (send them again with `POST /v1/webhooks/deliveries/{id}/replay`). Events
    that happen while the endpoint is disabled are not stored for it.
    """
    row = await run_in_threadpool(_change, caller, _parse_id(endpoint_id), body)
    return json_response(endpoint_object(_require_found(row, endpoint_id)))


@router.delete(
    "/endpoints/{endpoint_id}",
    summary="Delete a webhook endpoint",
    responses={200: {"model": DeletedEndpoint, "description": "The endpoint is deleted."}, **error_responses(401, 404)},
)
async def delete_endpoint(endpoint_id: str, caller: WebhookManagementDep) -> Response:
    """Deletes the endpoint, its delivery log and its pending deliveries."""
    parsed_id = _parse_id(endpoint_id)

    def remove() -> bool:
        with transaction() as tx:
            return endpoints.remove_endpoint(tx, parsed_id, caller.owner)

    if not await run_in_threadpool(remove):
        raise _not_found(endpoint_id)
    return json_response({"id": endpoint_id, "object": "webhook.endpoint", "deleted": True})


@router.post(
    "/endpoints/{endpoint_id}/rotate",
    summary="Rotate a webhook secret",
    responses={
        200: {"model": EndpointWithSecret, "description": "The endpoint with its new secret, shown only here."},
        **error_responses(400, 401, 404),
    },
)
async def rotate_secret(
    endpoint_id: str,
    caller: WebhookManagementDep,
    keep_hours: Annotated[
        int,
        Query(ge=0, le=168, description="hours the old secret stays valid; 0 = invalidate it now, for a leaked secret"),
    ] = ROTATION_HOURS,
) -> Response:
    """Creates a new secret. Until the old one expires, deliveries carry both signatures, so receivers can switch."""
    parsed_id, secret = _parse_id(endpoint_id), new_webhook_secret()
    encrypted = encrypt_secret(secret, context=secret_context(parsed_id))

    def write() -> Row[Any] | None:
        with transaction() as tx:
            return endpoints.rotate_secret(tx, parsed_id, caller.owner, secret=encrypted, keep_hours=keep_hours)

    row = _require_found(await run_in_threadpool(write), endpoint_id)
    return json_response(endpoint_object(row, secret=secret))


def _test(caller: Caller, endpoint_id: UUID) -> Delivery | None:
    with transaction() as tx:
        endpoint = endpoints.get_endpoint(tx, endpoint_id, caller.owner)
        if endpoint is None:
            return None
        delivery_id = delivery_log.add_test(
            tx, delivery_id=new_id(), endpoint_id=endpoint_id, owner=caller.owner, url=endpoint.url
        )
        tx.on_commit(partial(celery_app.enqueue_notify, delivery_id))
        return delivery_log.get_delivery(tx, delivery_id, caller.owner)


@router.post(
    "/endpoints/{endpoint_id}/test",
    summary="Send a test event",
    status_code=202,
    responses={
        202: {"model": DeliveryObject, "description": "The delivery. Get it later to see the result."},
        **error_responses(401, 404),
    },
)
async def test_endpoint(endpoint_id: str, caller: WebhookManagementDep) -> Response:
    """Sends one `webhook.test` event without retries, even if the endpoint is disabled. `Location` has the result."""
    delivery = await run_in_threadpool(_test, caller, _parse_id(endpoint_id))
    if delivery is None:
        raise _not_found(endpoint_id)
    shown = delivery_object(delivery)
    return json_response(shown, status=202, headers={"Location": f"/v1/webhooks/deliveries/{shown['id']}"})


async def _batch_event(body: BatchEventBody) -> None:
    """The one event of a batch, when it ends: for subscribed endpoints, and for the `webhook` of the batch.

    Headers and answers as for events of jobs.
    """


async def _webhook_event(body: EventBody) -> None:
    """An event of your job, sent to subscribed endpoints and, except `job.started`, to the job's `webhook`.

    Headers: `webhook-id` (the same for every attempt), `webhook-timestamp`, `webhook-signature` (Standard Webhooks).
    Respond with a 2xx status within 20 seconds; see docs/webhooks.md for other responses.
    """


_RESPONSES: dict[int | str, dict[str, Any]] = {
    204: {"description": "Accepted. Any 2xx status; the response body is ignored."},
    "default": {"description": "Not accepted: the event is sent again later. 410 disables the endpoint."},
}
for _event in WEBHOOK_EVENTS:
    documented_events.post(
        _event, summary=_event, operation_id=_event.replace(".", "_"), status_code=204, responses=_RESPONSES
    )(_batch_event if _event in BATCH_EVENTS else _webhook_event)
