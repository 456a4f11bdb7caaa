"""Links to our own results and inputs that come back as inputs: the bytes are read from storage instead of fetched.

The guarded fetcher may not reach private addresses, and this server often runs on one.
"""

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import parse_qsl

from worker import storage
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id
from worker.core.media.image import MAX_INPUT_BYTES
from worker.core.security.share_links import read_album_file_link
from worker.core.security.signed_links import check_link, read_input_link
from worker.core.settings import get_settings
from worker.db.albums import album_files
from worker.db.engine import Row, retry_for_a_caller, transaction
from worker.db.jobs import inputs, queries
from worker.db.jobs.inputs import InputOrigin

# Base URL of the current request; links in its responses start with it.
_origin: ContextVar[str] = ContextVar("origin", default="")


def set_request_origin(base: str) -> None:
    """Set the base URL of the current request; called once, before the body is read."""
    _origin.set(base)


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A copy of a stored file, and where an input that is made from it comes from."""

    content: IO[bytes] = field(repr=False)
    size: int
    origin: InputOrigin


def open_own_file(link: str, *, media: str, param: str) -> OwnFile | None:
    """Return a copy of the stored result or input that a link points to; None for any other link.

    `media` is image, video or audio. Raises file_expired when the result was removed, invalid_value when it is of
    another type, link_expired or link_not_signed when the link is not valid.
    """
    kind, name, query = _split(link)
    if not kind:
        return None
    try:
        row = _find_result(name, link) if kind == "files" else _FINDERS[kind](name, dict(parse_qsl(query)))
    except DreameryError as error:
        raise DreameryError(error.code, f"`{param}`: {error.message}", param=param) from None
    if row is not None and row.mime.startswith(f"{media}/"):
        if row.bytes > MAX_INPUT_BYTES:
            message = f"`{param}` is larger than {MAX_INPUT_BYTES // 1024 // 1024} MB. Send a smaller file."
            raise DreameryError(f"invalid_{media}", message, param=param)
        try:
            return OwnFile(storage.open_file(row.key), row.bytes, _origin_of(kind, row))
        except storage.MissingFileError:
            row = None
    problem = "no longer exists" if row is None else f"is not of type `{media}`"
    message = f"`{param}` links to a result of this server that {problem}. Send the file itself, or another link."
    raise DreameryError("file_expired" if row is None else "invalid_value", message, param=param)


def _split(link: str) -> tuple[str, str, str]:
    """Return the kind, the name and the query of a link to a file of this server; empty texts for any other link."""
    for origin in {origin for origin in (_origin.get(), get_settings().public_url) if origin}:
        for kind in ("files", *_FINDERS):
            if link.startswith(start := f"{origin}/v1/{kind}/"):
                name, _, query = link.removeprefix(start).partition("?")
                return kind, name.partition("/")[0], query
    return "", "", ""


@retry_for_a_caller
def _find_result(public: str, link: str) -> "Row[Any] | None":
    check_link(link, public)
    found = parse_public_id("file", public)
    with transaction() as tx:
        row = queries.file_row(tx, found) if found else None
    return row if row is not None and row.removed_at is None else None


@retry_for_a_caller
def _find_input(name: str, query: dict[str, str]) -> "Row[Any] | None":
    job_id, n = read_input_link(name, query.get("expires", ""), query.get("signature", ""))
    with transaction() as tx:
        row = next((row for row in inputs.original_inputs(tx, job_id) if row.n == n), None)
    return row if row is not None and row.key is not None else None


@retry_for_a_caller
def _find_album_file(name: str, query: dict[str, str]) -> "Row[Any] | None":
    item_id, user_id = read_album_file_link(name, query.get("expires", ""), query.get("signature", ""))
    with transaction() as tx:
        return album_files.find_item(tx, item_id, user_id)


_FINDERS = {"inputs": _find_input, "album-files": _find_album_file}


def _origin_of(kind: str, row: "Row[Any]") -> InputOrigin:
    if kind == "inputs":
        # An input that is used again comes from where it came from before.
        return InputOrigin(row.origin_file_id, row.url)
    return InputOrigin(row.file_id if kind == "album-files" else row.id)
