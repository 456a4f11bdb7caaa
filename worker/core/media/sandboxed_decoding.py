"""Decodes images of callers in a child process with limits on memory, CPU time, wall time and output.

A file that makes a decoder take gigabytes, loop or crash ends that process; the API and the worker report a damaged
image. The child gets no environment and no file but the image.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from worker.core.media import image_decoder
from worker.core.media.image import MAX_INPUT_PIXELS, ImageInfo, InvalidImageError, damaged_image, decode_slots

# 64 million pixels take 256 MB; a turned copy, an alpha channel and the libraries need a few times that.
_ADDRESS_BYTES = 1536 * 1024 * 1024
_CPU_SECONDS = 40
_WALL_SECONDS = 90.0
_OUTPUT_BYTES = 400 * 1024 * 1024
_SLOT_WAIT_SECONDS = 5.0
_SPOOL_BYTES = 8 * 1024 * 1024
_REPORT_BYTES = 4096
READABLE = "PNG, JPEG, WebP, HEIC, AVIF, GIF, BMP, TIFF, ICO or JPEG 2000"
_REASONS = {
    "unknown": f"it is not a {READABLE} image",
    "pixels": f"it has more than {MAX_INPUT_PIXELS // 1_000_000} million pixels",
    "memory": "decoding it takes too much memory",
    "raw": "it is a raw photo of a camera, of which only the preview can be read; export it as JPEG",
}


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """The result: an upright PNG or JPEG without metadata in a temporary file, and what the source was."""

    content: IO[bytes]
    info: ImageInfo
    source_format: str
    source_mode: str
    orientation: int
    animated: bool
    private: bool


def decode_image(
    content: IO[bytes],
    *,
    known: bool = False,
    cut: bool = False,
    scans_begun: bool = False,
    while_waiting: Callable[[], object] = lambda: None,
) -> DecodedImage:
    """Decode and convert an image. Raises InvalidImageError.

    `known` = its format was recognized; `cut` = a JPEG without its end marker. `while_waiting` is called every few
    seconds.
    """
    limits = {
        "RLIMIT_AS": _ADDRESS_BYTES,
        "RLIMIT_CPU": _CPU_SECONDS,
        "RLIMIT_FSIZE": _OUTPUT_BYTES,
        "RLIMIT_CORE": 0,
    }
    task = {"limits": limits, "max_pixels": MAX_INPUT_PIXELS, "known": known, "cut": cut, "scans_begun": scans_begun}
    while not decode_slots.acquire(timeout=_SLOT_WAIT_SECONDS):
        while_waiting()
    result: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        report = _run(content, result, task, while_waiting)
        return _read_report(report, result)
    except BaseException:
        result.close()
        raise
    finally:
        decode_slots.release()


def _run(
    content: IO[bytes], result: IO[bytes], task: dict[str, Any], while_waiting: Callable[[], object]
) -> dict[str, Any]:
    """Return the report of the child process."""
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as errors:
        content.seek(0)
        while data := content.read(_SPOOL_BYTES):
            source.write(data)
        source.flush()
        source.seek(0)
        # -I: no environment variables, no user packages, no working directory on the module path.
        program = [sys.executable, "-I", str(Path(image_decoder.__file__)), json.dumps(task)]
        with subprocess.Popen(program, stdin=source, stdout=result, stderr=errors, env={}) as process:  # noqa: S603
            if not _wait(process, while_waiting):
                return {"error": "damaged"}
        size = errors.seek(0, 2)
        errors.seek(max(size - _REPORT_BYTES, 0))
        lines = errors.read().strip().splitlines()
    try:
        report = json.loads(lines[-1]) if process.returncode == 0 and lines else {}
    except ValueError:
        report = {}
    # A killed process (limits, a crash of a decoder) leaves no report.
    return report if isinstance(report, dict) and report else {"error": "damaged"}


def _wait(process: "subprocess.Popen[bytes]", while_waiting: Callable[[], object]) -> bool:
    """Return whether the process ended by itself in time; otherwise it is killed."""
    until = time.monotonic() + _WALL_SECONDS
    try:
        while time.monotonic() < until:
            try:
                process.wait(timeout=_SLOT_WAIT_SECONDS)
            except subprocess.TimeoutExpired:
                while_waiting()
            else:
                return True
        return False
    finally:
        process.kill()


def _read_report(report: dict[str, Any], result: IO[bytes]) -> DecodedImage:
    if (error := report.get("error")) is not None:
        raise InvalidImageError(_REASONS[error]) if error in _REASONS else damaged_image()
    result.seek(0)
    return DecodedImage(
        content=result,
        info=ImageInfo(report["mime"], report["width"], report["height"]),
        source_format=report["source"],
        source_mode=report["mode"],
        orientation=report["orientation"],
        animated=report["frames"],
        private=report["private"],
    )
