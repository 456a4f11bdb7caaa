"""Bodies of `/v1/chat/completions` and helpers to read messages.

Unknown fields and OpenAI's sampling fields are ignored. A known field with an invalid value is a 400 with `param`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic.config import JsonDict
from pydantic.json_schema import SkipJsonSchema

from api.generation.media.fields import split_media
from api.http.fields import IMAGE_MODEL, MAX_COST_TEXT, MAX_IMAGES, MaxCost, Text, example, lowercase_or_none

_MAX_MESSAGES = 5000
_EXAMPLE: JsonDict = {
    "model": IMAGE_MODEL,
    "messages": [{"role": "user", "content": "a red paper boat on a calm lake -ra 16:9"}],
    "stream": True,
}


class ChatMessage(BaseModel):
    """One message. `content` is a text, or parts: `text` and `image_url`."""

    model_config = ConfigDict(extra="ignore")

    role: Text = Field(max_length=40, description="`user`, `assistant`, `system`, `developer` or `tool`")
    content: str | list[Any] | None = None
    images: Any = Field(None, description="pictures beside the content, as our answers have them")
    media_fields: SkipJsonSchema[dict[str, Any]] = Field({}, exclude=True, description="files beside the content")

    @model_validator(mode="before")
    @classmethod
    def _collect_media(cls, fields: Any) -> Any:
        if not isinstance(fields, dict) or fields.get("role") != "user":
            return fields
        rest, media = split_media(fields, cls.model_fields)
        return {**rest, "media_fields": media}


class StreamOptions(BaseModel):
    """How a stream ends."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool | None = Field(None, description="true = a last chunk with `usage`")


class ConversationChoice(BaseModel):
    """The conversation that a request continues, and what becomes of its newest turn."""

    model_config = ConfigDict(extra="forbid")

    id: Text = Field(max_length=60, description="`conv_...`, or `new`")
    replaces: Text | None = Field(
        None, max_length=60, description="the newest turn (`job_...`): this request stands in its place"
    )
    continues: Text | None = Field(
        None, max_length=60, description="the newest turn (`job_...`), cut off: this answer continues its answer"
    )


class ChatRequest(BaseModel):
    """A chat with an image or video model, or with the agent."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [_EXAMPLE]})

    messages: list[ChatMessage] = Field(
        min_length=1,
        max_length=_MAX_MESSAGES,
        description="the last user message is the prompt; its images are the references",
    )
    model: Text | None = Field(
        None,
        max_length=200,
        description=f"public id of `GET /v1/models`, with optional suffixes: `{IMAGE_MODEL}:2k`, `:16:9`, `:1024x1024`",
    )
    stream: bool | None = Field(None, description="true = chunks: progress as `reasoning_content`, then the results")
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=MAX_IMAGES, description="number of images; default: those of one job (4)")
    seed: int | None = Field(None, ge=0, le=2**32 - 1, description="random seed; default or -1: random")
    user: Text | None = Field(None, max_length=200, description="kept with the job")
    metadata: dict[Text, Text] | None = Field(None, description="up to 16 strings kept with the job")
    webhook: Text | None = Field(None, max_length=2000, description="https address called when the job has ended")
    max_cost: MaxCost | None = Field(None, description=MAX_COST_TEXT)
    run_async: bool | None = Field(None, alias="async", description="true = answer 202 with the job at once")
    size: Text | None = Field(None, description="`WxH`, a ratio, a resolution, or `auto`")
    width: int | None = Field(None, ge=64, le=16384, description="with `height`: the same as `size`")
    height: int | None = Field(None, ge=64, le=16384)
    ratio: Text | None = Field(None, description="for example `16:9`")
    aspect_ratio: Text | None = Field(None, description="another name for `ratio`")
    resolution: Text | None = Field(None, description="for example `2k`, for videos `720p`")
    negative_prompt: Text | None = Field(None, description="images: what to leave out")
    quality: Text | None = Field(None, description="images: selects the resolution when no other field does")
    sample_strength: float | None = Field(None, ge=0, le=1, description="images: 0..1, default 0.5")
    duration: float | Text | None = Field(None, description="videos: seconds")
    seconds: float | Text | None = Field(None, description="another name for `duration` (OpenAI's)")
    fps: int | None = Field(None, ge=1, le=60, description="videos: sent to upstream unchanged; default 24")
    background: Text | None = Field(None, description="images: `auto`, `opaque` or `transparent`")
    series: bool | None = Field(None, description="images: one set of `n` different pictures")
    layers: bool | None = Field(None, description="images: take one picture apart into layers")
    generate_audio: bool | None = Field(None, description="videos: with sound")
    return_last_frame: bool | None = Field(None, description="videos: store the last frame too")
    draft: bool | None = Field(None, description="videos: a cheap draft")
    task_type: Text | None = Field(None, description="videos: `auto`, `reference`, `edit` or `extend`")
    priority: int | None = Field(None, ge=0, le=9, description="videos: order among your tasks that wait upstream")
    camera_fixed: bool | None = Field(None, description="videos: keep the camera still")
    web_search: bool | None = Field(None, description="let the model look things up")
    output_format: Text | None = Field(None, description="images: `png`, `jpeg` or `webp`; videos: `mp4` or `mov`")
    output_compression: int | None = Field(None, ge=0, le=100, description="images: 0..100 for `jpeg` and `webp`")
    service_tier: Text | None = Field(None, description="videos: `flex` = slower, at half price")
    max_tokens: int | None = Field(None, description="ignored, but 16 or less marks a connection test")
    max_completion_tokens: int | None = Field(None, description="the same")
    temperature: Any = Field(None, description="ignored, but a low one may mark a background call")
    response_format: dict[str, Any] | None = Field(
        None, description="only `text`; image and video models answer JSON types with a 400"
    )
    tools: list[Any] | None = Field(None, description="ignored by image and video models, which call no tools")
    tool_choice: Any = Field(None, description="`auto` or `none`; image and video models answer others with a 400")
    functions: Any = Field(None, description="older name of `tools`")
    function_call: Any = Field(None, description="older name of `tool_choice`")
    dreamery_job: Annotated[Literal["always", "never"] | None, BeforeValidator(lowercase_or_none)] = Field(
        None,
        description=(
            "`always` = start a job even if the chat looks like a background call of a front end; `never` = answer "
            "with text and start none; default: decide. The header `X-Dreamery-Job` means the same"
        ),
    )
    dreamery_edit: bool | int | str | None = Field(
        None,
        description=(
            "which earlier picture the message changes: true or `last`, its number, or false or `none` for "
            "a new picture; default: decide from the message. The header `X-Dreamery-Edit` means the same"
        ),
    )
    conversation: ConversationChoice | None = Field(
        None,
        description=(
            "a conversation that the platform keeps: send new messages only, and `conv_...` (or an object with `id`) "
            "of `GET /v1/conversations`, or `new` to begin one; the answer names it in `X-Conversation-Id`"
        ),
    )
    media_fields: SkipJsonSchema[dict[str, Any]] = Field({}, exclude=True, description="files beside the messages")

    @field_validator("conversation", mode="before")
    @classmethod
    def _from_id(cls, value: Any) -> Any:
        return {"id": value} if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _collect_media(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        known = {info.alias or name for name, info in cls.model_fields.items()}
        rest, media = split_media(fields, known)
        return {**rest, "media_fields": media}


class ChatImageUrl(BaseModel):
    """A link."""

    url: str


class ChatImage(BaseModel):
    """An image besides the text, for clients that read no Markdown."""

    type: Literal["image_url"]
    image_url: ChatImageUrl


class ChatAnswerMessage(BaseModel):
    """The answer: Markdown images, or a video element and its link."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning_content: str | None = Field(None, description="the history of the job")
    images: list[ChatImage] | None = None


class ChatChoice(BaseModel):
    """The only choice."""

    index: int
    message: ChatAnswerMessage
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


class ChatUsage(BaseModel):
    """Token counts, always 0."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatAnswer(BaseModel):
    """OpenAI's chat.completion."""

    model_config = example(
        id="chatcmpl-0197f0c2a3b47c1d8e9f0a1b2c3d4e5f",
        object="chat.completion",
        created=1763000000,
        model=IMAGE_MODEL,
        choices=[
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "![image](http://127.0.0.1:8000/v1/files/file_.../content)",
                    "refusal": None,
                },
                "finish_reason": "stop",
            }
        ],
        usage={"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    )

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage


def text_of(message: ChatMessage) -> str:
    """Return the text of a message, its text parts joined by newlines."""
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    texts = [part if isinstance(part, str) else text_of_part(part) for part in message.content]
    return "\n".join(text for text in texts if text)


def text_of_part(part: Any) -> str | None:
    """Return the text of a text part; None for other parts."""
    # Gemini's parts have no type.
    if isinstance(part, dict) and (part.get("type") in {"text", "input_text", "output_text"} or set(part) == {"text"}):
        text = part.get("text")
        return text if isinstance(text, str) else ""
    return None


def last_user_index(messages: list[ChatMessage]) -> int | None:
    """Return the index of the last user message; None without one."""
    indexes = [n for n, message in enumerate(messages) if message.role.lower() == "user"]
    return indexes[-1] if indexes else None
