"""`dreamery backup`, `dreamery restore`, `dreamery take-storage`: on the machine itself, not over the API."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from api.cli.output import JsonOption
from worker.core.settings import get_settings

DataDirOption = Annotated[Path | None, typer.Option("--data-dir", help="Data folder; default ./data.")]
PassphraseOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="File with the passphrase of the keys; asked for where it is needed."),
]
_MOST_NAMED = 20


def backup(
    target: Annotated[Path, typer.Argument(help="File to write, or a folder for one with the time in its name.")],
    data_dir: DataDirOption = None,
    passphrase_file: PassphraseOption = None,
    *,
    with_files: Annotated[bool, typer.Option("--with-files", help="The bytes of the results too.")] = False,
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="The master and admin key too, locked with a passphrase.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write rows and the list of files of one moment to a file, while the platform runs or not."""
    from worker.local.backup import keys_of, make_backup, target_of

    settle_place(data_dir)
    passphrase = _passphrase(passphrase_file, twice=True) if with_keys else None
    file = target_of(target)
    folder = get_settings().data_dir
    with _database(create=False) as url, _shown() as show:
        made = make_backup(url, file, keys=keys_of(folder), passphrase=passphrase, with_files=with_files, show=show)
    if as_json:
        print(json.dumps({"file": str(file), **{k: v for k, v in made.items() if k != "tables"}}, indent=2))
        return
    files = made["files"]
    rows = sum(table["rows"] for table in made["tables"])
    inside = "included" if with_files else f"listed; they stay at {made['storage']}"
    print(f"{file}: {rows} rows, schema {made['schema']}, {files['count']} files ({inside}).")
    _tell_missing(files["missing"], "were not in storage")
    keys = ", ".join(made["master_key_ids"]) or "unknown"
    print(f"Master key: {keys} ({'included' if with_keys else 'not included: keep it apart'}).")


def restore(
    source: Annotated[Path, typer.Argument(help="A file that `dreamery backup` wrote.")],
    data_dir: DataDirOption = None,
    passphrase_file: PassphraseOption = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Remove what is in the database first.")] = False,
    resume_open: Annotated[
        bool, typer.Option("--resume-open", help="Run jobs that were waiting; only when nothing ran since the backup.")
    ] = False,
    sizes_only: Annotated[bool, typer.Option("--sizes-only", help="Do not read every stored file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fill an empty database from a backup, and look for every file. The platform must not run."""
    from worker.local import backup_archive
    from worker.local import restore as steps
    from worker.local.backup import keys_of

    settle_place(data_dir)
    folder = get_settings().data_dir
    with backup_archive.reading(source) as reader:
        with _shown() as show:
            steps.check(reader, show)
        present = keys_of(folder)
        locked = reader.has(backup_archive.KEYS) and (passphrase_file is not None or "master" not in present)
        passphrase = _passphrase(passphrase_file, twice=False) if locked else None
        with _database(create=True) as url:
            steps.check_target(url, force=force)
            missing_keys = steps.bring_keys(reader, folder, present, passphrase)
            with _shown() as show:
                found = steps.restore(reader, url, resume_open=resume_open, show=show)
                found.missing_keys = missing_keys
                steps.bring_files(reader, found, sizes_only=sizes_only, show=show)
    if as_json:
        names = ("rows", "jobs", "files", "missing", "missing_keys")
        print(json.dumps({name: getattr(found, name) for name in names}, indent=2))
    else:
        _tell(found)
    raise typer.Exit(1 if found.missing or found.missing_keys else 0)


def take_storage(data_dir: DataDirOption = None) -> None:
    """Make this platform the one that removes stray files from its storage, when the one before it is gone."""
    from worker import storage
    from worker.db.engine import transaction
    from worker.db.platform.state import installation

    settle_place(data_dir)
    with _database(create=False) as url:
        os.environ["DREAMERY_DATABASE_URL"] = url  # noqa: TID251 - every room shall see it
        get_settings.cache_clear()
        with transaction() as tx:
            me = installation(tx)
    storage.take(me)
    print(f"{storage.place()} belongs to this platform now.")


def settle_place(data_dir: Path | None) -> None:
    """Use that data folder, and the servers of a platform that runs on it. Before anything else reads the settings."""
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
def _shown() -> Iterator[Any]:
    """Progress bars, one for each kind of thing."""
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        known: dict[str, Any] = {}

        def show(what: str, done: int, total: int | None) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=total)
            bars.update(known[what], completed=done, total=total)

        yield show


def _passphrase(file: Path | None, *, twice: bool) -> str:
    from worker.core.security.passphrase import LEAST_PASSPHRASE

    if file is not None:
        try:
            given = file.read_text().strip()
        except OSError as error:
            raise typer.BadParameter(f"Cannot read {file}: {error.strerror}.") from error
    else:
        given = typer.prompt("Passphrase of the keys", hide_input=True, confirmation_prompt=twice, err=True)
    if len(given) < LEAST_PASSPHRASE:
        raise typer.BadParameter(f"A passphrase must have at least {LEAST_PASSPHRASE} characters.")
    return str(given)


def _tell(found: Any) -> None:
    jobs = dict(found.jobs)
    interrupted = jobs.pop("interrupted", 0)
    print(f"{found.rows} rows restored, {found.files} files found.")
    if interrupted:
        print(f"{interrupted} jobs that waited were ended (`interrupted_by_restore`): they may have run since.")
    if jobs:
        still = ", ".join(f"{count} {state}" for state, count in sorted(jobs.items()))
        print(f"Open jobs that go on when the platform starts: {still}.")
    _tell_missing(found.missing, "are missing or damaged; their links will fail")
    for name in found.missing_keys:
        print(f"Master key {name} is not here: add it to DREAMERY_MASTER_KEY, or account secrets cannot be read.")


def _tell_missing(missing: list[str], what: str) -> None:
    if missing:
        print(f"{len(missing)} files {what}:")
        for key in missing[:_MOST_NAMED]:
            print(f"  {key}")
        if len(missing) > _MOST_NAMED:
            print(f"  and {len(missing) - _MOST_NAMED} more (--json lists all)")
