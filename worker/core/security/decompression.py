"""Decompress gzip and deflate piece by piece, so that a few bytes cannot become gigabytes in memory.

For bodies of callers and for responses of upstream and of proxies.
"""

import zlib

_PIECE_BYTES = 256 * 1024
_SMALL_BYTES, _MAX_SMALL_MEMBERS = 512, 1000
_ANY_HEADER, _NO_HEADER = 47, -15  # zlib's `wbits`: gzip or zlib by the header; bare deflate


class CompressedBodyError(ValueError):
    """The body is not what its `Content-Encoding` says. The message is the reason."""


class Decompressor:
    """Decompresses one body: `feed` compressed bytes, then read pieces until `next_piece` returns None."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._stream = zlib.decompressobj(_ANY_HEADER)
        self._begun = False
        self._input = b""
        self._member_bytes = self._small_members = 0

    def feed(self, data: bytes) -> None:
        """Add compressed bytes."""
        self._input += data

    def next_piece(self) -> bytes | None:
        """Return the next decompressed bytes; None when more input is needed. Raises `CompressedBodyError`."""
        while self._input and not self._waits_for_header():
            if self._stream.eof:
                # A gzip body may consist of several members. Each costs a copy of what follows it.
                self._small_members += self._member_bytes < _SMALL_BYTES
                if self._small_members > _MAX_SMALL_MEMBERS:
                    raise CompressedBodyError(f"The {self._encoding} body consists of too many small members")
                self._stream, self._member_bytes = zlib.decompressobj(_ANY_HEADER), 0
            try:
                piece = self._stream.decompress(self._input, _PIECE_BYTES)
            except zlib.error:
                raise CompressedBodyError(f"The body is not {self._encoding} data") from None
            self._input = self._stream.unconsumed_tail or self._stream.unused_data
            if piece:
                self._member_bytes += len(piece)
                return piece
        return None

    def check_complete(self) -> None:
        """Raise `CompressedBodyError` when the body ended too early."""
        if self._begun and not self._stream.eof:
            raise CompressedBodyError(f"The {self._encoding} body ends too early")

    def _waits_for_header(self) -> bool:
        """Choose the format of `deflate`, which some clients send without zlib's header, by its first two bytes."""
        if self._begun:
            return False
        if self._encoding == "deflate":
            if len(self._input) < 2:
                return True
            first, second = self._input[0], self._input[1]
            if first & 0x0F != 8 or (first << 8 | second) % 31:
                self._stream = zlib.decompressobj(_NO_HEADER)
        self._begun = True
        return False
