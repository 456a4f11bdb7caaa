"""Turns rows of the catalog's data into models. A row has the fields of its provider's file, with its defaults."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from worker.core.catalog.model_types import (
    ADAPTIVE,
    ImageModel,
    InputLimits,
    Places,
    References,
    VideoModel,
)
from worker.core.catalog.money import read_image_price, read_video_price

Row = Mapping[str, Any]
Sizes = Mapping[str, Mapping[str, tuple[int, int]]]


def places_of(tables: Row) -> Places:
    """Return the places of a provider's regions. Without a table each region is a place."""
    rows = dict(tables.get("places", {}))
    undetected = frozenset(rows.pop("undetected", ()))
    return Places({region: tuple(places) for region, places in rows.items()}, undetected)


def image_model(row: Row, tables: Row) -> ImageModel:
    """Return the image model of a row; `tables` = the data of its provider."""
    row = {**tables.get("defaults", {}).get("image", {}), **row}
    sets, layers = row.get("sets") or {}, row.get("layers") or {}
    area = row.get("free_area")
    return ImageModel(
        **_shared(row, tables, "image"),
        sizes=_image_sizes(row, tables),
        counts=tuple(row["counts"]),
        default_count=row.get("default_count", 1 if row["counts"] == [1] else 4),
        references=row.get("references", 0),
        series=row.get("series", False),
        medium_quality=row.get("medium_quality", ""),
        free_area=(area[0], area[1]) if area else None,
        max_set=sets.get("max", 0),
        max_set_with_inputs=sets.get("refs_and_outputs", 0),
        streams=row.get("stream", False),
        formats=tuple(row.get("formats", ())),
        default_format=row.get("default_format", "jpeg"),
        backgrounds=tuple(row.get("background", ())),
        max_layers=layers.get("max", 0),
        web_search=row.get("web_search", False),
        optimize_modes=tuple(row.get("optimize_modes", ())),
        images_per_minute=row.get("limits", {}).get("ipm", 0),
        prices=tuple(read_image_price(price) for price in row.get("prices", ())),
    )


def video_model(row: Row, tables: Row) -> VideoModel:
    """Return the video model of a row; `tables` = the data of its provider."""
    row = {**tables.get("defaults", {}).get("video", {}), **row}
    draft, audio, limits = row.get("draft") or {}, row.get("audio") or {}, row.get("limits", {})
    return VideoModel(
        **_shared(row, tables, "video"),
        durations=_durations(row),
        ratios=tuple(row["ratios"]),
        frames=_frames(row, tables),
        modes=_modes(row),
        references=_references(row),
        adaptive_only=frozenset(row.get("adaptive_only", ())),
        auto_seconds=row.get("duration", {}).get("auto", False),
        fps=row.get("fps", 24),
        makes_audio=audio.get("makes", False),
        audio_switch=audio.get("switch", False),
        frame_decides_ratio=row.get("frame_decides_ratio", False),
        flex=row.get("flex", False),
        draft_resolution=draft.get("resolution", ""),
        final_resolution=draft.get("final_resolution", ""),
        draft_days=draft.get("keep_days", 0),
        requests_per_minute=limits.get("rpm", 0),
        in_flight=limits.get("inflight", 0),
        limits=MappingProxyType(dict(limits)),
        prices=tuple(read_video_price(price) for price in row.get("prices", ())),
    )


def _shared(row: Row, tables: Row, kind: str) -> dict[str, Any]:
    ids = {**({"any": row["key"]} if "key" in row else {}), **row.get("ids", {})}
    own = tables.get("own_fields", {}).get(kind, {})
    aliases = dict.fromkeys([*row["aliases"], *(ids.values() if row.get("vendor_names") else ())])
    return {
        "id": row["id"],
        "name": row["name"],
        "provider": row["provider"],
        "ids": MappingProxyType(ids),
        "where": frozenset(row["where"]),
        "places": places_of(tables),
        "resolutions": tuple(row["resolutions"]),
        "aliases": tuple(name for name in aliases if name not in row.get("removed_names", ())),
        "disputed": frozenset(row.get("disputed", ())),
        "ends": MappingProxyType(dict(row.get("ends", {}))),
        "fields": frozenset(row.get("fields", ())),
        "seed": row.get("seed", "none"),
        "max_seed": row.get("max_seed", 2**32 - 1),
        "prompt_flags": frozenset(row.get("prompt_flags", ())),
        "mention": row.get("prompt_mark", "").replace("Image", "{kind}"),
        "inputs": MappingProxyType({media: _limits(one) for media, one in row.get("inputs", {}).items()}),
        "own": MappingProxyType({name: row[name] for name in own if name in row}),
    }


def _limits(table: Row) -> InputLimits:
    def pair(name: str) -> tuple[Any, Any] | None:
        return (table[name][0], table[name][1]) if name in table else None

    return InputLimits(
        bytes=table.get("bytes"),
        side=pair("side"),
        area=pair("area"),
        ratio=pair("ratio"),
        seconds=pair("seconds"),
        public_link=table.get("public_link", False),
    )


def _pairs(table: Mapping[str, list[int]]) -> dict[str, tuple[int, int]]:
    return {ratio: (width, height) for ratio, (width, height) in table.items()}


def _image_sizes(row: Row, tables: Row) -> Sizes:
    named = tables.get("size_tables", {})
    default = named[row["size_table"]] if "size_table" in row else tables.get("sizes", {})
    own = {
        name.removeprefix("size_table_"): named[table][name.removeprefix("size_table_")]
        for name, table in row.items()
        if name.startswith("size_table_")
    }
    found = {**default, **own, **row.get("sizes", {})}
    return {resolution: _pairs(table) for resolution, table in found.items()}


def _durations(row: Row) -> tuple[int, ...]:
    if "durations" in row:
        return tuple(row["durations"])
    table = row["duration"]
    return tuple(dict.fromkeys([table["default"], *range(table["min"], table["max"] + 1)]))


def _frames(row: Row, tables: Row) -> Sizes:
    """Return the frames of each resolution: of the row's table, of the table of all, or by the short side."""
    known = tables.get("frames", {})
    own, shared, lines = known.get(row.get("frames", ""), {}), known.get("any", {}), tables.get("video_lines", {})

    def table(resolution: str) -> dict[str, tuple[int, int]]:
        if found := own.get(resolution) or shared.get(resolution):
            return _pairs(found)
        short = lines.get(resolution) or lines["720p"]
        return {ratio: _frame_of(ratio, short) for ratio in row["ratios"] if ratio != ADAPTIVE}

    return {resolution: table(resolution) for resolution in row["resolutions"]}


def _frame_of(ratio: str, short: int) -> tuple[int, int]:
    """Return width and height with this short side; sides are even."""
    wide, high = (int(side) for side in ratio.split(":"))
    long = round(short * max(wide, high) / min(wide, high) / 2) * 2
    return (long, short) if wide >= high else (short, long)


def _modes(row: Row) -> frozenset[str]:
    if "modes" in row:
        return frozenset(row["modes"])
    ways = {"first": row.get("first_frame", True), "first_last": row.get("end_frame"), "reference": row.get("omni")}
    return frozenset({"text", *(mode for mode, able in ways.items() if able)})


def _references(row: Row) -> References:
    table = dict(row.get("references") or (row.get("omni_references") if row.get("omni") else None) or {})
    table["video_seconds"] = table.pop("video_seconds_total", 0)
    table["audio_seconds"] = table.pop("audio_seconds_total", 0)
    return References(**table)
