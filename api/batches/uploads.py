"""Stores the files of batches within the limits of their owner."""

import hashlib
from typing import IO, Any
from uuid import UUID

from api.auth.caller import Caller
from worker import storage
from worker.core.errors import DreameryError
from worker.core.ids import new_id
from worker.core.settings import get_settings
from worker.db.batches import batch_files
from worker.db.batches.batch_files import NewBatchFile
from worker.db.engine import Row, Transaction, transaction

MOST_FILES = 1000
# Of all uploads of an owner, in files of the largest size.
_MOST_FULL_FILES = 50
_CHUNK = 1_000_000


def key_root_of(caller: Caller) -> UUID | None:
    """Return the key whose files and batches a caller sees; None = all of its user."""
    return None if caller.has_scope("read") else caller.key_root


def user_of(caller: Caller) -> UUID:
    """Return the user. Raises `forbidden` for callers with session ids, whose secrets a batch would have to keep."""
    if caller.user_id is None:
        raise DreameryError("forbidden", "Batches need an API key of this platform (`sk-dreamery-...`).")
    return caller.user_id


def store_upload(
    content: IO[bytes], caller: Caller, *, name: str, mime: str, expires_seconds: int | None = None
) -> "Row[Any]":
    """Store an upload and its row; return the row. Raises `file_limit`, and `request_too_large` for a large file.

    The bytes are stored before the row: what is left without one is deleted by the clean-up.
    """
    size, digest = _measure(content)
    if size > (most := get_settings().batch_max_bytes):
        raise DreameryError("request_too_large", f"A file has at most {most} bytes; this one has {size}.", param="file")
    with transaction() as tx:
        _check_room(tx, caller, size)
    new = NewBatchFile(
        id=new_id(),
        owner=caller.owner,
        user_id=user_of(caller),
        api_key_id=caller.api_key_id,
        purpose="batch",
        name=name,
        mime=mime,
        bytes=size,
        sha256=digest,
        expires_seconds=expires_seconds,
    )
    content.seek(0)
    storage.put_file(new.key, content)
    try:
        with transaction() as tx:
            batch_files.lock_owner(tx, caller.owner)
            _check_room(tx, caller, size)
            batch_files.add_file(tx, new)
            row = batch_files.find_file(tx, new.id, owner=caller.owner, key_root=None)
    except DreameryError:
        storage.delete_file(new.key)
        raise
    if row is None:
        raise LookupError("the row of a new file is missing")
    return row


def _measure(content: IO[bytes]) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    content.seek(0)
    while chunk := content.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


def _check_room(tx: Transaction, caller: Caller, size: int) -> None:
    count, used = batch_files.usage(tx, caller.owner)
    most = _MOST_FULL_FILES * get_settings().batch_max_bytes
    if count >= MOST_FILES or used + size > most:
        message = (
            f"You have {count} files with {used} bytes; the most are {MOST_FILES} files and {most} bytes. "
            "Delete some first."
        )
        raise DreameryError("file_limit", message)
