"""The forms in which clients send one image, video or audio file, and how each is recognised.

A value is a file part, a link, a data URL, base64, an object that holds one of these under a common key, or the id of a
result. Nothing is fetched or decoded here.
"""

import base64
import binascii
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from api.http.bodies.embedded_files import find_embedded
from api.http.bodies.field_names import snake_case
from api.http.bodies.file_types import BASE64_MARK, HEAD_BYTES, URL_SAFE, Media, head_of_base64, sniff_media
from api.http.bodies.json_shape import parse_json
from api.http.body_parsing import Upload
from worker.core.errors import DreameryError
from worker.core.media.image import MAX_INPUT_BYTES

FORMS = (
    'Send an http(s) link, a data URL, base64, a file part, or an object like {"url": "https://..."} or '
    '{"b64_json": "..."}.'
)
# Keys of objects that hold the value, most specific first; compared in snake case.
INNER_KEYS = (
    *("url", "image_url", "video_url", "audio_url", "input_image", "input_video", "input_audio", "input_file"),
    *("b64_json", "base64", "b64", "data", "bytes_base64_encoded", "image_base64", "image_b64", "image_bytes", "bytes"),
    *("inline_data", "file_data", "image_data", "binary_data", "file_url", "file_uri", "uri", "source", "src", "href"),
    *("image", "img", "video", "audio", "file", "blob", "link", "content", "value", "path"),
)
_MIME_KEYS = frozenset({"mime_type", "mime", "media_type", "content_type"})
_MAX_DEPTH = 5
_MAX_NAME_CHARS = 120
_DATA_URL = re.compile(r"data:[^,;]{0,100}(?:;[^;,]{0,100}){0,8},", re.IGNORECASE)
_LINE_LENGTHS = frozenset({60, 64, 72, 76})
_EXTENSIONS: dict[str, Media] = {
    **dict.fromkeys(("png", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "bmp", "heic", "heif", "avif"), "image"),
    **dict.fromkeys(("tif", "tiff", "ico", "jp2", "jxl", "svg"), "image"),
    **dict.fromkeys(("mp4", "mov", "webm", "m4v", "mkv", "avi"), "video"),
    **dict.fromkeys(("mp3", "wav", "m4a", "aac", "ogg", "oga", "opus", "flac"), "audio"),
}
# Shorter texts under a name that nothing reads are not taken for base64.
_MIN_BASE64_CHARS = 80
_BASE64 = re.compile(r"[A-Za-z0-9+/_=\s-]+")


@dataclass(frozen=True, slots=True)
class FileId:
    """The id of a result of this platform."""

    id: str


@dataclass(frozen=True, slots=True)
class InputEntry:
    """One input of a request: its parameter name for errors, its value, media type and role.

    `number` is set for numbered fields such as `image_file_<number>`. `role` is image, reference, first_frame,
    end_frame, video or audio.
    """

    param: str
    value: Any = field(repr=False)
    media: Media = "image"
    number: int | None = None
    role: str = "image"

    @property
    def code(self) -> str:
        """The error code of an invalid input."""
        return f"invalid_{self.media}"

    @property
    def name(self) -> str:
        """The name that the caller gave it: a `name` field, its file name, or the end of its link; "" = none."""
        value = self.value
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            return _clean_name(value["name"])
        found = find_value(value)
        if isinstance(found, Upload):
            return _clean_name(found.name)
        if isinstance(found, str) and is_link(found):
            try:
                return _clean_name(unquote(urlsplit(found).path))
            except ValueError:
                return ""
        return ""


def _clean_name(name: str) -> str:
    last = PurePosixPath(name.replace("\\", "/")).name
    return "".join(char for char in last if char.isprintable()).strip()[:_MAX_NAME_CHARS]


def flatten_field(param: str, value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a field with their parameter names; none for an absent or empty field."""
    if depth == 0:
        value = _parse_json(value)
        if value is None or value == "" or is_empty_part(value):
            return
    if isinstance(value, dict):
        if value and all(isinstance(key, str) and key.isdecimal() for key in value):
            value = [value[key] for key in sorted(value, key=int)]
        else:
            key = _inner_key(value)
            inner = value.get(key) if key is not None else None
            if isinstance(inner, list) and not _is_byte_list(inner):
                value = [{**value, key: one} for one in inner]
                param = f"{param}.{key}"
    if isinstance(value, list) and depth < _MAX_DEPTH:
        for n, entry in enumerate(value):
            yield from flatten_field(f"{param}.{n}", entry, depth + 1)
        return
    yield param, value


def is_empty_part(value: Any) -> bool:
    """Return whether a value is the untouched file input of an HTML form."""
    return isinstance(value, Upload) and not value.name and value.size == 0


def _parse_json(value: Any) -> Any:
    """Return the list or object that a form sends as JSON text; other values unchanged."""
    if isinstance(value, str) and value.lstrip()[:1] in {"[", "{"}:
        try:
            return parse_json(value)
        except (ValueError, RecursionError):
            return value
    return value


def _inner_key(value: dict[Any, Any]) -> Any:
    names = {snake_case(str(key)): key for key in value}
    return next((names[name] for name in INNER_KEYS if name in names and value[names[name]] not in (None, "")), None)


def _is_byte_list(value: Any) -> bool:
    """Return whether a value is the bytes of a Node.js buffer: `{"type": "Buffer", "data": [137, 80, ...]}`."""
    return isinstance(value, list) and len(value) > 8 and all(isinstance(one, int) and 0 <= one < 256 for one in value)


def find_value(value: Any) -> Upload | str | bytes | FileId | None:
    """Return what an object holds, or the value itself; None if there is no file, text or id in it."""
    for _ in range(_MAX_DEPTH):
        if _is_byte_list(value):
            return bytes(value)
        if not isinstance(value, dict):
            break
        file_id = value.get("file_id")
        if isinstance(file_id, str) and file_id:
            return FileId(file_id)
        key = _inner_key(value)
        if key is None:
            return None
        value = value[key]
    return value.strip() if isinstance(value, str) else value if isinstance(value, Upload) else None


def is_link(text: str) -> bool:
    """Return whether a text is an http(s) address; everything else is base64 or a data URL."""
    return text[:8].lower().startswith(("http://", "https://"))


def detect_media(value: Any) -> Media | None:
    """Return whether a value is plainly an image, a video or audio: by its type, ending or first bytes; else None."""
    if isinstance(value, dict):
        declared = _declared_media(value)
        if declared is not None:
            return declared
    found = find_value(value)
    if isinstance(found, Upload):
        found.file.seek(0)
        return sniff_media(found.file.read(HEAD_BYTES)) or _EXTENSIONS.get(_extension(found.name))
    if isinstance(found, bytes):
        return sniff_media(found)
    return _media_of_text(found) if isinstance(found, str) else None


def _declared_media(value: dict[Any, Any]) -> Media | None:
    for key, inner in value.items():
        name = snake_case(str(key))
        if name in _MIME_KEYS and isinstance(inner, str):
            return _media_of_type(inner)
        for media in ("image", "video", "audio"):
            if name in {media, f"{media}_url", f"input_{media}"} and inner:
                return media
        if isinstance(inner, dict) and (found := _declared_media(inner)):
            return found
    return None


def _media_of_type(mime: str) -> Media | None:
    first = mime.strip().lower().partition("/")[0]
    return first if first in {"image", "video", "audio"} else None  # type: ignore[return-value]


def _media_of_text(text: str) -> Media | None:
    if is_link(text):
        try:
            return _EXTENSIONS.get(_extension(urlsplit(text).path))
        except ValueError:
            return None
    if match := re.match(r"data:([\w.+-]+/[\w.+-]+)", text, re.IGNORECASE):
        return _media_of_type(match[1]) or sniff_media(head_of_base64(text))
    if len(text) >= _MIN_BASE64_CHARS and (BASE64_MARK.match(text) or _BASE64.fullmatch(text[:400])):
        return sniff_media(head_of_base64(text))
    return None


def _extension(path: str) -> str:
    return path.rpartition(".")[2].lower()


def carries_media(value: Any, depth: int = 0) -> bool:
    """Return whether a value under a name that nothing reads is plainly a file: a part, a data URL, base64, a link."""
    value = _parse_json(value) if depth == 0 else value
    if isinstance(value, str):
        return _media_of_text(value.strip()) is not None
    if isinstance(value, Upload):
        return not is_empty_part(value)
    if isinstance(value, list | dict) and depth < _MAX_DEPTH:
        inner = list(value.values()) if isinstance(value, dict) else value
        url = value.get("url") if isinstance(value, dict) else None
        is_address = isinstance(url, str) and (is_link(url.strip()) or url[:5].lower() == "data:")
        return is_address or _is_byte_list(value) or any(carries_media(one, depth + 1) for one in inner)
    return False


def open_text(param: str, text: str, code: str = "invalid_image") -> tuple[IO[bytes], int]:
    """Return the bytes of base64 or of a data URL as a file, and their number. Raises `code`."""
    embedded = find_embedded(text)
    if embedded is None:
        data = decode_text(param, text, code)
        return io.BytesIO(data), len(data)
    if embedded.size > MAX_INPUT_BYTES:
        raise too_large(param, code)
    return embedded.open(), embedded.size


def decode_text(param: str, text: str, code: str = "invalid_image") -> bytes:
    """Return the bytes of base64 (also its URL-safe alphabet) or of a data URL, escaped or not. Raises `code`."""
    if len(text) > MAX_INPUT_BYTES * 3:
        raise too_large(param, code)
    if text[:8].lower().startswith("data%3a"):
        text = unquote(text)
    mark = BASE64_MARK.match(text)
    start = None if mark else _DATA_URL.match(text)
    if start is not None:
        data = unquote_to_bytes(text[start.end() :])
    else:
        data = _decode_base64(param, text[mark.end() :] if mark else text, code)
    if len(data) > MAX_INPUT_BYTES:
        raise too_large(param, code)
    return data


def _decode_base64(param: str, text: str, code: str) -> bytes:
    if "%" in text:
        text = unquote(text)
    # A form decodes an unescaped plus sign to a space; wrapped base64 has lines of a usual length.
    is_wrapped = (
        len(text) < _MIN_BASE64_CHARS or "\n" in text or all(len(line) in _LINE_LENGTHS for line in text.split()[:-1])
    )
    plain = "".join((text if is_wrapped or "+" in text else text.strip().replace(" ", "+")).split())
    try:
        plain = plain.translate(URL_SAFE).rstrip("=")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        message = f"`{param}` is neither a link nor base64. {FORMS}"
        raise DreameryError(code, message, param=param) from None


def too_large(param: str, code: str) -> DreameryError:
    """Return the error of a file above the size limit."""
    message = f"`{param}` is larger than {MAX_INPUT_BYTES // 1024 // 1024} MB. Send a smaller file."
    return DreameryError(code, message, param=param)
