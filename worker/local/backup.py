"""`dreamery backup`: rows, the list of stored files and on demand their bytes and the keys, as one archive.

The rows are those of one moment, while the platform runs on. Files never change, so their bytes may be read afterwards;
one that the clean-up has removed meanwhile is named as missing.
"""

import json
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import IO, Protocol

from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError

from worker import storage
from worker.core.security.encryption import master_key_ids
from worker.core.security.passphrase import encrypt_keys
from worker.core.settings import Settings, get_settings
from worker.db.platform import dump
from worker.local import backup_archive
from worker.local.backup_archive import Json, Writer
from worker.local.processes import StartError


class Progress(Protocol):
    """Who shows how far it is."""

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """`done` of `total` of this are over; None = nobody knows how many there are."""


def keys_of(data_dir: Path) -> dict[str, str]:
    """The keys of this platform, from its settings or its data folder."""
    settings = get_settings()
    given = {"master": settings.master_key.get_secret_value(), "admin": settings.admin_key.get_secret_value()}
    found = {}
    for name, value in given.items():
        file = data_dir / "keys" / f"{name}.key"
        text = value or (file.read_text().strip() if file.exists() else "")
        if text:
            found[name] = text
    return found


def key_ids(keys: dict[str, str]) -> list[str]:
    """Names of the master keys among them, newest first."""
    return master_key_ids(Settings.model_construct(master_key=SecretStr(keys.get("master", ""))))


def target_of(place: Path) -> Path:
    """The file to write: the place itself, or a name with the time in it when the place is a folder."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return place / f"dreamery-{stamp}.zip" if place.is_dir() else place


def make_backup(
    database_url: str, target: Path, *, keys: dict[str, str], passphrase: str | None, with_files: bool, show: Progress
) -> Json:
    """Write the archive; what is in it. `passphrase` = the keys go along, locked with it. Raises StartError."""
    try:
        with backup_archive.writing(target) as writer, tempfile.TemporaryFile() as listed:
            manifest = _write_rows(writer, database_url, listed, show)
            if passphrase is not None:
                writer.add(backup_archive.KEYS, [encrypt_keys(keys, passphrase)])
            manifest["master_key_ids"] = key_ids(keys)
            manifest["storage"] = storage.describe_location()
            missing = _write_files(writer, listed, manifest["files"]["count"], show) if with_files else []
            manifest["files"] |= {"included": with_files, "missing": missing}
            writer.finish(manifest)
    except SQLAlchemyError as error:
        raise StartError(f"The database cannot be copied: {str(error).strip().splitlines()[0]}") from error
    except storage.StorageError as error:
        raise StartError(f"The storage cannot be read ({storage.describe_location()}): {error.reason}.") from error
    return manifest


def _write_rows(writer: Writer, database_url: str, listed: IO[bytes], show: Progress) -> Json:
    with dump.snapshot(database_url) as snapshot:
        tables = snapshot.tables()
        copied: list[Json] = []
        for n, table in enumerate(tables):
            show("tables", n, len(tables))
            member = f"tables/{table.name}.copy"
            rows = writer.add(member, snapshot.rows_of(table))["lines"]
            copied.append({"name": table.name, "columns": table.columns, "rows": rows, "member": member})
        show("tables", len(tables), len(tables))
        totals = {"count": 0, "bytes": 0}
        writer.add(backup_archive.FILES, _file_lines(snapshot, totals, listed))
        return {
            "made_at": snapshot.at.isoformat(),
            "dreamery": _version(),
            "schema": snapshot.revision,
            "server": snapshot.server,
            "installation": snapshot.installation(),
            "tables": copied,
            "files": totals,
        }


def _file_lines(snapshot: dump.Snapshot, totals: dict[str, int], listed: IO[bytes]) -> Iterator[bytes]:
    """The list of files, also into `listed`: what an archive holds is read again only when it is whole."""
    for file in snapshot.files():
        totals["count"] += 1
        totals["bytes"] += file.bytes
        line = json.dumps({"key": file.key, "bytes": file.bytes, "sha256": file.sha256}).encode() + b"\n"
        listed.write(line)
        yield line


def _version() -> str:
    try:
        return version("dreamery")
    except PackageNotFoundError:
        return "unknown"


def _write_files(writer: Writer, listed: IO[bytes], count: int, show: Progress) -> list[str]:
    """The bytes of every listed file; the keys of those that are not there or not what the row says."""
    missing = []
    listed.seek(0)
    for n, line in enumerate(listed):
        show("files", n, count)
        file = json.loads(line)
        pieces = storage.read_chunks(file["key"])
        try:
            first = next(pieces)
        except storage.MissingFileError:
            missing.append(file["key"])
            continue
        written = writer.add(f"files/{file['key']}", chain([first], pieces), packed=False)
        if file["sha256"] not in {None, written["sha256"]}:
            missing.append(file["key"])
    show("files", count, count)
    return missing
