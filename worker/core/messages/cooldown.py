"""The words for a cooldown: until when no account can take a job."""

import math
from datetime import UTC, datetime

from worker.core.errors import ERRORS

# Longest time that is given in each unit; longer times are given in days.
_UNITS = ((90, 1, "second"), (90 * 60, 60, "minute"), (36 * 3600, 3600, "hour"), (math.inf, 86_400, "day"))


def add_cooldown(message: str, until: datetime, now: datetime) -> str:
    """Return the message, followed by the time when the first account is available again."""
    moment = until.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    return f"{message} No account can take this job until {moment} UTC ({_duration((until - now).total_seconds())})."


def cooldown_message(code: str, until: datetime, now: datetime) -> str:
    """Return the message of an error that accounts cool down with. A session that ended needs a login, not patience."""
    kind = ERRORS[code]
    return kind.message if kind.status == 401 else add_cooldown(kind.message, until, now)


def _duration(seconds: float) -> str:
    size, name = next((size, name) for most, size, name in _UNITS if seconds <= most)
    count = max(math.ceil(seconds / size), 1)
    return f"in {count} {name}{'' if count == 1 else 's'}"
