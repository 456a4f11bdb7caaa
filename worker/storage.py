"""Result bytes: a local folder or an S3-compatible bucket, by key. Keys are deterministic; puts are atomic.

obstore does the work: its local store writes a temporary file and renames it, S3 shows an upload only when it is
complete, so a key holds all bytes or none. Bytes are read in ranges of a few megabytes, each a request of its own: a
slow reader of a long film holds no connection to the bucket, and no request outlasts its deadline.
"""

import re
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import obstore
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, ObjectStore, S3Store, from_url

from worker.core.errors import DreameryError
from worker.core.observability import tracing
from worker.core.settings import Settings, get_settings

_CHUNK_BYTES = 256 * 1024
_PIECE_BYTES = 4 * 1024 * 1024
_SPOOL_BYTES = 8 * 1024 * 1024
_LIST_BATCH = 500
_UPLOADS_AT_ONCE = 2
_OWNER_KEY = "platform/owner"
_PROBES = "platform/probes"
# One request, and after which time it is not tried again: together less than the watchdog of a step.
_REQUEST_SECONDS = 30
_RETRY_SECONDS = 5
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")


class MissingFileError(Exception):
    """The key has no bytes."""


class StorageError(DreameryError):
    """The storage does not do what it should: it is away, full, or refuses us. Worth another try later."""

    def __init__(self, reason: str) -> None:
        super().__init__("storage_unavailable", detail=reason)
        self.reason = reason


@lru_cache(maxsize=1)
def _store() -> ObjectStore:
    settings = get_settings()
    parts = urlsplit(settings.files_url)
    if parts.scheme == "file":
        folder = Path(unquote(parts.path))
        folder.mkdir(parents=True, exist_ok=True)
        return LocalStore(folder, mkdir=True)
    if parts.scheme == "s3":
        return _bucket(settings, parts.netloc, unquote(parts.path).strip("/"))
    return from_url(settings.files_url)


def _bucket(settings: Settings, bucket: str, prefix: str) -> S3Store:
    """What is not set here is found as AWS' own tools find it: `AWS_*` variables, then the machine's role."""
    given: dict[str, Any] = {
        "endpoint": settings.s3_endpoint,
        "region": settings.s3_region,
        "access_key_id": settings.s3_access_key_id,
        "secret_access_key": settings.s3_secret_access_key.get_secret_value(),
    }
    return S3Store(
        bucket,
        prefix=prefix or None,
        client_options={
            "allow_http": settings.s3_endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=5),
            "timeout": timedelta(seconds=_REQUEST_SECONDS),
        },
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=_RETRY_SECONDS)},
        **{name: value for name, value in given.items() if value},
    )


def reason_of(error: BaseException) -> str:
    """What went wrong in one line: S3's own code where it told one, never a body or an address with a query."""
    text = str(error)
    told = _CODE.search(text)
    if isinstance(error, UnauthenticatedError | PermissionDeniedError) or (told and told[1] in _REFUSALS):
        return f"access was refused ({told[1] if told else type(error).__name__})"
    if told and told[1] == "NoSuchBucket":
        return "the bucket does not exist"
    if told:
        return f"the storage answered {told[1]}"
    first = (text.strip().splitlines() or [type(error).__name__])[0]
    if "Error performing" in first:
        return f"it cannot be reached ({first.rpartition(' - ')[2][:100]})"
    return first[:200]


_REFUSALS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken"})


@contextmanager
def _speaking(key: str) -> Iterator[None]:
    """The library's errors as ours. Raises MissingFileError, StorageError."""
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        if "NoSuchBucket" in str(error):
            raise StorageError(reason_of(error)) from None
        raise MissingFileError(key) from error
    except (BaseError, OSError) as error:
        # Not chained: the library's text holds whole answers of the server.
        raise StorageError(reason_of(error)) from None


def put_file(key: str, content: IO[bytes]) -> None:
    """Store the bytes under the key; the same key again stores the same bytes again. Raises StorageError.

    Large ones go up in parts; parts of an upload that dies are the bucket's to remove (a life-cycle rule).
    """
    content.seek(0)
    try:
        with tracing.span("store file", kind="client", file__key=key), _speaking(key):
            _store().put(key, content, max_concurrency=_UPLOADS_AT_ONCE)
    except MissingFileError as error:
        raise StorageError("the place for it does not exist") from error


def delete_file(key: str) -> None:
    """Remove the bytes; a key without bytes is fine. Raises StorageError."""
    try:
        with _speaking(key):
            _store().delete(key)
    except MissingFileError:
        return


def old_keys(prefix: str, *, hours: float) -> Iterator[list[str]]:
    """Keys under a folder whose bytes were stored more than `hours` ago, in batches. Raises StorageError."""
    for batch, _last in pages(prefix, hours=hours):
        yield batch


def pages(prefix: str, *, hours: float, after: str = "") -> Iterator[tuple[list[str], str]]:
    """Like `old_keys`, each batch with the last key that was looked at: go on behind it with `after`.

    Only a bucket lists in order; see `lists_in_order`.
    """
    before = datetime.now(UTC) - timedelta(hours=hours)
    with _speaking(prefix):
        for batch in _store().list(prefix, offset=after or None, chunk_size=_LIST_BATCH):
            keys = [item["path"] for item in batch if item["last_modified"] < before]
            yield keys, max(item["path"] for item in batch)


def lists_in_order() -> bool:
    """Whether a listing may be left off and taken up again behind a key."""
    return isinstance(_store(), S3Store)


def size_of(key: str) -> int:
    """How many bytes a key has. Raises MissingFileError, StorageError."""
    with _speaking(key):
        return int(_store().head(key)["size"])


def read_file(key: str) -> bytes:
    """All bytes of a key. Raises MissingFileError, StorageError."""
    return b"".join(read_pieces(key))


def read_pieces(key: str) -> Iterator[bytes]:
    """All bytes of a key, a few megabytes at a time. Raises MissingFileError, StorageError."""
    with _speaking(key):
        first = _store().get(key, options={"range": (0, _PIECE_BYTES)})
        size, piece = int(first.meta["size"]), bytes(first.bytes())
    yield piece
    for start in range(_PIECE_BYTES, size, _PIECE_BYTES):
        with _speaking(key):
            piece = bytes(_store().get_range(key, start=start, end=min(start + _PIECE_BYTES, size)))
        yield piece


def open_file(key: str, *, keep: Callable[[], object] = lambda: None) -> IO[bytes]:
    """All bytes of a key in a temporary file that vanishes when closed; `keep` is called with every piece.

    Raises MissingFileError, StorageError.
    """
    content = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - the caller closes it
    try:
        for piece in read_pieces(key):
            keep()
            content.write(piece)
    except BaseException:
        content.close()
        raise
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
    """Bytes `start` up to but not including `end`, in chunks.

    Raises MissingFileError or StorageError before the first chunk.
    """
    first = await _range(key, start, end)

    async def chunks() -> AsyncIterator[bytes]:
        piece, at = first, start
        while piece:
            for offset in range(0, len(piece), _CHUNK_BYTES):
                yield piece[offset : offset + _CHUNK_BYTES]
            at += len(piece)
            piece = await _range(key, at, end)

    return chunks()


async def _range(key: str, start: int, end: int) -> bytes:
    if start >= end:
        return b""
    with _speaking(key):
        return bytes(await _store().get_range_async(key, start=start, end=min(start + _PIECE_BYTES, end)))


def probe() -> str:
    """Store, read and remove a few bytes, for the doctor; where the storage is. Raises StorageError."""
    key, said = f"{_PROBES}/{uuid4().hex}", b"dreamery"
    try:
        with _speaking(key):
            _store().put(key, said)
            heard = bytes(_store().get(key).bytes())
            _store().delete(key)
    except MissingFileError as error:
        raise StorageError("what was stored is not there a moment later") from error
    if heard != said:
        raise StorageError("other bytes came back than were stored")
    return place()


def place() -> str:
    """Where the bytes are, in words, without anything secret."""
    parts = urlsplit(get_settings().files_url)
    if parts.scheme == "file":
        return unquote(parts.path)
    where = urlsplit(get_settings().s3_endpoint).netloc.rpartition("@")[2]
    return f"{parts.scheme}://{parts.hostname}{parts.path}" + (f" at {where}" if where else "")


def owner() -> str | None:
    """The platform that removes what no row names here; None = nobody has said so yet. Raises StorageError."""
    try:
        return read_file(_OWNER_KEY).decode(errors="replace").strip()
    except MissingFileError:
        return None


def claim(platform: str) -> str:
    """Become the owner where there is none; who it is then. Raises StorageError."""
    if (known := owner()) is not None:
        return known
    try:
        with _speaking(_OWNER_KEY):
            obstore.put(_store(), _OWNER_KEY, platform.encode(), mode="create")
    except (MissingFileError, StorageError):
        # Somebody was faster, or the storage cannot create conditionally: what stands there decides.
        known = owner()
        if known is None:
            raise
        return known
    return platform


def take(platform: str) -> None:
    """Become the owner whoever it was. Raises StorageError."""
    with _speaking(_OWNER_KEY):
        _store().put(_OWNER_KEY, platform.encode())
