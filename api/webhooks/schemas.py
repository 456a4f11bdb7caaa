"""Bodies of the webhook routes, and rows -> the JSON that callers read. Answer models are for the OpenAPI document."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from api.http.fields import Text
from api.jobs.schemas import JobError, JobFile
from worker.core.ids import public_id
from worker.core.webhook_policy import FINAL_EVENTS, WebhookEvent, check_url
from worker.db.engine import Row
from worker.db.webhooks.delivery_log import Delivery

Scope = Literal["user", "key", "tokens"]
DeliveryStatus = Literal["pending", "sending", "delivered", "failed"]

_EVENTS = "which events; default the three ends `job.completed`, `job.failed`, `job.cancelled`"
_URL = "https address that takes POST requests"


def _validated_url(url: str | None) -> str | None:
    if url is not None:
        check_url(url)
    return url


class WebhookSecret(BaseModel):
    """What signs the webhooks that jobs name themselves."""

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
    description: Text = Field("", max_length=500, description="for you")
    events: list[WebhookEvent] | None = Field(None, min_length=1, max_length=20, description=_EVENTS)
    scope: Scope | None = Field(
        None,
        description="whose jobs: `user` = all of yours (default), `key` = only those made with this API key; with "
        "session ids always `tokens`: jobs of exactly these session ids",
    )

    _check_url = field_validator("url")(_validated_url)

    def selected_events(self) -> list[str]:
        """The events to listen for, each once."""
        return list(dict.fromkeys(self.events or FINAL_EVENTS))


class EndpointChange(BaseModel):
    """What changes; fields that are absent or null stay."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"disabled": False}]})

    url: Text | None = Field(None, description=_URL, min_length=1)
    description: Text | None = Field(None, max_length=500)
    events: list[WebhookEvent] | None = Field(None, min_length=1, max_length=20)
    disabled: bool | None = Field(None, description="true = pause it; false = listen again, with a clean slate")

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
    disabled_reason: str | None = Field(description="who or what disabled it")
    failing_since: int | None = Field(description="nothing was taken since; null when the last delivery was")
    previous_secret_expires_at: int | None = Field(description="until then two secrets sign")
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
    """It is gone."""

    id: str
    object: Literal["webhook.endpoint"]
    deleted: Literal[True]


class Attempt(BaseModel):
    """One try of a delivery."""

    n: int
    at: int
    status: int | None = Field(description="HTTP status; null without an answer")
    error: str | None = Field(description="null when it was taken, or when the outcome is not known (yet)")
    seconds: float | None


class DeliveryObject(BaseModel):
    """One event on its way to one receiver."""

    id: str = Field(description="what the receiver sees as `webhook-id`")
    object: Literal["webhook.delivery"]
    event: str
    job_id: str | None
    endpoint_id: str | None = Field(description="null: it goes to the `webhook` of the job")
    url: str
    status: DeliveryStatus = Field(description="`failed` = given up")
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


class EventJob(BaseModel):
    """The job an event is about: part of the job object. Links, never bytes."""

    id: str
    object: Literal["job"]
    kind: Literal["image", "video", "chat"]
    status: Literal["in_progress", "completed", "failed", "cancelled"]
    model: str
    parent: str | None = Field(description="the conversation that started it, if one did")
    created_at: int
    started_at: int | None
    completed_at: int | None
    progress: int
    output: list[JobFile] | None
    error: JobError | None
    metadata: dict[str, str] = Field(description="`{}` beside `metadata_omitted: true` when it would be too large")
    urls: dict[str, str]


class EventBody(BaseModel):
    """What your receiver gets. Verify the signature over the raw body before you parse it."""

    id: str
    object: Literal["event"]
    type: WebhookEvent
    timestamp: datetime = Field(description="when it happened, ISO 8601")
    created_at: int = Field(description="the same in unix seconds")
    data: EventJob


def _seconds(moment: datetime | None) -> int | None:
    return int(moment.timestamp()) if moment else None


def endpoint_object(row: Row[Any], *, secret: str | None = None) -> dict[str, Any]:
    """An endpoint as its owner sees it; with its secret when that is new."""
    scope = "tokens" if row.user_id is None else "user" if row.api_key_id is None else "key"
    shown = {
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
    return shown if secret is None else {**shown, "secret": secret}


def delivery_object(delivery: Delivery) -> dict[str, Any]:
    """A delivery with its tries."""
    row = delivery.row
    return {
        "id": public_id("msg", row.id),
        "object": "webhook.delivery",
        "event": row.event,
        "job_id": public_id("job", row.job_id) if row.job_id else None,
        "endpoint_id": public_id("whe", row.endpoint_id) if row.endpoint_id else None,
        "url": row.url,
        "status": row.status,
        "last_status": row.last_status,
        "last_error": row.last_error,
        "next_try_at": _seconds(row.due_at) if row.status == "pending" else None,
        "delivered_at": _seconds(row.delivered_at),
        "created_at": _seconds(row.created_at),
        "attempts": [
            {
                "n": item.n,
                "at": _seconds(item.at),
                "status": item.status,
                "error": item.error,
                "seconds": round(item.seconds, 3) if item.seconds is not None else None,
            }
            for item in delivery.attempts
        ],
    }
