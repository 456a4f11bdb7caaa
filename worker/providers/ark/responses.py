"""Parses what Ark answers: images, tasks, lists and errors.

Anything may be missing or null, so it is read leniently.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_REQUEST_ID = re.compile(r"Request id: (\w{1,128})")
_FPS = 24
_MAX_NUMBER = 2**53


class UnreadableError(Exception):
    """A body that is not what was asked for."""


class TaskStatus(StrEnum):
    """The states of a task; OTHER = one that is not known, which is not final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class ApiError:
    """An error that upstream has named. With one, nothing was created or charged."""

    code: str
    message: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A video task. `created_at` and `updated_at` in unix seconds; `tokens` = what is charged."""

    id: str
    model: str
    status: TaskStatus
    error: ApiError | None = None
    video_url: str | None = None
    last_frame_url: str | None = None
    tokens: int | None = None
    created_at: float | None = None
    updated_at: float | None = None
    seed: int | None = None
    resolution: str | None = None
    ratio: str | None = None
    seconds: int | None = None
    fps: int | None = None
    safety_identifier: str | None = None
    expires_after: int | None = None
    flex: bool = False
    draft: bool = False
    draft_of: str | None = None


@dataclass(frozen=True, slots=True)
class TaskPage:
    """A page of tasks, and how many there are in all."""

    tasks: tuple[Task, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Layer:
    """What a layer of an image shows and where; 0 is the base. `box` = left, top, right, bottom in pixels."""

    index: int
    name: str = ""
    description: str = ""
    box: tuple[int, int, int, int] | None = None

    def as_dict(self) -> dict[str, Any] | None:
        """Return what a layer is; None for the base."""
        return {"name": self.name, "description": self.description, "box": self.box} if self.index else None


@dataclass(frozen=True, slots=True)
class ImageItem:
    """One image: a link or base64, its true size, or the error that came in its place."""

    url: str | None = None
    base64: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    layer: Layer | None = None
    error: ApiError | None = None


@dataclass(frozen=True, slots=True)
class ImageAnswer:
    """The answer of an image call. `generated` = images that are charged; `error` = no image came at all."""

    items: tuple[ImageItem, ...]
    generated: int
    inputs: int = 0
    created_at: float | None = None
    error: ApiError | None = None


def parse_error(body: Any) -> ApiError | None:
    """Return the error of a body, or None if it names none."""
    error = body.get("error") if isinstance(body, Mapping) else None
    return _error(error)


def _error(error: Any) -> ApiError | None:
    if not isinstance(error, Mapping) or not isinstance(error.get("code"), str) or not error["code"]:
        return None
    message = _text(error.get("message")) or ""
    found = _REQUEST_ID.search(message)
    return ApiError(error["code"][:200], message, found.group(1) if found else None)


def parse_images(body: Any) -> ImageAnswer:
    """Return the images of an answer. Raises UnreadableError if it is no such answer."""
    if not isinstance(body, Mapping) or not isinstance(body.get("data"), list | None):
        raise UnreadableError("no list of images")
    items = tuple(parse_image_item(item) for item in body.get("data") or [] if isinstance(item, Mapping))
    usage = _mapping(body.get("usage"))
    arrived = sum(item.error is None for item in items)
    generated = _integer(usage.get("generated_images"))
    return ImageAnswer(
        items=items,
        generated=arrived if generated is None else generated,
        inputs=_integer(usage.get("input_images")) or 0,
        created_at=_number(body.get("created", body.get("created_at"))),
        error=_error(body.get("error")),
    )


def parse_image_item(item: Mapping[str, Any]) -> ImageItem:
    """Return one image of an answer or of a stream."""
    size = _SIZE.fullmatch(_text(item.get("size")) or "")
    return ImageItem(
        url=_text(item.get("url")),
        base64=_text(item.get("b64_json")),
        width=int(size.group(1)) if size else None,
        height=int(size.group(2)) if size else None,
        format=_text(item.get("output_format")),
        layer=_layer(item),
        error=_error(item.get("error")),
    )


def _layer(item: Mapping[str, Any]) -> Layer | None:
    index = _integer(item.get("z_index"))
    if index is None:
        return None
    corners = _mapping(item.get("bounding_box")).get("absolute")
    numbers = [_integer(corner) for corner in corners] if isinstance(corners, list) else []
    box = None
    if len(numbers) == 4 and None not in numbers:
        left, top, right, bottom = (number or 0 for number in numbers)
        box = (left, top, right, bottom)
    return Layer(index, _text(item.get("name")) or "", _text(item.get("description")) or "", box)


def parse_task(body: Any) -> Task:
    """Return the task of a body. Raises UnreadableError if it is none."""
    if not isinstance(body, Mapping) or not _text(body.get("id")):
        raise UnreadableError("no task")
    content, usage = _mapping(body.get("content")), _mapping(body.get("usage"))
    fps = _integer(body.get("framespersecond"))
    return Task(
        id=str(body["id"]),
        model=_text(body.get("model")) or "",
        status=_status(body.get("status")),
        error=_error(body.get("error")) or _error(body.get("failure_reason")),  # its name in older lists
        video_url=_text(content.get("video_url")),
        last_frame_url=_text(content.get("last_frame_url")),
        tokens=_integer(usage.get("completion_tokens")),
        created_at=_number(body.get("created_at")),
        updated_at=_number(body.get("updated_at")),
        seed=_integer(body.get("seed")),
        resolution=_text(body.get("resolution")),
        ratio=_text(body.get("ratio")),
        seconds=_seconds(body, fps),
        fps=fps,
        safety_identifier=_text(body.get("safety_identifier")),
        expires_after=_integer(body.get("execution_expires_after")),
        flex=body.get("service_tier") == "flex",
        draft=body.get("draft") is True,
        draft_of=_text(body.get("draft_task_id")),
    )


def parse_task_page(body: Any) -> TaskPage:
    """Return a page of a list; items that are no tasks are left out. Raises UnreadableError if it is no list."""
    if not isinstance(body, Mapping) or not isinstance(body.get("items"), list | None):
        raise UnreadableError("no list of tasks")
    tasks = []
    for item in body.get("items") or []:
        try:
            tasks.append(parse_task(item))
        except UnreadableError:
            continue
    return TaskPage(tuple(tasks), _integer(body.get("total")) or len(tasks))


def _status(value: Any) -> TaskStatus:
    try:
        return TaskStatus(value)
    except ValueError:
        return TaskStatus.OTHER


def _seconds(body: Mapping[str, Any], fps: int | None) -> int | None:
    seconds = _integer(body.get("duration"))
    frames = _integer(body.get("frames"))
    return seconds if seconds is not None or frames is None else frames // (fps or _FPS)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < _MAX_NUMBER else None


def _integer(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def task_usage(task: Task) -> dict[str, Any]:
    """Return what upstream measured of a video, in the form that settles it (`worker.core.catalog.money.charge_of`).

    Empty = upstream has not reported it.
    """
    return {} if task.tokens is None else {"tokens": task.tokens}


def image_usage(items: Sequence[ImageItem], answer: ImageAnswer | None, *, inputs: int = 0) -> dict[str, Any]:
    """Return the usage of an image call. `answer` None = a cut stream: what arrived was charged, the rest is unclear.

    `inputs` = the reference images of the order, which count unless upstream reports another number.
    """
    arrived = [item for item in items if item.error is None]
    areas = [(item.width or 0) * (item.height or 0) for item in arrived]
    generated = len(arrived) if answer is None else answer.generated
    reported = answer.inputs if answer is not None and answer.inputs else inputs
    return {"images": generated, "inputs": reported, "areas": areas}
