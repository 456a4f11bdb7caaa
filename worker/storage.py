"""Result bytes: a local folder or an S3-compatible bucket, by key. Keys are deterministic; puts are atomic.

obstore does the work: its local store writes a temporary file and renames it, so a key holds all bytes or none.
"""

import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from obstore.exceptions import NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from worker.core.settings import get_settings

_CHUNK_BYTES = 256 * 1024
_SPOOL_BYTES = 8 * 1024 * 1024
_LIST_BATCH = 500


class MissingFileError(Exception):
    """The key has no bytes."""


@lru_cache(maxsize=1)
def _store() -> ObjectStore:
    url = get_settings().files_url
    parts = urlsplit(url)
    if parts.scheme == "file":
        folder = Path(unquote(parts.path))
        folder.mkdir(parents=True, exist_ok=True)
        return LocalStore(folder, mkdir=True)
    return from_url(url)


def put_file(key: str, content: IO[bytes]) -> None:
    """Store the bytes under the key; the same key again stores the same bytes again."""
    content.seek(0)
    _store().put(key, content)


def delete_file(key: str) -> None:
    """Remove the bytes; a key without bytes is fine."""
    try:
        _store().delete(key)
    except (NotFoundError, FileNotFoundError):
        return


def old_keys(prefix: str, *, hours: float) -> Iterator[list[str]]:
    """Keys under a folder whose bytes were stored more than `hours` ago, in batches."""
    before = datetime.now(UTC) - timedelta(hours=hours)
    for batch in _store().list(prefix, chunk_size=_LIST_BATCH):
        yield [item["path"] for item in batch if item["last_modified"] < before]


def read_file(key: str) -> bytes:
    """All bytes of a key. Raises MissingFileError."""
    try:
        return bytes(_store().get(key).bytes())
    except (NotFoundError, FileNotFoundError) as error:
        raise MissingFileError(key) from error


def open_file(key: str) -> IO[bytes]:
    """All bytes of a key in a temporary file that vanishes when closed. Raises MissingFileError."""
    content = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - the caller closes it
    try:
        for piece in _store().get(key).stream(min_chunk_size=_CHUNK_BYTES):
            content.write(piece)
    except (NotFoundError, FileNotFoundError) as error:
        content.close()
        raise MissingFileError(key) from error
    content.seek(0)
    return content


def iter_file(key: str, *, size: int) -> Iterator[bytes]:
    """All bytes of a key in chunks, read as they are asked for. Raises MissingFileError at the first."""
    try:
        result = _store().get(key, options={"range": (0, size)})
    except (NotFoundError, FileNotFoundError) as error:
        raise MissingFileError(key) from error
    for chunk in result.stream(min_chunk_size=_CHUNK_BYTES):
        yield bytes(chunk)


async def stream_file(key: str, *, start: int, end: int) -> AsyncIterator[bytes]:
    """Bytes `start` up to but not including `end`, in chunks. Raises MissingFileError before the first chunk."""
    try:
        result = await _store().get_async(key, options={"range": (start, end)})
    except (NotFoundError, FileNotFoundError) as error:
        raise MissingFileError(key) from error

    async def chunks() -> AsyncIterator[bytes]:
        async for chunk in result.stream(min_chunk_size=_CHUNK_BYTES):
            yield bytes(chunk)

    return chunks()
