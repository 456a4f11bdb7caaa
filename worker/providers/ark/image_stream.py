"""Parses the events of a streamed image call: each image as it is finished, then the usage.

A stream that ends without its last event is cut: what came before it was made and charged, the rest is unclear.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from worker.providers.ark.responses import ApiError, ImageAnswer, ImageItem, parse_error, parse_image_item, parse_images

_PREFIX = "image_generation."
_DONE = "[DONE]"


@dataclass(frozen=True, slots=True)
class StreamedImage:
    """An image of the stream, or the error in its place, at its index."""

    index: int
    item: ImageItem


@dataclass(frozen=True, slots=True)
class StreamCompleted:
    """The end of the stream: how many images are charged, and the error if none came."""

    answer: ImageAnswer


@dataclass(frozen=True, slots=True)
class StreamFailed:
    """The call failed after the stream began."""

    error: ApiError


StreamEvent = StreamedImage | StreamCompleted | StreamFailed


def parse_events(lines: Iterable[str]) -> Iterator[StreamEvent]:
    """Yield the events of these lines. Unknown events and lines that cannot be read are ignored."""
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == _DONE:
            return
        try:
            body = json.loads(data)
        except ValueError:
            continue
        event = _event(body) if isinstance(body, dict) else None
        if event is not None:
            yield event


def _event(body: dict[str, Any]) -> StreamEvent | None:
    kind = str(body.get("type") or "").removeprefix(_PREFIX)
    if kind in {"partial_succeeded", "partial_failed"}:
        index = body.get("image_index")
        return StreamedImage(index if isinstance(index, int) else 0, parse_image_item(body))
    if kind == "completed":
        return StreamCompleted(parse_images(body))
    error = parse_error(body)
    return StreamFailed(error) if error is not None else None
