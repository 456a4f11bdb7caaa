"""Rows of the references of jobs (images, videos, audio), and the accounts to which each was uploaded.

The bytes are in `worker/storage.py`. Each row is one finished part of the work, so a new worker continues after it.
"""

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.job_state import in_group
from worker.db.column_values import clamp, clamp_known
from worker.db.engine import Transaction


@dataclass(frozen=True, slots=True)
class StoredInput:
    """An input whose bytes are stored: its key and properties. Audio has no width and height, an image no length."""

    key: str
    mime: str
    bytes: int
    width: int | None
    height: int | None
    sha256: str
    milliseconds: int | None = None


@dataclass(frozen=True, slots=True)
class InputOrigin:
    """Where the bytes of an input come from: a result of this platform, or a link; neither = the caller sent them."""

    file_id: UUID | None = None
    url: str | None = None


SENT = InputOrigin()


@dataclass(frozen=True, slots=True)
class NewInput:
    """An input of a request: a link that is fetched later, or stored bytes.

    `role` is reference, first_frame or end_frame; `media` is image, video or audio; `name` is its `@name` in omni
    prompts; `origin_file_id` is the result that it is a copy of.
    """

    url: str | None = None
    stored: StoredInput | None = None
    role: str = "reference"
    media: str = "image"
    name: str = ""
    origin_file_id: UUID | None = None


_ADD = text(
    """INSERT INTO job_inputs (job_id, n, role, media, name, url, key, mime, bytes, width, height, sha256, milliseconds,
           origin_file_id)
       VALUES (:job_id, :n, :role, :media, :name, :url, :key, :mime, :bytes, :width, :height, :sha256, :milliseconds,
           :origin_file_id)"""
)
_NOT_STORED: dict[str, Any] = dict.fromkeys(("key", "mime", "bytes", "width", "height", "sha256", "milliseconds"))


def _values(stored: StoredInput | None) -> dict[str, Any]:
    if stored is None:
        return _NOT_STORED
    values = {name: getattr(stored, name) for name in _NOT_STORED}
    numbers = {name: clamp_known(values[name]) for name in ("width", "height", "milliseconds") if name in values}
    return values | numbers


def add_inputs(tx: Transaction, job_ids: list[UUID], new_inputs: list[NewInput]) -> None:
    """Insert the references of a request for each of its jobs, in the caller's order."""
    rows = [
        {
            "job_id": job_id,
            "n": n,
            "url": item.url,
            "role": item.role,
            "media": item.media,
            "name": item.name,
            "origin_file_id": item.origin_file_id,
            **_values(item.stored),
        }
        for job_id in job_ids
        for n, item in enumerate(new_inputs)
    ]
    if rows:
        tx.run(_ADD, rows)


def job_inputs(tx: Transaction, job_id: UUID, account_id: UUID) -> list[Row[Any]]:
    """Return the references of a job in order, each with its upload to that account (`uri` is NULL without one)."""
    return tx.all(
        text(
            """SELECT i.n, i.role, i.media, i.name, i.url, i.key, i.mime, i.bytes, i.sha256,
                   i.milliseconds AS length, u.uri, u.width, u.height, u.format, u.milliseconds
               FROM job_inputs i LEFT JOIN input_uploads u
                 ON u.job_id = i.job_id AND u.n = i.n AND u.account_id = :account_id
               WHERE i.job_id = :job_id ORDER BY i.n"""
        ),
        {"job_id": job_id, "account_id": account_id},
    )


def stored_inputs(tx: Transaction, job_id: UUID) -> list[Row[Any]]:
    """Return the references of a job in order, without their uploads; `length` is NULL until the file is inspected."""
    return tx.all(
        text(
            """SELECT n, role, media, name, url, key, mime, bytes, width, height, sha256, milliseconds AS length
               FROM job_inputs WHERE job_id = :job_id ORDER BY n"""
        ),
        {"job_id": job_id},
    )


def is_prepared(row: Row[Any]) -> bool:
    """Whether an input (a row of `stored_inputs`) is stored and inspected, as `job_selection` asks for."""
    return row.key is not None and (row.media == "image" or row.length is not None)


def name_of(row: Row[Any]) -> str:
    """Return what an error message calls the input."""
    if row.role != "reference":
        return "The first frame" if row.role == "first_frame" else "The end frame"
    return f"Reference {row.media} {row.n + 1}"


def original_inputs(tx: Transaction, job_id: UUID) -> list[Row[Any]]:
    """Return the inputs of a job in order, as in the request. `key` is NULL if the bytes are not stored any more."""
    return tx.all(
        text(
            """SELECT n, role, media, name, url, CASE WHEN removed_at IS NULL THEN key END AS key, mime, bytes, width,
                   height, sha256, milliseconds, origin_file_id
               FROM job_inputs WHERE job_id = :job_id ORDER BY n"""
        ),
        {"job_id": job_id},
    )


def record_stored(tx: Transaction, job_id: UUID, n: int, stored: StoredInput) -> None:
    """Record the stored bytes of an input. If a concurrent task stored it first, its row stays."""
    tx.run(
        text(
            """UPDATE job_inputs SET key = :key, mime = :mime, bytes = :bytes, width = :width, height = :height,
                   sha256 = :sha256, milliseconds = :milliseconds
               WHERE job_id = :job_id AND n = :n AND (key IS NULL OR (key = :key AND milliseconds IS NULL))"""
        ),
        {"job_id": job_id, "n": n, **_values(stored)},
    )


def record_adjustments(tx: Transaction, job_id: UUID, n: int, adjusted: dict[str, str]) -> None:
    """Show in the job what was changed in a fetched image: its entry of `images` becomes an object with its link."""
    tx.run(
        text(
            """UPDATE jobs SET params = jsonb_set(params, ARRAY['images', CAST(:n AS text)],
                   jsonb_build_object('url', params->'images'->:n, 'adjusted', CAST(:adjusted AS jsonb)))
               WHERE id = :job_id AND jsonb_typeof(params->'images'->:n) = 'string'"""
        ),
        {"job_id": job_id, "n": n, "adjusted": json.dumps(adjusted)},
    )


def record_upload(
    tx: Transaction,
    job_id: UUID,
    n: int,
    *,
    account_id: UUID,
    uri: str,
    width: int,
    height: int,
    image_format: str = "",
    milliseconds: int = 0,
) -> None:
    """Record that the input was uploaded to upstream, for this account only."""
    tx.run(
        text(
            """INSERT INTO input_uploads (job_id, n, account_id, uri, width, height, format, milliseconds)
               VALUES (:job_id, :n, :account_id, :uri, :width, :height, :format, :milliseconds)
               ON CONFLICT DO NOTHING"""
        ),
        {
            "job_id": job_id,
            "n": n,
            "account_id": account_id,
            "uri": uri,
            "width": clamp(width),
            "height": clamp(height),
            "format": image_format,
            "milliseconds": clamp(milliseconds),
        },
    )


# Jobs with stored inputs that one statement looks at.
_WINDOW = 500
# Jobs of one request share the files that it contained. A job needs them while it is open and for `hours` afterwards,
# and keeps them as long as its results would be kept. `:days` = for users without an own retention, 0 = permanently.
_NEEDED = f"""SELECT 1 FROM jobs k LEFT JOIN users u ON u.id = k.user_id WHERE {in_group("j.group_id", "k")} AND (
        k.finished_at IS NULL OR (k.deleted_at IS NULL AND (
            k.finished_at >= now() - make_interval(hours => :hours) OR k.pinned_at IS NOT NULL
            OR coalesce(u.retention_days, :days) = 0
            OR k.finished_at >= now() - make_interval(days => coalesce(u.retention_days, :days)))))"""
_STORED = "i.key IS NOT NULL AND i.removed_at IS NULL"
_OF_DELETED = text(
    f"""/* inputs_of_deleted */
    SELECT DISTINCT key FROM (
        SELECT i.key FROM jobs j JOIN job_inputs i ON i.job_id = j.id AND {_STORED}
        WHERE j.deleted_at IS NOT NULL AND NOT EXISTS ({_NEEDED}) LIMIT :limit) found"""
)
_EXPIRED = text(
    f"""/* expired_inputs */
    WITH next AS MATERIALIZED (
        SELECT i.job_id AS id FROM job_inputs i WHERE {_STORED} AND i.job_id > :after AND i.job_id < :before
        ORDER BY i.job_id LIMIT :window),
    expired AS (
        SELECT i.key FROM (SELECT DISTINCT id FROM next) n JOIN jobs j USING (id)
        JOIN job_inputs i ON i.job_id = j.id AND {_STORED} WHERE NOT EXISTS ({_NEEDED}))
    SELECT ARRAY(SELECT DISTINCT key FROM expired) AS keys, (SELECT id FROM next ORDER BY id DESC LIMIT 1) AS last,
        (SELECT count(*) FROM next) AS n"""
)


def inputs_of_deleted_jobs(tx: Transaction, *, days: int, hours: int, limit: int) -> list[str]:
    """Return keys of stored inputs of jobs that their owner deleted and that no other job of the request needs."""
    return [row.key for row in tx.all(_OF_DELETED, {"days": days, "hours": hours, "limit": limit})]


def expired_inputs(
    tx: Transaction, *, days: int, hours: int, after: UUID, before: UUID
) -> tuple[list[str], UUID | None]:
    """Return keys of stored inputs past the retention of their jobs, and the id of a job to continue after.

    Looks at the next jobs with ids between `after` and `before`; None = it looked at all of them.
    """
    values = {"days": days, "hours": hours, "after": after, "before": before, "window": _WINDOW}
    row = tx.first(_EXPIRED, values)
    if row is None:
        return [], None
    return list(row.keys), row.last if row.n == _WINDOW else None


def mark_inputs_removed(tx: Transaction, keys: list[str]) -> None:
    """Record that the bytes under these keys were deleted. The rows stay."""
    tx.run(text("UPDATE job_inputs SET removed_at = now() WHERE key = ANY(:keys)"), {"keys": keys})


def known_keys(tx: Transaction, keys: list[str]) -> set[str]:
    """Return those of the keys that an input still references."""
    rows = tx.all(
        text("SELECT DISTINCT key FROM job_inputs WHERE key = ANY(:keys) AND removed_at IS NULL"), {"keys": keys}
    )
    return {row.key for row in rows}
