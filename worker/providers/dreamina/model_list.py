"""Parses upstream's model lists (protocol section 10.3).

The data is not trusted: a model is any object with a `model_req_key` at any place, and unreadable parts are skipped.
"""

from collections.abc import Iterator
from typing import Any

from worker.providers.live_models import LiveImageModel, LiveVideoModel

_MAX_DEPTH = 8
_MAX_MODELS = 200
_MAX_VALUES = 64
_MAX_TEXT_CHARS = 200


def parse_image_models(answer: dict[str, Any]) -> tuple[LiveImageModel, ...]:
    """Return the image models of a `get_common_config` response."""
    return tuple(_image(raw) for raw in _models(answer))


def parse_video_models(answer: dict[str, Any]) -> tuple[LiveVideoModel, ...]:
    """Return the video models of a `video_generate/get_common_config` response."""
    return tuple(_video(raw) for raw in _models(answer))


def _models(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects with a `model_req_key`, the first of each key."""
    models: dict[str, dict[str, Any]] = {}
    for raw in _objects(answer.get("data"), _MAX_DEPTH):
        key = _text(raw.get("model_req_key"))
        if key and len(models) < _MAX_MODELS:
            models.setdefault(key, raw)
    return list(models.values())


def _objects(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    if depth == 0:
        return
    if isinstance(value, dict):
        if "model_req_key" in value:
            yield value
            return
        value = list(value.values())
    for inner in value if isinstance(value, list) else []:
        yield from _objects(inner, depth - 1)


def _image(raw: dict[str, Any]) -> LiveImageModel:
    sizes: list[tuple[str, int, int, int]] = []
    resolutions: list[str] = []
    for name, bucket in list(_dict(raw.get("resolution_map")).items())[:_MAX_VALUES]:
        resolutions.append(str(name)[:16])
        for row in _dicts(_dict(bucket).get("image_ratio_sizes")):
            ratio, width, height = (_number(row.get(part)) for part in ("ratio_type", "width", "height"))
            if ratio and width and height:
                sizes.append((str(name)[:16], ratio, width, height))
    limits = [
        _number(limit.get("max_image_num")) or 0
        for limit in _dicts(raw.get("input_image_limit"))
        if limit.get("ability_name") == "byte_edit"
    ]
    return LiveImageModel(
        key=_text(raw.get("model_req_key")),
        name=_text(raw.get("model_name")),
        tip=_text(raw.get("model_tip")),
        resolutions=tuple(resolutions),
        counts=_numbers(raw.get("generate_count_options")),
        references=max(limits, default=0),
        sizes=tuple(sizes),
    )


def _video(raw: dict[str, Any]) -> LiveVideoModel:
    feats = raw.get("feats")
    commerce = _dict(_dict(raw.get("commercial_config")).get("commerce_info_map"))
    ratios = raw.get("video_aspect_ratio_option")
    return LiveVideoModel(
        key=_text(raw.get("model_req_key")),
        name=_text(raw.get("model_name")),
        tip=_text(raw.get("model_tip")),
        durations=_numbers(raw.get("duration_option")),
        ratios=tuple(_text(ratio) for ratio in ratios[:_MAX_VALUES] if _text(ratio))
        if isinstance(ratios, list)
        else (),
        fps=_number(raw.get("fps")),
        first_frame="support_first_image" in feats if isinstance(feats, list) else None,
        end_frame="support_end_image" in feats if isinstance(feats, list) else None,
        own={"benefit": _text(_dict(commerce.get("basic")).get("benefit_type"))},
    )


def _text(value: Any) -> str:
    return "".join(char for char in value[:_MAX_TEXT_CHARS] if char.isprintable()) if isinstance(value, str) else ""


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 100_000 else None


def _numbers(value: Any) -> tuple[int, ...]:
    values = value[:_MAX_VALUES] if isinstance(value, list) else []
    return tuple(number for number in map(_number, values) if number)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [row for row in value[:_MAX_VALUES] if isinstance(row, dict)] if isinstance(value, list) else []
