"""Real HTTP servers in threads: any ASGI app on a free port, an interceptor in front of an app, a webhook receiver."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.support.platform import eventually, free_port

Hook = Callable[[str, bytes], "Response | None"]


@contextlib.contextmanager
def running_app(
    app: ASGIApp, *, lifespan: Literal["on", "off"] = "off", http: str | type[asyncio.Protocol] = "httptools"
) -> Iterator[str]:
    """Run the app with uvicorn in a thread; yields its URL."""
    port = free_port()
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        http=http,  # type: ignore[arg-type]
        ws="none",
        lifespan=lifespan,
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name=f"server-{port}", daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started, what="the server responds")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


class _BufferedSend:
    """Holds a response back until `flush`. Passes the transport on, as the sandbox needs it to reset connections."""

    def __init__(self, send: Send) -> None:
        self.transport = getattr(getattr(send, "__self__", None), "transport", None)
        self._send = send
        self.messages: list[Message] = []

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    async def flush(self) -> None:
        for message in self.messages:
            await self._send(message)


class RequestInterceptor:
    """Runs hooks around the requests to an app: `before` the app handles a request, `after` it before the response.

    Hooks are selected by a part of the path. A hook runs in a thread, so it may block. It may return another response.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._threads = ThreadPoolExecutor(max_workers=32, thread_name_prefix="interceptor")
        self.clear()

    def clear(self) -> None:
        """Remove all hooks and recorded calls."""
        self.before: dict[str, Hook] = {}
        self.after: dict[str, Hook] = {}
        self.calls: list[str] = []
        self.callers: list[tuple[str, int]] = []  # path and source port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        name = next((name for name in (*self.before, *self.after) if name in path), None)
        self.calls.append(path)
        self.callers.append((path, (scope.get("client") or ("", 0))[1]))
        if name is None:
            await self._app(scope, receive, send)
            return
        body = await Request(scope, receive).body()
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        loop = asyncio.get_running_loop()
        if name in self.before:
            replacement = await loop.run_in_executor(self._threads, self.before[name], path, body)
            if replacement is not None:
                await replacement(scope, replay, send)
                return
        if name not in self.after:
            await self._app(scope, replay, send)
            return
        buffered = _BufferedSend(send)
        await self._app(scope, replay, buffered.send)
        replacement = await loop.run_in_executor(self._threads, self.after[name], path, body)
        if replacement is not None:
            await replacement(scope, replay, send)
        else:
            await buffered.flush()


class RequestPause:
    """A hook that blocks the nth call: the test waits until it is `reached` and continues it with `release`."""

    def __init__(self, *, nth: int = 1) -> None:
        self._nth = nth
        self._count = 0
        self.reached = threading.Event()
        self._released = threading.Event()

    def __call__(self, _path: str, _body: bytes) -> None:
        self._count += 1
        if self._count == self._nth:
            self.reached.set()
            self._released.wait(30)

    def wait(self) -> None:
        """Wait until the call has reached the hook."""
        assert self.reached.wait(20), "no call reached the hook"

    def release(self) -> None:
        """Let the call continue."""
        self._released.set()


@dataclass
class ReceivedWebhook:
    """One received delivery."""

    headers: dict[str, str]
    body: bytes


@dataclass
class WebhookReceiver:
    """Records webhooks and responds with the next of `answers`, or 200 when it is empty."""

    answers: list[int | Response] = field(default_factory=list)
    received: list[ReceivedWebhook] = field(default_factory=list)
    hook: Callable[[], Any] | None = None
    url: str = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.received.append(ReceivedWebhook(headers=dict(request.headers), body=await request.body()))
        if self.hook is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.hook)
        answer = self.answers.pop(0) if self.answers else 200
        response = answer if isinstance(answer, Response) else Response(status_code=answer)
        await response(scope, receive, send)


class WebhookReceivers:
    """Receivers at one URL with separate paths, so that a platform can allow the URL before the receivers exist."""

    def __init__(self) -> None:
        self.url = ""
        self._receivers: dict[str, WebhookReceiver] = {}

    def new(self) -> WebhookReceiver:
        """Add a receiver; it exists as long as the server."""
        name = str(len(self._receivers) + 1)
        self._receivers[name] = WebhookReceiver(url=f"{self.url}/{name}")
        return self._receivers[name]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._receivers[scope["path"].split("/")[1]](scope, receive, send)
