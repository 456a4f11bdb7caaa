"""Runs one task in the process forked for it, with limits on memory, processor time, wall time and open files.

The task arrives on a socket: a line of JSON with the file to read and an empty file for the result. The answer is a
byte that says that the task has begun, and a line of JSON at the end.
"""

import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import resource
import signal
import socket
import sys
import warnings
from pathlib import Path
from typing import IO, Any

from worker.core.media.isolation.protocol import BEGUN, IMAGES, MAX_TASK_BYTES, MEDIA, UnusableFileError

_MODULES = {IMAGES: "worker.core.media.decoders.images", MEDIA: "worker.core.media.decoders.media"}
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_NICE = 5
# Codecs that decoders look up by name: no file can be opened any more when they do.
_TEXT_CODECS = ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "ascii", "cp1252", "cp437", "idna")

_failed: set[bytes] = set()


def load_decoders(kind: bytes) -> None:
    """Import the decoders of a kind. A failure is reported by the task."""
    if kind in _failed or kind not in _MODULES:
        return
    try:
        importlib.import_module(_MODULES[kind])
    except Exception:  # noqa: BLE001 - the server still serves the other kind
        _failed.add(kind)
        return
    for name in _TEXT_CODECS:
        "".encode(name)
    gc.freeze()


class FileView(io.RawIOBase):
    """A file read with positions of its own: the offset of a shared descriptor belongs to the other process."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number, self._position = number, 0
        self._size = os.fstat(number).st_size

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Refuse: libraries would read past this object."""
        raise io.UnsupportedOperation

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into the buffer; return their number."""
        data = os.pread(self._number, len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position and return it."""
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if begin + offset < 0:
            raise OSError("negative position")
        self._position = begin + offset
        return self._position

    def tell(self) -> int:
        """Return the current position."""
        return self._position


class ResultFile(io.FileIO):
    """The file for the result. Libraries that write to a descriptor themselves overlook that the file is full."""

    def fileno(self) -> int:
        """Refuse."""
        raise io.UnsupportedOperation


def run(task_socket: socket.socket, server: int) -> None:
    """Do the task of this socket and end the process. `server` = the process that forked this one."""
    _die_with(server)
    task_socket.sendall(BEGUN)
    line, numbers = _receive(task_socket)
    task = json.loads(line)
    _confine(task["limits"])
    with (
        io.BufferedReader(FileView(numbers[0]), 65_536) as source,
        io.BufferedWriter(ResultFile(numbers[1], "wb")) as target,
    ):
        report = _run(task, source, target)
    task_socket.sendall(b"\n" + json.dumps(report).encode() + b"\n")
    os._exit(0)


def _receive(task_socket: socket.socket) -> tuple[bytes, list[int]]:
    data, numbers = b"", []
    while not data.endswith(b"\n"):
        part, found, *_ = socket.recv_fds(task_socket, MAX_TASK_BYTES, 2)
        if not part or len(data) > MAX_TASK_BYTES:
            os._exit(0)
        data += part
        numbers += found
    return data, numbers


def _run(task: dict[str, Any], source: IO[bytes], target: IO[bytes]) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    try:
        module = importlib.import_module(_MODULES[task["decoders"].encode()])
        report: dict[str, Any] = module.TASKS[task["kind"]](source, target, **task["params"])
        target.flush()
    except UnusableFileError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "memory"}
    except Exception as error:  # noqa: BLE001 - the libraries raise any type for damaged files
        bomb = "DecompressionBomb" in type(error).__name__
        return {"error": "pixels" if bomb else "damaged", "detail": f"{type(error).__name__}: {error}"[:300]}
    return report


def _die_with(server: int) -> None:
    """Let the kernel kill this process when the server dies, and give it no new rights (Linux)."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != server:
        os._exit(0)


def _confine(limits: dict[str, int]) -> None:
    # The kernel ends the process even when a decoder loops and everybody else has gone.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(limits["wall_seconds"])
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    with contextlib.suppress(OSError):
        # When the machine runs out of memory, this process is the first to go.
        Path("/proc/self/oom_score_adj").write_text("1000")
    # Above the hard limit the signal is SIGKILL, which does not tell why.
    _limit(resource.RLIMIT_CPU, limits["cpu_seconds"], more=2)
    _limit(resource.RLIMIT_FSIZE, limits["output_bytes"])
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, limits["memory_bytes"])
    # Nothing more can be opened: no file of the machine, no connection.
    _limit(resource.RLIMIT_NOFILE, 0)


def _limit(number: int, value: int, *, more: int = 0) -> None:
    hard = resource.getrlimit(number)[1]
    most = value + more if hard == resource.RLIM_INFINITY else min(value + more, hard)
    with contextlib.suppress(OSError, ValueError):
        # macOS refuses some limits; the others and the alarm remain.
        resource.setrlimit(number, (min(value, most), most))
