"""A usage report: what was asked for, the rows as JSON or CSV, and where limits stand."""

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from fastapi import Request, Response

from api.auth.dependencies import Caller, request_rules
from api.http.responses import csv_cell, json_response, seconds_of
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.quotas import OPEN_JOBS, PERIODIC, REQUESTS, Limit
from worker.core.settings import get_settings
from worker.db.engine import Row, Transaction, transaction
from worker.db.users import quotas, usage
from worker.db.users.quotas import Used
from worker.db.users.usage import NUMBERS, Span, UsageFilter
from worker.messaging.rate_limits import RequestLimits

_MOST_DAYS = 400
_MOST_ROWS = 20_000
# Which group shows ids, and how they are written.
_IDS = ("user", "key", "account")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a report is asked for."""

    first: date | None
    last: date | None
    groups: list[str]
    as_csv: bool


def read_question(
    request: Request,
    *,
    days: tuple[date | None, date | None],
    group_by: str,
    form: str | None,
    allowed: Sequence[str],
) -> Asked:
    """The question of a request. Raises invalid_value."""
    groups = list(dict.fromkeys(part.strip() for part in group_by.split(",") if part.strip()))
    if wrong := [group for group in groups if group not in allowed]:
        message = f"`group_by` must be of {', '.join(allowed)}, comma-separated; got {wrong[0][:40]!r}."
        raise DreameryError("invalid_value", message, param="group_by")
    accept = request.headers.get("accept", "")
    return Asked(*days, groups, as_csv=form == "csv" or (form is None and "text/csv" in accept))


def _span(tx: Transaction, asked: Asked) -> Span:
    """The days: by default those of this month so far. Raises invalid_value."""
    last = asked.last or usage.today(tx)
    first = asked.first or last.replace(day=1)
    if not timedelta(0) <= last - first < timedelta(days=_MOST_DAYS):
        message = f"`from` must not be after `to`, nor {_MOST_DAYS} days or more before it; got {first} to {last}."
        raise DreameryError("invalid_value", message, param="from")
    return Span(first=first, last=last)


def make_report(asked: Asked, wanted: UsageFilter) -> dict[str, Any]:
    """The report without limits. Raises invalid_value when there are more rows than anybody would read."""
    with transaction() as tx:
        span = _span(tx, asked)
        rows = usage.report(tx, span, wanted, asked.groups, limit=_MOST_ROWS)
        if len(rows) > _MOST_ROWS:
            message = f"That is more than {_MOST_ROWS} rows. Ask for fewer days, or group by less."
            raise DreameryError("invalid_value", message, param="group_by")
        data = _named(tx, rows, asked.groups)
    return {
        "object": "usage",
        "from": span.first.isoformat(),
        "to": span.last.isoformat(),
        "time_zone": get_settings().budget_time_zone,
        "group_by": asked.groups,
        "data": data,
        "total": {name: sum((entry[name] for entry in data), start=_zero(name)) for name in NUMBERS},
    }


def _numbers(row: "Row[Any]") -> dict[str, Any]:
    found = row._mapping  # noqa: SLF001 - SQLAlchemy's public name
    return {name: type(_zero(name))(found[name]) for name in NUMBERS}


def _zero(name: str) -> float:
    return 0.0 if name == "video_seconds" else 0


def _named(tx: Transaction, rows: "list[Row[Any]]", groups: list[str]) -> list[dict[str, Any]]:
    """Each row with the names of what it is grouped by beside the ids."""
    known = {
        group: usage.names(tx, group, list({getattr(row, f"{group}_") for row in rows} - {None}))
        for group in groups
        if group in _IDS
    }
    data = []
    for row in rows:
        entry: dict[str, Any] = {}
        for group in groups:
            value = getattr(row, f"{group}_")
            if group in _IDS:
                entry[f"{group}_id"] = public_id(group, value) if value else None
                entry[group] = known[group].get(value)
            else:
                entry[group] = value.isoformat() if group == "day" else value
        data.append({**entry, **_numbers(row)})
    return data


def answer(asked: Asked, body: dict[str, Any]) -> Response:
    """The report in the form that was asked for. CSV holds the rows only."""
    if not asked.as_csv:
        return json_response(body, headers={"Vary": "Accept"})
    columns = [name for group in asked.groups for name in ([f"{group}_id", group] if group in _IDS else [group])]
    out = io.StringIO()
    writer = csv.DictWriter(out, [*columns, *NUMBERS], lineterminator="\r\n")
    writer.writeheader()
    for entry in body["data"]:
        writer.writerow({name: csv_cell(value) for name, value in entry.items()})
    name = f"usage-{body['from']}-{body['to']}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Vary": "Accept"}
    return Response(out.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def count_budgets(caller: Caller) -> list[Used]:
    """What the caller has used of its limits, but for requests per minute."""
    limits = [limit for limit in caller.limits if limit.name == OPEN_JOBS or limit.name in PERIODIC]
    with transaction() as tx:
        return quotas.used(tx, caller.subject, limits)


async def standings(request: Request, caller: Caller, counted: list[Used]) -> list[dict[str, Any]]:
    """Where each limit of the caller stands."""
    counters: RequestLimits = request.app.state.limits
    looked = await counters.look(request_rules(caller))
    rates = [limit for limit in caller.limits if limit.name == REQUESTS]
    found = []
    for limit, stand in zip(rates, looked, strict=True):
        used = None if stand is None else stand.limit - stand.remaining
        found.append(_standing(limit, used, None if stand is None else int(time.time() + stand.reset_seconds)))
    return found + [_standing(one.limit, one.used, seconds_of(one.resets_at)) for one in counted]


def _standing(limit: Limit, used: int | None, resets_at: int | None) -> dict[str, Any]:
    state = "ok"
    if used is not None and limit.soft is not None and used >= limit.soft:
        state = "warning"
    if used is not None and limit.hard is not None and used >= limit.hard:
        state = "reached"
    return {
        "scope": limit.scope,
        "name": limit.name,
        "soft": limit.soft,
        "hard": limit.hard,
        "used": used,
        "remaining": None if used is None or limit.hard is None else max(limit.hard - used, 0),
        "resets_at": resets_at,
        "state": state,
    }
