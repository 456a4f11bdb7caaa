"""The file of a backup: a zip archive whose manifest names every member with its size and SHA-256.

A zip, so that any member is reached without reading the others, and ordinary tools can look into it. It is written
under another name and renamed when it is whole.
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
# What `zipfile` raises for wrong bytes; RuntimeError: encryption, methods and versions it does not know.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, TypeError, OSError, RuntimeError)

Json = dict[str, Any]


class Writer:
    """An archive that is being written."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.members: dict[str, Json] = {}

    def add(self, name: str, pieces: Iterable[bytes], *, packed: bool = True) -> Json:
        """Write a member; its `bytes`, `lines` and `sha256`. `packed` = worth compressing."""
        info = zipfile.ZipInfo(name, date_time=datetime.now().astimezone().timetuple()[:6])
        info.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
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
        """Write the manifest, last: without it the archive is none."""
        body = json.dumps({"format": FORMAT, **manifest, "members": self.members}, indent=2)
        self._archive.writestr(MANIFEST, body)


@contextlib.contextmanager
def writing(target: Path) -> Iterator[Writer]:
    """An archive at `target` once the block ends well; readable by its owner only."""
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
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


class Reader:
    """An archive whose manifest was read and whose members are checked by it."""

    def __init__(self, archive: zipfile.ZipFile, manifest: Json) -> None:
        self._archive = archive
        self.manifest = manifest

    def has(self, name: str) -> bool:
        """Whether there is such a member."""
        return name in self.manifest["members"]

    def pieces(self, name: str) -> Iterator[bytes]:
        """The bytes of a member. Raises StartError at its end when they are not those that were written."""
        digest = hashlib.sha256()
        try:
            with self._archive.open(name) as member:
                while piece := member.read(_PIECE_BYTES):
                    digest.update(piece)
                    yield piece
        except _DAMAGE as error:
            raise StartError(f"The backup is damaged: {name} cannot be read. Use another one.") from error
        if digest.hexdigest() != self.manifest["members"][name]["sha256"]:
            raise StartError(f"The backup is damaged: {name} is not what its manifest says. Use another one.")

    def lines(self, name: str) -> Iterator[Json]:
        """The JSON lines of a member."""
        rest = b""
        for piece in self.pieces(name):
            *whole, rest = (rest + piece).split(b"\n")
            yield from map(json.loads, whole)

    def check(self, on_member: Callable[[str], object]) -> None:
        """Read every member once. Raises StartError for the first that is damaged."""
        for name in self.manifest["members"]:
            for _piece in self.pieces(name):
                pass
            on_member(name)


@contextlib.contextmanager
def reading(source: Path) -> Iterator[Reader]:
    """An archive of ours. Raises StartError when it is none, or of a format that is not known."""
    with contextlib.ExitStack() as opened:
        try:
            archive = opened.enter_context(zipfile.ZipFile(source))
            manifest = json.loads(archive.read(MANIFEST))
            form = manifest["format"]
        except OSError as error:
            raise StartError(f"Cannot read {source}: {error.strerror or error}.") from error
        except _DAMAGE as error:
            raise StartError(f"{source} is no backup of this platform, or only part of one.") from error
        if form != FORMAT:
            raise StartError(f"{source} has format {form}; this version reads {FORMAT}. Use a newer version.")
        yield Reader(archive, manifest)
