"""What the platform as a whole remembers, by name: `installation`, `storage_walk`, `drain`."""

import json
from typing import Any
from uuid import uuid4

from sqlalchemy import text

from worker.core.job_state import OPEN, JobState
from worker.db.engine import Transaction


def read(tx: Transaction, name: str) -> dict[str, Any] | None:
    """The value of that name with its `age_hours`, if there is one."""
    row = tx.first(
        text(
            """SELECT value, CAST(extract(epoch FROM clock_timestamp() - updated_at) / 3600 AS double precision) AS age
               FROM platform_state WHERE name = :name"""
        ),
        {"name": name},
    )
    return {**row.value, "age_hours": row.age} if row is not None else None


def write(tx: Transaction, name: str, value: dict[str, Any]) -> None:
    """Set the value of that name."""
    tx.run(
        text(
            """INSERT INTO platform_state (name, value) VALUES (:name, CAST(:value AS jsonb))
               ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = clock_timestamp()"""
        ),
        {"name": name, "value": json.dumps(value)},
    )


def delete(tx: Transaction, name: str) -> None:
    """Take the value of that name away."""
    tx.run(text("DELETE FROM platform_state WHERE name = :name"), {"name": name})


def get_installation_id(tx: Transaction) -> str:
    """Which platform this is: made once per database, and anew by a restore."""
    tx.run(
        text(
            """INSERT INTO platform_state (name, value) VALUES ('installation', CAST(:value AS jsonb))
               ON CONFLICT (name) DO NOTHING"""
        ),
        {"value": json.dumps({"id": uuid4().hex})},
    )
    return str((read(tx, "installation") or {})["id"])


def get_drain_reason(tx: Transaction) -> str | None:
    """Why the platform takes no new jobs; None = it does take them."""
    known = read(tx, "drain")
    return None if known is None else str(known["reason"])


def set_drain_reason(tx: Transaction, reason: str | None) -> None:
    """Take no new jobs, for that reason; None = take them again."""
    if reason is None:
        delete(tx, "drain")
    else:
        write(tx, "drain", {"reason": reason})


def count_open_jobs(tx: Transaction) -> dict[str, int]:
    """How many jobs have not ended, by state."""
    rows = tx.all(
        text("SELECT state, count(*) AS n FROM jobs WHERE state = ANY(:states) GROUP BY state"),
        {"states": list(OPEN)},
    )
    return {state.value: 0 for state in JobState if state in OPEN} | {row.state: row.n for row in rows}
