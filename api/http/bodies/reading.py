"""Read the body of a request: up to a size, in time, at a lowest rate, decompressed, and counted while it arrives."""

import asyncio
import contextlib

from starlette.types import Message, Receive, Scope

from api.http.bodies.json_shape import check_shape, parsed_size
from api.http.bodies.received import ReceivedBody, body_of
from api.http.errors import BodyReadError
from worker.core.errors import DreameryError
from worker.core.security.decompression import CompressedBodyError, Decompressor
from worker.core.settings import get_settings

# How much of a body that is refused is still read before the connection is closed.
_DRAIN_BYTES = 8_000_000
_CLOSE = {"Connection": "close"}


class _Pace:
    """Time that a body may keep us waiting: a stall ends it, and so does a rate below the lowest one.

    Only waiting counts, so that a busy server blames no client.
    """

    def __init__(self) -> None:
        settings = get_settings()
        self._window = settings.request_stall_timeout_seconds
        self._needed = settings.min_transfer_bytes_per_second * self._window
        self._waited = 0.0
        self._received = 0

    @property
    def patience(self) -> float:
        """Seconds that the next bytes may take."""
        return max(self._window - self._waited, 0.0)

    def record(self, seconds: float, size: int) -> None:
        """Count what arrived after a wait. Enough bytes, or any if there is no lowest rate, renew the patience."""
        self._waited += seconds
        self._received += size
        if size and self._received >= self._needed:
            self._waited, self._received = 0.0, 0


class BodyReader:
    """The body of one request. `receive` is what the application receives from.

    With `is_whole` the application gets the body in one message, after it has arrived and its values were counted.
    Otherwise it gets pieces, and keeps them on disk (`parse_body`).
    """

    def __init__(self, scope: Scope, receive: Receive, *, max_bytes: int, seconds: float, is_whole: bool) -> None:
        self._scope, self._receive = scope, receive
        self._max_bytes, self._is_whole = max_bytes, is_whole
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._pace = _Pace()
        self._complete = False
        self._received = 0
        self._decompressor: Decompressor | None = None
        self._decompressed = 0

    def decompress(self, encoding: str) -> None:
        """Expect a compressed body."""
        self._decompressor = Decompressor(encoding)

    async def receive(self) -> Message:
        """Return the next message of the application."""
        if not self._is_whole:
            return await self._next()
        self._is_whole = False
        body = body_of(self._scope)
        while True:
            message = await self._next()
            if message["type"] != "http.request":
                return message
            try:
                await body.write(message.get("body", b""))
                if not message.get("more_body", False):
                    return {"type": "http.request", "body": await self._checked(body), "more_body": False}
            except DreameryError as error:
                raise BodyReadError(error) from None

    async def _checked(self, body: ReceivedBody) -> bytes:
        body.is_collected = True
        data = body.spool.read_at(0, body.spool.size)
        if data.lstrip()[:1] in {b"{", b"["}:
            # Only brackets, commas and quotes are looked at, which are the same in every such charset.
            text = data.decode("latin-1")
            check_shape(text)
            await body.reserve(len(data) + parsed_size(text))
        return data

    async def drain(self) -> None:
        """Read a limited amount more: a client cut off while sending may never see the response."""
        limit = self._received + _DRAIN_BYTES
        with contextlib.suppress(TimeoutError):
            while not self._complete and self._received < limit:
                await self._receive_timed()

    async def _receive_timed(self) -> Message:
        """Return the next message. Raises TimeoutError when the body stalls, is slow, or takes too long in total."""
        if self._complete:
            return await self._receive()
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with asyncio.timeout_at(min(self._deadline, started + self._pace.patience)):
            message = await self._receive()
        size = len(message.get("body", b""))
        self._pace.record(loop.time() - started, size)
        self._received += size
        self._complete = not message.get("more_body", False)
        return message

    async def _next(self) -> Message:
        """Return the next message, with a compressed body decompressed up to the limit."""
        while self._decompressor is not None:
            try:
                piece = self._decompressor.next_piece()
                if piece is None and self._complete:
                    self._decompressor.check_complete()
                    self._decompressor = None
                    return {"type": "http.request", "body": b"", "more_body": False}
            except CompressedBodyError as error:
                raise BodyReadError(DreameryError("invalid_json", f"{error}.")) from None
            if piece is not None:
                self._decompressed += len(piece)
                if self._decompressed > self._max_bytes:
                    raise await self._refusal(too_large(self._max_bytes))
                await self._count(len(piece))
                # Other requests run between two pieces of a large body.
                await asyncio.sleep(0)
                return {"type": "http.request", "body": piece, "more_body": True}
            message = await self._receive_limited()
            if message["type"] != "http.request":
                return message
            self._decompressor.feed(message.get("body", b""))
        message = await self._receive_limited()
        await self._count(len(message.get("body", b"")))
        return message

    async def _receive_limited(self) -> Message:
        try:
            message = await self._receive_timed()
        except TimeoutError:
            raise BodyReadError(DreameryError("request_incomplete", headers=_CLOSE)) from None
        if message["type"] == "http.request" and self._received > self._max_bytes:
            raise await self._refusal(too_large(self._max_bytes))
        return message

    async def _count(self, size: int) -> None:
        if not size:
            return
        try:
            body_of(self._scope).count(size)
        except DreameryError as error:
            refused = DreameryError(error.code, error.message, retry_after=error.retry_after, headers=_CLOSE)
            raise await self._refusal(refused) from None

    async def _refusal(self, error: DreameryError) -> BodyReadError:
        await self.drain()
        return BodyReadError(error)


def too_large(limit: int) -> DreameryError:
    """Return the error of a body above the limit of its URL."""
    message = f"The body is larger than {limit} bytes, the limit of this URL."
    return DreameryError("request_too_large", message, headers=_CLOSE)
