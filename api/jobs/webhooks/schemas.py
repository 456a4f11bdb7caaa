"""Bodies of the webhook routes, and webhook rows as JSON. The response models document the API."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from api.http.errors import localized_text
from api.http.fields import Text
from api.jobs.schemas import JobError
from worker.core.ids import public_id
from worker.core.webhook_policy import FINAL_EVENTS, BatchEvent, JobEvent, WebhookEvent, check_url
from worker.db.engine import Row
from worker.db.webhooks.delivery_log import Delivery

Scope = Literal["user", "key", "tokens"]
DeliveryStatus = Literal["pending", "sending", "delivered", "failed"]

_EVENTS = "events to receive; default: `job.completed`, `job.failed` and `job.cancelled`"
_URL = "https URL that accepts POST requests"


def _validated_url(url: str | None) -> str | None:
    if url is not None:
        check_url(url)
    return url


class WebhookSecret(BaseModel):
    """The secret that signs deliveries to the `webhook` of a job."""

    object: Literal["webhook.secret"]
    secret: str = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])


class EndpointCreate(BaseModel):
    """A new webhook endpoint."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [{"url": "https://example.com/hooks/dreamery", "events": ["job.completed", "job.failed"]}]
        },
    )

    url: Text = Field(description=_URL, min_length=1)
    description: Text = Field("", max_length=500, description="your own note")
    events: list[WebhookEvent] | None = Field(None, min_length=1, max_length=20, description=_EVENTS)
    scope: Scope | None = Field(
        None,
        description="whose jobs: `user` = all your jobs (default), `key` = only jobs created with this API key; with "
        "session ids always `tokens`: jobs of exactly these session ids",
    )

    _check_url = field_validator("url")(_validated_url)

    def selected_events(self) -> list[str]:
        """Return the events to send, without duplicates."""
        return list(dict.fromkeys(self.events or FINAL_EVENTS))


class EndpointChange(BaseModel):
    """Changes of an endpoint; fields that are omitted or null keep their value."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"disabled": False}]})

    url: Text | None = Field(None, description=_URL, min_length=1)
    description: Text | None = Field(None, max_length=500)
    events: list[WebhookEvent] | None = Field(None, min_length=1, max_length=20)
    disabled: bool | None = Field(None, description="true = disable; false = enable and reset its failures")

    _check_url = field_validator("url")(_validated_url)


class Endpoint(BaseModel):
    """A webhook endpoint. Times are unix seconds."""

    id: str = Field(examples=["whe_0192a1b2c3d47e8f9a0b1c2d3e4f5a6b"])
    object: Literal["webhook.endpoint"]
    url: str
    description: str
    events: list[WebhookEvent]
    scope: Scope
    api_key_id: str | None = Field(description="with `scope: key`, that key")
    disabled: bool
    disabled_at: int | None
    disabled_reason: str | None = Field(description="why it was disabled")
    failing_since: int | None = Field(description="all deliveries failed since then; null if the last one succeeded")
    previous_secret_expires_at: int | None = Field(description="until then deliveries carry two signatures")
    created_at: int


class EndpointWithSecret(Endpoint):
    """An endpoint with its secret, which is shown only here."""

    secret: str = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])


class EndpointList(BaseModel):
    """All your endpoints."""

    object: Literal["list"]
    data: list[Endpoint]
    has_more: bool


class DeletedEndpoint(BaseModel):
    """Confirmation that an endpoint was deleted."""

    id: str
    object: Literal["webhook.endpoint"]
    deleted: Literal[True]


class Attempt(BaseModel):
    """One attempt of a delivery."""

    n: int
    at: int
    status: int | None = Field(description="HTTP status; null without a response")
    error: str | None = Field(description="null if it succeeded or if the outcome is not known yet")
    seconds: float | None


class DeliveryObject(BaseModel):
    """The delivery of one event to one receiver."""

    id: str = Field(description="sent to the receiver as `webhook-id`")
    object: Literal["webhook.delivery"]
    event: str
    job_id: str | None
    batch_id: str | None = None
    endpoint_id: str | None = Field(description="null = sent to the `webhook` of the job")
    url: str
    status: DeliveryStatus = Field(description="`failed` = no more attempts")
    last_status: int | None
    last_error: str | None
    next_try_at: int | None
    delivered_at: int | None
    created_at: int
    attempts: list[Attempt]


class DeliveryList(BaseModel):
    """One page of deliveries."""

    object: Literal["list"]
    data: list[DeliveryObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class EventFile(BaseModel):
    """One stored result when the job ended, as in the job without what may change later (marks, removal)."""

    id: str
    n: int = Field(description="its number in the job, from 0")
    url: str
    mime: str
    width: int | None
    height: int | None
    bytes: int
    seconds: float | None


class EventJob(BaseModel):
    """The job of an event: a part of the job object, with links to the results."""

    id: str
    object: Literal["job"]
    kind: Literal["image", "video", "chat"]
    status: Literal["in_progress", "completed", "failed", "cancelled"]
    model: str
    parent: str | None = Field(description="the conversation that started the job, if any")
    created_at: int
    started_at: int | None
    completed_at: int | None
    progress: int
    output: list[EventFile] | None
    error: JobError | None
    metadata: dict[str, str] = Field(description="`{}` with `metadata_omitted: true` if it would be too large")
    urls: dict[str, str]


class EventBody(BaseModel):
    """The body that your receiver gets. Verify the signature of the raw body before you parse it."""

    id: str
    object: Literal["event"]
    type: JobEvent
    timestamp: datetime = Field(description="time of the event, ISO 8601")
    created_at: int = Field(description="the same in unix seconds")
    data: EventJob


class EventBatch(BaseModel):
    """The batch of an event: a part of the batch object, with links."""

    id: str
    object: Literal["batch"]
    status: Literal["completed", "failed", "expired", "cancelled"]
    endpoint: str
    created_at: int
    completed_at: int | None
    request_counts: dict[str, int] = Field(description="`total`, `completed` and `failed` lines")
    output_file_id: str | None
    error_file_id: str | None
    errors: list[dict[str, Any]] = Field(description="the first errors of a batch that was refused")
    error_count: int
    metadata: dict[str, str]
    urls: dict[str, str] = Field(description="`get`, `archive`, and `output` and `errors` where there are such files")


class BatchEventBody(BaseModel):
    """The body of an event about a batch. Verify the signature of the raw body before you parse it."""

    id: str
    object: Literal["event"]
    type: BatchEvent
    timestamp: datetime = Field(description="time of the event, ISO 8601")
    created_at: int = Field(description="the same in unix seconds")
    data: EventBatch


def _seconds(moment: datetime | None) -> int | None:
    return int(moment.timestamp()) if moment else None


def endpoint_object(row: Row[Any], *, secret: str | None = None) -> dict[str, Any]:
    """Return the endpoint as its owner sees it, with `secret` only when it is new."""
    scope = "tokens" if row.user_id is None else "user" if row.api_key_id is None else "key"
    endpoint = {
        "id": public_id("whe", row.id),
        "object": "webhook.endpoint",
        "url": row.url,
        "description": row.description,
        "events": row.events,
        "scope": scope,
        "api_key_id": public_id("key", row.api_key_id) if row.api_key_id else None,
        "disabled": row.disabled_at is not None,
        "disabled_at": _seconds(row.disabled_at),
        "disabled_reason": row.disabled_reason,
        "failing_since": _seconds(row.failing_since),
        "previous_secret_expires_at": _seconds(row.previous_until),
        "created_at": _seconds(row.created_at),
    }
    return endpoint if secret is None else {**endpoint, "secret": secret}


def delivery_object(delivery: Delivery) -> dict[str, Any]:
    """Return the delivery with its attempts."""
    row = delivery.row
    return {
        "id": public_id("msg", row.id),
        "object": "webhook.delivery",
        "event": row.event,
        "job_id": public_id("job", row.job_id) if row.job_id else None,
        "batch_id": public_id("batch", row.batch_id) if row.batch_id else None,
        "endpoint_id": public_id("whe", row.endpoint_id) if row.endpoint_id else None,
        "url": row.url,
        "status": row.status,
        "last_status": row.last_status,
        "last_error": localized_text(row.last_error),
        "next_try_at": _seconds(row.due_at) if row.status == "pending" else None,
        "delivered_at": _seconds(row.delivered_at),
        "created_at": _seconds(row.created_at),
        "attempts": [
            {
                "n": item.n,
                "at": _seconds(item.at),
                "status": item.status,
                "error": localized_text(item.error),
                "seconds": round(item.seconds, 3) if item.seconds is not None else None,
            }
            for item in delivery.attempts
        ],
    }
