"""`POST /images/generations`: images in one answer or as a stream of events."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from worker.sandbox.ark.refusals import json_response
from worker.sandbox.ark.requests import ImageOrder
from worker.sandbox.responses import ResetConnection
from worker.sandbox.results.drawing import ImageDrawing
from worker.sandbox.results.media import ResultStore
from worker.sandbox.scripts import plain_text

LINK_SECONDS = 86_400.0
_REFUSED = {
    "code": "OutputImageSensitiveContentDetected",
    "message": "The request failed because the output image may contain sensitive information.",
}
_BROKEN = {"code": "InternalServiceError", "message": "The service encountered an internal error."}
_TOKEN_PIXELS = 256


class ImageResults:
    """The images of one call: `count` of them, of which those in `refused` are errors instead.

    `breaks` = the last one is an error of the service, which ends the set. Links expire at `expires`.
    """

    def __init__(
        self,
        order: ImageOrder,
        results: ResultStore,
        *,
        base: str,
        expires: float,
        count: int,
        refused: frozenset[int],
        breaks: bool = False,
    ) -> None:
        self._order, self._results, self._base, self._expires = order, results, base, expires
        self._count, self._refused, self._breaks = count, refused, breaks

    @property
    def generated(self) -> int:
        """How many images are charged."""
        return self._count - len(self._refused) - self._breaks

    async def items(self) -> AsyncIterator[dict[str, Any]]:
        """Yield each image, or the error in its place."""
        for index in range(self._count):
            if self._breaks and index == self._count - 1:
                yield {"error": _BROKEN}
            else:
                yield {"error": _REFUSED} if index in self._refused else await self._item(index)

    async def _item(self, index: int) -> dict[str, Any]:
        order = self._order
        drawing = ImageDrawing(
            text=plain_text(order.prompt),
            colour=index % 4,
            label=f"{index + 1} / {self._count}",
            width=order.width,
            height=order.height,
            format=order.format,
        )
        item: dict[str, Any] = {"size": f"{order.width}x{order.height}", "output_format": order.format}
        if order.base64:
            item["b64_json"] = base64.b64encode(await self._results.get_bytes(drawing)).decode()
        else:
            link = self._results.link(self._base, self._results.add(drawing), self._expires)
            item["url"] = link(0, order.format)
        if order.background:
            item["background"] = order.background
        if order.layers:
            item["z_index"] = index
            if index:
                box = [0, 0, order.width, order.height]
                item |= {"name": f"layer {index}", "description": plain_text(order.prompt)}
                item["bounding_box"] = {"absolute": box, "normalized": [0, 0, 1000, 1000]}
        return item

    @property
    def usage(self) -> dict[str, int]:
        """The usage as the answer reports it."""
        order = self._order
        tokens = round(self.generated * order.width * order.height / _TOKEN_PIXELS)
        return {
            "generated_images": self.generated,
            "input_images": order.inputs,
            "output_tokens": tokens,
            "total_tokens": tokens,
        }


class _CutStream(StreamingResponse):
    """A stream whose connection is reset at its end."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for chunk in self.body_iterator:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await ResetConnection()(scope, receive, send)


async def image_response(
    order: ImageOrder, images: ImageResults, now: float, *, seconds: float, cut: int | None = None
) -> Response:
    """Answer after `seconds` with all images, or with a stream that takes as long.

    `cut` = the stream breaks off after so many images.
    """
    if order.stream:
        events = _events(order, images, now, seconds=seconds, cut=cut)
        kind = StreamingResponse if cut is None else _CutStream
        return kind(events, media_type="text/event-stream")
    await asyncio.sleep(seconds)
    data = [item async for item in images.items()]
    body: dict[str, Any] = {"model": order.model, "created": int(now), "data": data, "usage": images.usage}
    if not images.generated:
        body["error"] = _REFUSED
    return json_response(body)


async def _events(
    order: ImageOrder, images: ImageResults, now: float, *, seconds: float, cut: int | None
) -> AsyncIterator[bytes]:
    index = 0
    async for item in images.items():
        if index == cut:
            return
        await asyncio.sleep(seconds / order.most)
        kind = "partial_failed" if "error" in item else "partial_succeeded"
        yield _event(kind, {"model": order.model, "created": int(now), "image_index": index, **item})
        index += 1
    yield _event("completed", {"model": order.model, "created": int(now), "usage": images.usage})
    yield b"data: [DONE]\n\n"


def _event(kind: str, values: dict[str, Any]) -> bytes:
    name = f"image_generation.{kind}"
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps({"type": name, **values}) + b"\n\n"
