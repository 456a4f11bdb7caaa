"""Share links: pages that anyone with the link can open until they expire or are revoked.

A row is the right; the link is derived from its id (`worker/core/security/share_links.py`). Revoking deletes the row,
so every link of the page ends with the same commit. What is shown is read at each request: a deleted file, a deleted
album or a disabled user ends it too.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, text

from worker.core.ids import new_id
from worker.db.albums.album_files import SHOWN_COLUMNS, SHOWN_FILES
from worker.db.engine import Transaction

MOST_SHARES = 200
MOST_SHARED_FILES = 200
# Expired links stay in the list of their user for this long.
_LIST_DAYS = 7


@dataclass(frozen=True, slots=True)
class NewShare:
    """A validated share before it has a row: of an album, or of files."""

    user_id: UUID
    expires_at: datetime
    title: str = ""
    album_id: UUID | None = None
    files: list[UUID] = field(default_factory=list)
    show_prompts: bool = False
    allow_download: bool = True


# An album shows its files as they are at the time of the request.
_ITEMS = f"""SELECT i.id, i.position, {SHOWN_COLUMNS} FROM share_files i {SHOWN_FILES} WHERE i.share_id = :share
    UNION ALL SELECT i.id, i.position, {SHOWN_COLUMNS} FROM album_files i {SHOWN_FILES} WHERE i.album_id = :album"""
_COLUMNS = """s.id, s.user_id, s.title, s.album_id, s.show_prompts, s.allow_download, s.created_at, s.expires_at,
    s.expires_at <= now() AS expired, a.name AS album_name,
    CASE WHEN s.album_id IS NULL THEN (SELECT count(*) FROM share_files i WHERE i.share_id = s.id) END AS files"""


def add_share(tx: Transaction, new: NewShare) -> UUID | None:
    """Insert a share and return its id; None if its user already has `MOST_SHARES` that have not expired."""
    # Concurrent inserts must not both pass the count below.
    tx.run(text("SELECT id FROM users WHERE id = :id FOR NO KEY UPDATE"), {"id": new.user_id})
    old = "DELETE FROM shares WHERE user_id = :id AND expires_at < now() - make_interval(days => :days)"
    tx.run(text(old), {"id": new.user_id, "days": _LIST_DAYS})
    row = tx.first(
        text(
            """INSERT INTO shares (id, user_id, title, album_id, show_prompts, allow_download, expires_at)
               SELECT CAST(:id AS uuid), CAST(:user AS uuid), CAST(:title AS text), CAST(:album AS uuid),
                   CAST(:prompts AS boolean), CAST(:download AS boolean), CAST(:until AS timestamptz)
               WHERE (SELECT count(*) FROM shares WHERE user_id = :user AND expires_at > now()) < :most RETURNING id"""
        ),
        {
            "id": new_id(),
            "user": new.user_id,
            "title": new.title,
            "album": new.album_id,
            "prompts": new.show_prompts,
            "download": new.allow_download,
            "until": new.expires_at,
            "most": MOST_SHARES,
        },
    )
    if row is not None and new.files:
        tx.run(
            text(
                """INSERT INTO share_files (id, share_id, file_id, position)
                   SELECT n.id, :share, n.file_id, n.at
                   FROM unnest(CAST(:ids AS uuid[]), CAST(:files AS uuid[])) WITH ORDINALITY AS n (id, file_id, at)"""
            ),
            {"share": row.id, "ids": [uuid4() for _ in new.files], "files": new.files},
        )
    return row.id if row is not None else None


def list_shares(tx: Transaction, user_id: UUID, *, after: UUID | None, limit: int) -> list[Row[Any]]:
    """Return the shares of a user, newest first: the open ones, and those that expired within a week."""
    return tx.all(
        text(
            f"""SELECT {_COLUMNS} FROM shares s LEFT JOIN albums a ON a.id = s.album_id
                WHERE s.user_id = :user AND s.expires_at > now() - make_interval(days => :days)
                  AND (CAST(:after AS uuid) IS NULL OR s.id < :after) ORDER BY s.id DESC LIMIT :limit"""
        ),
        {"user": user_id, "after": after, "limit": limit, "days": _LIST_DAYS},
    )


def find_share(tx: Transaction, share_id: UUID, *, user_id: UUID | None = None) -> Row[Any] | None:
    """Return a share, of this user or (None) for its page; None if it was revoked or its user is disabled."""
    return tx.first(
        text(
            f"""SELECT {_COLUMNS} FROM shares s JOIN users u ON u.id = s.user_id AND NOT u.disabled
                LEFT JOIN albums a ON a.id = s.album_id
                WHERE s.id = :id AND (CAST(:user AS uuid) IS NULL OR s.user_id = :user)"""
        ),
        {"id": share_id, "user": user_id},
    )


def delete_share(tx: Transaction, share_id: UUID, user_id: UUID) -> bool:
    """Revoke a share of this user; False if there is none."""
    statement = text("DELETE FROM shares WHERE id = :id AND user_id = :user RETURNING id")
    return tx.first(statement, {"id": share_id, "user": user_id}) is not None


def list_items(tx: Transaction, share: Row[Any], *, offset: int, limit: int) -> list[Row[Any]]:
    """Return files of a share in their order; those that are gone are left out."""
    return tx.all(
        text(f"SELECT * FROM ({_ITEMS}) i ORDER BY position, id OFFSET :offset LIMIT :limit"),
        {"share": share.id, "album": share.album_id, "offset": offset, "limit": limit},
    )


def find_item(tx: Transaction, share: Row[Any], item_id: UUID) -> Row[Any] | None:
    """Return one file of a share; None if it is not part of it, or gone."""
    return tx.first(
        text(f"SELECT * FROM ({_ITEMS}) i WHERE id = :item"),
        {"share": share.id, "album": share.album_id, "item": item_id},
    )
