"""Rows of stored result files. The bytes are in `worker/storage.py`."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, text

from worker.db.engine import Transaction


@dataclass(frozen=True, slots=True)
class NewFile:
    """A stored file: its number in the job (from 0), its storage key, and properties read from the bytes."""

    n: int
    key: str
    mime: str
    bytes: int
    sha256: str
    width: int | None
    height: int | None
    seconds: float | None = None
    variant: str = "original"  # original, thumbnail, spritesheet


# The id is random (122 bits), because it is the unguessable part of the link.
_ADD = text(
    """INSERT INTO files (id, job_id, n, variant, key, mime, bytes, sha256, width, height, seconds)
       VALUES (:id, :job_id, :n, :variant, :key, :mime, :bytes, :sha256, :width, :height, :seconds)
       ON CONFLICT (job_id, n, variant) DO NOTHING"""
)


def add_files(tx: Transaction, job_id: UUID, new_files: list[NewFile]) -> None:
    """Insert the rows of a job's files; existing rows stay unchanged."""
    tx.run(
        _ADD,
        [
            {
                "id": uuid4(),
                "job_id": job_id,
                "n": item.n,
                "key": item.key,
                "mime": item.mime,
                "bytes": item.bytes,
                "sha256": item.sha256,
                "width": item.width,
                "height": item.height,
                "seconds": item.seconds,
                "variant": item.variant,
            }
            for item in new_files
        ],
    )


def mark_removed(tx: Transaction, file_ids: list[UUID]) -> None:
    """Record that the bytes were deleted. The rows stay, so that a link answers 410."""
    tx.run(
        text("UPDATE files SET removed_at = coalesce(removed_at, now()), erased_at = now() WHERE id = ANY(:ids)"),
        {"ids": file_ids},
    )


def find_files_to_erase(tx: Transaction, *, limit: int) -> list[Row[Any]]:
    """Return `id` and `key` of removed files whose bytes still exist."""
    return tx.all(
        text("SELECT id, key FROM files WHERE removed_at IS NOT NULL AND erased_at IS NULL LIMIT :limit"),
        {"limit": limit},
    )


def known_keys(tx: Transaction, keys: list[str]) -> set[str]:
    """Return those of the keys that a file row still references."""
    rows = tx.all(text("SELECT key FROM files WHERE key = ANY(:keys) AND erased_at IS NULL"), {"keys": keys})
    return {row.key for row in rows}
