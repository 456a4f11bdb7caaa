"""Read forms, multipart and urlencoded: text in its charset, files by their part headers, unfinished forms refused.

Starlette's parsers do the reading. They decode text that is not UTF-8 as Latin-1 and accept a form that breaks off, so
that a damaged prompt would be paid for; both are errors here.
"""

import io
import re
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote, unquote_to_bytes

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

from api.http.bodies.charsets import CharsetError, decode_text

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


class FormError(ValueError):
    """The form cannot be read. The message is the reason, without a full stop."""


@dataclass(frozen=True, slots=True)
class _Text:
    """The bytes of a text field, and the charset that its part names."""

    data: bytes
    charset: str | None = None
    binary: bool = False


@dataclass(frozen=True, slots=True)
class FormLimits:
    """Largest number of files and of text fields, and largest text field in bytes."""

    files: int
    fields: int
    field_bytes: int


async def read_form(headers: Headers, stream: AsyncGenerator[bytes, None], limits: FormLimits) -> FormData:
    """Read a form; its files are open `UploadFile`s. Raises `FormError`."""
    content_type, options = parse_options_header(headers.get("content-type"))
    named = options.get(b"charset", b"").decode("latin-1") or None
    try:
        if content_type.decode("latin-1") == MULTIPART:
            form = await _Multipart.read(headers, stream, limits)
        else:
            parser = _Urlencoded(headers, stream, max_fields=limits.fields, max_part_size=limits.field_bytes)
            form = await parser.parse()
    except MultiPartException as error:
        raise FormError(error.message.rstrip(".")) from None
    try:
        return FormData(list(_decode(form, named)))
    except CharsetError:
        await form.close()
        raise


class _Multipart(MultiPartParser):
    """Starlette's parser with bytes for text, lenient recognition of files, and a check that the form is complete."""

    _is_complete = False

    @classmethod
    async def read(cls, headers: Headers, stream: AsyncGenerator[bytes, None], limits: FormLimits) -> FormData:
        """Parse the whole form."""
        parser = cls(
            headers,
            stream,
            max_files=limits.files,
            max_fields=limits.fields,
            max_part_size=limits.field_bytes,
        )
        form = await parser.parse()
        if not parser._is_complete:
            for file in parser._files_to_close_on_error:
                file.close()
            raise MultiPartException("it ends before its closing boundary, so parts may be missing")
        return form

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

    def on_part_end(self) -> None:
        """Keep the bytes of a text part: its charset may be named later."""
        part = self._current_part
        if part.file is not None:
            super().on_part_end()
            return
        content_type, charset = self._part_type(part.item_headers)
        text = _Text(bytes(part.data), charset, binary=content_type == _BINARY)
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


def _decode(form: FormData, named: str | None) -> Iterator[tuple[str, Any]]:
    """Yield the fields with their text decoded. Raises `CharsetError`, which names the field."""
    items: list[tuple[str, Any]] = form.multi_items()
    for name, value in items:
        if name == _CHARSET_FIELD and isinstance(value, _Text):
            named = value.data.decode("latin-1").strip() or named
    for name, value in items:
        if not isinstance(value, _Text):
            yield name, value
        elif name != _CHARSET_FIELD:
            yield name, _decode_field(name, value, named)


def _decode_field(name: str, value: _Text, named: str | None) -> str | UploadFile:
    try:
        return decode_text(value.data, value.charset or named)
    except CharsetError as error:
        if value.binary:
            # Bytes without a file name: a file from a client that names none.
            return UploadFile(io.BytesIO(value.data), size=len(value.data), filename="")
        raise CharsetError(f"field `{name[:_MAX_SHOWN]}`: {error}") from None


def _known_codec(charset: str) -> str:
    return "utf-8" if charset.lower() == "utf-8" else "latin-1"
