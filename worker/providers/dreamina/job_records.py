"""Parses upstream's job records from poll responses (protocol sections 8.2 to 8.4).

The responses are not trusted: no type is taken for granted, and `parse_record` never raises.
"""

import re
from typing import Any

from worker.core.errors import ERRORS, Reaction
from worker.providers.base import Record, RecordState, ResultRef
from worker.providers.dreamina.error_codes import clean, error_code_for, message_for

_SUBMITTED = 20
_SUCCESS = 50
_DELETED = 100
# status -> our code if the record gives no reason: rejected before, failed, rejected after, deleted (section 8.3)
_FAILURES = {
    10: "content_policy_violation",
    30: "generation_failed",
    40: "content_policy_violation",
    _DELETED: "history_unavailable",
}
# With images, 10 is the other meaning of that code and 30 is a partial success.
_ACCEPTED_WITH_ITEMS = frozenset({_SUCCESS, 10, 30})
_WAITING = frozenset({-1, 0})
_UNREADABLE = "unreadable record"
# Larger numbers mean nothing. Columns and clients of the API expect 32 bits.
_MAX_POSITION, _MAX_FORECAST_SECONDS = 10**9, 30 * 86_400
_DEFINITION = re.compile(r"([0-9]{3,5})p")


def find_records(submit_keys: list[str], answer: dict[str, Any]) -> dict[str, Any] | None:
    """Return the raw records of the keys; unknown keys are absent. None = the response contains no map of records.

    Both forms of section 8.1 are accepted. Only an envelope with empty data means that all keys are unknown: any other
    reading could make the engine submit, and pay, a second time.
    """
    if "ret" in answer:
        data = answer.get("data")
        if data is None or (isinstance(data, dict) and all(value is None for value in data.values())):
            return {}
        return (_select_records(submit_keys, data) or None) if isinstance(data, dict) else None
    inner = answer.get("data")
    return _select_records(submit_keys, inner if isinstance(inner, dict) else answer) or None


def _select_records(submit_keys: list[str], data: dict[str, Any]) -> dict[str, Any]:
    records = {key: data[key] for key in submit_keys if data.get(key) is not None}
    if len(records) < len(submit_keys):
        # Some responses are keyed by history id (fixture get_history_by_ids.image.done.cn).
        missing = set(submit_keys) - records.keys()
        for raw in data.values():
            if isinstance(raw, dict):
                key = raw.get("submit_id") or _dict(raw.get("task")).get("submit_id")
                if isinstance(key, str) and key in missing:
                    records[key] = raw
    return records


def parse_record(submit_key: str, raw: Any) -> Record:
    """Return the normalised record."""
    try:
        if isinstance(raw, dict):
            return _parse(submit_key, raw)
    except Exception as failure:  # noqa: BLE001 - one bad record must not end the poll of the other jobs
        return _unreadable(submit_key, type(failure).__name__)
    return _unreadable(submit_key, type(raw).__name__)


def _unreadable(submit_key: str, reason: str) -> Record:
    return Record(submit_key, "", RecordState.RUNNING, expected=0, detail=f"{_UNREADABLE}: {reason}")


def read_record_id(raw: dict[str, Any]) -> str:
    """Return upstream's id of the job; "" if there is none."""
    values = (raw.get("history_record_id"), _dict(raw.get("task")).get("history_id"))
    return next((found for value in values if (found := _id(value))), "")


def read_queue(raw: dict[str, Any]) -> tuple[int | None, int | None]:
    """Return the position in upstream's queue (None = not queued) and the forecast in seconds."""
    queue = _dict(raw.get("queue_info"))
    forecast = _int(raw.get("forecast_queue_cost")) or 0
    known = forecast if 0 < forecast < _MAX_FORECAST_SECONDS else None
    if _int(queue.get("queue_status")) == 1 and (_int(queue.get("queue_length")) or 0) > 0:
        return min(max(_int(queue.get("queue_idx")) or 0, 0), _MAX_POSITION), known
    return None, known


def read_fail_fields(*raws: dict[str, Any]) -> tuple[str, str, str, str]:
    """Return `fail_code`, text key, user message and technical message, each from the first record or task with it."""
    sources = [source for raw in raws for source in (raw, _dict(raw.get("task")))]

    def text(name: str) -> str:
        values = (source.get(name) for source in sources)
        return next((str(v) for v in values if v and isinstance(v, str | int) and not isinstance(v, bool)), "")

    return text("fail_code"), text("fail_starling_key"), text("fail_starling_message"), text("fail_msg")


def _parse(submit_key: str, raw: dict[str, Any]) -> Record:
    status = _status(raw)
    results, items = _results(raw.get("item_list"))
    expected = max(_int(raw.get("total_image_count")) or 0, 0)
    finished = _int(raw.get("finished_image_count")) or 0
    complete = len(results) >= expected > 0 and finished >= expected
    if results and (status in _ACCEPTED_WITH_ITEMS or (complete and status not in _FAILURES)):
        return _record(submit_key, raw, RecordState.DONE, expected, results)
    if status == _SUCCESS:
        return _failed_record(submit_key, raw, expected, "result_unavailable" if items else "generation_failed")
    if status in _FAILURES:
        return _failed_record(submit_key, raw, expected, _FAILURES[status])
    return _open_record(submit_key, raw, status, expected, results)


def _status(raw: dict[str, Any]) -> int:
    status = _int(raw.get("status"))
    if status is None:
        status = _int(_dict(raw.get("task")).get("status"))
    return _SUBMITTED if status is None else status


def _open_record(
    submit_key: str, raw: dict[str, Any], status: int, expected: int, results: tuple[ResultRef, ...]
) -> Record:
    """Return the record of an unfinished job. More items may follow (status 45), so items are not settled."""
    position, _ = read_queue(raw)
    waiting = not results and (status in _WAITING or (status == _SUBMITTED and position is not None))
    state = RecordState.QUEUED if waiting else RecordState.RUNNING
    return _record(submit_key, raw, state, expected, results, settled=not results)


def _record(
    submit_key: str,
    raw: dict[str, Any],
    state: RecordState,
    expected: int,
    results: tuple[ResultRef, ...],
    *,
    settled: bool = True,
) -> Record:
    position, forecast = read_queue(raw)
    return Record(
        submit_key=submit_key,
        upstream_id=read_record_id(raw),
        state=state,
        expected=expected,
        results=results,
        settled=settled,
        queue_position=position if state is RecordState.QUEUED else None,
        forecast_seconds=forecast if state is not RecordState.DONE else None,
    )


def _failed_record(submit_key: str, raw: dict[str, Any], expected: int, default: str) -> Record:
    fail_code, key, message, technical = read_fail_fields(raw)
    code = error_code_for("", fail_code, key, f"{message} {technical}")
    # The status replaces a vague reason. A job that ended is never "unclear", and a deleted job stays deleted.
    vague = code in {"generation_failed", "upstream_error"} or ERRORS[code].reaction is Reaction.UNCLEAR
    if vague or default == "history_unavailable":
        code = default
    return Record(
        submit_key=submit_key,
        upstream_id=read_record_id(raw),
        state=RecordState.FAILED,
        expected=expected,
        error_code=code,
        error_message=message_for(code, message),
        detail=clean(
            f"status={raw.get('status')} fail_code={fail_code} key={key} msg={technical} "
            f"generate_id={raw.get('generate_id')}"
        ),
    )


def _results(item_list: Any) -> tuple[tuple[ResultRef, ...], int]:
    """Return the usable results and the number of all items."""
    items = item_list if isinstance(item_list, list) else []
    refs = (_result(item) for item in items if isinstance(item, dict))
    return tuple(ref for ref in refs if ref), len(items)


def _result(item: dict[str, Any]) -> ResultRef | None:
    """Return a result: its video, else the large image, else the largest cover, else the small preview (8.4)."""
    if ref := read_video_result(item):
        return ref
    image = _dict(item.get("image"))
    large = image.get("large_images")
    first = _dict(large[0]) if isinstance(large, list) and large else {}
    if url := _url(first.get("image_url")):
        kind = first.get("format") or image.get("format")
        return ResultRef(
            url=url,
            width=_pixels(first.get("width")),
            height=_pixels(first.get("height")),
            format=_id(kind)[:16] or None if isinstance(kind, str) else None,
        )
    if _dict(item.get("video")):
        # The cover does not replace a missing video.
        return None
    url = _cover(_dict(item.get("common_attr")))
    return ResultRef(url=url, width=None, height=None, format=None) if url else None


def _cover(common: dict[str, Any]) -> str:
    covers = {_int(size) or 0: value for size, value in _dict(common.get("cover_url_map")).items()}
    largest = (url for size in sorted(covers, reverse=True) if (url := _url(covers[size])))
    return next(largest, "") or _url(common.get("cover_url"))


def read_video_result(item: dict[str, Any]) -> ResultRef | None:
    """Return the video of an item with its poster; None if the item has no video URL (section 8.4)."""
    common, video = _dict(item.get("common_attr")), _dict(item.get("video"))
    source = next((source for source in _video_sources(common, video) if _url(source.get("video_url"))), None)
    if source is None:
        return None
    kind = source.get("format")
    length = _int(video.get("duration_ms"))
    return ResultRef(
        url=_url(source.get("video_url")),
        width=_pixels(source.get("width")),
        height=_pixels(source.get("height")),
        format=(_id(kind)[:16] if isinstance(kind, str) else "") or "mp4",
        seconds=length / 1000 if length and 0 < length < 86_400_000 else None,
        poster_url=_cover(common) or _url(video.get("cover_url")) or None,
        item_id=read_item_id(item),
    )


def _video_sources(common: dict[str, Any], video: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the possible sources, best first: both origins, then the transcoded sizes, then older names."""
    sizes = _dict(video.get("transcoded_video"))
    by_height = {int(match[1]): entry for name, entry in sizes.items() if (match := _DEFINITION.fullmatch(str(name)))}
    return [
        _dict(_dict(common.get("transcoded_video")).get("origin")),
        _dict(sizes.get("origin")),
        *(_dict(by_height[height]) for height in sorted(by_height, reverse=True)),
        *({"video_url": video.get(name)} for name in ("play_url", "download_url", "url")),
        _dict(video.get("origin_video")),
    ]


def read_item_id(item: dict[str, Any]) -> str | None:
    """Return the first id with which the item can be fetched again."""
    common = _dict(item.get("common_attr"))
    values = (item.get("item_id"), item.get("id"), item.get("local_item_id"), common.get("id"))
    return next((found for value in values if (found := _id(value))), None)


def find_items(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the items of a `get_local_item_list` response, under either name."""
    data = _dict(answer.get("data"))
    lists = (data.get("item_list"), data.get("local_item_list"))
    return [item for items in lists if isinstance(items, list) for item in items if isinstance(item, dict)]


def _url(value: Any) -> str:
    is_url = isinstance(value, str) and value.startswith(("https://", "http://")) and value.isprintable()
    return value if is_url else ""


def _id(value: Any) -> str:
    is_id = isinstance(value, str | int) and not isinstance(value, bool) and value
    return "".join(char for char in str(value)[:64] if char.isprintable()) if is_id else ""


def _pixels(value: Any) -> int | None:
    number = _int(value)
    return number if number is not None and 0 < number < 100_000 else None


def _int(value: Any) -> int | None:
    """Return a number, or a short string of digits, as an int; anything else is None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if abs(value) < 2**53 else None
    if isinstance(value, float):
        return int(value) if abs(value) < 2**53 else None
    if isinstance(value, str) and len(value) <= 16 and value.removeprefix("-").isascii():
        return int(value) if value.removeprefix("-").isdigit() else None
    return None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
