"""`dreamery rotate-master-key`: re-encrypt all stored secrets with the newest key of DREAMERY_MASTER_KEY."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console

from api.cli.display.output import JsonOption

_ROUNDS = 5
_ADVICE = (
    "Put the new key first (DREAMERY_MASTER_KEY=NEW,OLD), restart every process, then run `dreamery "
    "rotate-master-key`. When it says so, remove the old key and restart again."
)


def rotate_master_key(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing. Show how many secrets each key encrypts.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Re-encrypt every stored secret with the newest master key. Safe while the platform runs, and can be repeated."""
    from api.cli.operator.doctor import adopt_running_platform
    from worker.core.security.encryption import SecretUnreadableError, master_keys
    from worker.db.platform import encrypted_columns, root_key
    from worker.local.processes import StartError

    adopt_running_platform()
    try:
        newest, *older = [key.id for key in master_keys()]
        root_key.load_root_key()
    except SecretUnreadableError as error:
        raise StartError(str(error)) from None
    changed = 0 if check else _rotate(newest)
    counts = encrypted_columns.count_by_key()
    removable = not any(counts.get(key, 0) for key in older)
    rows = [{"key": key, "newest": key == newest, "values": counts.get(key, 0)} for key in (newest, *older)]
    report = {"keys": rows, "unreadable": counts.get(None, 0), "changed": changed, "old_keys_removable": removable}
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print(report, check=check)
    raise typer.Exit(0 if removable and not report["unreadable"] else 1)


def _rotate(newest: str) -> int:
    from worker.db.platform import encrypted_columns

    total = 0
    # Processes that still use the old settings may encrypt with the old key meanwhile; the next round finds that.
    for _ in range(_ROUNDS):
        if not (changed := encrypted_columns.reencrypt_all()):
            break
        total += changed
    if total:
        encrypted_columns.record_rotation(actor="command line", key_id=newest, changed=total)
    return total


def _print(report: dict[str, Any], *, check: bool) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for row in report["keys"]:
        console.print(f"key {row['key']}{' (newest)' if row['newest'] else ''}: {row['values']} values")
    if not check:
        console.print(f"{report['changed']} values re-encrypted.")
    if report["unreadable"]:
        console.print(
            f"{report['unreadable']} values cannot be decrypted with any configured key: add those accounts again."
        )
    if not report["old_keys_removable"]:
        console.print("The old keys are still needed: run `dreamery rotate-master-key`.")
    elif len(report["keys"]) > 1:
        console.print("The old keys can be removed from DREAMERY_MASTER_KEY.")
    elif check:
        console.print(f"There is only one key. To replace it: {_ADVICE}")
