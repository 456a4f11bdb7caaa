"""Reference images of a request, in every form that clients send, checked and stored before the job is accepted.

A link stays a link (the worker fetches it with SSRF protection). Bytes are decoded, inspected and stored here.
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
from api.http.own_file_links import read_own_file
from worker import storage
from worker.core.catalog.models import ImageModel, get_catalog
from worker.core.errors import DreameryError
from worker.core.media.image import MAX_INPUT_BYTES, ImageInfo, InvalidImageError, inspect_image
from worker.db.jobs.inputs import NewInput, StoredInput

_MAX_LINK_CHARS = 8000
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_BLANK = re.compile(r"\s+")
_FORMS = (
    "Send an http(s) link, a data URL, base64, or an object like "
    '{"type": "image_url", "image_url": {"url": "https://..."}}.'
)


@dataclass(frozen=True, slots=True)
class ReferenceImage:
    """A reference as sent: a link, or its bytes (an upload stays a file) with their properties."""

    url: str | None = None
    content: IO[bytes] | None = field(default=None, repr=False)
    size: int = 0
    sha256: str = ""
    facts: ImageInfo | None = None

    @property
    def description(self) -> str | dict[str, Any]:
        """The reference as the job shows it: the link, or properties of the bytes; never the bytes."""
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


def read_reference_images(fields: dict[str, Any], model: ImageModel) -> list[ReferenceImage]:
    """Return the references in these fields of a request, in order. Raises the error of the first invalid one."""
    entries = [entry for name, value in fields.items() for entry in flatten_field(name, value)]
    if entries:
        # Before any byte is decoded.
        _check_count(
            len(entries), model, param=next(name for name, value in fields.items() if flatten_field(name, value))
        )
    return [read_reference_image(param, value) for param, value in entries]


def flatten_field(param: str, value: Any) -> list[tuple[str, Any]]:
    """Return the entries of a field with their parameter names; [] for an absent or empty field."""
    if isinstance(value, list):
        return [(f"{param}.{n}", entry) for n, entry in enumerate(value)]
    return [] if value is None or value == "" else [(param, value)]


def _check_count(count: int, model: ImageModel, *, param: str) -> None:
    if count <= model.references:
        return
    able = [other.id for other in get_catalog().image_models if other.references >= count]
    hint = f"Models that do: {', '.join(able)}." if able else "No model accepts that many."
    if model.references == 0:
        message = f"Model {model.id!r} accepts no reference images. {hint}"
        raise DreameryError("unsupported_parameter", message, param=param)
    message = f"Model {model.id!r} accepts at most {model.references} images; got {count}. {hint}"
    raise DreameryError("invalid_value", message, param=param)


def read_reference_image(param: str, value: Any) -> ReferenceImage:
    """Return one reference from any form. Raises `invalid_image`."""
    if isinstance(value, Upload):
        if value.size > MAX_INPUT_BYTES:
            raise _too_large(param, "invalid_image")
        content, size = value.file, value.size
    else:
        text = _text_of(value)
        if text is None:
            raise DreameryError("invalid_image", f"`{param}` is not an image. {_FORMS}", param=param)
        text = text.strip()
        own = read_own_file(text, media="image", param=param) if is_link(text) else None
        if is_link(text) and own is None:
            return ReferenceImage(url=check_link(param, text))
        data = own or decode_base64(param, text)
        content, size = io.BytesIO(data), len(data)
    try:
        content.seek(0)
        facts = inspect_image(content)
    except InvalidImageError as error:
        raise DreameryError("invalid_image", f"`{param}` cannot be used: {error}.", param=param) from None
    return ReferenceImage(content=content, size=size, sha256=sha256_of(content), facts=facts)


def sha256_of(content: IO[bytes]) -> str:
    """Return the digest of a file, read in chunks."""
    content.seek(0)
    return hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]  # the stub is too strict


def _text_of(value: Any) -> str | None:
    """Return the text in `"..."`, `{"image_url": "..."}`, `{"image_url": {"url": "..."}}` or `{"url": "..."}`."""
    if isinstance(value, dict):
        value = value.get("image_url", value.get("url"))
        if isinstance(value, dict):
            value = value.get("url")
    return value if isinstance(value, str) else None


def is_link(text: str) -> bool:
    """Return whether a text is an http(s) address; everything else is base64."""
    return text[:8].lower().startswith(("http://", "https://"))


def check_link(param: str, link: str, code: str = "invalid_image") -> str:
    """Return a link whose syntax is valid. Raises `code`."""
    try:
        parts = urlsplit(link)
        valid = bool(parts.hostname) and parts.port != 0 and len(link) <= _MAX_LINK_CHARS and link.isprintable()
    except ValueError:
        valid = False
    # HTTP clients treat spaces differently: some escape them, others cut the link.
    if not valid or _BLANK.search(link):
        raise DreameryError(code, f"`{param}` is not a link that can be fetched.", param=param)
    return link


def decode_base64(param: str, text: str, code: str = "invalid_image") -> bytes:
    """Return the bytes of base64 or a data URL. Raises `code`."""
    start = _DATA_URL.match(text)
    if len(text) > MAX_INPUT_BYTES * 3 // 2:
        raise _too_large(param, code)
    try:
        # 0.2 s for 100 MB; a regular expression takes 5 s.
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


def store_reference_images(images: list[ReferenceImage], group_id: UUID) -> list[NewInput]:
    """Store references that are bytes and return the input rows. The keys are unique to the request."""
    return [store_reference_image(item, f"inputs/{group_id.hex}/{n}") for n, item in enumerate(images)]


def store_reference_image(item: ReferenceImage, stem: str) -> NewInput:
    """Store one reference under a key that begins with `stem` and return its input row."""
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


def delete_stored_inputs(stored: list[NewInput]) -> None:
    """Delete stored inputs of jobs that were not accepted."""
    for item in stored:
        if item.stored is not None:
            # No row refers to a file that remains, so the cleanup finds it.
            with contextlib.suppress(storage.StorageError):
                storage.delete_file(item.stored.key)
