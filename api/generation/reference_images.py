"""Reference pictures of a request: every form clients write them in, checked and stored before the job is accepted.

A link stays a link (the worker fetches it, guarded); bytes are decoded, looked at and stored here.
"""

import base64
import binascii
import contextlib
import hashlib
import io
import re
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import urlsplit
from uuid import UUID

from api.http.body_parsing import Upload
from api.http.own_file_links import own_bytes
from worker import storage
from worker.core.catalog.models import ImageModel, get_catalog
from worker.core.errors import DreameryError
from worker.core.media.image import MAX_INPUT_BYTES, NotAPictureError, PictureFacts, picture_facts
from worker.db.jobs.inputs import NewInput, StoredInput

_LONGEST_LINK = 8000
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_BLANK = re.compile(r"\s+")
_FORMS = (
    "Send an http(s) link, a data URL, base64, or an object like "
    '{"type": "image_url", "image_url": {"url": "https://..."}}.'
)


@dataclass(frozen=True, slots=True)
class GivenPicture:
    """A reference as it was given: a link, or its bytes (an upload stays the file it is) with what they are."""

    url: str | None = None
    content: IO[bytes] | None = field(default=None, repr=False)
    size: int = 0
    sha256: str = ""
    facts: PictureFacts | None = None

    @property
    def mark(self) -> str | dict[str, Any]:
        """How the job shows it: the link, or what the bytes were; never the bytes."""
        if self.facts is None:
            return self.url or ""
        facts = self.facts
        return {
            "mime": facts.mime,
            "width": facts.width,
            "height": facts.height,
            "bytes": self.size,
            "sha256": self.sha256,
        }


def read_pictures(fields: dict[str, Any], model: ImageModel) -> list[GivenPicture]:
    """The references in these fields of a request, in order. Raises what is wrong with the first that is."""
    given = [entry for name, value in fields.items() for entry in flat_entries(name, value)]
    if given:
        # Before any byte is decoded.
        _check_number(
            len(given), model, param=next(name for name, value in fields.items() if flat_entries(name, value))
        )
    return [read_picture(param, value) for param, value in given]


def flat_entries(param: str, value: Any) -> list[tuple[str, Any]]:
    """The entries of a field with what to call each of them in an error; absent and empty ones are none."""
    if isinstance(value, list):
        return [(f"{param}.{n}", entry) for n, entry in enumerate(value)]
    return [] if value is None or value == "" else [(param, value)]


def _check_number(number: int, model: ImageModel, *, param: str) -> None:
    if number <= model.references:
        return
    able = [other.id for other in get_catalog().image_models if other.references >= number]
    who = f"Models that do: {', '.join(able)}." if able else "No model takes that many."
    if model.references == 0:
        message = f"Model {model.id!r} makes no pictures from pictures. {who}"
        raise DreameryError("unsupported_parameter", message, param=param)
    message = f"Model {model.id!r} takes at most {model.references} pictures; got {number}. {who}"
    raise DreameryError("invalid_value", message, param=param)


def read_picture(param: str, value: Any) -> GivenPicture:
    """One reference in any form. Raises `invalid_image`."""
    if isinstance(value, Upload):
        if value.size > MAX_INPUT_BYTES:
            raise _too_large(param, "invalid_image")
        content, size = value.file, value.size
    else:
        text = _text_of(value)
        if text is None:
            raise DreameryError("invalid_image", f"`{param}` is not a picture. {_FORMS}", param=param)
        text = text.strip()
        own = own_bytes(text, media="image", param=param) if is_link(text) else None
        if is_link(text) and own is None:
            return GivenPicture(url=checked_link(param, text))
        data = own or decoded(param, text)
        content, size = io.BytesIO(data), len(data)
    try:
        content.seek(0)
        facts = picture_facts(content)
    except NotAPictureError as error:
        raise DreameryError("invalid_image", f"`{param}` cannot be used: {error}.", param=param) from None
    return GivenPicture(content=content, size=size, sha256=sha256_of(content), facts=facts)


def sha256_of(content: IO[bytes]) -> str:
    """The digest of all bytes, read piece by piece."""
    content.seek(0)
    return hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]  # asks for more than it calls


def _text_of(value: Any) -> str | None:
    """The link or base64 in `"..."`, `{"image_url": "..."}`, `{"image_url": {"url": "..."}}` or `{"url": "..."}`."""
    if isinstance(value, dict):
        value = value.get("image_url", value.get("url"))
        if isinstance(value, dict):
            value = value.get("url")
    return value if isinstance(value, str) else None


def is_link(text: str) -> bool:
    """Whether a text is meant as an address; everything else is base64."""
    return text[:8].lower().startswith(("http://", "https://"))


def checked_link(param: str, link: str, code: str = "invalid_image") -> str:
    """A link that can be fetched, whatever is there. Raises `code`."""
    try:
        parts = urlsplit(link)
        fine = bool(parts.hostname) and parts.port != 0 and len(link) <= _LONGEST_LINK and link.isprintable()
    except ValueError:
        fine = False
    # Blanks would be cut off or escaped by some readers and not by others.
    if not fine or _BLANK.search(link):
        raise DreameryError(code, f"`{param}` is not a link that can be fetched.", param=param)
    return link


def decoded(param: str, text: str, code: str = "invalid_image") -> bytes:
    """The bytes of base64 or a data URL. Raises `code`."""
    start = _DATA_URL.match(text)
    if len(text) > MAX_INPUT_BYTES * 3 // 2:
        raise _too_large(param, code)
    try:
        # Of 100 MB this is done in a fifth of a second; a regular expression takes five.
        plain = "".join((text[start.end() :] if start else text).split()).rstrip("=")
        data = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise DreameryError(code, f"`{param}` is neither a link nor base64. {_FORMS}", param=param) from None
    if len(data) > MAX_INPUT_BYTES:
        raise _too_large(param, code)
    return data


def _too_large(param: str, code: str) -> DreameryError:
    message = f"`{param}` is larger than {MAX_INPUT_BYTES // 1024 // 1024} MB. Send a smaller file."
    return DreameryError(code, message, param=param)


def store_pictures(given: list[GivenPicture], group_id: UUID) -> list[NewInput]:
    """Store what came as bytes; the rows to be. The keys are the request's own, so nothing is overwritten."""
    return [store_picture(item, f"inputs/{group_id.hex}/{n}") for n, item in enumerate(given)]


def store_picture(item: GivenPicture, stem: str) -> NewInput:
    """Store one under a key that begins with `stem`."""
    if item.facts is None or item.content is None:
        return NewInput(url=item.url)
    key = f"{stem}.{item.facts.extension}"
    storage.put_file(key, item.content)
    return NewInput(
        stored=StoredInput(
            key=key,
            mime=item.facts.mime,
            bytes=item.size,
            width=item.facts.width,
            height=item.facts.height,
            sha256=item.sha256,
        )
    )


def drop_pictures(stored: list[NewInput]) -> None:
    """Take back what was stored for jobs that were not accepted after all."""
    for item in stored:
        if item.stored is not None:
            # What stays, no row names: the clean-up finds it.
            with contextlib.suppress(storage.StorageError):
                storage.delete_file(item.stored.key)
