"""JSON responses, the public base URL, timestamps and CSV cells."""

from datetime import datetime
from typing import Any

import orjson
from fastapi import Request, Response

from worker.core.settings import get_settings


def json_response(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response; orjson takes half the time of the framework's encoder."""
    return Response(orjson.dumps(body), status_code=status, headers=headers, media_type="application/json")


def page_object(data: list[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    """A page of a list whose next page begins after `last_id`."""
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more}


def page_response(objects: list[dict[str, Any]], limit: int) -> Response:
    """A page of at most `limit` objects; one object more means `has_more`."""
    return json_response({"object": "list", "data": objects[:limit], "has_more": len(objects) > limit})


def base_url(request: Request) -> str:
    """The prefix of links in responses: PUBLIC_URL if set, else the base URL of the request."""
    return get_settings().public_url or str(request.base_url).rstrip("/")


def unix_seconds(moment: datetime | None) -> int | None:
    """Whole unix seconds; None stays None."""
    return int(moment.timestamp()) if moment else None


# Spreadsheets read a cell that starts like this as a formula, and users choose names freely.
_FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r")


def csv_cell(value: Any) -> Any:
    """Escape a value so that spreadsheets do not read it as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_PREFIXES) else value
