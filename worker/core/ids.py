"""Identifiers: time-ordered UUIDs internally, prefixed hex strings externally (`job_...`, `file_...`)."""

import os
import re
import time
import uuid
from datetime import datetime

_HEX = re.compile(r"[0-9a-f]{32}")


def new_id() -> uuid.UUID:
    """Return a version-7 UUID (RFC 9562). It sorts by creation time, which keeps indexes compact and pages in order."""
    millis = time.time_ns() // 1_000_000
    raw = bytearray(millis.to_bytes(6, "big") + os.urandom(10))
    raw[6] = 0x70 | (raw[6] & 0x0F)
    raw[8] = 0x80 | (raw[8] & 0x3F)
    return uuid.UUID(bytes=bytes(raw))


def first_id_at(moment: datetime) -> uuid.UUID:
    """Return an id that sorts before all ids created at or after the moment, and after all earlier ones."""
    millis = max(int(moment.timestamp() * 1000), 0)
    return uuid.UUID(bytes=millis.to_bytes(6, "big") + bytes(10))


def public_id(prefix: str, value: uuid.UUID) -> str:
    """Return the external form: URL-safe, without colon or slash, less than 64 characters."""
    return f"{prefix}_{value.hex}"


def new_request_id() -> str:
    """Return a request id, shared by a response (`x-request-id`) and the log lines of its request."""
    return public_id("req", new_id())


def parse_public_id(prefix: str, text: str) -> uuid.UUID | None:
    """Return the UUID of a public id; None if it is not in canonical form."""
    head, _, tail = text.partition("_")
    return uuid.UUID(hex=tail) if head == prefix and _HEX.fullmatch(tail) else None
