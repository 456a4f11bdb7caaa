"""Rows of the files of batches: uploads, results and errors. The bytes are in `worker/storage.py`."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.db.engine import Transaction

# Folder of the storage keys.
PREFIX = "batches"


@dataclass(frozen=True, slots=True)
class NewBatchFile:
    """A stored file of a user. `purpose`: `batch` = an upload, `batch_output` = written by a batch."""

    id: UUID
    owner: str
    user_id: UUID
    api_key_id: UUID | None
    purpose: str
    name: str
    mime: str
    bytes: int
    sha256: str
    expires_seconds: int | None = None

    @property
    def key(self) -> str:
        """The storage key of its bytes."""
        return storage_key(self.id)


def storage_key(file_id: UUID) -> str:
    """Return the storage key of a file's bytes."""
    return f"{PREFIX}/{file_id.hex}"


def lock_owner(tx: Transaction, owner: str) -> None:
    """Block other uploads of this owner until the commit, so that their number and size are exact."""
    tx.run(text("SELECT pg_advisory_xact_lock(hashtextextended('batch files ' || :owner, 0))"), {"owner": owner})


def usage(tx: Transaction, owner: str) -> tuple[int, int]:
    """Return the number of an owner's uploads and their bytes."""
    row = tx.first(
        text(
            """SELECT count(*) AS n, coalesce(sum(bytes), 0) AS bytes FROM batch_files
               WHERE owner = :owner AND purpose = 'batch' AND removed_at IS NULL"""
        ),
        {"owner": owner},
    )
    return (int(row.n), int(row.bytes)) if row is not None else (0, 0)


def add_file(tx: Transaction, new: NewBatchFile) -> None:
    """Insert the row of a stored file. One that exists already, of an interrupted try, stays."""
    tx.run(
        text(
            """INSERT INTO batch_files (id, owner, user_id, api_key_id, purpose, name, key, mime, bytes, sha256,
                                        expires_at)
               VALUES (:id, :owner, :user_id, :api_key_id, :purpose, :name, :key, :mime, :bytes, :sha256,
                       now() + make_interval(secs => CAST(:expires_seconds AS double precision)))
               ON CONFLICT DO NOTHING"""
        ),
        {
            "id": new.id,
            "owner": new.owner,
            "user_id": new.user_id,
            "api_key_id": new.api_key_id,
            "purpose": new.purpose,
            "name": new.name,
            "key": new.key,
            "mime": new.mime,
            "bytes": new.bytes,
            "sha256": new.sha256,
            "expires_seconds": new.expires_seconds,
        },
    )


# A key that may not read everything of its user sees the files of its own and its rotations.
_VISIBLE = """owner = :owner AND removed_at IS NULL AND (expires_at IS NULL OR expires_at > now())
    AND (CAST(:key_root AS uuid) IS NULL OR api_key_id IN (
        SELECT id FROM api_keys WHERE id = :key_root OR root_id = :key_root))"""


def find_file(tx: Transaction, file_id: UUID, *, owner: str, key_root: UUID | None) -> Row[Any] | None:
    """Return a file of an owner; None if there is none. `key_root` = only files of this key and its rotations."""
    values = {"id": file_id, "owner": owner, "key_root": key_root}
    return tx.first(text(f"SELECT * FROM batch_files WHERE id = :id AND {_VISIBLE}"), values)


def list_files(
    tx: Transaction,
    *,
    owner: str,
    key_root: UUID | None,
    purpose: str | None,
    after: UUID | None,
    limit: int,
    newest_first: bool,
) -> list[Row[Any]]:
    """Return files of an owner. `after` = the last id of the previous page."""
    compare, order = ("<", "DESC") if newest_first else (">", "ASC")
    values = {"owner": owner, "key_root": key_root, "purpose": purpose, "after": after, "limit": limit}
    return tx.all(
        text(
            f"""SELECT * FROM batch_files WHERE {_VISIBLE}
                AND (CAST(:purpose AS text) IS NULL OR purpose = :purpose)
                AND (CAST(:after AS uuid) IS NULL OR id {compare} :after) ORDER BY id {order} LIMIT :limit"""
        ),
        values,
    )


def is_in_use(tx: Transaction, file_id: UUID) -> bool:
    """Return whether a batch still has to read the file."""
    statement = "SELECT 1 FROM batches WHERE input_file_id = :id AND state = 'validating' LIMIT 1"
    return tx.first(text(statement), {"id": file_id}) is not None


def remove_file(tx: Transaction, file_id: UUID) -> None:
    """Record that a file can no longer be read. The clean-up deletes its bytes if the caller does not."""
    tx.run(text("UPDATE batch_files SET removed_at = now() WHERE id = :id AND removed_at IS NULL"), {"id": file_id})


def remove_expired(tx: Transaction, *, limit: int) -> int:
    """Remove files whose time is over, except those that a batch still has to read; return how many."""
    rows = tx.all(
        text(
            """/* remove_expired_files */
            UPDATE batch_files SET removed_at = now() WHERE id IN (
                SELECT f.id FROM batch_files f WHERE f.expires_at <= now() AND f.removed_at IS NULL AND NOT EXISTS (
                    SELECT 1 FROM batches b WHERE b.state = 'validating' AND b.input_file_id = f.id)
                ORDER BY f.expires_at LIMIT :limit)
            RETURNING id"""
        ),
        {"limit": limit},
    )
    return len(rows)


def find_files_to_erase(tx: Transaction, *, limit: int) -> list[Row[Any]]:
    """Return `id` and `key` of removed files whose bytes still exist."""
    return tx.all(
        text("SELECT id, key FROM batch_files WHERE removed_at IS NOT NULL AND erased_at IS NULL LIMIT :limit"),
        {"limit": limit},
    )


def mark_erased(tx: Transaction, file_ids: list[UUID]) -> None:
    """Record that the bytes of removed files were deleted."""
    tx.run(text("UPDATE batch_files SET erased_at = now() WHERE id = ANY(:ids)"), {"ids": file_ids})


def known_keys(tx: Transaction, keys: list[str]) -> set[str]:
    """Return those of the storage keys that a row still refers to."""
    rows = tx.all(text("SELECT key FROM batch_files WHERE key = ANY(:keys) AND erased_at IS NULL"), {"keys": keys})
    return {row.key for row in rows}
