"""Numbers from outside (upstream, media files) in the range of their columns.

A number that no column can hold would undo the transaction of a whole batch. What callers send is checked by the API.
"""

import math

MAX_INTEGER = 2**31 - 1


def clamp(value: int) -> int:
    """Return the nearest number that an integer column can hold, from 0 on."""
    return min(max(value, 0), MAX_INTEGER)


def clamp_known(value: int | None) -> int | None:
    """Like `clamp`; None = unknown."""
    return None if value is None else clamp(value)


def known(value: int | None) -> int | None:
    """Return the number, or None = unknown if an integer column cannot hold it."""
    return value if value is not None and 0 <= value <= MAX_INTEGER else None


def finite(value: float | None) -> float | None:
    """Return the number, or None = unknown if it is none that JSON and Postgres can carry."""
    return value if value is not None and math.isfinite(value) else None
