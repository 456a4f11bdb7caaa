"""Reads untrusted files in processes of their own, one for each file, and returns what they report.

A file that makes a decoder loop, crash or take gigabytes ends its own process; the caller gets a refusal. Threads use
`run`, coroutines `run_async`. See docs/decisions/2026-11-30-media-in-child-processes.md.
"""

import asyncio
import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from worker.core.concurrency.lanes import acting_owner
from worker.core.media.isolation.fair_turns import FairTurns, Turn
from worker.core.media.isolation.protocol import BEGUN
from worker.core.observability.logging import get_logger

log = get_logger("media_isolation")

Value = TypeVar("Value")

_PROGRAM = Path(__file__).with_name("server.py")
MEGABYTE = 1024 * 1024
# Places for children of this process. A file of many pixels takes two, so that at most two of them are in memory.
PLACES, PLACES_PER_OWNER = 4, 2
turns = FairTurns(PLACES, PLACES_PER_OWNER)
# While a caller waits, it is asked this often whether it still has its lease.
_ASK_SECONDS = 5.0
# The server keeps its memory (about 20 MB) so long after the last file.
_IDLE_SECONDS = 10.0
# The kernel ends a child at its limit; this is for a machine that stands still.
_GRACE_SECONDS = 15
_MAX_REPORT_BYTES = 65_536
_COPY_BYTES = MEGABYTE
_TRIES = 3
# SIGKILL is what the kernel sends when memory is short; SIGXCPU and SIGALRM are our limits.
_KILLED_BECAUSE = {"SIGKILL": "memory", "SIGXCPU": "time", "SIGALRM": "time", "SIGXFSZ": "size"}


class DecodingUnavailableError(Exception):
    """No process could be started, or too many files wait. The file is not at fault; try again later."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one child may use. `memory_bytes` = address space, which includes about 200 MB of libraries."""

    memory_bytes: int
    cpu_seconds: int
    wall_seconds: int
    output_bytes: int = 400 * MEGABYTE


@dataclass(frozen=True, slots=True)
class Source:
    """A file with a descriptor, which a child can read. A copy is closed when the work has ended."""

    file: IO[bytes]
    is_copy: bool

    def end(self) -> None:
        """Close a copy."""
        if self.is_copy:
            self.file.close()


@dataclass(frozen=True, slots=True)
class Work(Generic[Value]):
    """One file to read, once. The content from which the source was made stays open; its position may change.

    `finish` builds the value from the report and the file with the result, which it owns from then on. `refuse` returns
    the error for a reason: one that a decoder gave, or damaged, memory, time or size.
    """

    decoders: bytes
    kind: str
    source: Source
    limits: Limits
    finish: Callable[[dict[str, Any], IO[bytes]], Value]
    refuse: Callable[[str], Exception]
    params: dict[str, Any] = field(default_factory=dict)
    weight: int = 1


def on_disk(content: IO[bytes]) -> Source:
    """Return the content as a file with a descriptor: itself, or a copy."""
    try:
        content.fileno()
    except (OSError, AttributeError):
        content.seek(0)
        copy: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the work
        shutil.copyfileobj(content, copy, _COPY_BYTES)
        copy.flush()
        return Source(copy, is_copy=True)
    content.flush()
    return Source(content, is_copy=False)


def bounded(number: object, least: int, most: int) -> int:
    """Return a whole number of a report. Raises ValueError outside of these limits: a child may report anything."""
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
        raise ValueError("a report with an impossible number")
    return number


# --- the server of this process


class _Server:
    """The program that forks the children: started on demand, gone when it was idle for a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def hand_over(self, decoders: bytes, task: socket.socket) -> None:
        """Give the child's end of a task to the server. Raises DecodingUnavailableError."""
        with self._lock:
            try:
                if self._socket is None or self._owner != os.getpid():
                    self._start()
                self._send(decoders, task)
            except OSError:
                # It ended because it was idle, or was killed.
                try:
                    self._start()
                    self._send(decoders, task)
                except OSError as error:
                    raise DecodingUnavailableError(str(error)) from error

    def process_id(self) -> int | None:
        """Return the process id of the server; None if none runs."""
        with self._lock:
            return self._process.pid if self._process is not None and self._process.poll() is None else None

    def _send(self, decoders: bytes, task: socket.socket) -> None:
        if self._socket is not None:
            socket.send_fds(self._socket, [decoders], [task.fileno()], socket.MSG_DONTWAIT)

    def _start(self) -> None:
        self._drop()
        ours, theirs = socket.socketpair()
        with theirs:
            # -I: no environment variables, no user packages, no working directory on the module path. No environment:
            # it contains our secrets.
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-I", str(_PROGRAM), str(_IDLE_SECONDS)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
            )
        self._socket, self._owner = ours, os.getpid()

    def end(self) -> None:
        """End the server and its children, at the end of the process."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        """Forget the server; without its socket it ends, with its children."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            if self._owner == os.getpid():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout=1)
            self._process = None


server = _Server()
atexit.register(server.end)


@contextlib.contextmanager
def _started(work: Work[Any], result: IO[bytes]) -> Iterator[socket.socket]:
    """Start a child for the work; yield our end of its socket. The child dies when it is closed."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            limits = work.limits
            task = {
                "decoders": work.decoders.decode(),
                "kind": work.kind,
                "params": work.params,
                "limits": {
                    "memory_bytes": limits.memory_bytes,
                    "cpu_seconds": limits.cpu_seconds,
                    "wall_seconds": limits.wall_seconds,
                    "output_bytes": limits.output_bytes,
                },
            }
            line = json.dumps(task).encode() + b"\n"
            socket.send_fds(ours, [line], [work.source.file.fileno(), result.fileno()])
            server.hand_over(work.decoders, theirs)
        yield ours


@contextlib.contextmanager
def _result_file() -> Iterator[IO[bytes]]:
    """Yield a file for the result, which is closed after an error; otherwise `finish` has it."""
    result: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        yield result
    except BaseException:
        result.close()
        raise


def _until(work: Work[Any]) -> float:
    return time.monotonic() + work.limits.wall_seconds + _GRACE_SECONDS


_TOO_LATE = BEGUN + b'\n{"error": "time"}'


class _Answer:
    """What a child has written."""

    def __init__(self) -> None:
        self._data = b""

    def add(self, data: bytes) -> None:
        self._data = (self._data + data)[:_MAX_REPORT_BYTES]

    @property
    def begun(self) -> bool:
        return self._data.startswith(BEGUN)

    def report(self) -> dict[str, Any]:
        """Return the last line. A killed child leaves none, or that of the server."""
        try:
            report = json.loads(self._data.strip().splitlines()[-1])
        except (ValueError, IndexError, RecursionError):
            return {"error": "damaged"}
        return report if isinstance(report, dict) else {"error": "damaged"}


def _conclude(work: Work[Value], report: dict[str, Any], result: IO[bytes]) -> Value:
    """Return the value of a report. Raises the refusal. The report is as untrusted as the file."""
    reason = report.get("error")
    if "killed" in report:
        reason = _KILLED_BECAUSE.get(_signal_name(report["killed"]), "damaged")
    if reason is not None:
        log.info("file_refused", kind=work.kind, reason=str(reason)[:100], detail=str(report.get("detail", ""))[:300])
        raise work.refuse(str(reason)[:300])
    try:
        return work.finish(report, result)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        log.warning("report_not_usable", kind=work.kind)
        raise work.refuse("damaged") from None


def _signal_name(number: object) -> str:
    try:
        return signal.Signals(number).name if isinstance(number, int) else ""
    except ValueError:
        return ""


# --- for threads


def run(work: Work[Value], *, owner: str | None = None, while_waiting: Callable[[], object] = lambda: None) -> Value:
    """Read the file and return its value; blocks this thread. Raises the refusal, or DecodingUnavailableError.

    `owner` = whose share it takes, by default that of `acting_for`. `while_waiting` is called every few seconds; an
    exception from it ends the child.
    """
    turn = turns.enter(acting_owner() if owner is None else owner, work.weight)
    try:
        while not futures.wait([turn.ready], timeout=_ASK_SECONDS).done:
            while_waiting()
        return _run_now(work, while_waiting)
    finally:
        turns.leave(turn)
        work.source.end()


def _run_now(work: Work[Value], while_waiting: Callable[[], object]) -> Value:
    with _result_file() as result:
        for _ in range(_TRIES):
            with _started(work, result) as ours:
                answer = _read_all(work, ours, while_waiting)
            if answer.begun:
                return _conclude(work, answer.report(), result)
        raise DecodingUnavailableError("its process did not start")


def _read_all(work: Work[Any], ours: socket.socket, while_waiting: Callable[[], object]) -> _Answer:
    answer, until = _Answer(), _until(work)
    ours.settimeout(_ASK_SECONDS)
    while time.monotonic() < until:
        try:
            data = ours.recv(_MAX_REPORT_BYTES)
        except TimeoutError:
            while_waiting()
            continue
        except OSError:
            return answer
        if not data:
            return answer
        answer.add(data)
    answer.add(_TOO_LATE)
    return answer


# --- for coroutines


async def _nothing() -> None:
    """The default of `while_waiting`."""


async def run_async(
    work: Work[Value],
    *,
    owner: str | None = None,
    while_waiting: Callable[[], Awaitable[object]] = _nothing,
    patience_seconds: float | None = None,
) -> Value:
    """Like `run`, without a thread. A cancelled caller ends the child.

    After `patience_seconds` without a turn: DecodingUnavailableError.
    """
    turn = turns.enter(acting_owner() if owner is None else owner, work.weight)
    try:
        await _come(turn, while_waiting, patience_seconds)
        return await _run_now_async(work, while_waiting)
    finally:
        turns.leave(turn)
        work.source.end()


async def _come(turn: Turn, while_waiting: Callable[[], Awaitable[object]], patience: float | None) -> None:
    began, ready = time.monotonic(), asyncio.wrap_future(turn.ready)
    while not (await asyncio.wait([ready], timeout=_ASK_SECONDS))[0]:
        if patience is not None and time.monotonic() - began >= patience:
            raise DecodingUnavailableError("too many files wait")
        await while_waiting()


async def _run_now_async(work: Work[Value], while_waiting: Callable[[], Awaitable[object]]) -> Value:
    with _result_file() as result:
        for _ in range(_TRIES):
            with _started(work, result) as ours:
                answer = await _read_all_async(work, ours, while_waiting)
            if answer.begun:
                return _conclude(work, answer.report(), result)
        raise DecodingUnavailableError("its process did not start")


async def _read_all_async(
    work: Work[Any], ours: socket.socket, while_waiting: Callable[[], Awaitable[object]]
) -> _Answer:
    answer, until = _Answer(), _until(work)
    ours.setblocking(False)
    reading = asyncio.get_running_loop().create_task(_receive(ours, answer))
    try:
        while not (await asyncio.wait([reading], timeout=_ASK_SECONDS))[0]:
            if time.monotonic() >= until:
                answer.add(_TOO_LATE)
                break
            await while_waiting()
    finally:
        # Before the socket is closed, whose number another one may get.
        reading.cancel()
        await asyncio.wait([reading])
    return answer


async def _receive(ours: socket.socket, answer: _Answer) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while data := await loop.sock_recv(ours, _MAX_REPORT_BYTES):
            answer.add(data)
