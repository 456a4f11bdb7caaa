"""Inputs of a video request, pictures, videos and sounds: every form clients write them in, checked and stored.

A link stays a link (the worker fetches it, guarded); bytes are looked at here, and stored before the job is accepted.
"""

import hashlib
import io
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import IO, Any, Literal
from urllib.parse import unquote, urlsplit

from api.generation.reference_images import GivenPicture, checked_link, decoded, is_link, read_picture, store_picture
from api.http.body_parsing import Upload
from api.http.own_file_links import own_bytes
from worker import storage
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id
from worker.core.media.image import MAX_INPUT_BYTES
from worker.core.media.video import ClipFacts, NotAClipError, sound_facts, video_facts
from worker.core.settings import get_settings
from worker.db.engine import transaction
from worker.db.jobs import queries
from worker.db.jobs.inputs import NewInput, StoredInput

Media = Literal["image", "video", "audio"]
_LONGEST_NAME = 120
_FORMS = 'Send an http(s) link, a data URL, base64, a file part, or an object like {"url": "https://..."}.'


@dataclass(frozen=True, slots=True)
class Entry:
    """One input as it stands in the request: the field to name in an error, its value, and what kind it must be.

    `number` = of which `image_file_<number>` and the like it came.
    """

    param: str
    value: Any = field(repr=False)
    media: Media = "image"
    number: int | None = None

    @property
    def code(self) -> str:
        """The error when it cannot be used."""
        return f"invalid_{self.media}"

    @property
    def name(self) -> str:
        """What the caller calls it: a name beside it, of its file, or at the end of its link; "" = nothing."""
        value = self.value
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            return _clean(value["name"])
        if isinstance(value, Upload):
            return _clean(value.name)
        text = link_text(value, self.media)
        if text and is_link(text.strip()):
            try:
                return _clean(unquote(urlsplit(text.strip()).path))
            except ValueError:
                return ""
        return ""


def _clean(name: str) -> str:
    last = PurePosixPath(name.replace("\\", "/")).name
    return "".join(char for char in last if char.isprintable()).strip()[:_LONGEST_NAME]


def link_text(value: Any, media: Media) -> str | None:
    """The link or base64 in `"..."`, `{"url": "..."}`, `{"video_url": "..."}` or `{"video_url": {"url": "..."}}`."""
    if isinstance(value, dict):
        value = value.get(f"{media}_url", value.get("url"))
        if isinstance(value, dict):
            value = value.get("url")
    return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class GivenClip:
    """A video or sound as it was given: a link, or its bytes with what they are."""

    media: Media
    url: str | None = None
    content: IO[bytes] | None = field(default=None, repr=False)
    bytes: int = 0
    sha256: str = ""
    facts: ClipFacts | None = None

    @property
    def mark(self) -> str | dict[str, Any]:
        """How the job shows it: the link, or what the bytes were; never the bytes."""
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


Given = GivenPicture | GivenClip


def read_input(entry: Entry) -> Given:
    """One input, looked at. Raises `invalid_image`, `invalid_video` or `invalid_audio` with the field's name."""
    value = entry.value
    if isinstance(value, dict) and value.get("file_id"):
        return _stored_result(entry, value["file_id"])
    if entry.media == "image":
        return read_picture(entry.param, value)
    return _read_clip(entry)


def _read_clip(entry: Entry) -> GivenClip:
    param, value = entry.param, entry.value
    if isinstance(value, Upload):
        return _clip_of(entry, value.file, value.size)
    text = link_text(value, entry.media)
    if text is None or not text.strip():
        what = "a video" if entry.media == "video" else "a sound"
        raise DreameryError(entry.code, f"`{param}` is not {what}. {_FORMS}", param=param)
    text = text.strip()
    own = own_bytes(text, media=entry.media, param=param) if is_link(text) else None
    if is_link(text) and own is None:
        return GivenClip(media=entry.media, url=checked_link(param, text, entry.code))
    data = own or decoded(param, text, entry.code)
    return _clip_of(entry, io.BytesIO(data), len(data))


def _clip_of(entry: Entry, content: IO[bytes], size: int) -> GivenClip:
    if size > MAX_INPUT_BYTES:
        message = f"`{entry.param}` is larger than {MAX_INPUT_BYTES // 1024 // 1024} MB. Send a smaller file."
        raise DreameryError(entry.code, message, param=entry.param)
    try:
        facts = (video_facts if entry.media == "video" else sound_facts)(content)
    except NotAClipError as error:
        message = f"`{entry.param}` cannot be used: {error}."
        raise DreameryError(entry.code, message, param=entry.param) from None
    content.seek(0)
    sha256 = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type] # any binary file will do
    return GivenClip(media=entry.media, content=content, bytes=size, sha256=sha256, facts=facts)


def _stored_result(entry: Entry, file_id: object) -> Given:
    """A result of this platform as an input: its id is the right to read it, as with the link of `/v1/files`."""
    wanted = parse_public_id("file", str(file_id)[:80])
    row = None
    if wanted is not None:
        with transaction() as tx:
            row = queries.file_row(tx, wanted)
    param = f"{entry.param}.file_id"
    if get_settings().link_ttl_seconds:
        message = "Links to results expire here, so an id alone gives no right to one. Send its link instead."
        raise DreameryError("link_not_signed", message, param=param)
    if row is None or row.removed_at is not None:
        message = (
            f"No file {str(file_id)[:60]!r} here. A `file_id` is the id in a result's link (`/v1/files/file_...`); "
            "there is no Files API: send the file itself, or a link."
        )
        raise DreameryError("file_not_found", message, param=param)
    try:
        data = storage.read_file(row.key)
    except storage.MissingFileError:
        raise DreameryError("file_not_found", param=param) from None
    return read_input(replace(entry, value=Upload(name=row.key, size=len(data), file=io.BytesIO(data))))


def store_input(item: Given, stem: str) -> NewInput:
    """Store what came as bytes under a key that begins with `stem`; the row to be."""
    if isinstance(item, GivenPicture):
        return store_picture(item, stem)
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
