"""Parses an account's credits, and their history (protocol section 4.5), the only source of actual prices."""

from typing import Any, TypeGuard

import orjson

from worker.core.errors import DreameryError
from worker.providers.credits import CreditHistory, CreditRecord, Credits

_MAX_RECORDS = 500
_MAX_CREDITS = 2**31 - 1
_MAX_TIMESTAMP = 1e11  # unix seconds
# The sum of three amounts is below `_MAX_CREDITS`.
_MAX_AMOUNT = 700_000_000
# Kinds of credits, under the names that callers of other gateways know.
_PARTS = {"giftCredit": "gift_credit", "purchaseCredit": "purchase_credit", "vipCredit": "vip_credit"}


def parse_credits(answer: dict[str, Any]) -> Credits:
    """Return the credits left, from `data.credit`, else from the JSON string `response` (section 4.3)."""
    credit = _credit(answer.get("data")) or _credit(_from_text(answer.get("response")))
    if credit is None:
        raise DreameryError("upstream_error", detail="a credit answer without credits")
    parts = {name: _amount(credit.get(field)) for name, field in _PARTS.items()}
    return Credits(sum(parts.values()), parts)


def parse_received(answer: dict[str, Any]) -> int:
    """Return the number of daily credits gained (section 4.4)."""
    data = answer.get("data")
    data = data if isinstance(data, dict) else _from_text(answer.get("response"))
    return _amount(data.get("receive_quota")) if isinstance(data, dict) else 0


def parse_history(answer: dict[str, Any]) -> CreditHistory:
    """Return one page without its unreadable records. Raises `upstream_error` if there is no list."""
    data = answer.get("data")
    data = data if isinstance(data, dict) and data else _from_text(answer.get("response"))
    rows = data.get("records") if isinstance(data, dict) else None
    if not isinstance(rows, list):
        raise DreameryError("upstream_error", detail="a credit history without records")
    parsed = [_record(row) for row in rows[:_MAX_RECORDS]]
    total, cursor = data.get("total_credit"), data.get("new_cursor")
    return CreditHistory(
        total=int(total) if _is_number(total) and 0 <= total <= _MAX_CREDITS else None,
        records=tuple(record for record in parsed if record is not None),
        cursor=str(cursor)[:64] if isinstance(cursor, str | int) and cursor else "",
        more=data.get("has_more") is True,
        complete=len(rows) <= _MAX_RECORDS and None not in parsed,
    )


def _record(row: Any) -> CreditRecord | None:
    if not isinstance(row, dict):
        return None
    amount, at, key = row.get("amount"), row.get("create_time"), row.get("submit_id")
    if not _is_number(amount) or not _is_number(at) or abs(amount) > _MAX_CREDITS or not 0 < at < _MAX_TIMESTAMP:
        return None
    return CreditRecord(submit_key=key if isinstance(key, str) else "", amount=int(amount), at=float(at))


def _credit(data: Any) -> dict[str, Any] | None:
    credit = data.get("credit") if isinstance(data, dict) else None
    return credit if isinstance(credit, dict) else None


def _amount(value: Any) -> int:
    return min(max(int(value), 0), _MAX_AMOUNT) if _is_number(value) and abs(value) < 2**53 else 0


def _from_text(text: Any) -> Any:
    try:
        return orjson.loads(text) if isinstance(text, str) else None
    except orjson.JSONDecodeError:
        return None


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value  # noqa: PLR0124  (NaN)
