"""Albums and their members: who sees an album, and in which role.

An album belongs to one user. Its members are users of this platform: a viewer sees it, a contributor also adds own
files. A user who loses the membership loses the album with the next request, and the files that it added leave the
album.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.ids import new_id
from worker.db.engine import Transaction

MOST_ALBUMS = 500
MOST_MEMBERS = 100
OWNER, CONTRIBUTOR, VIEWER = "owner", "contributor", "viewer"

# What an album shows of the table `files`, as `f`, with its job, as `j`: neither removed nor deleted by its owner.
LIVE_FILES = """JOIN files f ON f.id = i.file_id AND f.removed_at IS NULL AND f.deleted_at IS NULL
    JOIN jobs j ON j.id = f.job_id AND j.deleted_at IS NULL"""
_OF_USER = """SELECT id, 'owner' AS role FROM albums WHERE user_id = :user_id
    UNION ALL SELECT album_id, role FROM album_members WHERE user_id = :user_id"""
_COUNTS = f"""(SELECT count(*) FROM album_files i {LIVE_FILES} WHERE i.album_id = a.id) AS files,
    (SELECT count(*) FROM album_members m WHERE m.album_id = a.id) AS members"""
_COVER = f"""(SELECT i.id FROM album_files i {LIVE_FILES} WHERE i.album_id = a.id
        ORDER BY i.id = a.cover_id DESC NULLS LAST, i.position, i.id LIMIT 1) AS cover"""
_COLUMNS = f"""a.id, a.user_id, a.name, a.show_prompts, a.created_at, a.updated_at, o.role, u.name AS owner_name,
    {_COUNTS}, {_COVER}"""


@dataclass(frozen=True, slots=True)
class NewAlbum:
    """A validated album before it has a row."""

    user_id: UUID
    name: str
    show_prompts: bool = False


def add_album(tx: Transaction, new: NewAlbum) -> UUID | None:
    """Insert an album and return its id; None if its user already has `MOST_ALBUMS`."""
    # Concurrent inserts must not both pass the count below.
    tx.run(text("SELECT id FROM users WHERE id = :id FOR NO KEY UPDATE"), {"id": new.user_id})
    row = tx.first(
        text(
            """INSERT INTO albums (id, user_id, name, show_prompts)
               SELECT CAST(:id AS uuid), CAST(:user_id AS uuid), CAST(:name AS text), CAST(:show AS boolean)
               WHERE (SELECT count(*) FROM albums WHERE user_id = :user_id) < :most RETURNING id"""
        ),
        {"id": new_id(), "user_id": new.user_id, "name": new.name, "show": new.show_prompts, "most": MOST_ALBUMS},
    )
    return row.id if row is not None else None


def list_albums(tx: Transaction, user_id: UUID, *, role: str | None, after: UUID | None, limit: int) -> list[Row[Any]]:
    """Return the albums that a user sees, newest first. `role`: owner = own ones, member = those of others."""
    return tx.all(
        text(
            f"""WITH o AS MATERIALIZED ({_OF_USER})
                SELECT {_COLUMNS} FROM o JOIN albums a USING (id) JOIN users u ON u.id = a.user_id
                WHERE (CAST(:role AS text) IS NULL OR (o.role = 'owner') = (:role = 'owner'))
                  AND (CAST(:after AS uuid) IS NULL OR a.id < :after)
                ORDER BY a.id DESC LIMIT :limit"""
        ),
        {"user_id": user_id, "role": role, "after": after, "limit": limit},
    )


def find_album(tx: Transaction, album_id: UUID, user_id: UUID | None) -> Row[Any] | None:
    """Return an album with the role of the user; None if it does not exist or the user does not see it (I9)."""
    return tx.first(
        text(
            f"""WITH o AS MATERIALIZED ({_OF_USER})
                SELECT {_COLUMNS} FROM o JOIN albums a USING (id) JOIN users u ON u.id = a.user_id
                WHERE a.id = :album_id"""
        ),
        {"album_id": album_id, "user_id": user_id},
    )


def lock_album(tx: Transaction, album_id: UUID, user_id: UUID | None) -> str | None:
    """Lock an album for a change of its files or members, and return the role of the user; None like `find_album`."""
    locked = tx.first(text("SELECT user_id FROM albums WHERE id = :id FOR NO KEY UPDATE"), {"id": album_id})
    if locked is None or user_id is None:
        return None
    if locked.user_id == user_id:
        return OWNER
    # The lock of the album also holds its members: each of their changes takes it first.
    member = tx.first(
        text("SELECT role FROM album_members WHERE album_id = :album AND user_id = :user"),
        {"album": album_id, "user": user_id},
    )
    return str(member.role) if member is not None else None


def change_album(tx: Transaction, album_id: UUID, *, name: str | None, show_prompts: bool | None) -> None:
    """Update the given values; None = unchanged."""
    tx.run(
        text(
            """UPDATE albums SET name = coalesce(:name, name), show_prompts = coalesce(:show, show_prompts),
                   updated_at = now() WHERE id = :id"""
        ),
        {"id": album_id, "name": name, "show": show_prompts},
    )


def set_cover(tx: Transaction, album_id: UUID, item_id: UUID | None) -> bool:
    """Choose the cover; None = the first file. False if the album shows no such file."""
    if item_id is not None:
        shown = text(f"SELECT i.id FROM album_files i {LIVE_FILES} WHERE i.id = :item AND i.album_id = :album")
        if tx.first(shown, {"item": item_id, "album": album_id}) is None:
            return False
    tx.run(
        text("UPDATE albums SET cover_id = :item, updated_at = now() WHERE id = :album"),
        {"item": item_id, "album": album_id},
    )
    return True


def touch(tx: Transaction, album_id: UUID) -> None:
    """Record that the album has changed."""
    tx.run(text("UPDATE albums SET updated_at = now() WHERE id = :id"), {"id": album_id})


def delete_album(tx: Transaction, album_id: UUID) -> None:
    """Delete an album, its memberships and its share links. The files stay."""
    tx.run(text("DELETE FROM albums WHERE id = :id"), {"id": album_id})


# --- members ---


def list_members(tx: Transaction, album_id: UUID) -> list[Row[Any]]:
    """Return the members of an album (at most `MOST_MEMBERS`), in the order in which they were added."""
    return tx.all(
        text(
            """SELECT u.id AS user_id, u.name, m.role, m.added_at FROM album_members m JOIN users u ON u.id = m.user_id
               WHERE m.album_id = :album ORDER BY m.added_at, u.id"""
        ),
        {"album": album_id},
    )


def set_member(tx: Transaction, album_id: UUID, user_id: UUID, role: str) -> bool:
    """Add a member or change its role; the album is locked. False if it already has `MOST_MEMBERS`."""
    row = tx.first(
        text(
            """INSERT INTO album_members (album_id, user_id, role)
               SELECT CAST(:album AS uuid), CAST(:user AS uuid), CAST(:role AS text)
               WHERE (SELECT count(*) FROM album_members WHERE album_id = :album AND user_id <> :user) < :most
               ON CONFLICT (album_id, user_id) DO UPDATE SET role = excluded.role RETURNING user_id"""
        ),
        {"album": album_id, "user": user_id, "role": role, "most": MOST_MEMBERS},
    )
    return row is not None


def remove_member(tx: Transaction, album_id: UUID, user_id: UUID) -> bool:
    """End a membership and take the files that this user added out of the album; False if there is none."""
    values = {"album": album_id, "user": user_id}
    removed = tx.first(
        text("DELETE FROM album_members WHERE album_id = :album AND user_id = :user RETURNING user_id"), values
    )
    if removed is None:
        return False
    tx.run(text("DELETE FROM album_files WHERE album_id = :album AND added_by = :user"), values)
    return True
