"""`dreamery restore`: an archive of `dreamery backup` back into an empty database, its files into storage.

Everything that can be wrong is looked at before anything is changed: the archive, its schema, who uses the database.
The rows come back in one transaction, in the schema they were written with, which the migrations then bring up to date.
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
from worker.local import backup_archive
from worker.local.backup import Progress, key_ids
from worker.local.backup_archive import Json, Reader
from worker.local.data_dir import write_private
from worker.local.processes import StartError
from worker.local.schema_upgrade import is_later, newest_revision, upgrade_schema

_SPOOL_BYTES = 8 * 1024 * 1024


@dataclass(slots=True)
class Restored:
    """What came of it."""

    rows: int
    jobs: dict[str, int]  # interrupted, and open ones by state
    files: int = 0
    missing: list[str] = field(default_factory=list)  # keys without bytes, or with other ones
    missing_keys: list[str] = field(default_factory=list)  # names of master keys that are not here


def check(reader: Reader, show: Progress) -> None:
    """Whether this archive can be restored by this version. Raises StartError."""
    schema = reader.manifest["schema"]
    if is_later(schema):
        raise StartError(
            f"The backup was made by a newer version (schema {schema}, dreamery {reader.manifest['dreamery']}). "
            "Update dreamery first, then restore."
        )
    count = len(reader.manifest["members"])
    done = 0

    def checked(_name: str) -> None:
        nonlocal done
        done += 1
        show("checked", done, count)

    reader.check(checked)


def check_target(database_url: str, *, force: bool) -> None:
    """Whether the database may be filled. Raises StartError."""
    try:
        present = dump.inspect_database(database_url)
    except SQLAlchemyError as error:
        raise StartError(f"The database cannot be reached: {str(error).strip().splitlines()[0]}") from error
    if not present.is_dreamery:
        names = ", ".join(sorted(present.tables)[:5])
        raise StartError(f"The database holds tables of something else ({names}). Use one of its own.")
    if present.connections:
        raise StartError(
            f"A platform uses this database ({present.connections} connections). Stop it first: what it does meanwhile would "
            "be lost, or done twice."
        )
    if present.has_rows and not force:
        raise StartError(
            "The database is not empty. Restore into an empty one, or remove all that is in it with --force."
        )


def bring_keys(reader: Reader, data_dir: Path, present: dict[str, str], passphrase: str | None) -> list[str]:
    """Put the keys of the archive where they are missing; the names of master keys that are still not here."""
    needed = reader.manifest["master_key_ids"]
    if passphrase is not None and reader.has(backup_archive.KEYS):
        try:
            keys = decrypt_keys(b"".join(reader.pieces(backup_archive.KEYS)), passphrase)
        except WrongPassphraseError:
            raise StartError("The passphrase does not open the keys of this backup.") from None
        folder = data_dir / "keys"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, value in keys.items():
            if name not in present:
                write_private(folder / f"{name}.key", value + "\n")
                present[name] = value
    here = set(key_ids(present))
    return [name for name in needed if name not in here]


def restore(reader: Reader, database_url: str, *, resume_open: bool, show: Progress) -> Restored:
    """Replace what is in the database by the rows of the archive. `check` and `check_target` come first."""
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
            # In the same transaction: there is no moment at which jobs could run that must not.
            made_at = datetime.fromisoformat(manifest["made_at"])
            jobs = platform_restore.recover_open_jobs(loader.tx, made_at=made_at, resume_open=resume_open)
    except SQLAlchemyError as error:
        raise StartError(f"The rows could not be restored: {str(error).strip().splitlines()[0]}") from error
    show("tables", len(tables), len(tables))
    if manifest["schema"] != newest_revision():
        upgrade_schema(database_url)
    return Restored(rows=rows, jobs=jobs)


def bring_files(reader: Reader, found: Restored, *, sizes_only: bool, show: Progress) -> None:
    """Put the files of the archive into storage, and look for those that it only lists."""
    count = reader.manifest["files"]["count"]
    for n, file in enumerate(reader.lines(backup_archive.FILES)):
        show("files", n, count)
        try:
            good = _is_there(file, sizes_only=sizes_only)
            if not good and reader.has(f"files/{file['key']}"):
                _put(reader, file)
                good = True
        except storage.StorageError as error:
            raise StartError(f"The storage does not work ({storage.describe_location()}): {error.reason}.") from error
        if good:
            found.files += 1
        else:
            found.missing.append(file["key"])
    show("files", count, count)


def _is_there(file: Json, *, sizes_only: bool) -> bool:
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


def _put(reader: Reader, file: Json) -> None:
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as content:
        for piece in reader.pieces(f"files/{file['key']}"):
            content.write(piece)
        storage.put_file(file["key"], content)
