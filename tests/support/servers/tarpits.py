"""A server that holds its callers: it accepts every connection and answers slowly or not at all."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.support.platform import eventually, free_port

# A byte of a dripping answer every so many seconds.
DRIP_SECONDS = 2.0
AUDIO_BYTES = 96 * 1024 * 1024
_OGGS = b"OggS" * (256 * 1024)


@dataclass
class Tarpit:
    """A running tarpit. The path of a request chooses the answer.

    As a proxy it passes on the requests whose first line contains a part of `passes`. Below `/drip` come the headers of a large file and then a byte every two seconds, and below `/oggs` an audio file
    of 100 MB that consists of begun pages. Everything else, also a request to a proxy, is never answered.
    """

    port: int
    open: int = 0
    # The first line of each request.
    requests: list[str] = field(default_factory=list)
    passes: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Return host and port."""
        return f"127.0.0.1:{self.port}"

    async def hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until its client gives up."""
        self.open += 1
        try:
            line = (await reader.readline()).decode("latin-1").strip()
            self.requests.append(line)
            if any(part in line for part in self.passes):
                await _pass_on(line, reader, writer)
                return
            if " /drip" in line:
                kind = "video/mp4" if ".mp4" in line else "audio/ogg" if ".ogg" in line else "image/jpeg"
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 5000000\r\n\r\n".encode())
                while not reader.at_eof() and not writer.is_closing():
                    writer.write(b"\xff")
                    await writer.drain()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(reader.read(65536), DRIP_SECONDS)
            elif " /oggs" in line:
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {AUDIO_BYTES}\r\n\r\n".encode())
                for _ in range(AUDIO_BYTES // len(_OGGS)):
                    writer.write(_OGGS)
                    await writer.drain()
            while await reader.read(65536):
                pass
        except (OSError, asyncio.CancelledError):
            pass  # the client has gone, or the tarpit ends
        finally:
            self.open -= 1
            writer.close()


async def _pass_on(line: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send one request to its target, as an HTTP proxy does, and the answer back."""
    method, target, version = line.split(" ")
    place = urlsplit(target)
    headers = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
    kept = [header for header in headers if header and not header.lower().startswith(("proxy-", "connection:"))]
    length = next((int(header.partition(":")[2]) for header in kept if header.lower().startswith("content-length:")), 0)
    body = await reader.readexactly(length)
    inside, outside = await asyncio.open_connection(place.hostname, place.port)
    path = f"{place.path}?{place.query}" if place.query else place.path
    head = "\r\n".join([f"{method} {path} {version}", *kept, "Connection: close", "", ""])
    outside.write(head.encode("latin-1") + body)
    with contextlib.closing(outside):
        while data := await inside.read(65536):
            writer.write(data)
            await writer.drain()


@contextlib.contextmanager
def running_tarpit() -> Iterator[Tarpit]:
    """Run a tarpit until the block ends."""
    tarpit, started = Tarpit(free_port()), threading.Event()
    stop: list[Callable[[], object]] = []

    async def serve() -> None:
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(over.set))
        async with await asyncio.start_server(tarpit.hold, "127.0.0.1", tarpit.port, backlog=512) as server:
            started.set()
            await over.wait()
            server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="tarpit", daemon=True)
    thread.start()
    try:
        eventually(started.is_set, what="the tarpit listens")
        yield tarpit
    finally:
        stop[0]()
        thread.join(10)
