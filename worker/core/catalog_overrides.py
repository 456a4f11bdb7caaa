"""The operator's catalog file (`DREAMERY_CATALOG_FILE`): changes models, aliases, sizes, hosts and wire constants.

It has the format of `models.toml` and is merged over it before the catalog is used. The fields of the shipped rows
define which fields a row may have, so a new kind of model needs no change here. Every error names the file, the model
and the field. See docs/models.md.
"""

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

from worker.core.catalog import provider_overrides

# Model names hard-coded in clients (openai-compat rule 13). They mean the default model unless the operator changes it.
HARD_CODED_IMAGE_MODELS = (
    "gpt-image-1",
    "gpt-image-1-mini",
    "gpt-image-1.5",
    "gpt-image-2",
    "chatgpt-image-latest",
    "dall-e-2",
    "dall-e-3",
)
HARD_CODED_VIDEO_MODELS = ("sora-2", "sora-2-pro")
_BUILT_IN = {*HARD_CODED_IMAGE_MODELS, *HARD_CODED_VIDEO_MODELS}
_TABLES = ("aliases", "sizes", "prices", *provider_overrides.TABLES)
# `2k`, `2k x4`, `720p 10s`, `720p omni 10s`; see the shipped table.
_PRICED = re.compile(r"\S+( omni)?( x[1-9][0-9]{0,2}| [1-9][0-9]{0,3}s)?")
_PLACE = re.compile(r"auto|sandbox|[a-z]{2}")
Data = dict[str, Any]


class CatalogFileError(ValueError):
    """The operator's file is invalid; the message says where."""


def load(path: Path | None, shipped: Data) -> Data:
    """Return the effective catalog: the shipped data with the built-in aliases, changed by the file if there is one."""
    data = copy.deepcopy(shipped)
    image_model: str = data["default_image_model"]
    video_model: str = data["default_video_model"]
    _set_aliases(
        data, dict.fromkeys(HARD_CODED_IMAGE_MODELS, image_model) | dict.fromkeys(HARD_CODED_VIDEO_MODELS, video_model)
    )
    defaults = {"image": image_model, "video": video_model}
    data["name_patterns"] = {pattern: defaults[kind] for pattern, kind in data["name_patterns"].items()}
    # Names that the operator removed; no pattern matches them.
    data["removed_names"] = {}
    return _merge(_Reader(path, _parse(path)), data, shipped) if path else data


def shipped_data() -> Data:
    """Return the shipped catalog data."""
    return tomllib.loads((Path(__file__).parent / "catalog" / "models.toml").read_text(encoding="utf-8"))


def check(path: Path | None) -> None:
    """Raise `CatalogFileError` if the file is invalid."""
    if path is not None:
        load(path, shipped_data())


def _parse(path: Path) -> Data:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatalogFileError(f"{path}: cannot be read ({error.strerror}).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CatalogFileError(f"{path}: is not TOML: {error}.") from None


def _kinds(data: Data) -> list[str]:
    """Return the keys of the model tables, which are lists of rows; other lists have plain values."""
    return [key for key, value in data.items() if isinstance(value, list) and isinstance(value[0], dict)]


class _Reader:
    """The content of the file, and its error messages."""

    def __init__(self, path: Path, content: Data) -> None:
        self.path, self.content = path, content

    def error(self, where: str, reason: str) -> CatalogFileError:
        return CatalogFileError(f"{self.path}: {where}: {reason}.")

    def table(self, name: str) -> Data:
        value = self.content.get(name, {})
        if not isinstance(value, dict):
            raise self.error(name, f"must be a table, written [{name}]")
        return value


def _merge(reader: _Reader, data: Data, shipped: Data) -> Data:
    kinds = _kinds(shipped)
    defaults = [key for key, value in shipped.items() if key.startswith("default_") and isinstance(value, str)]
    for key in reader.content:
        if key not in {*kinds, *defaults, *_TABLES}:
            raise reader.error(key, f"is unknown; allowed are {', '.join([*kinds, *defaults, *_TABLES])}")
    _add_sizes(reader, data)
    for kind in kinds:
        _add_models(reader, data, kind, shipped[kind])
    _check_names(reader, data, kinds)
    names = {name for kind in kinds for row in data[kind] for name in (row["id"], *row["aliases"])}
    for key in defaults:
        value = reader.content.get(key, data[key])
        if value not in names:
            raise reader.error(key, f"is not a model: {value!r}")
        data[key] = value
    _add_aliases(reader, data, kinds)
    _add_prices(reader, data, {*kinds, *names})
    provider_overrides.check(reader.content, reader.error)
    return data


def _add_sizes(reader: _Reader, data: Data) -> None:
    ratios = list(data["ratios"])
    for resolution, table in reader.table("sizes").items():
        where = f"sizes.{resolution!r}"
        if not isinstance(table, dict):
            raise reader.error(where, 'must be a table of ratio = [width, height], such as "1:1" = [2048, 2048]')
        for ratio, pair in table.items():
            if ratio not in ratios:
                raise reader.error(where, f"unknown ratio {ratio!r}; allowed are {', '.join(ratios)}")
            if not (isinstance(pair, list) and len(pair) == 2 and all(_is_count(side) for side in pair)):
                raise reader.error(where, f"{ratio!r} must be [width, height]; got {pair!r}")
        data["sizes"][resolution] = {**data["sizes"].get(resolution, {}), **table}
        if missing := [ratio for ratio in ratios if ratio not in data["sizes"][resolution]]:
            raise reader.error(where, f"is missing a size for {', '.join(missing)}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _add_models(reader: _Reader, data: Data, kind: str, examples: list[Data]) -> None:
    rows = reader.content.get(kind, [])
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise reader.error(kind, f"must be a list of tables, each written [[{kind}]]")
    by_id = {row["id"]: row for row in data[kind]}
    for number, change in enumerate(rows, start=1):
        model_id = change.get("id")
        if not (isinstance(model_id, str) and model_id.strip()):
            raise reader.error(f"{kind} number {number}, field 'id'", "must be a string")
        _check_row(reader, f"{kind} {model_id!r}", change, data, examples)
        known = by_id.get(model_id)
        if known is not None:
            known.update(change)
            continue
        needed = [name for name in examples[0] if all(name in row for row in examples) and name != "aliases"]
        if missing := [name for name in needed if name not in change]:
            fields = ", ".join(repr(name) for name in missing)
            raise reader.error(f"{kind} {model_id!r}", f"is a new model and also needs {fields}")
        by_id[model_id] = {"aliases": [], **change}
        data[kind].append(by_id[model_id])


def _check_row(reader: _Reader, where: str, row: Data, data: Data, examples: list[Data]) -> None:
    """Check that every field exists in a shipped row and has the same type, and that listed names are known."""
    samples: Data = {}
    for example in examples:
        for name, value in example.items():
            # An empty list does not show the type of its items.
            if name not in samples or samples[name] == []:
                samples[name] = value
    for name, value in row.items():
        field = f"{where}, field {name!r}"
        if name not in samples:
            raise reader.error(field, f"is unknown; allowed are {', '.join(samples)}")
        if not _has_same_type(value, samples[name]):
            raise reader.error(field, f"must have the form {samples[name]!r}; got {value!r}")
        _check_known(reader, field, name, value, sizes=data["sizes"], examples=examples)


def _check_known(reader: _Reader, field: str, name: str, value: Any, *, sizes: Data, examples: list[Data]) -> None:
    if name == "counts" and not all(_is_count(count) for count in value):
        raise reader.error(field, "must contain positive numbers")
    if name in {"where", "disputed", "resolutions"}:
        column = "resolutions" if name == "resolutions" else "where"
        known = {item for example in examples for item in example.get(column, ())}
        _check_items(reader, field, value, known | set(sizes if name == "resolutions" else ()))
        if not value and name != "disputed":
            raise reader.error(field, "must not be empty")


def _check_items(reader: _Reader, field: str, value: list[str], known: set[str]) -> None:
    if unknown := [item for item in value if item not in known]:
        raise reader.error(field, f"{unknown[0]!r} is unknown; allowed are {', '.join(sorted(known))}")


def _has_same_type(value: object, sample: object) -> bool:
    if isinstance(sample, list):
        return isinstance(value, list) and (not sample or all(_has_same_type(item, sample[0]) for item in value))
    if isinstance(sample, dict):
        return isinstance(value, dict) and all(k in value and _has_same_type(value[k], v) for k, v in sample.items())
    if isinstance(sample, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(sample)


def _check_names(reader: _Reader, data: Data, kinds: list[str]) -> None:
    """Check that no name means two models. A model whose id is a hard-coded name replaces the shipped alias."""
    ids = [row["id"] for kind in kinds for row in data[kind]]
    owner = {model_id: model_id for model_id in ids}
    for kind in kinds:
        for row in data[kind]:
            row["aliases"] = [name for name in row["aliases"] if not (name in ids and name in _BUILT_IN)]
            for name in row["aliases"]:
                if owner.setdefault(name, row["id"]) != row["id"] or name == row["id"]:
                    where = f"{kind} {row['id']!r}, field 'aliases'"
                    raise reader.error(where, f"{name!r} is already a name of {owner[name]!r}")


def _add_aliases(reader: _Reader, data: Data, kinds: list[str]) -> None:
    rows = {row["id"]: row for kind in kinds for row in data[kind]}
    model_of = {alias: model_id for model_id, row in rows.items() for alias in (model_id, *row["aliases"])}
    aliases: dict[str, str] = {}
    for alias, target in reader.table("aliases").items():
        where = f"aliases.{alias!r}"
        if alias in rows:
            raise reader.error(where, "is the id of a model; give the alias another name")
        if target != "" and (not isinstance(target, str) or target not in model_of):
            raise reader.error(where, f'is not a model: {target!r} ("" removes the alias)')
        aliases[alias] = model_of[target] if target else ""
    _set_aliases(data, {alias: target for alias, target in aliases.items() if "*" not in alias})
    data["removed_names"] |= {alias: "" for alias, target in aliases.items() if not target}
    patterns = {alias: target for alias, target in aliases.items() if "*" in alias}
    # The operator's patterns come first; "" removes a shipped one.
    shipped = {pattern: target for pattern, target in data["name_patterns"].items() if pattern not in patterns}
    data["name_patterns"] = {pattern: target for pattern, target in patterns.items() if target} | shipped


def _set_aliases(data: Data, aliases: dict[str, str]) -> None:
    """Assign each alias to its model only; an empty model removes the alias."""
    for kind in _kinds(data):
        for row in data[kind]:
            remaining = [name for name in row["aliases"] if name not in aliases]
            row["aliases"] = remaining + [name for name, target in aliases.items() if target == row["id"]]


def _add_prices(reader: _Reader, data: Data, names: set[str]) -> None:
    """Merge the prices over the shipped ones, line by line."""
    for place, tables in reader.table("prices").items():
        where = f"prices.{place}"
        if not _matches(_PLACE, place) or not isinstance(tables, dict):
            raise reader.error(where, "must be tables of a region, such as [prices.cn.image]")
        for name, lines in tables.items():
            field = f"{where}.{name!r}"
            if name not in names:
                raise reader.error(field, "is not a model; use `image` or `video` for all models of a kind")
            if not isinstance(lines, dict):
                raise reader.error(field, 'must be a table, such as { "2k" = 1 }')
            for shape, price in lines.items():
                if not _matches(_PRICED, shape):
                    raise reader.error(field, f"{shape!r} must have the form '2k', '2k x4', '720p' or '720p omni 10s'")
                if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < 1e6:
                    raise reader.error(field, f"{shape!r} must be credits, 0 or more; got {price!r}")
            known = data["prices"].setdefault(place, {}).setdefault(name, {})
            known.update(lines)


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
