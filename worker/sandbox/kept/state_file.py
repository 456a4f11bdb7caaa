"""A file with the state of a sandbox, so that a restart loses no order: neither a clean stop nor `kill -9`.

Each change is written at once, and the operating system has it before the answer is sent. The size is bounded: old
finished orders, uploads and pictures are removed. A file that cannot be read is replaced by an empty one.
"""

import os
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from worker.sandbox.accounts import Account
from worker.sandbox.ark.tasks import Task
from worker.sandbox.jobs import Job
from worker.sandbox.kept import plain
from worker.sandbox.uploads.file_inspection import FileInfo, Thumbnail

_VERSION = 1
_TABLES = """
CREATE TABLE accounts (id TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE orders (id INTEGER PRIMARY KEY, finish_at REAL NOT NULL, body BLOB NOT NULL);
CREATE TABLE uploads (id TEXT PRIMARY KEY, account TEXT NOT NULL, vid TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE pictures (id TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE tasks (id TEXT PRIMARY KEY, finish_at REAL NOT NULL, body BLOB NOT NULL);
"""
# Rows that stay. A replaced row counts as new. Orders and tasks that are not finished stay longer.
KEPT = {"accounts": 5_000, "uploads": 500, "pictures": 300, "orders": 2_000, "tasks": 2_000}
_MOST_UNFINISHED = 20_000
_WRITES_BETWEEN_REMOVALS = 500


class StateFile:
    """The open file. What cannot be written stays in memory only, with one line on stderr."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._database = _open(path)
        except sqlite3.DatabaseError:
            for file in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
                file.unlink(missing_ok=True)
            self._database = _open(path)
        self._writes = 0
        self._has_failed = False
        self._remove_old()

    # ---- write

    def save_account(self, account: Account) -> None:
        self._write([_account_row(account)])

    def save_order(self, job: Job) -> None:
        """Save a new order, with its account after the charge."""
        end = min(job.finish_at, 1e12)
        order = ("INSERT OR REPLACE INTO orders VALUES (?, ?, ?)", (job.number, end, plain.dump_job(job)))
        self._write([order, _account_row(job.account), *map(_picture_row, plain.pictures_of(job.order))])

    def save_upload(self, uri: str, vid: str, account: str, file_info: FileInfo) -> None:
        """Save a committed upload. Its address and credential are not needed any more."""
        row = (uri, account, vid, plain.dump_file_info(file_info))
        pictures = [_picture_row(file_info.thumbnail)] if file_info.thumbnail else []
        self._write([("INSERT OR REPLACE INTO uploads VALUES (?, ?, ?, ?)", row), *pictures])

    def save_task(self, task: Task, main: str) -> None:
        """Save a new or changed task; `main` = the hash of its main account."""
        end = min(task.finish_at, task.ends_at, 1e12)
        self._write([("INSERT OR REPLACE INTO tasks VALUES (?, ?, ?)", (task.id, end, plain.dump_task(task, main)))])

    def remove_task(self, task: Task) -> None:
        self._write([("DELETE FROM tasks WHERE id = ?", (task.id,))])

    def clear(self, *tables: str) -> None:
        """Remove everything, or only these tables."""
        self._write([(f"DELETE FROM {table}", ()) for table in tables or KEPT])  # noqa: S608 - our own names

    def _write(self, statements: list[tuple[str, tuple[Any, ...]]]) -> None:
        self._run(statements)
        self._writes += 1
        if self._writes % _WRITES_BETWEEN_REMOVALS == 0:
            self._remove_old()

    def _remove_old(self) -> None:
        now = time.time()
        statements: list[tuple[str, tuple[Any, ...]]] = []
        for table, kept in KEPT.items():
            newest = f"SELECT rowid FROM {table} ORDER BY rowid DESC LIMIT ?"  # noqa: S608 - our own names
            older = f"DELETE FROM {table} WHERE rowid NOT IN ({newest})"  # noqa: S608
            if table in {"orders", "tasks"}:
                statements += [(f"{older} AND finish_at < ?", (kept, now)), (older, (_MOST_UNFINISHED,))]
            else:
                statements.append((older, (kept,)))
        self._run(statements)

    def _run(self, statements: list[tuple[str, tuple[Any, ...]]]) -> None:
        try:
            with self._database:
                for text, values in statements:
                    self._database.execute(text, values)
        except sqlite3.Error as error:
            if not self._has_failed:
                print(f"The state of the sandbox cannot be written ({error}).", file=sys.stderr, flush=True)
            self._has_failed = True

    # ---- read

    def load_pictures(self) -> plain.Pictures:
        return {digest: Thumbnail(digest, data) for digest, data in self._rows("SELECT id, data FROM pictures")}

    def load_accounts(self) -> dict[str, Account]:
        rows = self._rows("SELECT id, body FROM accounts ORDER BY rowid")
        return {digest: plain.load_account(digest, raw) for digest, raw in rows}

    def load_orders(self, accounts: dict[str, Account], pictures: plain.Pictures) -> list[Job]:
        """Return the orders in the order of their numbers."""
        rows = self._rows("SELECT body FROM orders ORDER BY id")
        return [job for (raw,) in rows if (job := plain.load_job(raw, accounts, pictures))]

    def load_uploads(self, pictures: plain.Pictures) -> list[tuple[str, str, str, FileInfo]]:
        """Return uri, vid, name of the account and facts of each upload."""
        rows = self._rows("SELECT id, vid, account, body FROM uploads ORDER BY rowid")
        found = [(uri, vid, account, plain.load_file_info(raw, pictures)) for uri, vid, account, raw in rows]
        return [(uri, vid, account, facts) for uri, vid, account, facts in found if facts]

    def load_tasks(self) -> list[tuple[str, Task]]:
        """Return the tasks with the hashes of their main accounts, oldest first."""
        return [plain.load_task(raw) for (raw,) in self._rows("SELECT body FROM tasks ORDER BY rowid")]

    def _rows(self, query: str) -> list[Any]:
        with closing(self._database.execute(query)) as cursor:
            return cursor.fetchall()


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its other files the same permissions
    database = sqlite3.connect(path, timeout=5)
    database.execute("PRAGMA journal_mode = WAL")
    # The file survives the death of the process; a power cut may take the last orders.
    database.execute("PRAGMA synchronous = OFF")
    [version] = database.execute("PRAGMA user_version").fetchone()
    if version not in {0, _VERSION} or database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        database.close()
        raise sqlite3.DatabaseError("a damaged file, or one of another version")
    if version == 0:
        database.executescript(f"{_TABLES} PRAGMA user_version = {_VERSION};")
    return database


def _account_row(account: Account) -> tuple[str, tuple[Any, ...]]:
    return "INSERT OR REPLACE INTO accounts VALUES (?, ?)", (account.digest, plain.dump_account(account))


def _picture_row(picture: Thumbnail) -> tuple[str, tuple[Any, ...]]:
    return "INSERT OR REPLACE INTO pictures VALUES (?, ?)", (picture.digest, picture.data)
