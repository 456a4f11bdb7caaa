"""Image, video and audio inputs of a video request, in every form that clients send, checked and stored.

A link stays a link (the worker fetches it with SSRF protection). Bytes are inspected here and stored before the job is
accepted.
"""

import hashlib
import io
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import IO, Any, Literal
from urllib.parse import unquote, urlsplit

from api.generation.reference_images import (
    ReferenceImage,
    check_link,
    decode_base64,
    is_link,
    read_reference_image,
    store_reference_image,
)
from api.http.body_parsing import Upload
from api.http.own_file_links import read_own_file
from worker import storage
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id
from worker.core.media.image import MAX_INPUT_BYTES
from worker.core.media.video import InvalidMediaError, MediaInfo, inspect_audio, inspect_video
from worker.core.settings import get_settings
from worker.db.engine import transaction
from worker.db.jobs import queries
from worker.db.jobs.inputs import NewInput, StoredInput

Media = Literal["image", "video", "audio"]
_MAX_NAME_CHARS = 120
_FORMS = 'Send an http(s) link, a data URL, base64, a file part, or an object like {"url": "https://..."}.'


@dataclass(frozen=True, slots=True)
class InputEntry:
    """One input of a request: its parameter name for errors, its value and its media type.

    `number` is set for numbered fields such as `image_file_<number>`.
    """

    param: str
    value: Any = field(repr=False)
    media: Media = "image"
    number: int | None = None

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
        if isinstance(value, Upload):
            return _clean_name(value.name)
        text = link_text(value, self.media)
        if text and is_link(text.strip()):
            try:
                return _clean_name(unquote(urlsplit(text.strip()).path))
            except ValueError:
                return ""
        return ""


def _clean_name(name: str) -> str:
    last = PurePosixPath(name.replace("\\", "/")).name
    return "".join(char for char in last if char.isprintable()).strip()[:_MAX_NAME_CHARS]


def link_text(value: Any, media: Media) -> str | None:
    """Return the text in `"..."`, `{"url": "..."}`, `{"video_url": "..."}` or `{"video_url": {"url": "..."}}`."""
    if isinstance(value, dict):
        value = value.get(f"{media}_url", value.get("url"))
        if isinstance(value, dict):
            value = value.get("url")
    return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class ReferenceMedia:
    """A video or audio reference as sent: a link, or its bytes with their properties."""

    media: Media
    url: str | None = None
    content: IO[bytes] | None = field(default=None, repr=False)
    bytes: int = 0
    sha256: str = ""
    facts: MediaInfo | None = None

    @property
    def description(self) -> str | dict[str, Any]:
        """The reference as the job shows it: the link, or properties of the bytes; never the bytes."""
        facts = self.facts
        if facts is None:
            return self.url or ""
        size = {"width": facts.width, "height": facts.height} if facts.width else {}
        return {
            "mime": facts.mime,
            **size,
            "seconds": round(facts.milliseconds / 1000, 3),
            "bytes": self.bytes,
            "sha256": self.sha256,
        }


ReferenceInput = ReferenceImage | ReferenceMedia


def read_input(entry: InputEntry) -> ReferenceInput:
    """Return an inspected input. Raises `invalid_image`, `invalid_video` or `invalid_audio` with the parameter name."""
    value = entry.value
    if isinstance(value, dict) and value.get("file_id"):
        return _stored_result(entry, value["file_id"])
    if entry.media == "image":
        return read_reference_image(entry.param, value)
    return _read_media(entry)


def _read_media(entry: InputEntry) -> ReferenceMedia:
    param, value = entry.param, entry.value
    if isinstance(value, Upload):
        return _inspect_media(entry, value.file, value.size)
    text = link_text(value, entry.media)
    if text is None or not text.strip():
        kind = "a video" if entry.media == "video" else "an audio file"
        raise DreameryError(entry.code, f"`{param}` is not {kind}. {_FORMS}", param=param)
    text = text.strip()
    own = read_own_file(text, media=entry.media, param=param) if is_link(text) else None
    if is_link(text) and own is None:
        return ReferenceMedia(media=entry.media, url=check_link(param, text, entry.code))
    data = own or decode_base64(param, text, entry.code)
    return _inspect_media(entry, io.BytesIO(data), len(data))


def _inspect_media(entry: InputEntry, content: IO[bytes], size: int) -> ReferenceMedia:
    if size > MAX_INPUT_BYTES:
        message = f"`{entry.param}` is larger than {MAX_INPUT_BYTES // 1024 // 1024} MB. Send a smaller file."
        raise DreameryError(entry.code, message, param=entry.param)
    try:
        facts = (inspect_video if entry.media == "video" else inspect_audio)(content)
    except InvalidMediaError as error:
        message = f"`{entry.param}` cannot be used: {error}."
        raise DreameryError(entry.code, message, param=entry.param) from None
    content.seek(0)
    sha256 = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type] # the stub is too strict
    return ReferenceMedia(media=entry.media, content=content, bytes=size, sha256=sha256, facts=facts)


def _stored_result(entry: InputEntry, file_id: object) -> ReferenceInput:
    """Return a result of this platform as an input. Its id grants read access, like its link in `/v1/files`."""
    file_uuid = parse_public_id("file", str(file_id)[:80])
    row = None
    if file_uuid is not None:
        with transaction() as tx:
            row = queries.file_row(tx, file_uuid)
    param = f"{entry.param}.file_id"
    if get_settings().link_ttl_seconds:
        message = "Links to results expire on this server, so an id alone grants no access. Send the link instead."
        raise DreameryError("link_not_signed", message, param=param)
    if row is None or row.removed_at is not None:
        message = (
            f"No file {str(file_id)[:60]!r} here. A `file_id` is the id in a result's link (`/v1/files/file_...`); "
            "there is no Files API: send the file or a link."
        )
        raise DreameryError("file_not_found", message, param=param)
    try:
        data = storage.read_file(row.key)
    except storage.MissingFileError:
        raise DreameryError("file_not_found", param=param) from None
    return read_input(replace(entry, value=Upload(name=row.key, size=len(data), file=io.BytesIO(data))))


def store_input(item: ReferenceInput, stem: str) -> NewInput:
    """Store an input that is bytes under a key that begins with `stem` and return its row."""
    if isinstance(item, ReferenceImage):
        return store_reference_image(item, stem)
    if item.facts is None or item.content is None:
        return NewInput(url=item.url, media=item.media)
    key = f"{stem}.{item.facts.extension}"
    storage.put_file(key, item.content)
    stored = StoredInput(
        key=key,
        mime=item.facts.mime,
        bytes=item.bytes,
        width=item.facts.width,
        height=item.facts.height,
        sha256=item.sha256,
        milliseconds=item.facts.milliseconds,
    )
    return NewInput(stored=stored, media=item.media)
