"""Persistent state of the whole platform, by name: `drain`, `announcement`, `storage_problem` and others."""

import json
from dataclasses import asdict, dataclass
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


def read_value(tx: Transaction, name: str) -> dict[str, Any]:
    """Return the value of this name; empty if there is none."""
    row = tx.first(text("SELECT value FROM platform_state WHERE name = :name"), {"name": name})
    return dict(row.value) if row is not None else {}


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


def require_writable(tx: Transaction) -> None:
    """Write something small: a server that only reads, or whose disk is full, raises."""
    tx.run(
        text(
            """INSERT INTO platform_state (name, value) VALUES ('write_probe', '{}')
               ON CONFLICT (name) DO UPDATE SET updated_at = clock_timestamp()
               WHERE platform_state.updated_at < clock_timestamp() - interval '10 s'"""
        )
    )


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


# Jobs that wait for the storage report it at least this often; an older report is over.
STORAGE_PROBLEM_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class StorageProblem:
    """Why workers cannot store results: the kind (`worker.storage.Problem`), and for operators the place and reason."""

    kind: str
    place: str
    reason: str


def get_storage_problem(tx: Transaction) -> StorageProblem | None:
    """Return why workers cannot store results at present; None = they can, as far as they know."""
    found = read(tx, "storage_problem")
    if found is None or found["age_hours"] * 3600 > STORAGE_PROBLEM_SECONDS:
        return None
    return StorageProblem(found["kind"], found["place"], found["reason"])


def set_storage_problem(tx: Transaction, problem: StorageProblem) -> None:
    """Record that a worker could not store a result just now."""
    write(tx, "storage_problem", asdict(problem))


def count_open_jobs(tx: Transaction) -> dict[str, int]:
    """Return the number of open jobs by state."""
    rows = tx.all(
        text("SELECT state, count(*) AS n FROM jobs WHERE state = ANY(:states) GROUP BY state"),
        {"states": list(OPEN)},
    )
    return {state.value: 0 for state in JobState if state in OPEN} | {row.state: row.n for row in rows}
