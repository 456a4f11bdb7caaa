"""The files of albums: their order, and who may read which."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.ids import new_id
from worker.db.albums.albums import LIVE_FILES
from worker.db.engine import Transaction
from worker.db.jobs.queries import Viewer, visibility_condition

MOST_FILES = 2000

# The preview of a video is the first frame that is stored with it.
_POSTER = """LEFT JOIN files p ON p.job_id = f.job_id AND p.n = f.n AND p.variant = 'thumbnail'
    AND p.removed_at IS NULL AND f.mime LIKE 'video/%'"""
SHOWN_COLUMNS = """f.id AS file_id, f.job_id, f.n, f.variant, f.key, f.mime, f.bytes, f.sha256, f.width, f.height,
    f.seconds, j.owner, j.user_id, j.model, j.params -> 'order' ->> 'prompt' AS prompt, p.key AS poster_key,
    p.sha256 AS poster_sha256"""
SHOWN_FILES = f"{LIVE_FILES} {_POSTER}"


def list_files(tx: Transaction, album_id: UUID, *, after: UUID | None, limit: int) -> list[Row[Any]] | None:
    """Return the next files of an album in its order; None if `after` is not in the album."""
    where, values = "", {"album": album_id, "limit": limit}
    if after is not None:
        last = tx.first(
            text("SELECT position, id FROM album_files WHERE id = :id AND album_id = :album"),
            {"id": after, "album": album_id},
        )
        if last is None:
            return None
        where = "AND (i.position, i.id) > (:position, CAST(:last AS uuid))"
        values |= {"position": last.position, "last": last.id}
    return tx.all(
        text(
            f"""SELECT i.id, i.added_at, i.added_by, u.name AS added_by_name, {SHOWN_COLUMNS}
                FROM album_files i {SHOWN_FILES} JOIN users u ON u.id = i.added_by
                WHERE i.album_id = :album {where} ORDER BY i.position, i.id LIMIT :limit"""
        ),
        values,
    )


def find_files(tx: Transaction, file_ids: list[UUID], viewer: Viewer) -> set[UUID]:
    """Return those of the ids that are results which the viewer may see and that are still stored."""
    condition, values = visibility_condition(viewer)
    rows = tx.all(
        text(
            f"""SELECT f.id FROM files f WHERE f.id = ANY(:ids) AND f.variant = 'original' AND f.removed_at IS NULL
                  AND f.deleted_at IS NULL AND f.job_id IN (SELECT id FROM jobs WHERE {condition})"""
        ),
        {"ids": file_ids, **values},
    )
    return {row.id for row in rows}


def add_files(tx: Transaction, album_id: UUID, file_ids: list[UUID], *, added_by: UUID) -> int | None:
    """Append files to a locked album and return how many it did not have yet; None if it would exceed `MOST_FILES`.

    Rows of files that are gone make room first.
    """
    tx.run(
        text(
            f"""DELETE FROM album_files d WHERE d.album_id = :album AND NOT EXISTS (
                    SELECT 1 FROM album_files i {LIVE_FILES} WHERE i.id = d.id)"""
        ),
        {"album": album_id},
    )
    rows = tx.all(
        text(
            """INSERT INTO album_files (id, album_id, file_id, added_by, position)
               SELECT n.id, :album, n.file_id, :user,
                   n.at + coalesce((SELECT max(position) FROM album_files WHERE album_id = :album), 0)
               FROM unnest(CAST(:ids AS uuid[]), CAST(:files AS uuid[])) WITH ORDINALITY AS n (id, file_id, at)
               ON CONFLICT (album_id, file_id) DO NOTHING RETURNING id"""
        ),
        {"album": album_id, "user": added_by, "ids": [new_id() for _ in file_ids], "files": file_ids},
    )
    count = tx.first(text("SELECT count(*) AS n FROM album_files WHERE album_id = :album"), {"album": album_id})
    return len(rows) if count is None or count.n <= MOST_FILES else None


def remove_files(tx: Transaction, album_id: UUID, item_ids: list[UUID], *, added_by: UUID | None) -> set[UUID]:
    """Take files out of a locked album and return the ids removed. `added_by` = only those of this user."""
    rows = tx.all(
        text(
            """DELETE FROM album_files WHERE album_id = :album AND id = ANY(:ids)
                 AND (CAST(:user AS uuid) IS NULL OR added_by = :user) RETURNING id"""
        ),
        {"album": album_id, "ids": item_ids, "user": added_by},
    )
    return {row.id for row in rows}


def move_files(tx: Transaction, album_id: UUID, item_ids: list[UUID], *, before: UUID | None) -> bool:
    """Put files of a locked album, in this order, before another one, or (None) at its end; False if one is missing."""
    rows = tx.all(text("SELECT id FROM album_files WHERE album_id = :album ORDER BY position, id"), {"album": album_id})
    order = [row.id for row in rows]
    moved = set(item_ids)
    if not moved.issubset(order) or (before is not None and (before not in order or before in moved)):
        return False
    rest = [item for item in order if item not in moved]
    at = len(rest) if before is None else rest.index(before)
    tx.run(
        text(
            """UPDATE album_files f SET position = n.at
               FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS n (id, at)
               WHERE f.id = n.id AND f.position <> n.at"""
        ),
        {"ids": [*rest[:at], *item_ids, *rest[at:]]},
    )
    return True


def find_item(tx: Transaction, item_id: UUID, user_id: UUID) -> Row[Any] | None:
    """Return a file of an album for a user who sees that album now; None otherwise."""
    return tx.first(
        text(
            f"""SELECT i.id, {SHOWN_COLUMNS} FROM album_files i {SHOWN_FILES}
                JOIN albums a ON a.id = i.album_id JOIN users u ON u.id = :user_id AND NOT u.disabled
                WHERE i.id = :item AND (a.user_id = :user_id OR EXISTS (
                    SELECT 1 FROM album_members m WHERE m.album_id = a.id AND m.user_id = :user_id))"""
        ),
        {"item": item_id, "user_id": user_id},
    )
