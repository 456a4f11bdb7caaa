"""`dreamery restore`: restores an archive of `dreamery backup` into an empty database, and its files into storage.

Everything is checked before anything changes: the archive, its schema, and whether the database is in use. One
transaction restores the rows in the schema of the backup; then the migrations upgrade it.
"""

import hashlib
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from worker import storage
from worker.core.security.passphrase import WrongPassphraseError, decrypt_keys
from worker.db.platform import dump
from worker.db.platform import restore as platform_restore
from worker.db.platform.dump import TableRows
from worker.db.platform.startup import explain
from worker.local.backups import archive
from worker.local.backups.archive import Json, Reader
from worker.local.backups.backup import Progress, key_ids
from worker.local.data_dir import write_private
from worker.local.processes import StartError
from worker.local.schema_upgrade import is_newer, newest_revision, unknown_tables, upgrade_schema

_SPOOL_BYTES = 8 * 1024 * 1024


@dataclass(slots=True)
class RestoreReport:
    """The result of a restore."""

    rows: int
    jobs: dict[str, int]  # counts: interrupted jobs, and open jobs by state
    files: int = 0
    missing: list[str] = field(default_factory=list)  # storage keys of files that are missing or differ
    missing_keys: list[str] = field(default_factory=list)  # ids of master keys that are not available


def check_archive(reader: Reader, show: Progress) -> None:
    """Check that this version can restore the archive and that it is intact. Raises StartError."""
    schema = reader.manifest["schema"]
    if is_newer(schema):
        raise StartError(
            f"The backup was made by a newer version (schema {schema}, dreamery {reader.manifest['dreamery']}). "
            "Update dreamery first, then restore."
        )
    count = len(reader.manifest["members"])
    done = 0

    def count_member(_name: str) -> None:
        nonlocal done
        done += 1
        show("checked", done, count)

    reader.verify(count_member)


def check_target(database_url: str, *, force: bool) -> None:
    """Check that the database can be restored into. Raises StartError."""
    try:
        present = dump.inspect_database(database_url)
    except SQLAlchemyError as error:
        raise StartError(f"The database cannot be read: {explain(error)}") from error
    # A newer version has tables that this one does not know.
    foreign = [] if is_newer(present.revision or "") else unknown_tables(present.tables)
    if foreign or not present.is_dreamery:
        names = ", ".join((foreign or sorted(present.tables))[:5])
        raise StartError(
            f"The database contains tables of another application ({names}), and a restore deletes all tables. Use a "
            "separate database."
        )
    if present.through_pooler:
        raise StartError(
            "A restore must know whether a platform uses the database, and a pooler such as PgBouncer hides it. Run "
            "this command with DREAMERY_DATABASE_URL naming Postgres itself."
        )
    if present.connections:
        raise StartError(
            f"A platform uses this database ({present.connections} connections). Stop it first: its changes would "
            "be lost, or repeated."
        )
    if present.has_rows and not force:
        raise StartError("The database is not empty. Restore into an empty one, or delete its contents with --force.")


def restore_keys(reader: Reader, data_dir: Path, present: dict[str, str], passphrase: str | None) -> list[str]:
    """Write the keys of the archive that are missing here. Returns the ids of master keys that are still missing."""
    needed = reader.manifest["master_key_ids"]
    if passphrase is not None and reader.has(archive.KEYS):
        try:
            keys = decrypt_keys(b"".join(reader.pieces(archive.KEYS)), passphrase)
        except WrongPassphraseError:
            raise StartError("The passphrase does not open the keys of this backup.") from None
        folder = data_dir / "keys"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, value in keys.items():
            if name not in present:
                write_private(folder / f"{name}.key", value + "\n")
                present[name] = value
    available = set(key_ids(present))
    return [name for name in needed if name not in available]


def restore(reader: Reader, database_url: str, *, resume_open: bool, show: Progress) -> RestoreReport:
    """Replace the contents of the database by the archive's rows. Call `check_archive` and `check_target` first."""
    manifest = reader.manifest
    if dump.inspect_database(database_url).revision != manifest["schema"]:
        dump.drop_all(database_url)
        upgrade_schema(database_url, manifest["schema"])
    rows, tables = 0, manifest["tables"]
    try:
        with dump.open_loader(database_url) as loader:
            loader.truncate()
            for n, table in enumerate(tables):
                show("tables", n, len(tables))
                loader.load(TableRows(table["name"], table["columns"]), reader.pieces(table["member"]))
                rows += table["rows"]
            loader.reset_sequences()
            # In the same transaction, so that no job can run in between that must not run.
            made_at = datetime.fromisoformat(manifest["made_at"])
            jobs = platform_restore.recover_open_jobs(loader.tx, made_at=made_at, resume_open=resume_open)
    except SQLAlchemyError as error:
        raise StartError(f"The rows could not be restored: {explain(error)}") from error
    show("tables", len(tables), len(tables))
    if manifest["schema"] != newest_revision():
        upgrade_schema(database_url)
    return RestoreReport(rows=rows, jobs=jobs)


def restore_files(reader: Reader, report: RestoreReport, *, sizes_only: bool, show: Progress) -> None:
    """Store the files of the archive, and check that the files it only lists exist. Updates the report."""
    count = reader.manifest["files"]["count"]
    for n, file in enumerate(reader.lines(archive.FILES)):
        show("files", n, count)
        try:
            intact = _is_intact(file, sizes_only=sizes_only)
            if not intact and reader.has(f"files/{file['key']}"):
                _store_file(reader, file)
                intact = True
        except storage.StorageError as error:
            raise StartError(f"The storage does not work ({storage.describe_location()}): {error.reason}.") from error
        if intact:
            report.files += 1
        else:
            report.missing.append(file["key"])
    show("files", count, count)


def _is_intact(file: Json, *, sizes_only: bool) -> bool:
    try:
        if storage.file_size(file["key"]) != file["bytes"] and file["bytes"]:
            return False
        if sizes_only or file["sha256"] is None:
            return True
        digest = hashlib.sha256()
        for piece in storage.read_chunks(file["key"]):
            digest.update(piece)
    except storage.MissingFileError:
        return False
    return bool(digest.hexdigest() == file["sha256"])


def _store_file(reader: Reader, file: Json) -> None:
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as content:
        for piece in reader.pieces(f"files/{file['key']}"):
            content.write(piece)
        storage.put_file(file["key"], content)
