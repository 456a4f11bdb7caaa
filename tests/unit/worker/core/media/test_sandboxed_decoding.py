"""A hostile image ends the process that decodes it; the caller's process neither grows nor waits for long."""

import io
import struct
import subprocess
import sys
import zlib

import pytest
from PIL import Image

from tests.unit.worker.core.media.test_image import bomb
from worker.core.media import sandboxed_decoding
from worker.core.media.image import InvalidImageError
from worker.core.media.sandboxed_decoding import decode_image


def encode(kind: str, size: tuple[int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, kind)
    return out.getvalue()


_MEASURE = """
import io, resource, sys
from worker.core.media.sandboxed_decoding import decode_image
data = io.BytesIO(sys.stdin.buffer.read())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = decode_image(data)
result.content.close()
print(result.info.width, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_large_picture_does_not_raise_the_callers_memory() -> None:
    picture = encode("GIF", (6000, 6000))
    # A process of its own: the peak of this one may come from another test.
    done = subprocess.run([sys.executable, "-c", _MEASURE], input=picture, capture_output=True, check=True)
    width, grown_kilobytes = map(int, done.stdout.split())
    assert width == 6000
    # The pixels take 108 MB.
    assert grown_kilobytes < 20_000


def test_picture_above_the_memory_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxed_decoding, "_ADDRESS_BYTES", 200 * 1024 * 1024)
    with pytest.raises(InvalidImageError, match=r"memory|damaged"):
        decode_image(io.BytesIO(encode("BMP", (6000, 6000))))


def test_picture_above_the_time_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxed_decoding, "_WALL_SECONDS", 0.0)
    with pytest.raises(InvalidImageError, match="damaged"):
        decode_image(io.BytesIO(encode("GIF", (64, 64))))


def test_picture_above_the_processor_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxed_decoding, "_CPU_SECONDS", 1)
    # A JPEG whose last pass is repeated: 31 bytes that the decoder applies to all pixels, a thousand times.
    out = io.BytesIO()
    Image.new("RGB", (4000, 4000), "red").save(out, "JPEG", progressive=True)
    picture = out.getvalue()
    last_pass = picture[picture.rindex(b"\xff\xda") : -2]
    picture = picture[:-2] + 1000 * last_pass + picture[-2:]
    with pytest.raises(InvalidImageError, match="damaged"):
        decode_image(io.BytesIO(picture), known=True)


def test_bomb_inside_an_icon_is_refused() -> None:
    png = bomb(30_000, 30_000)
    header = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(png), 22)
    with pytest.raises(InvalidImageError, match="million pixels"):
        decode_image(io.BytesIO(header + png))


def test_compressed_text_in_a_picture_does_not_fill_memory() -> None:
    text = b"iTXtSecret\0\1\0\0\0" + zlib.compress(b"x" * 80_000_000)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    plain = encode("PNG", (8, 8))
    with pytest.raises(InvalidImageError):
        decode_image(io.BytesIO(plain[:33] + chunk + plain[33:]), known=True)


def test_formats_that_run_programs_are_not_read() -> None:
    with pytest.raises(InvalidImageError, match="not a PNG"):
        decode_image(io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"))


def test_environment_does_not_reach_the_decoder(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "PIL.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    result = decode_image(io.BytesIO(encode("BMP", (8, 8))))
    result.content.close()
    assert result.source_format == "BMP"
