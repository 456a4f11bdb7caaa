"""The doctor's checks of the storage of results, and of the disks of storage, database and temporary files."""

import shutil
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from api.cli.operator.findings import Finding, first_line
from worker.core.settings import get_settings

MIN_FREE_BYTES = 1_000_000_000
_MAKE_ROOM = "Free some space, or set DREAMERY_RETENTION_DAYS to delete old results."


def check_storage() -> list[Finding]:
    """Store, read and delete a few bytes. Report what workers met, and whose storage it is."""
    from worker.storage import StorageError, describe_location, probe, read_owner

    hint = "Check DREAMERY_STORAGE_URL and the DREAMERY_S3_* settings, and that this machine can write there."
    try:
        findings = [Finding("storage", ok=True, detail=probe())]
        owned_by = read_owner()
    except (StorageError, ValueError) as error:
        full = isinstance(error, StorageError) and error.problem == "full"
        reason = error.reason if isinstance(error, StorageError) else first_line(error)
        detail = f"{describe_location()}: {reason}"
        findings = [Finding("storage", ok=False, detail=detail, hint=_MAKE_ROOM if full else hint)]
        owned_by = None
    return findings + (_from_database(owned_by) if get_settings().database_url else [])


def _from_database(owned_by: str | None) -> list[Finding]:
    from worker.db.engine import DATABASE_ERRORS, transaction
    from worker.db.platform import state

    try:
        with transaction() as tx:
            ours = owned_by is None or state.get_installation_id(tx) == owned_by
            problem = state.get_storage_problem(tx)
    except DATABASE_ERRORS:
        return []
    found = []
    if problem is not None:
        detail = f"a worker could not store a result in {problem.place}: {problem.reason}; results wait"
        hint = "Make it work for the workers, which may run on other machines: they continue by themselves."
        found.append(Finding("storage", ok=False, detail=detail, hint=hint))
    if not ours:
        hint = "Orphaned files are not deleted. If the other platform is gone, run `dreamery take-storage`."
        found.append(Finding("storage", ok=False, detail="belongs to another platform", hint=hint))
    return found


def check_disks() -> list[Finding]:
    """Report the free space of the disks of this machine that the platform writes to."""
    from worker.storage import describe_location, local_folder

    settings = get_settings()
    results, temporary = local_folder(), Path(tempfile.gettempdir())
    found = []
    if results is None:
        found.append(Finding("disk", ok=True, detail=f"results need none: they are in {describe_location()}"))
    else:
        found.append(_disk("results", results, _MAKE_ROOM))
    database = settings.data_dir.resolve() / "postgres"
    if database.exists() and _is_local(settings.database_url):
        hint = "Free some space, or lower DREAMERY_TIMELINE_RETENTION_DAYS."
        found.append(_disk("the database", database, hint))
    elif settings.database_url:
        found += _database_room()
    hint = "Videos of up to 2 GB are buffered here. Free some space, or point TMPDIR to a larger disk."
    return [*found, _disk("temporary files", temporary, hint)]


def _disk(what: str, folder: Path, hint: str) -> Finding:
    free = shutil.disk_usage(folder).free
    return Finding("disk", free >= MIN_FREE_BYTES, f"{free / 1e9:.1f} GB free for {what} in {folder}", hint)


def _is_local(database_url: str) -> bool:
    """Whether the database can be the embedded one. A URL with a socket has no host."""
    try:
        return not database_url or urlsplit(database_url).hostname in {None, "127.0.0.1", "::1", "localhost"}
    except ValueError:
        return False


def _database_room() -> list[Finding]:
    """The disk of a server on another machine cannot be seen: write to it."""
    from worker.db.connecting.reasons import DISK_FULL
    from worker.db.engine import DATABASE_ERRORS, transaction
    from worker.db.platform import server_room, startup

    try:
        with transaction() as tx:
            used = server_room.write_some(tx)
    except DATABASE_ERRORS as error:
        if (reason := startup.explain(error)) != DISK_FULL:
            return []  # away or read-only, as the check of the database says
        hint = "Enlarge it. Never delete files of Postgres by hand."
        return [Finding("disk", ok=False, detail=reason, hint=hint)]
    detail = f"the disk of the database takes data ({used / 1e9:.1f} GB used); how much is free shows its own machine"
    return [Finding("disk", ok=True, detail=detail)]
