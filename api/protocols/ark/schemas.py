"""Bodies of the Ark-native endpoints, as the vendor's clients send them. They send absent fields as null."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.http.fields import Text, example
from worker.core.errors import DreameryError


class _VendorBody(BaseModel):
    """A body of the vendor's: fields that it does not have are refused, as upstream does."""

    model_config = ConfigDict(extra="allow")

    def reject_unknown(self) -> None:
        """Raise `unsupported_parameter` for a field that the vendor's interface does not have."""
        for name, value in (self.model_extra or {}).items():
            if value is not None:
                message = f"The parameter `{name[:60]}` is not supported here."
                raise DreameryError("unsupported_parameter", message, param=name[:60])


class Tool(BaseModel):
    """A tool that the model may use."""

    type: Literal["web_search"]


class SetOptions(BaseModel):
    """Options of a set of images."""

    max_images: int | None = Field(None, ge=1, le=15, description="at most so many images; default 15")


class OptimizePromptOptions(BaseModel):
    """How the model rewrites the prompt."""

    mode: Literal["standard", "fast"] | None = None
    thinking: Any = None


class ArkImageRequest(_VendorBody):
    """Body of `POST /api/v3/images/generations`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "dola-seedream-5-0-flash-260915", "prompt": "a red paper boat", "size": "1024x1024"}]
        },
    )

    model: Text = Field(max_length=200, description="an id of the vendor's or a name of `GET /v1/models`")
    prompt: Text | None = None
    image: Any = Field(None, description="a link or data URL, or a list of them")
    size: Any = Field(None, description="`1K` to `4K` (the model chooses the ratio) or `WxH`")
    seed: int | None = Field(None, ge=-1, le=2**31 - 1)
    guidance_scale: Any = Field(None, description="of retired models; refused")
    response_format: Literal["url", "b64_json"] | None = None
    output_format: Literal["png", "jpeg"] | None = None
    watermark: bool | None = Field(None, description="results never have a watermark; `true` is reported in `adjusted`")
    background: Literal["auto", "opaque", "transparent"] | None = None
    layer_decomposition: bool | None = None
    sequential_image_generation: Literal["auto", "disabled"] | None = None
    sequential_image_generation_options: SetOptions | None = None
    stream: bool | None = None
    tools: list[Tool] | None = None
    optimize_prompt: Any = Field(None, description="of retired models; refused")
    optimize_prompt_options: OptimizePromptOptions | None = None
    safety_identifier: Text | None = Field(None, max_length=64)


class ArkVideoRequest(_VendorBody):
    """Body of `POST /api/v3/contents/generations/tasks`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "dreamina-seedance-2-0-mini-260615",
                    "content": [{"type": "text", "text": "waves roll ashore at dawn"}],
                    "resolution": "480p",
                    "ratio": "16:9",
                    "duration": 5,
                }
            ]
        },
    )

    model: Text = Field(max_length=200, description="an id of the vendor's or a name of `GET /v1/models`")
    content: list[dict[str, Any]] = Field(
        min_length=1,
        max_length=100,
        description="typed items: `text`, `image_url`, `video_url`, `audio_url`, `draft_task`",
    )
    resolution: Text | None = None
    ratio: Text | None = None
    duration: int | None = Field(None, ge=-1, le=600, description="seconds; -1 = the model decides")
    frames: int | None = Field(None, description="refused: send `duration`")
    seed: int | None = Field(None, ge=-1, le=2**31 - 1)
    camera_fixed: bool | None = None
    watermark: bool | None = Field(None, description="results never have a watermark; `true` is reported in `adjusted`")
    generate_audio: bool | None = None
    return_last_frame: bool | None = None
    output_format: Text | None = None
    draft: bool | None = None
    omni_reference_task_type: Literal["auto", "reference", "edit", "extend"] | None = None
    tools: list[Tool] | None = None
    service_tier: Literal["default", "flex"] | None = None
    priority: int | None = Field(None, ge=0, le=9)
    execution_expires_after: int | None = Field(None, ge=3600, le=259_200, description="returned as it was sent")
    callback_url: Any = Field(None, description="refused: get the task, or use webhooks")
    safety_identifier: Text | None = Field(None, max_length=64)


class ArkImage(BaseModel):
    """One image of an answer."""

    url: str | None = None
    b64_json: str | None = None
    size: str
    output_format: str | None = None


class ArkImages(BaseModel):
    """The answer of an image call."""

    model_config = example(
        model="dola-seedream-5-0-flash-260915",
        created=1763000000,
        data=[{"url": "http://127.0.0.1:8000/v1/files/file_.../content", "size": "1024x1024", "output_format": "jpeg"}],
        usage={"generated_images": 1, "output_tokens": 4096, "total_tokens": 4096},
    )

    model: str
    created: int
    data: list[ArkImage]
    usage: dict[str, int]


class Nothing(BaseModel):
    """An empty object."""

    model_config = example()


class ArkTaskId(BaseModel):
    """A new task."""

    model_config = example(id="cgt-0197f0c2a3b47c1d8e9f0a1b2c3d4e5f")

    id: str
    safety_identifier: str | None = None


TASK_EXAMPLE: dict[str, Any] = {
    "id": "cgt-0197f0c2a3b47c1d8e9f0a1b2c3d4e5f",
    "model": "dreamina-seedance-2-0-mini-260615",
    "status": "succeeded",
    "created_at": 1763000000,
    "updated_at": 1763000100,
    "content": {"video_url": "http://127.0.0.1:8000/v1/files/file_.../content"},
    "usage": {"completion_tokens": 49005, "total_tokens": 49005},
    "resolution": "480p",
    "ratio": "16:9",
    "duration": 5,
    "framespersecond": 24,
}


class ArkTask(BaseModel):
    """A task. Keys that do not apply are absent."""

    model_config = ConfigDict(**example(**TASK_EXAMPLE), extra="allow")

    id: str
    model: str
    status: str = Field(description="`queued`, `running`, `succeeded`, `failed`, `cancelled` or `expired`")
    created_at: int
    updated_at: int


class ArkTaskList(BaseModel):
    """A page of tasks."""

    model_config = example(items=[TASK_EXAMPLE], total=1)

    items: list[ArkTask]
    total: int
