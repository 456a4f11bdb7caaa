"""Real HTTP peers in threads: any ASGI app on a free port, a gate before an app, and a receiver of webhooks."""

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
def serving(
    app: ASGIApp, *, lifespan: Literal["on", "off"] = "off", http: str | type[asyncio.Protocol] = "httptools"
) -> Iterator[str]:
    """The app behind uvicorn in a thread; gives its address."""
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
    thread = threading.Thread(target=server.run, name=f"peer-{port}", daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started, what="the peer answers")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


class _Held:
    """Keeps an answer back until it is let go. Carries the transport on, as the sandbox looks for it there."""

    def __init__(self, send: Send) -> None:
        self.transport = getattr(getattr(send, "__self__", None), "transport", None)
        self._send = send
        self.messages: list[Message] = []

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    async def let_go(self) -> None:
        for message in self.messages:
            await self._send(message)


class Gate:
    """Stands before an app. `before` sees a call before it takes effect, `after` when the effect is done but unanswered.

    A hook may block (it runs in a thread), and may give another answer instead.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._threads = ThreadPoolExecutor(max_workers=32, thread_name_prefix="gate")
        self.clear()

    def clear(self) -> None:
        """Let everything pass again."""
        self.before: dict[str, Hook] = {}
        self.after: dict[str, Hook] = {}
        self.calls: list[str] = []
        self.callers: list[tuple[str, int]] = []  # path and the port it came from

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        name = next((name for name in (*self.before, *self.after) if name in path), None)
        self.calls.append(path)
        self.callers.append((path, (scope.get("client") or ("", 0))[1]))
        if name is None:
            await self._app(scope, receive, send)
            return
        body = await Request(scope, receive).body()
        handed = False

        async def again() -> Message:
            nonlocal handed
            if handed:
                return await receive()
            handed = True
            return {"type": "http.request", "body": body, "more_body": False}

        loop = asyncio.get_running_loop()
        if name in self.before:
            instead = await loop.run_in_executor(self._threads, self.before[name], path, body)
            if instead is not None:
                await instead(scope, again, send)
                return
        if name not in self.after:
            await self._app(scope, again, send)
            return
        held = _Held(send)
        await self._app(scope, again, held.send)
        instead = await loop.run_in_executor(self._threads, self.after[name], path, body)
        if instead is not None:
            await instead(scope, again, send)
        else:
            await held.let_go()


class Stop:
    """A hook that holds a call: the test waits until it is `reached`, and lets it go on with `release`."""

    def __init__(self, *, nth: int = 1) -> None:
        self._nth = nth
        self._count = 0
        self.reached = threading.Event()
        self._go = threading.Event()

    def __call__(self, _path: str, _body: bytes) -> None:
        self._count += 1
        if self._count == self._nth:
            self.reached.set()
            self._go.wait(30)

    def wait(self) -> None:
        """Until a call has come this far."""
        assert self.reached.wait(20), "no call came to the stop"

    def release(self) -> None:
        """Let the call go on."""
        self._go.set()


@dataclass
class Received:
    """One delivery as the receiver saw it."""

    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Takes webhooks and answers with the next of `answers`, 200 when there is none."""

    answers: list[int | Response] = field(default_factory=list)
    got: list[Received] = field(default_factory=list)
    hook: Callable[[], Any] | None = None
    url: str = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.got.append(Received(headers=dict(request.headers), body=await request.body()))
        if self.hook is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.hook)
        answer = self.answers.pop(0) if self.answers else 200
        response = answer if isinstance(answer, Response) else Response(status_code=answer)
        await response(scope, receive, send)


class Receivers:
    """Receivers behind one address, each below a path of its own, so that a platform may be told of them beforehand."""

    def __init__(self) -> None:
        self.url = ""
        self._made: dict[str, Receiver] = {}

    def new(self) -> Receiver:
        """One more; it stays until the address goes."""
        name = str(len(self._made) + 1)
        self._made[name] = Receiver(url=f"{self.url}/{name}")
        return self._made[name]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._made[scope["path"].split("/")[1]](scope, receive, send)
