"""Image, video and audio inputs of a video request, in every form that clients send, checked and stored.

A link stays a link (the worker fetches it with SSRF protection). Bytes are inspected here and stored before the job is
accepted.
"""

import contextlib
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import IO, Any

from api.generation.media.inspections import Inspection, inspect, unusable
from api.generation.media.reference_images import (
    ReferenceImage,
    begin_reference_image,
    check_link,
    check_not_local,
    sha256_of,
    store_reference_image,
)
from api.generation.media.values import FORMS, FileId, InputEntry, find_value, is_link, open_text, too_large
from api.http.bodies.file_types import Media
from api.http.body_parsing import Upload
from api.http.clients.storage_threads import in_storage_thread
from api.http.own_file_links import open_own_file
from worker import storage
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id
from worker.core.media.image import MAX_INPUT_BYTES
from worker.core.media.video import InvalidMediaError, MediaInfo, audio_inspection, video_inspection
from worker.core.settings import get_settings
from worker.db.engine import transaction
from worker.db.jobs import queries
from worker.db.jobs.inputs import SENT, InputOrigin, NewInput, StoredInput

_ADJUSTED_WORDS = {"converted_from": "converted from {}", "turned": "turned {}", "metadata": "metadata {}"}


@dataclass(frozen=True, slots=True)
class ReferenceMedia:
    """A video or audio reference as sent: a link, or its bytes with their properties."""

    media: Media
    url: str | None = None
    content: IO[bytes] | None = field(default=None, repr=False)
    bytes: int = 0
    sha256: str = ""
    facts: MediaInfo | None = None
    origin: InputOrigin = SENT

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


@contextlib.asynccontextmanager
async def open_inputs(entries: list[InputEntry], owner: str) -> AsyncIterator[list[ReferenceInput]]:
    """Read all inputs; their temporary files are closed at the end. Raises the error of the first invalid one."""
    opened: list[ReferenceInput] = []
    try:
        for entry in entries:
            opened.append(await read_input(entry, owner))  # noqa: PERF401 - closed below when a later one is invalid
        yield opened
    finally:
        for item in opened:
            if item.content is not None:
                item.content.close()


async def read_input(entry: InputEntry, owner: str) -> ReferenceInput:
    """Return an inspected input. Raises `invalid_image`, `invalid_video` or `invalid_audio` with the parameter name."""
    begun = await in_storage_thread(_begin, entry)
    return await inspect(begun, owner) if isinstance(begun, Inspection) else begun


def _begin(entry: InputEntry) -> ReferenceInput | Inspection[ReferenceInput]:
    found = find_value(entry.value)
    if isinstance(found, FileId):
        return _stored_result(entry, found.id)
    if entry.media == "image":
        return begin_reference_image(entry.param, entry.value)
    return _read_media(entry, found)


def describe_adjustments(entries: list[InputEntry], references: list[ReferenceInput]) -> dict[str, str]:
    """Return what was changed in the inputs, in words, by the parameter that carried each."""
    return {
        entry.param: ", ".join(_in_words(name, value) for name, value in item.adjusted.items())
        for entry, item in zip(entries, references, strict=True)
        if isinstance(item, ReferenceImage) and item.adjusted
    }


def _in_words(name: str, value: str) -> str:
    return _ADJUSTED_WORDS.get(name, f"{name}: {{}}").format(value)


def _read_media(entry: InputEntry, found: Upload | str | bytes | None) -> ReferenceMedia | Inspection[ReferenceMedia]:
    param = entry.param
    if isinstance(found, Upload):
        return _inspect_media(entry, found.file, found.size, found.origin)
    if isinstance(found, bytes):
        return _inspect_media(entry, io.BytesIO(found), len(found))
    if not found:
        kind = "a video" if entry.media == "video" else "an audio file"
        raise DreameryError(entry.code, f"`{param}` is not {kind}. {FORMS}", param=param)
    own = open_own_file(found, media=entry.media, param=param) if is_link(found) else None
    if is_link(found) and own is None:
        return ReferenceMedia(media=entry.media, url=check_link(param, found, entry.code))
    check_not_local(param, found, entry.code)
    if own is not None:
        return _inspect_media(entry, own.content, own.size, own.origin)
    content, size = open_text(param, found, entry.code)
    return _inspect_media(entry, content, size)


def _inspect_media(
    entry: InputEntry, content: IO[bytes], size: int, origin: InputOrigin = SENT
) -> Inspection[ReferenceMedia]:
    if size > MAX_INPUT_BYTES:
        raise too_large(entry.param, entry.code)

    def describe(facts: MediaInfo) -> ReferenceMedia:
        digest = sha256_of(content)
        return ReferenceMedia(media=entry.media, content=content, bytes=size, sha256=digest, facts=facts, origin=origin)

    try:
        work = (video_inspection if entry.media == "video" else audio_inspection)(content)
    except InvalidMediaError as error:
        content.close()
        raise unusable(entry.param, entry.code, error) from None
    return Inspection(entry.param, entry.code, content, work, describe)


def _stored_result(entry: InputEntry, file_id: object) -> ReferenceInput | Inspection[ReferenceInput]:
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
    if row.bytes > MAX_INPUT_BYTES:
        raise too_large(param, entry.code)
    try:
        content = storage.open_file(row.key)
    except storage.MissingFileError:
        raise DreameryError("file_not_found", param=param) from None
    upload = Upload(name=row.key, size=row.bytes, file=content, origin=InputOrigin(row.id))
    return _begin(replace(entry, value=upload))


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
    return NewInput(stored=stored, media=item.media, url=item.origin.url, origin_file_id=item.origin.file_id)
