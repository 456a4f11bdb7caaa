"""Searches the logs of all processes and every database row for secrets that were used in a test run.

Keys, webhook secrets and passwords in URLs are recognised by their format, so tests need not register them. Session ids
and the platform's own keys are searched by value.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import psycopg

from worker.local.supervisor import Platform

# Session ids that tests of this process have used.
SESSIONS: set[str] = set()

_SHAPES = {
    "an API key": re.compile(rb"sk-dreamery-[\w-]{40,}"),
    "a webhook secret": re.compile(rb"whsec_[A-Za-z0-9+/]{40,}"),
    "a password in a URL": re.compile(rb"[a-z0-9+]{2,12}://[^\s/:@\"']{0,200}:[^\s/:@\"'*]{1,200}@[\w.\[]"),
}
_DIGITS = re.compile(rb"\d+")
_BLOCK = 1 << 20
_OVERLAP = 1000
_SHOWN = 60


def find_secret_leaks(platform: Platform) -> list[str]:
    """Return a description of each secret that was found and where. The platform must be running."""
    words = {
        "the admin key": platform.admin_key,
        **{f"master key {n}": key for n, key in enumerate(platform.master_key.split(","), 1)},
    }
    needles = {name: word.encode() for name, word in words.items() if word}
    sessions = _by_digits(SESSIONS)
    found = []
    for source, chunk in chain(_logs(platform.logs_dir), _rows(platform.database_url)):
        found += [f"{name} in {source}" for name, needle in needles.items() if needle in chunk]
        positions = {name: match.start() for name, shape in _SHAPES.items() if (match := shape.search(chunk))}
        if (at := _find_session(sessions, chunk)) is not None:
            positions["a session id"] = at
        for name, start in positions.items():
            found.append(f"{name} in {source}, after {chunk[max(start - _SHOWN, 0) : start]!r}")
    return sorted(set(found))


def _by_digits(sessions: Iterable[str]) -> dict[bytes, list[bytes]]:
    """Index session ids by their longest run of digits: searching a thousand ids one by one would take minutes."""
    found: dict[bytes, list[bytes]] = {}
    for session in sessions:
        value = session.encode()
        found.setdefault(max(_DIGITS.findall(value), key=len), []).append(value)
    return found


def _find_session(sessions: dict[bytes, list[bytes]], chunk: bytes) -> int | None:
    for run in _DIGITS.finditer(chunk):
        for session in sessions.get(run[0], ()):
            if (at := chunk.find(session, max(run.start() - len(session), 0), run.end() + len(session))) >= 0:
                return at
    return None


def _logs(folder: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(folder.glob("*.log")):
        # The sandbox receives session ids, like upstream.
        if not file.name.startswith("sandbox"):
            yield from ((file.name, chunk) for chunk in _blocks(iter_file(file)))


def iter_file(file: Path) -> Iterator[bytes]:
    """Read a file in blocks."""
    with file.open("rb") as source:
        while piece := source.read(_BLOCK):
            yield piece


def _rows(database_url: str) -> Iterator[tuple[str, bytes]]:
    """Read every column of every table as text."""
    with psycopg.connect(database_url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            with connection.cursor() as cursor, cursor.copy(f"COPY {table} TO STDOUT") as copy:
                yield from ((f"table {table}", chunk) for chunk in _blocks(bytes(piece) for piece in copy))


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join pieces into blocks. Blocks overlap, so a secret on a boundary is found too."""
    block = b""
    for piece in pieces:
        block += piece
        if len(block) >= _BLOCK:
            yield block
            block = block[-_OVERLAP:]
    if block:
        yield block
