"""File storage: a local folder or an S3-compatible bucket, addressed by key. Keys are deterministic; puts are atomic.

obstore writes a temporary file and renames it locally, and S3 shows an upload only when it is complete, so a key holds
all bytes or none. Files are read in ranges of a few megabytes, one request each: a slow reader of a long video holds no
connection to the bucket, and no request outlasts its deadline.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import obstore
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, ObjectStore, S3Store, from_url

from worker.core.errors import DreameryError
from worker.core.media.thumbnail_keys import thumbnail_keys
from worker.core.observability import tracing
from worker.core.settings import Settings, get_settings

_CHUNK_BYTES = 256 * 1024
_RANGE_BYTES = 4 * 1024 * 1024
_SPOOL_BYTES = 8 * 1024 * 1024
_LIST_BATCH = 500
_PARALLEL_UPLOADS = 2
_OWNER_KEY = "platform/owner"
_PROBE_PREFIX = "platform/probes"
_ROOM_KEY = f"{_PROBE_PREFIX}/room"
# Timeout of one request, and the time after which it is not retried: together less than the watchdog of a task.
_REQUEST_SECONDS = 30
_RETRY_SECONDS = 5
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")


class MissingFileError(Exception):
    """No file is stored under the key."""


Problem = Literal["full", "read_only", "refused", "away", "temporary_files"]


class StorageError(DreameryError):
    """The storage is unreachable, full or refuses access. Another try may succeed later."""

    def __init__(self, reason: str, problem: Problem = "away") -> None:
        super().__init__("storage_unavailable", detail=reason)
        self.reason = reason
        self.problem: Problem = problem


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
    """Return the bucket. Unset settings are resolved as by AWS tools: `AWS_*` variables, then the machine role."""
    options: dict[str, Any] = {
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
        **{name: value for name, value in options.items() if value},
    )


def reason_of(error: BaseException) -> str:
    """Describe the error in one line: S3's error code if there is one, never a body or a URL with a query."""
    text = str(error)
    match = _CODE.search(text)
    known = {
        "full": f"it is full ({match[1] if match else 'no space left'})",
        "refused": f"access was refused ({match[1] if match else type(error).__name__})",
        "read_only": "it is read-only",
    }
    if (problem := problem_of(error)) in known:
        return known[problem]
    if match:
        missing = match[1] == "NoSuchBucket"
        return "the bucket does not exist" if missing else f"the storage responded with {match[1]}"
    first = (text.strip().splitlines() or [type(error).__name__])[0]
    if status := _STATUS.search(first):
        return f"it answers {status[1].strip()}"
    if "Error performing" in first:
        return f"it cannot be reached ({first.rpartition(' - ')[2][:100]})"
    return first[:200]


_REFUSALS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken"})
# ENOSPC and EDQUOT of a disk; the status and the codes of servers with the API of S3, which vary.
_FULL = re.compile(
    r"os error (28|122)\b|\[Errno (28|122)\]|code: 507\b|Insufficient ?Storage|<Code>\w*(StorageFull|QuotaExceeded)",
    re.IGNORECASE,
)
_STATUS = re.compile(r"non-2xx status code: (\d{3}[\w ]*)")
_READ_ONLY = re.compile(r"os error 30\b|\[Errno 30\]")


def problem_of(error: BaseException) -> Problem:
    """Return the kind of problem, for those who wait for the storage."""
    text = str(error)
    match = _CODE.search(text)
    if _FULL.search(text):
        return "full"
    if _READ_ONLY.search(text):
        return "read_only"
    refused = isinstance(error, UnauthenticatedError | PermissionDeniedError | PermissionError)
    refused = refused or "os error 13)" in text or (match is not None and match[1] in _REFUSALS)
    return "refused" if refused else "away"


def as_storage_error(error: BaseException) -> StorageError:
    """Return the error of a disk or of the library as a StorageError, without its text, which may hold a response."""
    return StorageError(reason_of(error), problem_of(error))


@contextmanager
def _translate_errors(key: str) -> Iterator[None]:
    """Translate the library's errors. Raises MissingFileError, StorageError."""
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        if "NoSuchBucket" in str(error):
            raise as_storage_error(error) from None
        raise MissingFileError(key) from error
    except (BaseError, OSError) as error:
        # Not chained: the library's text contains whole responses of the server.
        raise as_storage_error(error) from None


def put_file(key: str, content: IO[bytes]) -> None:
    """Store the file under the key and replace an existing one. Raises StorageError.

    Large files are uploaded in parts. A life-cycle rule of the bucket has to remove the parts of failed uploads.
    """
    content.seek(0)
    _put(key, content)


def put_bytes(key: str, content: bytes) -> None:
    """Store a few megabytes under the key, as `put_file` does, without copying them."""
    _put(key, content)


def _put(key: str, content: IO[bytes] | bytes) -> None:
    try:
        with tracing.span("store file", kind="client", file__key=key), _translate_errors(key):
            _store().put(key, content, max_concurrency=_PARALLEL_UPLOADS)
    except MissingFileError as error:
        raise StorageError("the target folder does not exist") from error


def delete_file(key: str) -> None:
    """Delete the file and its kept thumbnails, as far as they exist. Raises StorageError."""
    for each in (key, *thumbnail_keys(key)):
        with suppress(MissingFileError), _translate_errors(each):
            _store().delete(each)


def list_old_keys(prefix: str, *, hours: float) -> Iterator[list[str]]:
    """Yield batches of keys under a prefix whose files are older than `hours`. Raises StorageError."""
    for batch, _last in list_pages(prefix, hours=hours):
        yield batch


def list_pages(prefix: str, *, hours: float, after: str = "") -> Iterator[tuple[list[str], str]]:
    """Like `list_old_keys`, but each batch comes with the last listed key: pass it as `after` to continue.

    Only a bucket lists in order; see `lists_in_order`.
    """
    before = datetime.now(UTC) - timedelta(hours=hours)
    with _translate_errors(prefix):
        for batch in _store().list(prefix, offset=after or None, chunk_size=_LIST_BATCH):
            keys = [item["path"] for item in batch if item["last_modified"] < before]
            yield keys, max(item["path"] for item in batch)


def lists_in_order() -> bool:
    """Return whether a listing can be continued after a key."""
    return isinstance(_store(), S3Store)


def file_size(key: str) -> int:
    """Return the size of a file in bytes. Raises MissingFileError, StorageError."""
    with _translate_errors(key):
        return int(_store().head(key)["size"])


def read_file(key: str) -> bytes:
    """Return all bytes of a file. Raises MissingFileError, StorageError."""
    return b"".join(read_chunks(key))


def read_chunks(key: str) -> Iterator[bytes]:
    """Yield all bytes of a file, a few megabytes at a time. Raises MissingFileError, StorageError."""
    with _translate_errors(key):
        first = _store().get(key, options={"range": (0, _RANGE_BYTES)})
        size, chunk = int(first.meta["size"]), bytes(first.bytes())
    yield chunk
    for start in range(_RANGE_BYTES, size, _RANGE_BYTES):
        with _translate_errors(key):
            chunk = bytes(_store().get_range(key, start=start, end=min(start + _RANGE_BYTES, size)))
        yield chunk


def open_file(key: str, *, on_chunk: Callable[[], object] = lambda: None) -> IO[bytes]:
    """Return the file as a temporary copy, which is deleted when closed. `on_chunk` is called for every chunk.

    Raises MissingFileError, StorageError.
    """
    content = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - the caller closes it
    try:
        for chunk in read_chunks(key):
            on_chunk()
            content.write(chunk)
    except BaseException:
        content.close()
        raise
    content.seek(0)
    return content


def iter_file(key: str, *, size: int) -> Iterator[bytes]:
    """Yield all bytes of a file in chunks, read on demand. Raises MissingFileError before the first chunk."""
    try:
        result = _store().get(key, options={"range": (0, size)})
    except (NotFoundError, FileNotFoundError) as error:
        raise MissingFileError(key) from error
    for chunk in result.stream(min_chunk_size=_CHUNK_BYTES):
        yield bytes(chunk)


async def stream_file(key: str, *, start: int, end: int) -> AsyncIterator[bytes]:
    """Return an iterator over the bytes from `start` up to but not including `end`.

    Raises MissingFileError or StorageError before the first chunk.
    """
    first = await _read_range(key, start, end)

    async def chunks() -> AsyncIterator[bytes]:
        data, position = first, start
        while data:
            for offset in range(0, len(data), _CHUNK_BYTES):
                yield data[offset : offset + _CHUNK_BYTES]
            position += len(data)
            data = await _read_range(key, position, end)

    return chunks()


async def _read_range(key: str, start: int, end: int) -> bytes:
    if start >= end:
        return b""
    with _translate_errors(key):
        return bytes(await _store().get_range_async(key, start=start, end=min(start + _RANGE_BYTES, end)))


def check_room(size: int) -> None:
    """Store and delete a few bytes, and check that a local folder has room for `size` bytes. Raises StorageError."""
    free = free_bytes()
    if free is not None and free < size:
        raise StorageError("it is full (no space left)", "full")
    with _translate_errors(_ROOM_KEY):
        _store().put(_ROOM_KEY, b"dreamery")
    # It is in nobody's way, and another process may have deleted it already.
    with suppress(MissingFileError, StorageError), _translate_errors(_ROOM_KEY):
        _store().delete(_ROOM_KEY)


def free_bytes() -> int | None:
    """Return the free bytes of a local folder; None = a bucket, which does not tell."""
    folder = local_folder()
    return None if folder is None else shutil.disk_usage(folder).free


def local_folder() -> Path | None:
    """Return the folder of the files, or its nearest parent that exists; None = a bucket."""
    parts = urlsplit(get_settings().files_url)
    if parts.scheme != "file":
        return None
    folder = Path(unquote(parts.path))
    return next((each for each in (folder, *folder.parents) if each.exists()), Path("/"))


def delete_unfinished(*, hours: float) -> int:
    """Delete what killed processes left half written in a local folder. Return the number of files."""
    root, deleted = local_folder(), 0
    before = time.time() - hours * 3600
    for folder, _, names in os.walk(root) if root else ():
        for name in names:
            path = Path(folder) / name
            # The library writes `NAME#1` and renames it.
            with suppress(FileNotFoundError):
                if re.search(r"#\d+$", name) and path.stat().st_mtime < before:
                    path.unlink()
                    deleted += 1
    return deleted


def probe() -> str:
    """Store, read and delete a few bytes, for the doctor. Return the location of the storage. Raises StorageError.

    Leaves no folder that was not there before: a check in any folder must not look like a platform's data.
    """
    key, written = f"{_PROBE_PREFIX}/{uuid4().hex}", b"dreamery"
    missing: list[Path] = []
    try:
        with _translate_errors(key):
            missing = _missing_folders(key)
            _store().put(key, written)
            read = bytes(_store().get(key).bytes())
            _store().delete(key)
    except MissingFileError as error:
        raise StorageError("a file is missing right after it was stored") from error
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
    if read != written:
        raise StorageError("the storage returned other bytes than were stored")
    return describe_location()


def _missing_folders(key: str) -> list[Path]:
    """Return the folders that a file will need and that do not exist, innermost first; none in a bucket."""
    parts = urlsplit(get_settings().files_url)
    path = Path(unquote(parts.path)) / key
    return [folder for folder in path.parents if not folder.exists()] if parts.scheme == "file" else []


def describe_location() -> str:
    """Return where the files are stored, without secrets."""
    parts = urlsplit(get_settings().files_url)
    if parts.scheme == "file":
        return unquote(parts.path)
    endpoint = urlsplit(get_settings().s3_endpoint).netloc.rpartition("@")[2]
    return f"{parts.scheme}://{parts.hostname}{parts.path}" + (f" at {endpoint}" if endpoint else "")


def read_owner() -> str | None:
    """Return the platform that deletes orphaned files here; None = not claimed yet. Raises StorageError."""
    try:
        return read_file(_OWNER_KEY).decode(errors="replace").strip()
    except MissingFileError:
        return None


def claim_ownership(platform: str) -> str:
    """Become the owner if there is none. Return the owner. Raises StorageError."""
    if (known := read_owner()) is not None:
        return known
    try:
        with _translate_errors(_OWNER_KEY):
            obstore.put(_store(), _OWNER_KEY, platform.encode(), mode="create")
    except (MissingFileError, StorageError):
        # Another platform was faster, or the storage does not support conditional puts: the stored owner counts.
        known = read_owner()
        if known is None:
            raise
        return known
    return platform


def take_ownership(platform: str) -> None:
    """Become the owner, even if another platform is. Raises StorageError."""
    with _translate_errors(_OWNER_KEY):
        _store().put(_OWNER_KEY, platform.encode())
