"""Reference images of a request, in every form that clients send, made ready for upstream before the job is accepted.

A link stays a link (the worker fetches it with SSRF protection). Bytes are inspected, turned upright, stripped of
metadata and converted here if they need it, and stored.
"""

import contextlib
import hashlib
import io
import re
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import urlsplit
from uuid import UUID

from api.generation.media.inspections import Inspection, unusable
from api.generation.media.values import FORMS, InputEntry, find_value, is_link, open_text, too_large
from api.http.body_parsing import Upload
from api.http.own_file_links import open_own_file
from worker import storage
from worker.core.catalog.models import ImageModel, get_catalog
from worker.core.errors import DreameryError
from worker.core.media.image import MAX_INPUT_BYTES, ImageInfo, InvalidImageError
from worker.core.media.normalization import NormalizedImage, begin_normalization
from worker.db.jobs.inputs import SENT, InputOrigin, NewInput, StoredInput

_MAX_LINK_CHARS = 8000
_BLANK = re.compile(r"\s+")
# Addresses that only the caller's own machine or page can open.
_LOCAL_ADDRESS = re.compile(
    r"(?:file|blob|content|attachment|sandbox|asset):|[a-z]:[\\/]|[./~][^,;\s]{0,300}\.\w{2,5}$", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class ReferenceImage:
    """A reference as sent: a link, or its bytes (an upload stays a file) with their properties.

    `adjusted` = what was changed in the bytes: converted_from, turned, metadata, frames, colours, repaired.
    """

    url: str | None = None
    content: IO[bytes] | None = field(default=None, repr=False)
    size: int = 0
    sha256: str = ""
    facts: ImageInfo | None = None
    adjusted: dict[str, str] = field(default_factory=dict)
    origin: InputOrigin = SENT

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
            **({"adjusted": self.adjusted} if self.adjusted else {}),
        }


def check_image_count(entries: list[InputEntry], model: ImageModel) -> None:
    """Raise an error for more references than the model accepts; before any byte is decoded."""
    count = len(entries)
    if count <= model.references:
        return
    param = entries[0].param.partition(".")[0]
    able = [other.id for other in get_catalog().image_models if other.references >= count]
    hint = f"Models that do: {', '.join(able)}." if able else "No model accepts that many."
    if model.references == 0:
        message = f"Model {model.id!r} accepts no reference images. {hint}"
        raise DreameryError("unsupported_parameter", message, param=param)
    message = f"Model {model.id!r} accepts at most {model.references} images; got {count}. {hint}"
    raise DreameryError("invalid_value", message, param=param)


def begin_reference_image(param: str, value: Any) -> ReferenceImage | Inspection[ReferenceImage]:
    """Return one reference from any form, or the inspection that it needs. Raises `invalid_image`."""
    found, origin = find_value(value), SENT
    if isinstance(found, Upload):
        content, size, origin = found.file, found.size, found.origin
    elif isinstance(found, bytes):
        content, size = io.BytesIO(found), len(found)
    elif isinstance(found, str):
        own = open_own_file(found, media="image", param=param) if is_link(found) else None
        if is_link(found) and own is None:
            return ReferenceImage(url=check_link(param, found))
        check_not_local(param, found)
        if own is not None:
            content, size, origin = own.content, own.size, own.origin
        else:
            content, size = open_text(param, found)
    else:
        raise DreameryError("invalid_image", f"`{param}` is not an image. {FORMS}", param=param)
    if size > MAX_INPUT_BYTES:
        raise too_large(param, "invalid_image")
    return _normalized(param, content, size, origin)


def _normalized(
    param: str, content: IO[bytes], size: int, origin: InputOrigin
) -> ReferenceImage | Inspection[ReferenceImage]:
    def describe(image: NormalizedImage) -> ReferenceImage:
        count = size
        if image.content is not content:
            content.close()
            count = image.content.seek(0, io.SEEK_END)
        sha256 = sha256_of(image.content)
        return ReferenceImage(
            content=image.content,
            size=count,
            sha256=sha256,
            facts=image.info,
            adjusted=image.adjusted,
            origin=origin,
        )

    try:
        found = begin_normalization(content)
    except InvalidImageError as error:
        content.close()
        raise unusable(param, "invalid_image", error) from None
    if isinstance(found, NormalizedImage):
        return describe(found)
    return Inspection(param, "invalid_image", content, found, describe)


def sha256_of(content: IO[bytes]) -> str:
    """Return the digest of a file, read in chunks."""
    content.seek(0)
    return hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]  # the stub is too strict


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


def check_not_local(param: str, text: str, code: str = "invalid_image") -> None:
    """Raise `code` for a path or an address on the caller's own machine."""
    if _LOCAL_ADDRESS.match(text[:400]):
        message = f"`{param}` is an address on your own machine, which this server cannot open. {FORMS}"
        raise DreameryError(code, message, param=param)


def store_reference_image(item: ReferenceImage, stem: str) -> NewInput:
    """Store one reference under a key that begins with `stem` and return its input row."""
    if item.facts is None or item.content is None:
        return NewInput(url=item.url)
    key = f"{stem}.{item.facts.extension}"
    storage.put_file(key, item.content)
    return NewInput(
        url=item.origin.url,
        origin_file_id=item.origin.file_id,
        stored=StoredInput(
            key=key,
            mime=item.facts.mime,
            bytes=item.size,
            width=item.facts.width,
            height=item.facts.height,
            sha256=item.sha256,
        ),
    )


def stem_of(group_id: UUID, n: int) -> str:
    """Return the beginning of the key of input `n` of a request; keys are unique to the request."""
    return f"inputs/{group_id.hex}/{n}"


def delete_stored_inputs(stored: list[NewInput]) -> None:
    """Delete stored inputs of jobs that were not accepted."""
    for item in stored:
        if item.stored is not None:
            # No row refers to a file that remains, so the cleanup finds it.
            with contextlib.suppress(storage.StorageError):
                storage.delete_file(item.stored.key)
