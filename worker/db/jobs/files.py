"""Rows of stored result files. The bytes are in `worker/storage.py`."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, text

from worker.db.column_values import finite, known
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
    variant: str = "original"  # original, thumbnail, spritesheet, last_frame
    layer: Mapping[str, Any] | None = None  # of a layer of a picture: name, description, box


# The id is random (122 bits), because it is the unguessable part of the link.
_ADD = text(
    """/* add_files */
    INSERT INTO files (id, job_id, n, variant, key, mime, bytes, sha256, width, height, seconds, layer)
    SELECT id, job_id, n, variant, key, mime, bytes, sha256, width, height, seconds, layer
    FROM jsonb_to_recordset(CAST(:files AS jsonb)) AS f(id uuid, job_id uuid, n integer, variant text, key text,
        mime text, bytes bigint, sha256 text, width integer, height integer, seconds float8, layer jsonb)
    ORDER BY job_id, n, variant ON CONFLICT (job_id, n, variant) DO NOTHING"""
)


def add_files(tx: Transaction, new_files: Iterable[tuple[UUID, NewFile]]) -> None:
    """Insert the rows of files, each with its job; existing rows stay unchanged."""
    rows = [
        {
            **asdict(item),
            "id": str(uuid4()),
            "job_id": str(job_id),
            "width": known(item.width),
            "height": known(item.height),
            "seconds": finite(item.seconds),
        }
        for job_id, item in new_files
    ]
    if rows:
        tx.run(_ADD, {"files": json.dumps(rows)})


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
