"""The file of a backup: a zip archive with a manifest that lists each member with its size and SHA-256.

Zip allows access to any member without reading the others, and ordinary tools can open it. The archive is written under
another name and renamed when it is complete.
"""

import contextlib
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from worker.local.processes import StartError

FORMAT = 1
MANIFEST = "manifest.json"
FILES = "files.jsonl"
KEYS = "keys.locked"
_PIECE_BYTES = 1024 * 1024
# Errors of `zipfile` for damaged bytes; RuntimeError: unknown encryption, methods and versions.
_DAMAGE_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, TypeError, OSError, RuntimeError)

Json = dict[str, Any]


class Writer:
    """Writes an archive."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.members: dict[str, Json] = {}

    def add(self, name: str, pieces: Iterable[bytes], *, compress: bool = True) -> Json:
        """Write a member and return its `bytes`, `lines` and `sha256`."""
        info = zipfile.ZipInfo(name, date_time=datetime.now().astimezone().timetuple()[:6])
        info.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
        info.external_attr = 0o600 << 16
        digest, size, lines = hashlib.sha256(), 0, 0
        with self._archive.open(info, "w", force_zip64=True) as member:
            for piece in pieces:
                member.write(piece)
                digest.update(piece)
                size += len(piece)
                lines += piece.count(b"\n")
        self.members[name] = {"bytes": size, "lines": lines, "sha256": digest.hexdigest()}
        return self.members[name]

    def finish(self, manifest: Json) -> None:
        """Write the manifest as the last member: an archive without it is invalid."""
        body = json.dumps({"format": FORMAT, **manifest, "members": self.members}, indent=2)
        self._archive.writestr(MANIFEST, body)


@contextlib.contextmanager
def open_writer(target: Path) -> Iterator[Writer]:
    """Create an archive, readable only by its owner. It exists at `target` after the block ends without an error."""
    draft = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise StartError(f"Cannot write {target}: {error.strerror}.") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
                yield Writer(archive)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, target)  # unlike a rename, it fails if another backup has the name meanwhile
        except FileExistsError:
            raise StartError(f"{target} exists already, and a backup is never overwritten.") from None
        except OSError:
            draft.replace(target)  # a file system without links
    finally:
        draft.unlink(missing_ok=True)


class Reader:
    """Reads an archive and checks its members against the manifest."""

    def __init__(self, archive: zipfile.ZipFile, manifest: Json) -> None:
        self._archive = archive
        self.manifest = manifest

    def has(self, name: str) -> bool:
        """Return whether the archive has this member."""
        return name in self.manifest["members"]

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a member. Raises StartError when they are damaged, a wrong checksum only at the end."""
        digest = hashlib.sha256()
        try:
            with self._archive.open(name) as member:
                while piece := member.read(_PIECE_BYTES):
                    digest.update(piece)
                    yield piece
        except _DAMAGE_ERRORS as error:
            raise StartError(f"The backup is damaged: {name} cannot be read. Use another one.") from error
        if digest.hexdigest() != self.manifest["members"][name]["sha256"]:
            raise StartError(f"The backup is damaged: {name} does not match the manifest. Use another one.")

    def lines(self, name: str) -> Iterator[Json]:
        """Yield the JSON lines of a member."""
        rest = b""
        for piece in self.pieces(name):
            *complete, rest = (rest + piece).split(b"\n")
            yield from map(json.loads, complete)

    def verify(self, on_member: Callable[[str], object]) -> None:
        """Read all members. Raises StartError for the first damaged one."""
        for name in self.manifest["members"]:
            for _piece in self.pieces(name):
                pass
            on_member(name)


@contextlib.contextmanager
def open_reader(source: Path) -> Iterator[Reader]:
    """Open an archive. Raises StartError when it is not a backup or has an unknown format."""
    with contextlib.ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(source))
            manifest = json.loads(archive.read(MANIFEST))
            format_version = manifest["format"]
        except OSError as error:
            raise StartError(f"Cannot read {source}: {error.strerror or error}.") from error
        except _DAMAGE_ERRORS as error:
            raise StartError(f"{source} is not a Dreamery backup, or it is incomplete.") from error
        if format_version != FORMAT:
            raise StartError(f"{source} has format {format_version}; this version reads {FORMAT}. Use a newer version.")
        yield Reader(archive, manifest)
