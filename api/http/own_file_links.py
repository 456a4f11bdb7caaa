"""Links to results of ours that come back as inputs: their bytes are read here, not fetched.

The guarded fetcher may not reach private addresses, and where this server stands is often one.
"""

from contextvars import ContextVar

from worker import storage
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id
from worker.core.security.signed_links import check_link
from worker.core.settings import get_settings
from worker.db.engine import Row, retry_when_database_away, transaction
from worker.db.jobs import queries

# Where the request that is being answered came in; its answers hold links that begin so.
_origin: ContextVar[str] = ContextVar("origin", default="")


def note_origin(base: str) -> None:
    """Said once per request, before its body is read."""
    _origin.set(base)


def own_bytes(link: str, *, media: str, param: str) -> bytes | None:
    """The bytes behind a link to a stored result; None when it leads elsewhere.

    `media` is image, video or audio. Raises file_expired when the result is gone or is something else, link_expired
    or link_not_signed when the link is no good (any more).
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
        try:
            return storage.read_file(row.key)
        except storage.MissingFileError:
            row = None
    what = "is not there any more" if row is None or row.removed_at is not None else f"is no {media}"
    message = f"`{param}` is a link to a result here that {what}. Send the file itself, or another link."
    raise DreameryError("file_expired" if "any more" in what else "invalid_value", message, param=param)


def _file_id(link: str) -> str | None:
    for start in {f"{origin}/v1/files/" for origin in (_origin.get(), get_settings().public_url) if origin}:
        if link.startswith(start):
            return link.removeprefix(start).partition("/")[0].partition("?")[0]
    return None


@retry_when_database_away
def _file_row(public: str) -> "Row[object] | None":
    found = parse_public_id("file", public)
    with transaction() as tx:
        return queries.file_row(tx, found) if found else None
