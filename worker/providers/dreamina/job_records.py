"""Reading upstream's records: what a poll answer says of a job (protocol sections 8.2 to 8.4).

The answers are foreign data: nothing here trusts a type, and `parse_record` never raises.
"""

import re
from typing import Any

from worker.core.errors import ERRORS, Reaction
from worker.providers.base import Record, RecordState, ResultRef
from worker.providers.dreamina.error_codes import clean, fault_for, message_for

_SUBMITTED = 20
_SUCCESS = 50
_DELETED = 100
# status -> our code when the record gives no reason: rejected before, failed, rejected after, deleted (section 8.3)
_FAILURES = {
    10: "content_policy_violation",
    30: "generation_failed",
    40: "content_policy_violation",
    _DELETED: "history_unavailable",
}
# 10 with pictures is the other reading of that code; 30 with pictures is partial success.
_ACCEPTED_WITH_ITEMS = frozenset({_SUCCESS, 10, 30})
_WAITING = frozenset({-1, 0})
_UNREADABLE = "unreadable record"
_DEFINITION = re.compile(r"([0-9]{3,5})p")


def find_records(submit_keys: list[str], answer: dict[str, Any]) -> dict[str, Any] | None:
    """The raw records of the asked keys; unknown keys are absent. None = the answer is no map of records at all.

    Both shapes of section 8.1 are read. "Unknown" is believed only from an envelope with empty data: taking any other
    answer for it would let the engine submit, and pay, a second time.
    """
    if "ret" in answer:
        data = answer.get("data")
        if data is None or (isinstance(data, dict) and all(value is None for value in data.values())):
            return {}
        return (_pick(submit_keys, data) or None) if isinstance(data, dict) else None
    inner = answer.get("data")
    return _pick(submit_keys, inner if isinstance(inner, dict) else answer) or None


def _pick(submit_keys: list[str], data: dict[str, Any]) -> dict[str, Any]:
    found = {key: data[key] for key in submit_keys if data.get(key) is not None}
    if len(found) < len(submit_keys):
        # Some answers are keyed by history id (fixture get_history_by_ids.image.done.cn).
        wanted = set(submit_keys) - found.keys()
        for raw in data.values():
            if isinstance(raw, dict):
                key = raw.get("submit_id") or _dict(raw.get("task")).get("submit_id")
                if isinstance(key, str) and key in wanted:
                    found[key] = raw
    return found


def parse_record(submit_key: str, raw: Any) -> Record:
    """One record, normalised."""
    try:
        if isinstance(raw, dict):
            return _read(submit_key, raw)
    except Exception as failure:  # noqa: BLE001 - foreign data must not end the poll of the jobs beside it
        return _unreadable(submit_key, type(failure).__name__)
    return _unreadable(submit_key, type(raw).__name__)


def _unreadable(submit_key: str, why: str) -> Record:
    return Record(submit_key, "", RecordState.RUNNING, wanted=0, detail=f"{_UNREADABLE}: {why}")


def record_id(raw: dict[str, Any]) -> str:
    """Upstream's id of the job as a string; "" when there is none."""
    for value in (raw.get("history_record_id"), _dict(raw.get("task")).get("history_id")):
        if isinstance(value, str | int) and not isinstance(value, bool) and value:
            return str(value)[:64]
    return ""


def queue_of(raw: dict[str, Any]) -> tuple[int | None, int | None]:
    """Place in upstream's queue (None = not waiting) and forecast in seconds."""
    queue = _dict(raw.get("queue_info"))
    forecast = _int(raw.get("forecast_queue_cost")) or None
    if _int(queue.get("queue_status")) == 1 and (_int(queue.get("queue_length")) or 0) > 0:
        return max(_int(queue.get("queue_idx")) or 0, 0), forecast
    return None, forecast


def fail_fields(*raws: dict[str, Any]) -> tuple[str, str, str, str]:
    """`fail_code`, key, message for a person, message for a machine: first found in a record or its task."""
    places = [place for raw in raws for place in (raw, _dict(raw.get("task")))]

    def text(name: str) -> str:
        values = (place.get(name) for place in places)
        return next((str(v) for v in values if v and isinstance(v, str | int) and not isinstance(v, bool)), "")

    return text("fail_code"), text("fail_starling_key"), text("fail_starling_message"), text("fail_msg")


def _read(submit_key: str, raw: dict[str, Any]) -> Record:
    status = _status(raw)
    results, items = _results(raw.get("item_list"))
    wanted = max(_int(raw.get("total_image_count")) or 0, 0)
    finished = _int(raw.get("finished_image_count")) or 0
    complete = len(results) >= wanted > 0 and finished >= wanted
    if results and (status in _ACCEPTED_WITH_ITEMS or (complete and status not in _FAILURES)):
        return _record(submit_key, raw, RecordState.DONE, wanted, results)
    if status == _SUCCESS:
        return _failed(submit_key, raw, wanted, "result_unavailable" if items else "generation_failed")
    if status in _FAILURES:
        return _failed(submit_key, raw, wanted, _FAILURES[status])
    return _open(submit_key, raw, status, wanted, results)


def _status(raw: dict[str, Any]) -> int:
    status = _int(raw.get("status"))
    if status is None:
        status = _int(_dict(raw.get("task")).get("status"))
    return _SUBMITTED if status is None else status


def _open(submit_key: str, raw: dict[str, Any], status: int, wanted: int, results: tuple[ResultRef, ...]) -> Record:
    """A job that goes on. Items that are there already (status 45) may get company: not settled."""
    position, _ = queue_of(raw)
    waiting = not results and (status in _WAITING or (status == _SUBMITTED and position is not None))
    state = RecordState.QUEUED if waiting else RecordState.RUNNING
    return _record(submit_key, raw, state, wanted, results, settled=not results)


def _record(
    submit_key: str,
    raw: dict[str, Any],
    state: RecordState,
    wanted: int,
    results: tuple[ResultRef, ...],
    *,
    settled: bool = True,
) -> Record:
    position, forecast = queue_of(raw)
    return Record(
        submit_key=submit_key,
        upstream_id=record_id(raw),
        state=state,
        wanted=wanted,
        results=results,
        settled=settled,
        queue_position=position if state is RecordState.QUEUED else None,
        forecast_seconds=forecast if state is not RecordState.DONE else None,
    )


def _failed(submit_key: str, raw: dict[str, Any], wanted: int, default: str) -> Record:
    fail_code, key, words, machine_words = fail_fields(raw)
    code = fault_for("", fail_code, key, f"{words} {machine_words}")
    # A vague reason yields to what the status says; a job that ended is never "unclear"; gone is gone.
    vague = code in {"generation_failed", "upstream_error"} or ERRORS[code].reaction is Reaction.UNCLEAR
    if vague or default == "history_unavailable":
        code = default
    return Record(
        submit_key=submit_key,
        upstream_id=record_id(raw),
        state=RecordState.FAILED,
        wanted=wanted,
        error_code=code,
        error_message=message_for(code, words),
        detail=clean(
            f"status={raw.get('status')} fail_code={fail_code} key={key} msg={machine_words} "
            f"generate_id={raw.get('generate_id')}"
        ),
    )


def _results(item_list: Any) -> tuple[tuple[ResultRef, ...], int]:
    """The usable results, and how many items there were."""
    items = item_list if isinstance(item_list, list) else []
    found = (_result(item) for item in items if isinstance(item, dict))
    return tuple(ref for ref in found if ref), len(items)


def _result(item: dict[str, Any]) -> ResultRef | None:
    """Where one result is: a video, else the large image, else the greatest cover, else the small preview (8.4)."""
    if ref := video_result(item):
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
            format=kind[:16] if isinstance(kind, str) else None,
        )
    if _dict(item.get("video")):
        # The cover of a video is no stand-in for it.
        return None
    url = _cover(_dict(item.get("common_attr")))
    return ResultRef(url=url, width=None, height=None, format=None) if url else None


def _cover(common: dict[str, Any]) -> str:
    covers = {_int(size) or 0: value for size, value in _dict(common.get("cover_url_map")).items()}
    greatest = (url for size in sorted(covers, reverse=True) if (url := _url(covers[size])))
    return next(greatest, "") or _url(common.get("cover_url"))


def video_result(item: dict[str, Any]) -> ResultRef | None:
    """The video of an item, with its poster; None when the item holds no address of one (section 8.4)."""
    common, video = _dict(item.get("common_attr")), _dict(item.get("video"))
    place = next((place for place in _video_places(common, video) if _url(place.get("video_url"))), None)
    if place is None:
        return None
    kind = place.get("format")
    length = _int(video.get("duration_ms"))
    return ResultRef(
        url=_url(place.get("video_url")),
        width=_pixels(place.get("width")),
        height=_pixels(place.get("height")),
        format=kind[:16] if isinstance(kind, str) and kind else "mp4",
        seconds=length / 1000 if length and 0 < length < 86_400_000 else None,
        poster_url=_cover(common) or _url(video.get("cover_url")) or None,
        item_id=item_id(item),
    )


def _video_places(common: dict[str, Any], video: dict[str, Any]) -> list[dict[str, Any]]:
    """Where a video may be, best first: the origin in both places, then the ladder from its top, then older names."""
    ladder = _dict(video.get("transcoded_video"))
    steps = {int(found[1]): step for name, step in ladder.items() if (found := _DEFINITION.fullmatch(str(name)))}
    return [
        _dict(_dict(common.get("transcoded_video")).get("origin")),
        _dict(ladder.get("origin")),
        *(_dict(steps[size]) for size in sorted(steps, reverse=True)),
        *({"video_url": video.get(name)} for name in ("play_url", "download_url", "url")),
        _dict(video.get("origin_video")),
    ]


def item_id(item: dict[str, Any]) -> str | None:
    """The id by which an item can be asked for again: the first that is present."""
    common = _dict(item.get("common_attr"))
    for value in (item.get("item_id"), item.get("id"), item.get("local_item_id"), common.get("id")):
        if isinstance(value, str | int) and not isinstance(value, bool) and value:
            return str(value)[:64]
    return None


def find_items(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The items of a `get_local_item_list` answer, under either name."""
    data = _dict(answer.get("data"))
    lists = (data.get("item_list"), data.get("local_item_list"))
    return [item for items in lists if isinstance(items, list) for item in items if isinstance(item, dict)]


def _url(value: Any) -> str:
    return value if isinstance(value, str) and value.startswith(("https://", "http://")) else ""


def _pixels(value: Any) -> int | None:
    number = _int(value)
    return number if number is not None and 0 < number < 100_000 else None


def _int(value: Any) -> int | None:
    """A number that is a number or a short string of digits; anything else is None."""
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
