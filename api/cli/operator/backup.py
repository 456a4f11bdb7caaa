"""`dreamery backup`, `dreamery restore`, `dreamery take-storage`: run on the machine itself, without the API."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from api.cli.display.output import JsonOption
from worker.core.settings import get_settings

DataDirOption = Annotated[Path | None, typer.Option("--data-dir", help="Data folder; default ./data.")]
PassphraseOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="File with the passphrase of the keys; default: ask for it."),
]
_MAX_LISTED = 20


def backup(
    target: Annotated[Path, typer.Argument(help="File to write, or a folder for a file named after the time.")],
    data_dir: DataDirOption = None,
    passphrase_file: PassphraseOption = None,
    *,
    with_files: Annotated[bool, typer.Option("--with-files", help="Include the result files.")] = False,
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Include the master and admin key, encrypted with a passphrase.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a consistent snapshot of the database and the list of files to a file. The platform may run."""
    from worker.local.backups.backup import backup_path, create_backup, read_keys

    use_data_dir(data_dir)
    passphrase = _passphrase(passphrase_file, twice=True) if with_keys else None
    file = backup_path(target)
    folder = get_settings().data_dir
    with _database(create=False) as url, _progress_bars() as show:
        manifest = create_backup(
            url, file, keys=read_keys(folder), passphrase=passphrase, with_files=with_files, show=show
        )
        _note_backup(url)
    if as_json:
        print(json.dumps({"file": str(file), **{k: v for k, v in manifest.items() if k != "tables"}}, indent=2))
        return
    files = manifest["files"]
    rows = sum(table["rows"] for table in manifest["tables"])
    inside = "included" if with_files else f"listed; they stay at {manifest['storage']}"
    print(f"{file}: {rows} rows, schema {manifest['schema']}, {files['count']} files ({inside}).")
    _print_missing(files["missing"], "were not in storage")
    keys = ", ".join(manifest["master_key_ids"]) or "unknown"
    print(f"Master key: {keys} ({'included' if with_keys else 'not included: store it separately'}).")


def _note_backup(url: str) -> None:
    """Record the time for the alert about old backups. A database that only reads has a backup all the same."""
    from worker.db.engine import DATABASE_ERRORS, transaction
    from worker.db.platform import state as platform_state

    os.environ["DREAMERY_DATABASE_URL"] = url  # noqa: TID251 - all modules must see it
    get_settings.cache_clear()
    with contextlib.suppress(*DATABASE_ERRORS), transaction() as tx:
        platform_state.write(tx, "last_backup", {})


def restore(
    source: Annotated[Path, typer.Argument(help="A file that `dreamery backup` wrote.")],
    data_dir: DataDirOption = None,
    passphrase_file: PassphraseOption = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Delete the contents of the database first.")] = False,
    resume_open: Annotated[
        bool, typer.Option("--resume-open", help="Run waiting jobs again; only if no job has run since the backup.")
    ] = False,
    sizes_only: Annotated[
        bool, typer.Option("--sizes-only", help="Check only the sizes of stored files, not their contents.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Restore a backup into an empty database and check that every file exists. The platform must not run."""
    from worker.local.backups import archive
    from worker.local.backups import restore as steps
    from worker.local.backups.backup import read_keys

    use_data_dir(data_dir)
    folder = get_settings().data_dir
    with archive.open_reader(source) as reader:
        with _progress_bars() as show:
            steps.check_archive(reader, show)
        present = read_keys(folder)
        locked = reader.has(archive.KEYS) and (passphrase_file is not None or "master" not in present)
        passphrase = _passphrase(passphrase_file, twice=False) if locked else None
        with _database(create=True) as url:
            steps.check_target(url, force=force)
            missing_keys = steps.restore_keys(reader, folder, present, passphrase)
            with _progress_bars() as show:
                report = steps.restore(reader, url, resume_open=resume_open, show=show)
                report.missing_keys = missing_keys
                steps.restore_files(reader, report, sizes_only=sizes_only, show=show)
    if as_json:
        names = ("rows", "jobs", "files", "missing", "missing_keys")
        print(json.dumps({name: getattr(report, name) for name in names}, indent=2))
    else:
        _print_summary(report)
    raise typer.Exit(1 if report.missing or report.missing_keys else 0)


def take_storage(data_dir: DataDirOption = None) -> None:
    """Make this platform the owner of its storage, which deletes orphaned files, when the previous owner is gone."""
    from worker import storage
    from worker.db.engine import transaction
    from worker.db.platform.state import get_installation_id

    use_data_dir(data_dir)
    with _database(create=False) as url:
        os.environ["DREAMERY_DATABASE_URL"] = url  # noqa: TID251 - all modules must see it
        get_settings.cache_clear()
        with transaction() as tx:
            me = get_installation_id(tx)
    storage.take_ownership(me)
    print(f"{storage.describe_location()} now belongs to this platform.")


def use_data_dir(data_dir: Path | None) -> None:
    """Use this data folder and the servers of a platform running on it. Call it before the settings are read."""
    from api.cli.operator.doctor import adopt_running_platform

    if data_dir is not None:
        os.environ["DREAMERY_DATA_DIR"] = str(data_dir.expanduser().resolve())  # noqa: TID251 - see above
        get_settings.cache_clear()
    adopt_running_platform()


@contextlib.contextmanager
def _database(*, create: bool) -> Iterator[str]:
    settings = get_settings()
    if settings.database_url:
        yield settings.database_url
        return
    from worker.local.command_database import embedded_database

    with embedded_database(settings.data_dir.expanduser().resolve(), create=create) as url:
        yield url


@contextlib.contextmanager
def _progress_bars() -> Iterator[Any]:
    """Yield a callback that shows one progress bar per kind of item."""
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar_ids: dict[str, Any] = {}

        def show(what: str, done: int, total: int | None) -> None:
            if what not in bar_ids:
                bar_ids[what] = bars.add_task(what, total=total)
            bars.update(bar_ids[what], completed=done, total=total)

        yield show


def _passphrase(file: Path | None, *, twice: bool) -> str:
    from worker.core.security.passphrase import MIN_PASSPHRASE_CHARS

    if file is not None:
        try:
            passphrase = file.read_text().strip()
        except OSError as error:
            raise typer.BadParameter(f"Cannot read {file}: {error.strerror}.") from error
    else:
        passphrase = typer.prompt("Passphrase of the keys", hide_input=True, confirmation_prompt=twice, err=True)
    if len(passphrase) < MIN_PASSPHRASE_CHARS:
        raise typer.BadParameter(f"A passphrase must have at least {MIN_PASSPHRASE_CHARS} characters.")
    return str(passphrase)


def _print_summary(report: Any) -> None:
    jobs = dict(report.jobs)
    interrupted = jobs.pop("interrupted", 0)
    print(f"{report.rows} rows restored, {report.files} files found.")
    if interrupted:
        print(f"{interrupted} waiting jobs were ended (`interrupted_by_restore`): they may have run since.")
    if jobs:
        counts = ", ".join(f"{count} {state}" for state, count in sorted(jobs.items()))
        print(f"Open jobs that continue when the platform starts: {counts}.")
    _print_missing(report.missing, "are missing or damaged; their links will fail")
    for name in report.missing_keys:
        print(f"Master key {name} is missing: add it to DREAMERY_MASTER_KEY, or account secrets cannot be decrypted.")


def _print_missing(missing: list[str], what: str) -> None:
    if missing:
        print(f"{len(missing)} files {what}:")
        for key in missing[:_MAX_LISTED]:
            print(f"  {key}")
        if len(missing) > _MAX_LISTED:
            print(f"  and {len(missing) - _MAX_LISTED} more (--json lists all)")
