"""Headers that say when the jobs of a request run: `X-Not-Before`, `X-Expires-At` and `X-Priority`."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Depends, Header

from worker.core.errors import DreameryError

NOT_BEFORE, EXPIRES_AT, PRIORITY = "X-Not-Before", "X-Expires-At", "X-Priority"
_NOT_BEFORE_TEXT = "the jobs wait until then: ISO 8601 with a zone, or unix seconds"
_EXPIRES_AT_TEXT = "jobs that no account has begun by then fail with `job_expired`; written like `X-Not-Before`"
_PRIORITY_TEXT = "`normal`, or `idle` = the jobs run only while accounts are idle"
PRIORITIES = ("normal", "idle")
# Further ahead, somebody meant milliseconds.
MOST_DAYS = 366


@dataclass(frozen=True, slots=True)
class Schedule:
    """When jobs run. The empty schedule = now, in turn, within the deadline of the queue."""

    not_before: datetime | None = None
    expires_at: datetime | None = None
    idle: bool = False

    def __str__(self) -> str:
        """The schedule as a part of a request's identity; "" = now."""
        moments = [moment.isoformat() if moment else "" for moment in (self.not_before, self.expires_at)]
        return ",".join([*moments, "idle" if self.idle else ""]).strip(",")


NOW = Schedule()


async def parse_schedule(
    x_not_before: Annotated[str, Header(description=_NOT_BEFORE_TEXT)] = "",
    x_expires_at: Annotated[str, Header(description=_EXPIRES_AT_TEXT)] = "",
    x_priority: Annotated[str, Header(description=_PRIORITY_TEXT)] = "",
) -> Schedule:
    """Return the schedule of the headers. Raises `invalid_value`."""
    word = x_priority.strip().lower() or "normal"
    if word not in PRIORITIES:
        message = f"`{PRIORITY}` is one of {', '.join(PRIORITIES)}; got {x_priority[:40]!r}."
        raise DreameryError("invalid_value", message, param=PRIORITY.lower())
    return check_schedule(
        Schedule(_parse_moment(NOT_BEFORE, x_not_before), _parse_moment(EXPIRES_AT, x_expires_at), word == "idle"),
        not_before_param=NOT_BEFORE.lower(),
        expires_at_param=EXPIRES_AT.lower(),
    )


def check_schedule(schedule: Schedule, *, not_before_param: str, expires_at_param: str) -> Schedule:
    """Return the schedule without a beginning that has passed. Raises `invalid_value` for an end before its beginning,
    and for moments in the past or more than a year ahead.
    """
    now = datetime.now(UTC)
    last = now + timedelta(days=MOST_DAYS)
    begin, end = schedule.not_before, schedule.expires_at
    for moment, param in ((begin, not_before_param), (end, expires_at_param)):
        if moment is not None and moment > last:
            message = f"`{param}` is more than {MOST_DAYS} days ahead. Times are in seconds."
            raise DreameryError("invalid_value", message, param=param)
    if end is not None and end <= max(now, begin or now):
        message = f"`{expires_at_param}` must be later than now and than `{not_before_param}`."
        raise DreameryError("invalid_value", message, param=expires_at_param)
    return Schedule(begin if begin is not None and begin > now else None, end, schedule.idle)


ScheduleDep = Annotated[Schedule, Depends(parse_schedule)]


def _parse_moment(header: str, text: str) -> datetime | None:
    value = text.strip()
    if not value:
        return None
    try:
        if value.replace(".", "", 1).isascii() and value.replace(".", "", 1).isdigit():
            return datetime.fromtimestamp(float(value), UTC)
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        pass
    form = "ISO 8601 with a zone, such as 2026-12-01T02:00:00+08:00, or unix seconds"
    message = f"`{header}` is {form}; got {value[:40]!r}."
    raise DreameryError("invalid_value", message, param=header.lower())
