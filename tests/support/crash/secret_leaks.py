"""Secrets that were used in a run, looked for where none may be: the logs of all processes and every row.

Keys, webhook secrets and passwords in URLs are known by their shape, so no test has to tell of them; session ids and
the platform's own keys by their text.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import psycopg

from worker.local.supervisor import Platform

# Session ids that tests presented to some platform of this process.
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


def leaks_of(platform: Platform) -> list[str]:
    """Where which secret was found, shortened. The platform must still run."""
    words = {
        "the admin key": platform.admin_key,
        **{f"master key {n}": key for n, key in enumerate(platform.master_key.split(","), 1)},
    }
    needles = {name: word.encode() for name, word in words.items() if word}
    sessions = _by_digits(SESSIONS)
    found = []
    for place, chunk in chain(_logs(platform.logs_dir), _rows(platform.database_url)):
        found += [f"{name} in {place}" for name, needle in needles.items() if needle in chunk]
        places = {name: match.start() for name, shape in _SHAPES.items() if (match := shape.search(chunk))}
        if (at := _first(sessions, chunk)) is not None:
            places["a session id"] = at
        for name, start in places.items():
            found.append(f"{name} in {place}, after {chunk[max(start - _SHOWN, 0) : start]!r}")
    return sorted(set(found))


def _by_digits(sessions: Iterable[str]) -> dict[bytes, list[bytes]]:
    """Session ids by the digits in them: looking for a thousand words one by one takes minutes, for digits nothing."""
    found: dict[bytes, list[bytes]] = {}
    for session in sessions:
        known = session.encode()
        found.setdefault(max(_DIGITS.findall(known), key=len), []).append(known)
    return found


def _first(sessions: dict[bytes, list[bytes]], chunk: bytes) -> int | None:
    for run in _DIGITS.finditer(chunk):
        for session in sessions.get(run[0], ()):
            if (at := chunk.find(session, max(run.start() - len(session), 0), run.end() + len(session))) >= 0:
                return at
    return None


def _logs(folder: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(folder.glob("*.log")):
        # The sandbox is the other side: it is given the session ids, as upstream is.
        if not file.name.startswith("sandbox"):
            yield from ((file.name, chunk) for chunk in _blocks(iter_file(file)))


def iter_file(file: Path) -> Iterator[bytes]:
    """A file in pieces."""
    with file.open("rb") as source:
        while piece := source.read(_BLOCK):
            yield piece


def _rows(database_url: str) -> Iterator[tuple[str, bytes]]:
    """Every column of every table, as text."""
    with psycopg.connect(database_url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            with connection.cursor() as cursor, cursor.copy(f"COPY {table} TO STDOUT") as copy:
                yield from ((f"table {table}", chunk) for chunk in _blocks(bytes(piece) for piece in copy))


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Joined to blocks worth a search; they overlap, so nothing hides on an edge."""
    block = b""
    for piece in pieces:
        block += piece
        if len(block) >= _BLOCK:
            yield block
            block = block[-_OVERLAP:]
    if block:
        yield block
