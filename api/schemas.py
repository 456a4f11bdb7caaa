"""Bodies of requests and answers.

Unknown request fields are ignored (clients add many); a known field with a bad value is a 400 with `param`. The answer
models are for the OpenAPI document and the tests: `render.py` writes the JSON without them.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from worker.core.webhook_policy import check_url

MAX_PICTURES = 32


def _storable(value: str) -> str:
    if "\x00" in value:
        raise ValueError("must not contain a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain half of a surrogate pair") from None
    return value


# Text that Postgres can store and JSON can carry.
Text = Annotated[str, AfterValidator(_storable)]


def _small_metadata(value: dict[str, str]) -> dict[str, str]:
    if len(value) > 16 or any(len(k) > 64 or len(v) > 512 for k, v in value.items()):
        raise ValueError("at most 16 pairs, keys up to 64 and values up to 512 characters")
    return value


def _http_webhook(value: str) -> str:
    if value:
        check_url(value)
    return value


Metadata = Annotated[dict[Text, Text], AfterValidator(_small_metadata)]
Webhook = Annotated[Text, AfterValidator(_http_webhook)]
Filled = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(_storable)]


def _word(value: Any) -> Any:
    """One of a few words, in any case; an empty one was not said."""
    return (value.strip().lower() or None) if isinstance(value, str) else value


_Quality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]


class ImageGenerationRequest(BaseModel):
    """Bodies of `/v1/images/...`: OpenAI's fields, and ours for what the models can do beyond them."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {"model": "jimeng-4.0", "prompt": "a red paper boat on a calm lake", "size": "2048x2048", "n": 1}
            ]
        },
    )

    prompt: Filled = Field(description="what to draw; may hold flags: `-re 2k`, `-ra 16:9`")
    model: Text | None = Field(None, description="public id of `GET /v1/models`; default `jimeng-4.0`", max_length=200)
    n: int | None = Field(None, ge=1, le=MAX_PICTURES, description="pictures wanted; absent = what the model makes (4)")
    size: Text | None = Field(None, description="`WxH` or `auto`; mapped to the nearest size the model draws")
    width: int | None = Field(None, ge=64, le=16384, description="with `height`: the same as `size`")
    height: int | None = Field(None, ge=64, le=16384)
    ratio: Text | None = Field(None, description="`1:1`, `4:3`, `3:4`, `16:9`, `9:16`, `3:2`, `2:3` or `21:9`")
    aspect_ratio: Text | None = Field(None, description="another name for `ratio`")
    resolution: Text | None = Field(None, description="`1k`, `1.5k`, `2k` or `4k`, as the model offers")
    negative_prompt: Text | None = Field(None, description="what should not be in the picture")
    sample_strength: float | None = Field(None, ge=0, le=1, description="0..1, default 0.5")
    seed: int | None = Field(None, ge=0, le=2**32 - 1, description="same seed, same start; default random")
    quality: Annotated[_Quality | None, BeforeValidator(_word)] = Field(
        None,
        description="chooses the resolution where nothing else names one: `low` = the model's least, `high`, `hd` and "
        "above = its most, any other = its usual",
    )
    response_format: Annotated[Literal["url", "b64_json"] | None, BeforeValidator(_word)] = Field(
        None, description="default `url`; `b64_json` for models named `gpt-image-...` or `chatgpt-image-...`"
    )
    output_format: Annotated[Text | None, BeforeValidator(_word)] = Field(
        None,
        description="`png`, `jpeg` or `webp`: the pictures are stored so; absent = as upstream draws them",
        json_schema_extra={"enum": ["png", "jpeg", "webp", None]},
    )
    output_compression: int | None = Field(
        None, ge=0, le=100, description="quality of `jpeg` and `webp`, 100 = best; default 95"
    )
    background: Annotated[Literal["auto", "opaque", "transparent"] | None, BeforeValidator(_word)] = Field(
        None, description="`auto` or `opaque`; no model draws `transparent`"
    )
    run_async: bool | None = Field(None, alias="async", description="true = answer 202 with the job at once")
    webhook: Webhook | None = Field(None, max_length=2000, description="https address told when the job has ended")
    metadata: Metadata | None = Field(None, description="up to 16 strings kept with the job")
    user: Text | None = Field(None, max_length=200, description="kept with the job")
    safety_identifier: Text | None = Field(None, max_length=200, description="kept with the job, and told back")
    stream: bool | None = Field(None, description="true = server-sent events, one per picture as soon as it is there")
    partial_images: int | None = Field(
        None, ge=0, le=3, exclude=True, description="checked only: no model shows unfinished pictures, so none are sent"
    )
    moderation: Annotated[Literal["low", "auto"] | None, BeforeValidator(_word)] = Field(
        None, exclude=True, description="checked only: upstream moderates as it does"
    )
    style: Annotated[Literal["vivid", "natural"] | None, BeforeValidator(_word)] = Field(
        None, exclude=True, description="checked only: say the style in `prompt`"
    )
    input_fidelity: Annotated[Literal["high", "low"] | None, BeforeValidator(_word)] = Field(
        None, exclude=True, description="checked only: `sample_strength` says how much of the picture stays"
    )
    image: Any = Field(
        None,
        description="a picture to work from, or a list: link, data URL, base64, or "
        '`{"type": "image_url", "image_url": {"url": "..."}}`',
    )
    images: Any = Field(None, description="the same as `image`; both together are joined")
    mask: Any = Field(None, description="no model takes one: 400")
    markup: Any = Field(None, description="no model takes one: 400")


class Picture(BaseModel):
    """One picture of an answer: a link, or its bytes."""

    url: str | None = Field(None, description="a link to this server; readable without a key")
    b64_json: str | None = Field(None, description="the bytes, with `response_format: b64_json`")
    revised_prompt: str | None


def example(**fields: Any) -> ConfigDict:
    """The `model_config` of a body with this example in the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


class ImagesAnswer(BaseModel):
    """OpenAI's ImagesResponse."""

    model_config = example(
        created=1763000000,
        data=[{"url": "http://127.0.0.1:8000/v1/files/file_.../content", "revised_prompt": None}],
        size="2048x2048",
        output_format="jpeg",
    )

    created: int
    data: list[Picture]
    size: str = Field(description="pixels of the first picture, `WxH`")
    output_format: str = Field(description="`png`, `jpeg`, `webp` or `gif`, as the bytes are")
    quality: str | None = Field(None, description="as asked, where it was `low`, `medium`, `high`, `xhigh` or `max`")
    background: str | None = Field(None, description="`opaque` where that was asked")
    safety_identifier: str | None = Field(None, description="as asked, or `user`")


class JobQueue(BaseModel):
    """Where a job stands in line."""

    position: int | None = Field(description="place in our own queue, 1 = next; null once it has left it")
    upstream_position: int | None
    eta_seconds: int | None = Field(description="seconds until the result, as `eta.p50`; null once it has ended")


class JobEta(BaseModel):
    """Seconds from now until the result, learned from finished jobs of the same model and size."""

    p50: int = Field(description="what to expect")
    p90: int = Field(description="what to be prepared for")


class JobFile(BaseModel):
    """One stored result."""

    url: str
    mime: str
    width: int | None
    height: int | None
    bytes: int
    seconds: float | None
    thumbnail_url: str | None = Field(None, description="(videos) a JPEG of the first frame")
    spritesheet_url: str | None = Field(None, description="(videos) a JPEG of small frames in rows")


class JobTalk(BaseModel):
    """What a conversation with the agent gave."""

    text: str = Field(description="what the agent said, so far")
    jobs: list[str] = Field(description="the pictures and videos it started, each a job of its own")


class JobError(BaseModel):
    """Why a job failed; the same four keys as in an error answer."""

    message: str
    type: str
    param: str | None
    code: str


class JobUrls(BaseModel):
    """Where to ask about the job."""

    get: str
    events: str
    cancel: str
    retry: str
    timeline: str


class JobUsage(BaseModel):
    """What a job made and what that costs upstream."""

    images: int | None = Field(None, description="(pictures) once completed")
    videos: int | None = Field(None, description="(videos) once completed")
    seconds: int | None = Field(None, description="(videos) once completed")
    credits_estimated: int | None = Field(description="upstream credits it is expected to cost; null = not known")
    credits_charged: int | None = Field(
        description="what it did cost, as far as known: at its end the expected, later as upstream tells; 0 = surely "
        "nothing; null = not known (yet)"
    )


JOB_EXAMPLE: dict[str, Any] = {
    "id": "job_0197f0c2a3b47c1d8e9f0a1b2c3d4e5f",
    "object": "job",
    "kind": "image",
    "type": "image",
    "status": "in_progress",
    "model": "jimeng-4.0",
    "group": "job_0197f0c2a3b47c1d8e9f0a1b2c3d4e5f",
    "parent": None,
    "created_at": 1763000000,
    "queued_at": 1763000000,
    "started_at": 1763000001,
    "completed_at": None,
    "expires_at": None,
    "expired_at": None,
    "pinned": False,
    "progress": 42,
    "queue": {"position": None, "upstream_position": 3, "eta_seconds": 20},
    "eta": {"p50": 20, "p90": 45},
    "input": {"prompt": "a red paper boat", "size": "2048x2048", "n": 1},
    "output": None,
    "error": None,
    "metadata": {},
    "favourite": False,
    "cancelling": False,
    "urls": {
        "get": "http://127.0.0.1:8000/v1/jobs/job_...",
        "events": "http://127.0.0.1:8000/v1/jobs/job_.../events",
        "cancel": "http://127.0.0.1:8000/v1/jobs/job_.../cancel",
        "retry": "http://127.0.0.1:8000/v1/jobs/job_.../retry",
        "timeline": "http://127.0.0.1:8000/v1/jobs/job_.../timeline",
    },
    "usage": {"credits_estimated": 2, "credits_charged": None},
}


class Job(BaseModel):
    """A job. Nullable keys are always present; times are unix seconds."""

    model_config = example(**JOB_EXAMPLE)

    id: str
    object: Literal["job"]
    kind: Literal["image", "video", "chat"]
    type: Literal["image", "video", "chat"] = Field(description="the same as `kind`")
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled"]
    model: str
    group: str = Field(description="the first job of the request that made it")
    parent: str | None = Field(description="the conversation that started it, if one did")
    created_at: int
    queued_at: int
    started_at: int | None
    completed_at: int | None
    expires_at: int | None = Field(description="when the results are removed; null = never")
    expired_at: int | None = Field(description="when they were removed: their links answer 410 `file_expired`")
    pinned: bool = Field(description="its results are kept for ever")
    progress: int = Field(ge=0, le=100, description="never falls; 100 only when completed")
    queue: JobQueue
    eta: JobEta | None
    input: dict[str, Any]
    output: list[JobFile] | JobTalk | None
    error: JobError | None
    metadata: dict[str, str]
    favourite: bool = Field(description="marked by its owner (`PUT /v1/jobs/{id}/favourite`)")
    cancelling: bool = Field(description="cancelling was asked for and is not carried out yet")
    urls: JobUrls
    usage: JobUsage | None = Field(description="null: nothing was made and no price is known")


class JobList(BaseModel):
    """One page of jobs."""

    object: Literal["list"]
    data: list[Job]
    first_id: str | None
    last_id: str | None
    has_more: bool
    missing: list[str] | None = Field(None, description="with `ids`: those of them that are no jobs of yours")


class DeletedJob(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["job.deleted"]
    deleted: Literal[True]


class RetryRequest(BaseModel):
    """The body of `POST /v1/jobs/{id}/retry`; may be left out."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"seed": "new"}]})

    seed: Literal["same", "new"] | Annotated[int, Field(ge=0, le=2**32 - 1)] = Field(
        "same", description="`same` as before, `new` for another one, or the seed itself"
    )


class AcceptedJob(Job):
    """The answer to `respond-async`: the job, and all of them when the request made several."""

    jobs: list[Job] | None = None
