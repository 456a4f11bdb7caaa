"""`dreamery backup`: writes rows, the list of stored files, and optionally their bytes and the keys to one archive.

The rows are a snapshot; the platform may run. Stored files never change, so their bytes can be read later. Files that
the clean-up deletes in the meantime are reported as missing.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, count
from pathlib import Path
from typing import IO, Protocol

from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError

from worker import storage
from worker.core.security.encryption import master_key_ids
from worker.core.security.passphrase import encrypt_keys
from worker.core.settings import Settings, get_settings
from worker.db.platform import dump
from worker.db.platform.startup import explain
from worker.local.backups import archive
from worker.local.backups.archive import Json, Writer
from worker.local.processes import StartError


class Progress(Protocol):
    """A callback that shows progress."""

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Show that `done` of `total` items of this kind are complete; None = unknown total."""


def read_keys(data_dir: Path) -> dict[str, str]:
    """Return the keys of this platform from its settings or its data folder."""
    settings = get_settings()
    configured = {"master": settings.master_key.get_secret_value(), "admin": settings.admin_key.get_secret_value()}
    keys = {}
    for name, value in configured.items():
        file = data_dir / "keys" / f"{name}.key"
        text = value or (file.read_text().strip() if file.exists() else "")
        if text:
            keys[name] = text
    return keys


def key_ids(keys: dict[str, str]) -> list[str]:
    """Return the ids of the master keys, newest first."""
    return master_key_ids(Settings.model_construct(master_key=SecretStr(keys.get("master", ""))))


def backup_path(target: Path) -> Path:
    """Return the file to write, which does not exist: the target if its name ends in `.zip`, else one in that folder.

    The folder is created. Its files are named after the time, with a number if there is one already.
    """
    if target.suffix.lower() == ".zip" and not target.is_dir():
        return _unused(target)
    if target.exists() and not target.is_dir():
        raise StartError(f"{target} is a file. Name a folder, or a new file that ends in .zip.")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"Cannot create the folder {target}: {error.strerror}.") from error
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    names = chain([f"dreamery-{stamp}.zip"], (f"dreamery-{stamp}-{n}.zip" for n in count(2)))
    return next(target / name for name in names if not (target / name).exists())


def _unused(file: Path) -> Path:
    if os.path.lexists(file):
        raise StartError(f"{file} exists already, and a backup is never overwritten. Name another file, or a folder.")
    return file


def create_backup(
    database_url: str, target: Path, *, keys: dict[str, str], passphrase: str | None, with_files: bool, show: Progress
) -> Json:
    """Write the archive and return its manifest. A `passphrase` adds the keys, encrypted with it. Raises StartError."""
    try:
        with archive.open_writer(target) as writer, tempfile.TemporaryFile() as file_list:
            manifest = _write_rows(writer, database_url, file_list, show)
            if passphrase is not None:
                writer.add(archive.KEYS, [encrypt_keys(keys, passphrase)])
            manifest["master_key_ids"] = key_ids(keys)
            manifest["storage"] = storage.describe_location()
            missing = _write_files(writer, file_list, manifest["files"]["count"], show) if with_files else []
            manifest["files"] |= {"included": with_files, "missing": missing}
            writer.finish(manifest)
    except SQLAlchemyError as error:
        raise StartError(f"The database cannot be copied: {explain(error)}") from error
    except storage.StorageError as error:
        raise StartError(f"The storage cannot be read ({storage.describe_location()}): {error.reason}.") from error
    return manifest


def _write_rows(writer: Writer, database_url: str, file_list: IO[bytes], show: Progress) -> Json:
    with dump.snapshot(database_url) as snapshot:
        tables = snapshot.tables()
        entries: list[Json] = []
        for n, table in enumerate(tables):
            show("tables", n, len(tables))
            member = f"tables/{table.name}.copy"
            rows = writer.add(member, snapshot.rows_of(table))["lines"]
            entries.append({"name": table.name, "columns": table.columns, "rows": rows, "member": member})
        show("tables", len(tables), len(tables))
        totals = {"count": 0, "bytes": 0}
        writer.add(archive.FILES, _file_lines(snapshot, totals, file_list))
        return {
            "made_at": snapshot.at.isoformat(),
            "dreamery": _version(),
            "schema": snapshot.revision,
            "server": snapshot.server,
            "installation": snapshot.installation_id(),
            "tables": entries,
            "files": totals,
        }


def _file_lines(snapshot: dump.Snapshot, totals: dict[str, int], file_list: IO[bytes]) -> Iterator[bytes]:
    """Yield the list of files, and copy it to `file_list`: a zip member cannot be read before the archive is closed."""
    for file in snapshot.files():
        totals["count"] += 1
        totals["bytes"] += file.bytes
        line = json.dumps({"key": file.key, "bytes": file.bytes, "sha256": file.sha256}).encode() + b"\n"
        file_list.write(line)
        yield line


def _version() -> str:
    try:
        return version("dreamery")
    except PackageNotFoundError:
        return "unknown"


def _write_files(writer: Writer, file_list: IO[bytes], total: int, show: Progress) -> list[str]:
    """Write the bytes of all listed files. Returns the keys of files that are missing or differ from their row."""
    missing = []
    file_list.seek(0)
    for n, line in enumerate(file_list):
        show("files", n, total)
        file = json.loads(line)
        pieces = storage.read_chunks(file["key"])
        try:
            first = next(pieces)
        except storage.MissingFileError:
            missing.append(file["key"])
            continue
        written = writer.add(f"files/{file['key']}", chain([first], pieces), compress=False)
        if file["sha256"] not in {None, written["sha256"]}:
            missing.append(file["key"])
    show("files", total, total)
    return missing
