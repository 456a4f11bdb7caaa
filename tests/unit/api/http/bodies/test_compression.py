"""Compressed bodies: every form of gzip and deflate, in pieces of any size, never much memory at once."""

import gzip
import zlib

import pytest

from api.http.bodies.compression import encoding_of
from worker.core.security.decompression import CompressedBodyError, Decompressor

TEXT = b'{"prompt": "a boat"}' * 1000


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def read(encoding: str, data: bytes, step: int) -> bytes:
    stream, out = Decompressor(encoding), b""
    for start in range(0, len(data), step):
        stream.feed(data[start : start + step])
        while (piece := stream.next_piece()) is not None:
            out += piece
    stream.check_complete()
    return out


@pytest.mark.parametrize("step", [1, 7, 100_000])
@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("gzip", gzip.compress(TEXT[:100], mtime=0) + gzip.compress(TEXT[100:])),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),
    ],
)
def test_body_is_decompressed(encoding, data, step):
    assert read(encoding, data, step) == TEXT


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_bomb_comes_in_small_pieces(encoding):
    stream = Decompressor(encoding)
    stream.feed((gzip.compress if encoding == "gzip" else zlib.compress)(bytes(50_000_000)))
    pieces = [stream.next_piece() for _ in range(5)]
    assert all(piece is not None and len(piece) <= 300_000 for piece in pieces)


@pytest.mark.parametrize("data", [b"plain text", TEXT, gzip.compress(TEXT, mtime=0)[:10] + b"broken bytes"])
def test_body_of_another_kind_is_an_error(data):
    with pytest.raises(CompressedBodyError, match="not gzip"):
        read("gzip", data, 100_000)


@pytest.mark.parametrize("content", [b"", b"x"])
def test_body_of_countless_members_is_an_error(content):
    with pytest.raises(CompressedBodyError, match="too many small members"):
        read("gzip", gzip.compress(content, mtime=0) * 5000, 100_000)


def test_body_that_breaks_off_is_an_error():
    with pytest.raises(CompressedBodyError, match="too early"):
        read("gzip", gzip.compress(TEXT, mtime=0)[:-9], 100_000)


def test_supported_encodings():
    assert [encoding_of(text) for text in ("", "identity", "GZIP", "x-gzip", " deflate ")] == [
        None,
        None,
        "gzip",
        "gzip",
        "deflate",
    ]
    for text in ("br", "zstd", "gzip, gzip", "compress"):
        with pytest.raises(ValueError, match=text):
            encoding_of(text)
