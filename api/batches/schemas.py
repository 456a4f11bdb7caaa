"""Bodies of `/v1/batches` and `/v1/files`: OpenAI's fields, and our own."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from api.generation.variants.request_matrix import RequestMatrix
from api.http.fields import IMAGE_MODEL, MaxCost, Metadata, Moment, Text, Webhook, lowercase_or_none

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
# Each line names its own endpoint.
MIXED = "*"
ENDPOINTS = (
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/images/compositions",
    "/v1/videos",
    "/v1/videos/generations",
    "/v1/chat/completions",
)

_FILE_EXAMPLE: dict[str, Any] = {
    "id": "file-0197f0c2a3b47c1d8e9f0a1b2c3d4e5f",
    "object": "file",
    "bytes": 1432,
    "created_at": 1763000000,
    "expires_at": None,
    "filename": "requests.jsonl",
    "purpose": "batch",
    "status": "processed",
    "status_details": None,
}


class FileUpload(BaseModel):
    """Form of `POST /v1/files`."""

    model_config = ConfigDict(extra="ignore", arbitrary_types_allowed=True)

    # No annotation of a type: a form's file part has none in JSON Schema.
    file: Any = Field(description="JSONL with one request per line, or CSV with one column per field; at most 100 MB")
    purpose: Text = Field(description="`batch`")
    expires_after: dict[str, Any] | None = Field(
        None, description='`{"anchor": "created_at", "seconds": 3600..2592000}`; default: kept until it is deleted'
    )


class StoredFile(BaseModel):
    """A file of batches."""

    model_config = ConfigDict(json_schema_extra={"examples": [_FILE_EXAMPLE]})

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"]
    status_details: str | None


class StoredFileList(BaseModel):
    """One page of files."""

    object: Literal["list"]
    data: list[StoredFile]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(BaseModel):
    """Response to a deletion."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


_Priority = Annotated[Literal["normal", "idle"], BeforeValidator(lowercase_or_none)]


class BatchCreate(RequestMatrix):
    """A batch: of an uploaded file (`input_file_id`), or of prompts, models and ratios."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "input_file_id": _FILE_EXAMPLE["id"],
                    "endpoint": "/v1/images/generations",
                    "completion_window": "24h",
                },
                {
                    "prompts": ["a {red|blue} paper boat"],
                    "variants": True,
                    "models": [IMAGE_MODEL],
                    "ratios": ["1:1", "16:9"],
                    "n": 1,
                    "max_cost": 0.5,
                },
            ]
        },
    )

    prompts: list[Text] = Field([], max_length=10_000, description="the requests themselves, without a file")
    input_file_id: Text | None = Field(None, max_length=60, description="a file of `POST /v1/files`")
    endpoint: Text | None = Field(
        None, max_length=60, description="the path of all lines; `*` or omitted = the `url` of each line"
    )
    format: Annotated[Literal["jsonl", "csv"] | None, BeforeValidator(lowercase_or_none)] = Field(
        None, description="of the file; default: by its name"
    )
    completion_window: Text = Field("24h", max_length=10, description="`24h`, or 1 hour to 30 days: `6h`, `7d`")
    metadata: Metadata | None = Field(None, description="of the batch; each line may have its own")
    output_expires_after: dict[str, Any] | None = Field(None, description="as `expires_after` of a file")
    dry_run: bool = Field(False, description="answer with the number of requests and their price; nothing is accepted")
    max_cost: MaxCost | None = Field(None, description="the most money that the batch may cost, or it is refused")
    max_credits: int | None = Field(None, ge=0, le=10**9, description="the most credits that the batch may cost")
    priority: _Priority = Field("normal", description="`idle` = run only while accounts are idle")
    not_before: Moment | None = Field(None, description="no line begins earlier: ISO 8601 with zone, or unix seconds")
    expires_at: Moment | None = Field(None, description="the end of the batch; default: after the `completion_window`")
    webhook: Webhook | None = Field(None, description="gets one event when the batch ends; see docs/webhooks.md")


class BatchErrorItem(BaseModel):
    """Why a line, or the whole batch, was refused."""

    code: str
    message: str
    param: str | None
    line: int | None = Field(description="number of the line in the file, from 1; null = the whole batch")
    custom_id: str | None


class BatchErrors(BaseModel):
    """The errors of a refused batch."""

    object: Literal["list"]
    data: list[BatchErrorItem] = Field(description="the first ones")
    total: int


class RequestCounts(BaseModel):
    """Lines of a batch."""

    total: int
    completed: int
    failed: int


class Money(BaseModel):
    """An amount in one currency."""

    currency: str
    amount: float


class ModelPrice(BaseModel):
    """What the requests of one model cost."""

    model: str
    requests: int
    jobs: int
    credits: int | None
    currency: str | None
    cost: float | None


class BatchPrice(BaseModel):
    """What a batch may cost in total."""

    requests: int
    jobs: int
    credits: int = Field(description="upstream credits, as far as prices are known")
    money: list[Money]
    known: bool = Field(description="false = the price of some request is not known, and counts as 0")
    models: list[ModelPrice]


class Batch(BaseModel):
    """A batch in OpenAI's format. `paused`, `priority`, `price` and the fields after them are ours."""

    id: str
    object: Literal["batch"]
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str]
    paused: bool
    priority: Literal["normal", "idle"]
    not_before: int | None
    at_work: int = Field(description="lines that accounts work on now")
    checked: int = Field(description="lines that the validation has read")
    price: BatchPrice | None = Field(description="the price when it was accepted; null while it is validated")
    costs: list[dict[str, Any]] | None = Field(
        None, description="(one batch) expected and charged credits and money so far, by currency"
    )


class BatchList(BaseModel):
    """One page of batches, newest first."""

    object: Literal["list"]
    data: list[Batch]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BatchEstimate(BaseModel):
    """The answer to `dry_run`: what the batch would cost, and why it would be refused."""

    object: Literal["batch.estimate"]
    valid: bool = Field(description="whether the batch would be accepted now")
    price: BatchPrice | None
    errors: BatchErrors | None
