"""Reading an account's history of credits (protocol section 4.5), the only place where upstream tells true prices."""

from typing import Any, TypeGuard

import orjson

from worker.core.errors import DreameryError
from worker.providers.base import CreditHistory, CreditRecord

_MOST_RECORDS = 500
_MOST = 2**31 - 1
_LATEST = 1e11  # seconds; what is larger is no time of our days


def read_history(answer: dict[str, Any]) -> CreditHistory:
    """One page; a record that cannot be read is left out. Raises `upstream_error` when there is no list."""
    data = answer.get("data")
    data = data if isinstance(data, dict) and data else _from_text(answer.get("response"))
    rows = data.get("records") if isinstance(data, dict) else None
    if not isinstance(rows, list):
        raise DreameryError("upstream_error", detail="a history of credits without records")
    found = [_record(row) for row in rows[:_MOST_RECORDS]]
    total, cursor = data.get("total_credit"), data.get("new_cursor")
    return CreditHistory(
        total=int(total) if _is_number(total) and 0 <= total <= _MOST else None,
        records=tuple(record for record in found if record is not None),
        cursor=str(cursor)[:64] if isinstance(cursor, str | int) and cursor else "",
        more=data.get("has_more") is True,
        complete=len(rows) <= _MOST_RECORDS and None not in found,
    )


def _record(row: Any) -> CreditRecord | None:
    if not isinstance(row, dict):
        return None
    amount, at, key = row.get("amount"), row.get("create_time"), row.get("submit_id")
    if not _is_number(amount) or not _is_number(at) or abs(amount) > _MOST or not 0 < at < _LATEST:
        return None
    return CreditRecord(submit_key=key if isinstance(key, str) else "", amount=int(amount), at=float(at))


def _from_text(text: Any) -> Any:
    try:
        return orjson.loads(text) if isinstance(text, str) else None
    except orjson.JSONDecodeError:
        return None


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value  # noqa: PLR0124  (NaN)
