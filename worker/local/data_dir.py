"""The data folder of one machine: private, locked by one supervisor at a time, contains the generated keys."""

import contextlib
import fcntl
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from worker.local.processes import StartError

TMP_NAME = "tmp"
_KNOWN_NAMES = frozenset({"lock", "keys", "files", "postgres", "redis", "logs", "workers", "sandbox", TMP_NAME})
# In the root of a disk that is mounted as the data folder.
_OF_THE_FILE_SYSTEM = frozenset({"lost+found"})


@dataclass(frozen=True, slots=True)
class DataDir:
    """An open data folder. `lock` blocks a second supervisor until `close`."""

    path: Path
    lock: IO[str]

    def close(self) -> None:
        """Release the lock of the folder."""
        self.lock.close()

    def key(self, name: str, *, prefix: str = "") -> str:
        """Return the secret in `keys/NAME.key`; generates it the first time."""
        folder = self.path / "keys"
        folder.mkdir(mode=0o700, exist_ok=True)
        file = folder / f"{name}.key"
        value = file.read_text().strip() if file.exists() else ""
        if not value:
            value = prefix + secrets.token_urlsafe(32)
            write_private(file, value + "\n")
        return value

    def kept_port(self, name: str) -> int:
        """Return the port that a server had before, or 0."""
        try:
            port = int((self.path / name / "port").read_text())
        except (OSError, ValueError):
            return 0
        return port if 0 < port < 65_536 else 0

    def keep_port(self, name: str, port: int) -> None:
        """Remember the port of a server for the next start."""
        (self.path / name).mkdir(mode=0o700, exist_ok=True)
        write_private(self.path / name / "port", f"{port}\n")


def write_private(file: Path, text: str) -> None:
    """Write a file readable only by its owner, atomically, and sync it to disk."""
    draft = file.with_name(file.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())
    draft.replace(file)


def open_data_dir(path: Path, *, own_tmp: bool = False) -> DataDir:
    """Create the folder if it is missing, make it private, and lock it. Raises StartError.

    With `own_tmp` it has an empty folder for temporary files: what a killed run left there is removed.
    """
    path = path.expanduser().resolve()
    try:
        _make_private(path)
        lock = (path / "lock").open("a+")
    except OSError as error:
        raise StartError(
            f"Cannot use the data folder {path}: {error.strerror}. Choose another one with --data-dir."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise StartError(
            f"Dreamery already runs on {path} (process {holder}). Stop it first, or choose another folder with "
            "--data-dir."
        ) from error
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    if own_tmp:
        shutil.rmtree(path / TMP_NAME, ignore_errors=True)
        (path / TMP_NAME).mkdir(mode=0o700, exist_ok=True)
    return DataDir(path=path, lock=lock)


def is_locked(path: Path) -> bool:
    """Return whether a supervisor runs on this folder."""
    try:
        with (path / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _make_private(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.stat()
    if os.geteuid() not in {0, status.st_uid}:
        raise StartError(
            f"The data folder {path} belongs to another user (uid {status.st_uid}; we are {os.geteuid()}). Run as that "
            "user, give it to us (chown), or choose another folder with --data-dir."
        )
    names = {entry.name for entry in path.iterdir()} - _OF_THE_FILE_SYSTEM
    if names and not names & _KNOWN_NAMES:
        # Changing the permissions of a foreign folder such as /tmp or a home would lock other users out.
        raise StartError(f"The folder {path} contains other files. Choose an empty or new one with --data-dir.")
    with contextlib.suppress(PermissionError):
        path.chmod(0o700)
