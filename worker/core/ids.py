"""Identifiers: time-ordered UUIDs inside, prefixed hex strings outside (`job_...`, `file_...`)."""

import os
import re
import time
import uuid
from datetime import datetime

_HEX = re.compile(r"[0-9a-f]{32}")


def new_id() -> uuid.UUID:
    """A version-7 UUID (RFC 9562): sorts by creation time, so an index on it stays compact and pages in order."""
    millis = time.time_ns() // 1_000_000
    raw = bytearray(millis.to_bytes(6, "big") + os.urandom(10))
    raw[6] = 0x70 | (raw[6] & 0x0F)
    raw[8] = 0x80 | (raw[8] & 0x3F)
    return uuid.UUID(bytes=bytes(raw))


def first_id_at(moment: datetime) -> uuid.UUID:
    """Sorts before every id that is made at or after the moment, behind those made before it."""
    millis = max(int(moment.timestamp() * 1000), 0)
    return uuid.UUID(bytes=millis.to_bytes(6, "big") + bytes(10))


def public_id(prefix: str, value: uuid.UUID) -> str:
    """The form users see: URL-safe, no colon or slash, below 64 characters."""
    return f"{prefix}_{value.hex}"


def new_request_id() -> str:
    """What an answer and the log lines of its request have in common (`x-request-id`)."""
    return public_id("req", new_id())


def parse_public_id(prefix: str, text: str) -> uuid.UUID | None:
    """The UUID behind a public id; None when it is not one, or another spelling of one."""
    head, _, tail = text.partition("_")
    return uuid.UUID(hex=tail) if head == prefix and _HEX.fullmatch(tail) else None
