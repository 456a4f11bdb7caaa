"""Read forms, multipart and urlencoded: text in its charset, files by their part headers, unfinished forms refused.

Starlette's parsers do the reading. They decode text that is not UTF-8 as Latin-1 and accept a form that breaks off, so
that a damaged prompt would be paid for; both are errors here. They also copy each file; here a file is a part of the
received body, and base64 in a text field becomes a reference (`embedded_files.py`).
"""

import io
import re
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar, cast
from urllib.parse import unquote, unquote_to_bytes

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

from api.http.bodies.charsets import CharsetError, decode_text
from api.http.bodies.embedded_files import FileExtractor
from api.http.bodies.spool import ByteSource, open_part

MULTIPART, URLENCODED = "multipart/form-data", "application/x-www-form-urlencoded"
# Types of a part that is a file even without a file name.
_FILE_TYPES = ("image/", "video/", "audio/")
_BINARY = "application/octet-stream"
# RFC 7578, section 4.6: a field that names the charset of the other fields.
_CHARSET_FIELD = "_charset_"
# RFC 5987: `filename*=UTF-8''%E8%88%B9.png`, sent by some clients in place of `filename`.
_EXTENDED_NAME = re.compile(rb";\s*filename\*\s*=\s*\"?([A-Za-z0-9_-]+)'[^']*'([^;\"\s]+)", re.IGNORECASE)
_PLAIN_NAME = re.compile(rb";\s*filename\s*=", re.IGNORECASE)
_MAX_SHOWN = 60
_PIECE_BYTES = 256 * 1024

T = TypeVar("T")


class FormError(ValueError):
    """The form cannot be read. The message is the reason, without a full stop."""


@dataclass(frozen=True, slots=True)
class _Text:
    """The bytes of a text field, and the charset that its part names."""

    data: bytes
    charset: str | None = None
    binary: bool = False


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file of a form: the name that the client gave it, its size in bytes, and its content."""

    name: str
    size: int
    file: IO[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class FormLimits:
    """Largest number of files and of text fields, and largest size of all text in bytes, without files in it."""

    files: int
    fields: int
    text_bytes: int


FormFields = list[tuple[str, str | FilePart]]
FormItems = list[tuple[str, _Text | FilePart]]


def read_form(headers: Headers, source: ByteSource, limits: FormLimits, extractor: FileExtractor) -> FormFields:
    """Read a form that has arrived. Blocks. Raises `FormError`, `CharsetError`, or `request_too_large`."""
    content_type, options = parse_options_header(headers.get("content-type"))
    named = options.get(b"charset", b"").decode("latin-1") or None
    try:
        if content_type.decode("latin-1") == MULTIPART:
            items = _Multipart.read(headers, source, limits, extractor)
        else:
            text = extractor.extract(source, 0, source.size, limits.text_bytes)
            stream = cast("Any", _pieces(io.BytesIO(text)))
            parser = _Urlencoded(headers, stream, max_fields=limits.fields, max_part_size=limits.text_bytes)
            items = cast("FormItems", _run(parser.parse()).multi_items())
    except MultiPartException as error:
        raise FormError(error.message.rstrip(".")) from None
    return list(_decode(items, named))


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := file.read(_PIECE_BYTES):
        yield piece


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a parser to its end: it waits for nothing, because the whole form has arrived."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return cast("T", end.value)
    coroutine.close()
    raise RuntimeError("the form parser waits")


class _Multipart(MultiPartParser):
    """Starlette's parser with bytes for text, lenient recognition of files, and a check that the form is complete."""

    @classmethod
    def read(cls, headers: Headers, source: ByteSource, limits: FormLimits, extractor: FileExtractor) -> FormItems:
        """Parse the whole form."""
        parser = cls(headers, cast("Any", None), max_files=limits.files, max_fields=limits.fields)
        parser.stream = cast("Any", parser._read_pieces())
        parser._source, parser._extractor, parser._text_left = source, extractor, limits.text_bytes
        _run(parser.parse())
        if not parser._is_complete:
            raise MultiPartException("it ends before its closing boundary, so parts may be missing")
        return cast("FormItems", parser.items)

    _source: ByteSource
    _extractor: FileExtractor
    _text_left: int
    _is_complete = False
    # The piece that is parsed, its place in the body, and the place and size of the current part.
    _piece, _piece_start = b"", 0
    _part_start, _part_size = 0, 0

    async def _read_pieces(self) -> AsyncIterator[bytes]:
        while self._piece_start < self._source.size:
            self._piece = self._source.read_at(self._piece_start, _PIECE_BYTES)
            yield self._piece
            self._piece_start += len(self._piece)

    def on_part_begin(self) -> None:
        """Begin a part."""
        super().on_part_begin()
        self._part_size = 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Note where the part lies. Data of another piece looked like a boundary: it is the end of the last piece."""
        if not self._part_size:
            self._part_start = self._piece_start + (start if data is self._piece else start - end)
        self._part_size += end - start

    def on_headers_finished(self) -> None:
        """Name a file part that has only `filename*`, or only a media type."""
        part = self._current_part
        disposition = part.content_disposition or b""
        if not _PLAIN_NAME.search(disposition):
            extended = _EXTENDED_NAME.search(disposition)
            if extended:
                charset = extended[1].decode("latin-1")
                name = unquote(extended[2].decode("latin-1"), encoding=_known_codec(charset), errors="replace")
            if extended or self._part_type(part.item_headers)[0].startswith(_FILE_TYPES):
                shown = name.replace("\\", "").replace('"', "") if extended else ""
                part.content_disposition = disposition + b'; filename="' + shown.encode() + b'"'
        super().on_headers_finished()
        # The file stays where it is in the body.
        for unused in self._files_to_close_on_error:
            unused.close()
        self._files_to_close_on_error.clear()

    def on_part_end(self) -> None:
        """Keep the bytes of a text part: its charset may be named later."""
        part = self._current_part
        if part.file is not None:
            file = open_part(self._source, self._part_start, self._part_size)
            name = part.file.filename or ""
            self.items.append((part.field_name, cast("Any", FilePart(name, self._part_size, file))))
            return
        content_type, charset = self._part_type(part.item_headers)
        data = self._extractor.extract(self._source, self._part_start, self._part_size, self._text_left)
        self._text_left -= len(data)
        text = _Text(data, charset, binary=content_type == _BINARY)
        self.items.append((part.field_name, cast("Any", text)))

    def on_end(self) -> None:
        """Record the closing boundary."""
        self._is_complete = True

    @staticmethod
    def _part_type(part_headers: list[tuple[bytes, bytes]]) -> tuple[str, str | None]:
        value = next((value for name, value in part_headers if name == b"content-type"), b"")
        content_type, options = parse_options_header(value)
        return content_type.decode("latin-1"), options.get(b"charset", b"").decode("latin-1") or None


class _Urlencoded(FormParser):
    """Starlette's parser with bytes for text. It would read raw UTF-8, as `curl -d` sends it, as Latin-1."""

    def on_field_end(self) -> None:
        """Add a field."""
        self._current_fields += 1
        if self._current_fields > self.max_fields:
            raise MultiPartException(f"Too many fields. Maximum number of fields is {self.max_fields}.")
        name = decode_text(unquote_to_bytes(bytes(self._field_name).replace(b"+", b" ")))
        value = _Text(unquote_to_bytes(bytes(self._field_value).replace(b"+", b" ")))
        self._items.append((name, cast("Any", value)))


def _decode(items: FormItems, named: str | None) -> Iterator[tuple[str, str | FilePart]]:
    """Yield the fields with their text decoded. Raises `CharsetError`, which names the field."""
    for name, value in items:
        if name == _CHARSET_FIELD and isinstance(value, _Text):
            named = value.data.decode("latin-1").strip() or named
    for name, value in items:
        if not isinstance(value, _Text):
            yield name, value
        elif name != _CHARSET_FIELD:
            yield name, _decode_field(name, value, named)


def _decode_field(name: str, value: _Text, named: str | None) -> str | FilePart:
    try:
        return decode_text(value.data, value.charset or named)
    except CharsetError as error:
        if value.binary:
            # Bytes without a file name: a file from a client that names none.
            return FilePart("", len(value.data), io.BytesIO(value.data))
        raise CharsetError(f"field `{name[:_MAX_SHOWN]}`: {error}") from None


def _known_codec(charset: str) -> str:
    return "utf-8" if charset.lower() == "utf-8" else "latin-1"
