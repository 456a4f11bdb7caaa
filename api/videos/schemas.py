"""Bodies of video requests and answers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from api.generation.media.fields import collect_media, reject_unread_media
from api.generation.media.values import InputEntry
from api.http.fields import (
    MAX_COST_TEXT,
    RETRY_UNCLEAR_TEXT,
    VIDEO_MODEL,
    MaxCost,
    Metadata,
    NonEmptyText,
    Text,
    Webhook,
    example,
    lowercase_or_none,
)
from api.jobs.schemas import JOB_EXAMPLE, AcceptedJob

MAX_VIDEOS = 4
# Stands for the prompt of a request that has none because it makes the final of a draft.
PROMPT_OF_DRAFT = "(as the draft)"
_FORMS = "link, data URL, base64, file part, or an object with `url` (and `name`)"


class VideoGenerationRequest(BaseModel):
    """Body of `/v1/videos` and `/v1/videos/generations`: OpenAI's fields and those of other gateways."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [{"model": VIDEO_MODEL, "prompt": "waves roll ashore at dawn", "ratio": "16:9", "duration": 5}]
        },
    )

    prompt: NonEmptyText = Field(
        description="what happens (not with `draft_of`); may contain flags: `-ra 16:9`, `-re 1080p`, `-d 5`, and for "
        "omni models references: `@image_file_1`, `@video_file_1`, `@audio_file_1`, `@image1`, `@1`, `@<file name>`"
    )
    model: Text | None = Field(None, max_length=200, description=f"id of `GET /v1/models`; default `{VIDEO_MODEL}`")
    ratio: Text | None = Field(None, description="`16:9`, `21:9`, `4:3`, `1:1`, `3:4` or `9:16`")
    aspect_ratio: Text | None = Field(None, description="another name for `ratio`")
    duration: float | Text | None = Field(
        None, description="seconds, as the model offers; default its first; -1 = the model decides, where it can"
    )
    seconds: float | Text | None = Field(None, description="another name for `duration` (OpenAI's)")
    resolution: Text | None = Field(None, description="`480p`, `720p`, `1080p` or `4k`, as the model offers")
    size: Text | None = Field(
        None,
        description="`WxH` (mapped to the nearest ratio and resolution), a ratio, a resolution, `auto`, or an object "
        "with `width` and `height`",
    )
    width: int | None = Field(None, ge=64, le=16384, description="with `height`: the same as `size`")
    height: int | None = Field(None, ge=64, le=16384)
    fps: int | None = Field(None, ge=1, le=60, description="sent to upstream unchanged; default 24")
    seed: int | None = Field(None, ge=0, le=2**32 - 1, description="random seed; default or -1: random")
    n: int | None = Field(None, ge=1, le=MAX_VIDEOS, description="number of videos, one job each; default 1")
    negative_prompt: Text | None = Field(None, description="not supported for videos")
    image: Any = Field(None, description=f"an image or a list: {_FORMS}. One = first frame, two = first and last frame")
    images: Any = Field(None, description="the same as `image` (`input_reference`, `image_file_1`, ... too); all count")
    first_frame_image: Any = Field(None, description="the first frame (also `first_frame`, `start_image`, ...)")
    end_frame_image: Any = Field(
        None, description="the last frame (also `last_frame`, `image_tail`, ...); needs a first one"
    )
    reference_images: Any = Field(None, description="(omni models) images that are references, not frames")
    video: Any = Field(None, description=f"(omni models) a reference video, or a list: {_FORMS}")
    videos: Any = Field(None, description="the same as `video`")
    audio: Any = Field(None, description=f"(omni models) reference audio, or a list: {_FORMS}")
    audios: Any = Field(None, description="the same as `audio`")
    function_mode: Literal["first_last_frames", "omni_reference"] | None = Field(
        None, description="role of images; default: by their number and by references in the prompt"
    )
    generate_audio: bool | None = Field(None, description="with sound; default true for models that make it")
    return_last_frame: bool | None = Field(None, description="store the last frame as an image too")
    draft: bool | None = Field(None, description="a cheap draft, of which `draft_of` makes the final video")
    draft_of: Text | None = Field(None, max_length=80, description="id of a finished draft: make its final video")
    task_type: Literal["auto", "reference", "edit", "extend"] | None = Field(
        None, description="what to do with the videos of the request; default `auto`"
    )
    service_tier: Literal["auto", "default", "flex"] | None = Field(None, description="`flex` = slower, at half price")
    priority: int | None = Field(None, ge=0, le=9, description="order among your tasks that wait upstream, 9 = first")
    web_search: bool | None = Field(None, description="let the model look things up; text alone")
    camera_fixed: bool | None = Field(None, description="keep the camera still")
    output_format: Annotated[Literal["mp4", "mov"] | None, BeforeValidator(lowercase_or_none)] = Field(
        None, description="container of the file; default `mp4`"
    )
    quality: Text | None = Field(None, description="not supported: send `resolution`")
    sample_strength: float | None = Field(None, description="not supported for videos")
    response_format: Literal["url", "b64_json"] | None = Field(None, description="default `url`")
    run_async: bool | None = Field(None, alias="async", description="true = answer 202 with the job at once")
    webhook: Webhook | None = Field(None, max_length=2000, description="https address called when the job has ended")
    max_cost: MaxCost | None = Field(None, description=MAX_COST_TEXT)
    retry_unclear: bool | None = Field(None, description=RETRY_UNCLEAR_TEXT)
    metadata: Metadata | None = Field(None, description="up to 16 strings kept with the job")
    user: Text | None = Field(None, max_length=200, description="kept with the job")
    stream: bool | None = Field(None, description="not supported: follow `/v1/jobs/{id}/events`, or use chat")
    media_inputs: SkipJsonSchema[list[InputEntry]] = Field([], exclude=True, description="all images, videos, audio")

    @model_validator(mode="before")
    @classmethod
    def _collect_media(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        found = collect_media(fields, "videos", cls.model_fields)
        # A final takes its text from the draft.
        return {"prompt": PROMPT_OF_DRAFT, **found} if fields.get("draft_of") else found


# Input fields: never part of a fingerprint or an error, because they may hold megabytes.
INPUT_FIELDS = frozenset(
    {
        *("image", "images", "first_frame_image", "end_frame_image", "reference_images", "video", "videos"),
        *("audio", "audios", "media_inputs"),
    }
)


class RemixRequest(BaseModel):
    """Body of `/v1/videos/{id}/remix`."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"prompt": "the same, but at night"}]})

    prompt: NonEmptyText

    @model_validator(mode="before")
    @classmethod
    def _reject_media(cls, fields: Any) -> Any:
        if isinstance(fields, dict):
            message = "a remix uses the inputs of the earlier video. Send other ones to /v1/videos."
            reject_unread_media(fields, cls.model_fields, message)
        return fields


class GeneratedVideo(BaseModel):
    """One video of an answer: a link or its bytes."""

    url: str | None = Field(None, description="a link to this server; readable without a key")
    b64_json: str | None = Field(None, description="the bytes, with `response_format: b64_json`")
    revised_prompt: str | None


class VideosAnswer(BaseModel):
    """The answer of a call that waits."""

    model_config = example(
        created=1763000000,
        data=[{"url": "http://127.0.0.1:8000/v1/files/file_.../content", "revised_prompt": None}],
    )

    created: int
    data: list[GeneratedVideo]
    adjusted: dict[str, str] | None = Field(None, description="as in the job's `input`")


class AcceptedVideo(AcceptedJob):
    """The answer to `respond-async`: the job, and its id for `GET /v1/videos/{id}`."""

    model_config = example(**JOB_EXAMPLE, request_id="video_0197f0c2a3b47c1d8e9f0a1b2c3d4e5f")

    request_id: str


class VideoError(BaseModel):
    """Why a video failed."""

    code: str
    message: str


VIDEO_EXAMPLE: dict[str, Any] = {
    "id": "video_0197f0c2a3b47c1d8e9f0a1b2c3d4e5f",
    "object": "video",
    "model": "sora-2",
    "status": "in_progress",
    "progress": 42,
    "created_at": 1763000000,
    "completed_at": None,
    "expires_at": None,
    "seconds": "5",
    "size": "1280x720",
    "width": 1280,
    "height": 704,
    "prompt": "waves roll ashore at dawn",
    "error": None,
    "remixed_from_video_id": None,
    "url": None,
    "thumbnail_url": None,
    "metadata": {},
    "queue_position": None,
    "eta_seconds": 90,
    "adjusted": {"seconds": "4"},
}


class Video(BaseModel):
    """OpenAI's Video object, with fields that clients of other gateways read."""

    model_config = example(**VIDEO_EXAMPLE)

    id: str
    object: Literal["video"]
    model: str = Field(description="as requested")
    status: Literal["queued", "in_progress", "completed", "failed"] = Field(
        description="a cancelled or expired video is `failed`; `error.code` tells the difference"
    )
    progress: int = Field(ge=0, le=100, description="never decreases; 100 only when completed")
    created_at: int
    completed_at: int | None
    expires_at: int | None = Field(description="when the files are removed, if the operator set a retention")
    seconds: str = Field(description="actual duration")
    size: Literal["1280x720", "720x1280", "1792x1024", "1024x1792"] = Field(
        description="OpenAI's name of the ordered size, the nearest one; `width` and `height` are the pixels"
    )
    width: int = Field(description="actual width in pixels; the expected one until the video is completed")
    height: int = Field(description="actual height in pixels")
    prompt: str
    error: VideoError | None
    remixed_from_video_id: str | None
    url: str | None = Field(description="a link to the finished video; readable without a key")
    thumbnail_url: str | None
    metadata: dict[str, str]
    queue_position: int | None
    eta_seconds: int | None
    adjusted: dict[str, str] | None = Field(
        description="what was adjusted: requested values by field, and changes of images by the field that carried them"
    )


class VideoList(BaseModel):
    """One page of videos."""

    object: Literal["list"]
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VideoDeleted(BaseModel):
    """The answer of a deletion."""

    id: str
    object: Literal["video.deleted"]
    deleted: Literal[True]


class VideoTask(Video):
    """The answer of `POST /v1/video/generations`."""

    model_config = example(**VIDEO_EXAMPLE, task_id=VIDEO_EXAMPLE["id"])

    task_id: str


class VideoTaskState(BaseModel):
    """The answer of `GET /v1/video/generations/{task_id}`."""

    task_id: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int
    url: str | None
    format: str
    metadata: dict[str, Any]
    error: VideoError | None
