"""Usage reports: the request, the rows as JSON or CSV, and the current use of limits."""

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from fastapi import Request, Response

from api.auth.caller import Caller
from api.auth.dependencies import request_rate_rules
from api.http.responses import csv_cell, json_response, unix_seconds
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.quotas import OPEN_JOBS, PERIODIC, REQUESTS, Limit
from worker.core.settings import get_settings
from worker.db.engine import Row, Transaction, transaction
from worker.db.users import quotas, usage
from worker.db.users.quotas import QuotaUsage
from worker.db.users.usage import METRICS, MONEY, DateRange, UsageFilter
from worker.messaging.rate_limits import RequestLimits

_MAX_DAYS = 400
_MAX_ROWS = 20_000
# Groups that are shown with ids and names.
_IDS = ("user", "key", "account")


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """The parameters of a report."""

    first: date | None
    last: date | None
    groups: list[str]
    as_csv: bool


def parse_report_request(
    request: Request,
    *,
    days: tuple[date | None, date | None],
    group_by: str,
    form: str | None,
    allowed: Sequence[str],
) -> ReportRequest:
    """Return the parameters of a report. Raises invalid_value."""
    groups = list(dict.fromkeys(part.strip() for part in group_by.split(",") if part.strip()))
    if wrong := [group for group in groups if group not in allowed]:
        message = f"`group_by` must be one or more of {', '.join(allowed)}, comma-separated; got {wrong[0][:40]!r}."
        raise DreameryError("invalid_value", message, param="group_by")
    accept = request.headers.get("accept", "")
    return ReportRequest(*days, groups, as_csv=form == "csv" or (form is None and "text/csv" in accept))


def _span(tx: Transaction, report_request: ReportRequest) -> DateRange:
    """Return the reported days, by default the current month. Raises invalid_value."""
    last = report_request.last or usage.today(tx)
    first = report_request.first or last.replace(day=1)
    if not timedelta(0) <= last - first < timedelta(days=_MAX_DAYS):
        message = f"`from` must not be after `to`, and at most {_MAX_DAYS - 1} days before it; got {first} to {last}."
        raise DreameryError("invalid_value", message, param="from")
    return DateRange(first=first, last=last)


def make_report(report_request: ReportRequest, usage_filter: UsageFilter) -> dict[str, Any]:
    """Return the report without limits. Raises invalid_value when it has too many rows."""
    with transaction() as tx:
        span = _span(tx, report_request)
        rows = usage.report(tx, span, usage_filter, report_request.groups, limit=_MAX_ROWS)
        if len(rows) > _MAX_ROWS:
            message = f"The report has more than {_MAX_ROWS} rows. Request fewer days or fewer groups."
            raise DreameryError("invalid_value", message, param="group_by")
        data = _with_names(tx, rows, report_request.groups)
    return {
        "object": "usage",
        "from": span.first.isoformat(),
        "to": span.last.isoformat(),
        "time_zone": get_settings().budget_time_zone,
        "group_by": report_request.groups,
        "data": data,
        "total": {name: _sum(name, data) for name in METRICS},
    }


def _numbers(row: "Row[Any]") -> dict[str, Any]:
    values = row._mapping  # noqa: SLF001 - SQLAlchemy's public name
    return {name: type(_zero(name))(values[name]) for name in METRICS}


def _sum(name: str, data: list[dict[str, Any]]) -> float:
    total: float = sum((entry[name] for entry in data), start=_zero(name))
    return round(total, 3) if name in MONEY else total


def _zero(name: str) -> float:
    return 0.0 if name == "video_seconds" or name in MONEY else 0


def _with_names(tx: Transaction, rows: "list[Row[Any]]", groups: list[str]) -> list[dict[str, Any]]:
    """Return the rows with the names of their groups next to the ids."""
    names = {
        group: usage.get_names(tx, group, list({getattr(row, f"{group}_") for row in rows} - {None}))
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
                entry[group] = names[group].get(value)
            else:
                entry[group] = value.isoformat() if group == "day" else value
        data.append({**entry, **_numbers(row)})
    return data


def report_response(report_request: ReportRequest, body: dict[str, Any]) -> Response:
    """Return the report as JSON or CSV. CSV contains only the rows."""
    if not report_request.as_csv:
        return json_response(body, headers={"Vary": "Accept"})
    columns = [
        name for group in report_request.groups for name in ([f"{group}_id", group] if group in _IDS else [group])
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, [*columns, *METRICS], lineterminator="\r\n")
    writer.writeheader()
    for entry in body["data"]:
        writer.writerow({name: csv_cell(value) for name, value in entry.items()})
    name = f"usage-{body['from']}-{body['to']}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Vary": "Accept"}
    return Response(out.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def count_quota_usage(caller: Caller) -> list[QuotaUsage]:
    """Return the caller's use of each limit except requests per minute."""
    limits = [limit for limit in caller.limits if limit.name == OPEN_JOBS or limit.name in PERIODIC]
    with transaction() as tx:
        return quotas.get_usage(tx, caller.subject, limits)


async def read_limit_statuses(request: Request, caller: Caller, counted: list[QuotaUsage]) -> list[dict[str, Any]]:
    """Return the status of each limit of the caller, including requests per minute."""
    counters: RequestLimits = request.app.state.limits
    statuses = await counters.peek(request_rate_rules(caller))
    rates = [limit for limit in caller.limits if limit.name == REQUESTS]
    rates_used = []
    for limit, status in zip(rates, statuses, strict=True):
        used = None if status is None else status.limit - status.remaining
        rates_used.append(
            _limit_status(limit, used, None if status is None else int(time.time() + status.reset_seconds))
        )
    return rates_used + [_limit_status(one.limit, one.used, unix_seconds(one.resets_at)) for one in counted]


def _limit_status(limit: Limit, used: int | None, resets_at: int | None) -> dict[str, Any]:
    state = "ok"
    if used is not None and limit.soft is not None and used >= limit.soft:
        state = "warning"
    if used is not None and limit.hard is not None and used >= limit.hard:
        state = "reached"
    return {
        "scope": limit.scope,
        "name": limit.name,
        "soft": limit.shown(limit.soft),
        "hard": limit.shown(limit.hard),
        "used": limit.shown(used),
        "remaining": None if used is None or limit.hard is None else limit.shown(max(limit.hard - used, 0)),
        "resets_at": resets_at,
        "state": state,
    }
