"""Take files that are written as text out of a body: base64 of many megabytes, and lists of byte values.

The files are decoded to a temporary file piece by piece. In their place the text keeps a short reference that begins
like the base64, so that everything which reads the text sees what it saw before, and nothing large is parsed, copied or
searched. `find_embedded` returns the bytes behind a reference. References are made of the content, so equal bodies stay
equal; they are valid only within the request that carried the content.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import IO
from urllib.parse import unquote_to_bytes

from api.http.bodies.file_types import HEAD_BYTES, head_of_base64, sniff_media
from api.http.bodies.spool import ByteSource, Spool, open_part
from worker.core.errors import DreameryError

# Shorter base64 stays in the text.
MIN_CHARS = 16 * 1024
# What may remain of a body after its files were taken out.
MAX_TEXT_BYTES = 4_000_000
_BLOCK = 4096
_PIECE = 256 * 1024
_HEAD_CHARS = 400
# Wrapped base64 has lines of equal length, usually 64 or 76.
_MIN_LINE, _MAX_LINE = 40, 20_000

# The characters of base64 with escapes and line ends, and those of a list of numbers.
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-\\%\r\n"
_NUMBERS = b"0123456789, \t\r\n"
# Escapes of JSON (`\/`, and `\u002B` for `+` in .NET) and of forms (`%2B`), but not of the padding.
_ESCAPES = rb"\\/|\\u00(?!3[dD])[0-9A-Fa-f]{2}|%(?!3[dD])[0-9A-Fa-f]{2}"
_UNIT = rb"(?:[A-Za-z0-9+/_-]|" + _ESCAPES + rb")"
_RUN = re.compile(rb"(?:[A-Za-z0-9+/_-]++|" + _ESCAPES + rb")*+")
_LINE_END = rb"(?:\\r\\n|\\n|\r\n|\n)"
_LINE_ENDS = re.compile(_LINE_END + rb"*+")
_LINE_ENDS_ANYWHERE = re.compile(_LINE_END)
_PADDING = re.compile(rb"(?:=|%3[dD]|\\u003[dD]){0,2}")
_JSON_ESCAPE = re.compile(rb"\\u00([0-9A-Fa-f]{2})")
_URL_SAFE, _TO_URL_SAFE = bytes.maketrans(b"-_", b"+/"), str.maketrans("+/", "-_")
_MARK_END = re.compile(rb"base64[,:]\Z", re.IGNORECASE)
_ESCAPED_MARK = re.compile(rb"data%3a(?:(?!base64)[\w%.+-]){0,200}base64%2c", re.IGNORECASE)
_NUMBER_RUN = re.compile(rb"(?:[ \t\r\n]*+[0-9]{1,3}[ \t\r\n]*+,)*+")
_LAST_NUMBER = re.compile(rb"[ \t\r\n]*+[0-9]{1,3}[ \t\r\n]*+")
_REFERENCE = re.compile(r"-embedded-([0-9a-f]{64})-")
_ONLY_REFERENCE = re.compile(_REFERENCE.pattern + r"[=\s]*\Z")


@dataclass(frozen=True, slots=True)
class EmbeddedFile:
    """A file of a request: where its bytes are."""

    source: ByteSource = field(repr=False)
    start: int
    size: int

    def open(self) -> IO[bytes]:
        """Return its bytes as a file to read."""
        return open_part(self.source, self.start, self.size)


_files: ContextVar[Mapping[str, EmbeddedFile]] = ContextVar("embedded_files")


def use_embedded_files(files: Mapping[str, EmbeddedFile]) -> None:
    """Let `find_embedded` find these files within the current request."""
    _files.set(files)


def find_embedded(text: str) -> EmbeddedFile | None:
    """Return the file that a text ends with, if it is one of this request."""
    match = _ONLY_REFERENCE.search(text[-200:])
    return _files.get({}).get(match[1]) if match else None


def has_reference(text: str) -> bool:
    """Return whether a text refers to a file that was taken out of it."""
    return _REFERENCE.search(text) is not None


class _NotAFileError(Exception):
    """What looked like a file is text."""


class FileExtractor:
    """Takes the files out of the texts of one body. Blocks: call it in a thread."""

    def __init__(self) -> None:
        self.files: dict[str, EmbeddedFile] = {}
        self.spool = Spool()

    def extract(self, source: ByteSource, start: int, size: int, limit: int = MAX_TEXT_BYTES) -> bytes:
        """Return a part of `source` with its files replaced by references. Raises `request_too_large`."""
        text = bytearray()
        position, end = start, start + size
        # The kind of a long run that is no file, until it ends: no byte is looked at again and again.
        passed = b""
        while position < end:
            block = source.read_at(position, min(_BLOCK, end - position))
            kind = self._kind(block) if size >= MIN_CHARS else b""
            if kind and kind != passed:
                last = bytes(text[-_BLOCK:])
                tail = len(last) - len(last.rstrip(kind))
                before = last[: len(last) - tail]
                try:
                    found = (_Numbers if kind == _NUMBERS else _Base64)(source, position - tail, end, before)
                    reference, position = self._add(found)
                except _NotAFileError:
                    passed = kind
                else:
                    del text[len(text) - tail - found.dropped :]
                    text += reference
                    continue
            passed = kind and passed
            text += block
            position += len(block)
            # The last block may be the beginning of a file.
            _check_size(len(text) - _BLOCK, limit)
        _check_size(len(text), limit)
        return bytes(text)

    def _kind(self, block: bytes) -> bytes:
        """Return the alphabet of a block that may lie within a file; empty for other blocks."""
        if len(block) < _BLOCK:
            return b""
        return next((one for one in (_BASE64, _NUMBERS) if not block.translate(None, one)), b"")

    def _add(self, found: "_Base64 | _Numbers") -> tuple[bytes, int]:
        """Store a file; return what the text keeps of it, and where the text continues."""
        digest, pending = hashlib.sha256(), bytearray()
        start = self.spool.size
        for piece in found.pieces():
            digest.update(piece)
            pending += piece
            if found.position - found.start >= MIN_CHARS:
                self._write(pending)
        if found.position - found.start < MIN_CHARS:
            raise _NotAFileError
        self._write(pending)
        name = digest.hexdigest()
        self.files[name] = EmbeddedFile(self.spool, start, self.spool.size - start)
        return found.reference(name), found.position

    def _write(self, pending: bytearray) -> None:
        if self.spool.append(pending):
            self.spool.flush()
        pending.clear()


class _Base64:
    """Base64 that begins near `start`, in one line or in lines of equal length, with escapes of JSON and forms."""

    dropped = 0

    def __init__(self, source: ByteSource, start: int, end: int, before: bytes) -> None:
        self._source, self._end = source, end
        head = source.read_at(start, min(_HEAD_CHARS, end - start))
        skipped = _LINE_ENDS.match(head)
        kept = skipped.end() if skipped else 0
        is_marked = _MARK_END.search(before[-20:]) is not None
        if is_marked and before.endswith(b":") and head.startswith(b"//", kept):
            kept += len(b"//")
        elif (mark := _ESCAPED_MARK.match(head, kept)) is not None:
            is_marked, kept = True, mark.end()
        self._kept = head[:kept]
        self.start = self.position = start + kept
        plain = _unescape(head[kept:])
        self._head = plain[: HEAD_BYTES // 3 * 4].decode("latin-1")
        if not is_marked and sniff_media(head_of_base64(self._head)) is None:
            raise _NotAFileError

    def pieces(self) -> Iterator[bytes]:
        """Yield the decoded bytes; `position` is then where the text continues."""
        rest = b""
        for text in self._texts():
            plain = rest + text
            count = len(plain) // 4 * 4
            yield _decode(plain[:count])
            rest = plain[count:]
        self._skip(_PADDING)
        yield _decode(rest + b"=" * (-len(rest) % 4))

    def _texts(self) -> Iterator[bytes]:
        yield from self._matches(_RUN)
        width = self.position - self.start
        if _MIN_LINE <= width <= _MAX_LINE:
            line = self.position
            yield from self._matches(re.compile(rb"(?:%b%b{%d})*+" % (_LINE_END, _UNIT, width)))
            if self.position > line:
                yield from self._matches(re.compile(rb"(?:%b%b{1,%d})?+" % (_LINE_END, _UNIT, width - 1)), count=1)

    def _matches(self, pattern: re.Pattern[bytes], count: int | None = None) -> Iterator[bytes]:
        """Yield the plain characters of what matches, piece by piece: a match may continue in the next piece."""
        while count is None or count > 0:
            data = self._source.read_at(self.position, min(_PIECE, self._end - self.position))
            match = pattern.match(data)
            if match is None or match.end() == 0:
                return
            self.position += match.end()
            yield _unescape(match[0])
            count = count and count - 1

    def _skip(self, pattern: re.Pattern[bytes]) -> None:
        match = pattern.match(self._source.read_at(self.position, min(100, self._end - self.position)))
        self.position += match.end() if match else 0

    def reference(self, name: str) -> bytes:
        """Return what the text keeps."""
        return self._kept + self._head.translate(_TO_URL_SAFE).encode() + b"-embedded-%b-" % name.encode()


class _Numbers:
    """The bytes of a file as a list of numbers, as Node.js writes a buffer in JSON: `[137, 80, 78, 71, ...]`."""

    dropped = len(b"[")

    def __init__(self, source: ByteSource, start: int, end: int, before: bytes) -> None:
        self._source, self._end = source, end
        self.start = self.position = start
        head = source.read_at(start, min(_HEAD_CHARS, end - start))
        first = _byte_values(head.split(b",")[:HEAD_BYTES])
        if not before.endswith(b"[") or sniff_media(first) is None:
            raise _NotAFileError
        self._head = first

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes; `position` is then where the text continues."""
        while True:
            data = self._source.read_at(self.position, min(_PIECE, self._end - self.position))
            match = _NUMBER_RUN.match(data)
            if match is None or match.end() == 0:
                break
            self.position += match.end()
            yield _byte_values(match[0].rstrip(b", \t\r\n").split(b","))
        last = _LAST_NUMBER.match(data)
        if last is None or data[last.end() : last.end() + 1] != b"]":
            raise _NotAFileError
        self.position += last.end() + 1
        yield _byte_values([last[0]])

    def reference(self, name: str) -> bytes:
        """Return what the text keeps: a string with base64."""
        head = base64.urlsafe_b64encode(self._head[: len(self._head) // 3 * 3])
        return b'"%b-embedded-%b-"' % (head, name.encode())


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        message = f"The body has more than {limit} bytes of text. Send less, and files as base64 or form parts."
        raise DreameryError("request_too_large", message)


def _byte_values(numbers: list[bytes]) -> bytes:
    try:
        return bytes(map(int, numbers))
    except ValueError:
        raise _NotAFileError from None


def _unescape(text: bytes) -> bytes:
    """Return base64 without escapes and line ends."""
    if b"\\" in text:
        text = _JSON_ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), text.replace(b"\\/", b"/"))
    if b"\\" in text or b"\n" in text:
        text = _LINE_ENDS_ANYWHERE.sub(b"", text)
    return unquote_to_bytes(text) if b"%" in text else text


def _decode(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text.translate(_URL_SAFE), strict_mode=True)
    except binascii.Error:
        raise _NotAFileError from None
