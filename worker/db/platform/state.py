"""Persistent state of the whole platform, by name: `installation`, `storage_walk`, `drain`."""

import json
from typing import Any
from uuid import uuid4

from sqlalchemy import text

from worker.core.job_state import OPEN, JobState
from worker.db.engine import Transaction


def read(tx: Transaction, name: str) -> dict[str, Any] | None:
    """Return the value of this name with its `age_hours`, or None."""
    row = tx.first(
        text(
            """SELECT value, CAST(extract(epoch FROM clock_timestamp() - updated_at) / 3600 AS double precision) AS age
               FROM platform_state WHERE name = :name"""
        ),
        {"name": name},
    )
    return {**row.value, "age_hours": row.age} if row is not None else None


def write(tx: Transaction, name: str, value: dict[str, Any]) -> None:
    """Set the value of this name."""
    tx.run(
        text(
            """INSERT INTO platform_state (name, value) VALUES (:name, CAST(:value AS jsonb))
               ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = clock_timestamp()"""
        ),
        {"name": name, "value": json.dumps(value)},
    )


def delete(tx: Transaction, name: str) -> None:
    """Delete the value of this name."""
    tx.run(text("DELETE FROM platform_state WHERE name = :name"), {"name": name})


def get_installation_id(tx: Transaction) -> str:
    """Return the id of this installation: created once per database, and again by a restore."""
    tx.run(
        text(
            """INSERT INTO platform_state (name, value) VALUES ('installation', CAST(:value AS jsonb))
               ON CONFLICT (name) DO NOTHING"""
        ),
        {"value": json.dumps({"id": uuid4().hex})},
    )
    return str((read(tx, "installation") or {})["id"])


def get_drain_reason(tx: Transaction) -> str | None:
    """Return why the platform accepts no new jobs; None = it accepts them."""
    drain = read(tx, "drain")
    return None if drain is None else str(drain["reason"])


def set_drain_reason(tx: Transaction, reason: str | None) -> None:
    """Stop accepting new jobs for this reason; None = accept them again."""
    if reason is None:
        delete(tx, "drain")
    else:
        write(tx, "drain", {"reason": reason})


def count_open_jobs(tx: Transaction) -> dict[str, int]:
    """Return the number of open jobs by state."""
    rows = tx.all(
        text("SELECT state, count(*) AS n FROM jobs WHERE state = ANY(:states) GROUP BY state"),
        {"states": list(OPEN)},
    )
    return {state.value: 0 for state in JobState if state in OPEN} | {row.state: row.n for row in rows}
