"""Links to our own results that come back as inputs: the bytes are read from storage instead of fetched.

The guarded fetcher may not reach private addresses, and this server often runs on one.
"""

from contextvars import ContextVar
from typing import IO, Any

from worker import storage
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id
from worker.core.media.image import MAX_INPUT_BYTES
from worker.core.security.signed_links import check_link
from worker.core.settings import get_settings
from worker.db.engine import Row, retry_for_a_caller, transaction
from worker.db.jobs import queries

# Base URL of the current request; links in its responses start with it.
_origin: ContextVar[str] = ContextVar("origin", default="")


def set_request_origin(base: str) -> None:
    """Set the base URL of the current request; called once, before the body is read."""
    _origin.set(base)


def open_own_file(link: str, *, media: str, param: str) -> tuple[IO[bytes], int] | None:
    """Return a copy of the stored result that a link points to, and its size; None for any other link.

    `media` is image, video or audio. Raises file_expired when the result was removed, invalid_value when it is of
    another type, link_expired or link_not_signed when the link is not valid.
    """
    file_id = _file_id(link)
    if file_id is None:
        return None
    try:
        check_link(link, file_id)
    except DreameryError as error:
        raise DreameryError(error.code, f"`{param}`: {error.message}", param=param) from None
    row = _file_row(file_id)
    if row is not None and row.removed_at is None and row.mime.startswith(f"{media}/"):
        if row.bytes > MAX_INPUT_BYTES:
            message = f"`{param}` is larger than {MAX_INPUT_BYTES // 1024 // 1024} MB. Send a smaller file."
            raise DreameryError(f"invalid_{media}", message, param=param)
        try:
            return storage.open_file(row.key), row.bytes
        except storage.MissingFileError:
            row = None
    removed = row is None or row.removed_at is not None
    problem = "no longer exists" if removed else f"is not of type `{media}`"
    message = f"`{param}` links to a result of this server that {problem}. Send the file itself, or another link."
    raise DreameryError("file_expired" if removed else "invalid_value", message, param=param)


def _file_id(link: str) -> str | None:
    for start in {f"{origin}/v1/files/" for origin in (_origin.get(), get_settings().public_url) if origin}:
        if link.startswith(start):
            return link.removeprefix(start).partition("/")[0].partition("?")[0]
    return None


@retry_for_a_caller
def _file_row(public: str) -> "Row[Any] | None":
    found = parse_public_id("file", public)
    with transaction() as tx:
        return queries.file_row(tx, found) if found else None
