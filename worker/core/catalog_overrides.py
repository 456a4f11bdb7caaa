"""The operator's catalog file (`DREAMERY_CATALOG_FILE`): changes models, aliases, routes, sizes, prices and more.

It is merged over the data of the providers (`catalog/providers/NAME.toml`) before the catalog is used. The fields of a
provider's rows define which fields a row may have, so a new kind of model needs no change here. Every error names the
file, the model and the field. See docs/models.md.
"""

import copy
import re
import tomllib
from pathlib import Path

from worker.core.catalog import provider_overrides
from worker.core.catalog.money import CURRENCIES
from worker.core.catalog.override_rows import CatalogFileError, Data, Reader, add_models, check_routes, is_count
from worker.core.catalog.provider_data import all_providers, first_provider

_NAMES = tomllib.loads((Path(__file__).parent / "catalog" / "names.toml").read_text(encoding="utf-8"))
# Model names hard-coded in clients (openai-compat rule 13). They mean the default model unless the operator changes it.
HARD_CODED_IMAGE_MODELS: tuple[str, ...] = tuple(_NAMES["built_in"]["image"])
HARD_CODED_VIDEO_MODELS: tuple[str, ...] = tuple(_NAMES["built_in"]["video"])
BUILT_IN_NAMES = frozenset({*HARD_CODED_IMAGE_MODELS, *HARD_CODED_VIDEO_MODELS})
_KINDS = ("image", "video")
_DEFAULTS = ("default_image_model", "default_video_model")
_TABLES = ("aliases", "routes", "sizes", "prices", *provider_overrides.TABLES)
# `2k`, `2k x4`, `720p 10s`, `720p omni 10s`; see the shipped table.
_PRICED = re.compile(r"\S+( omni)?( x[1-9][0-9]{0,2}| [1-9][0-9]{0,3}s)?")
_PLACE = re.compile(r"auto|sandbox|[a-z]{2}")


def shipped_data() -> Data:
    """Return the shipped catalog data: the tables of all providers, with one list of rows for each kind of model.

    What stands at the top belongs to the first provider, as in the operator's file.
    """
    tables = {name: dict(one.tables) for name, one in all_providers().items()}
    first = tables[first_provider()]
    data: Data = {
        "providers": copy.deepcopy(tables),
        **{key: first[key] for key in _DEFAULTS},
        "ratios": first["ratios"],
        "sizes": first["sizes"],
        "prices": first.get("prices", {}),
        "name_patterns": dict(_NAMES["name_patterns"]),
        "routes": {},
        "currencies": list(CURRENCIES),
        "ended": [row for one in tables.values() for row in one.get("ended", ())],
        **{
            kind: [
                {"provider": name, **({} if "aliases" in row else {"aliases": []}), **row}
                for name, one in tables.items()
                for row in one.get(kind, ())
            ]
            for kind in _KINDS
        },
    }
    return copy.deepcopy(data)


def load(path: Path | None, shipped: Data) -> Data:
    """Return the effective catalog: the shipped data with the built-in aliases, changed by the file if there is one."""
    data = copy.deepcopy(shipped)
    data["providers"][first_provider()]["sizes"] = data["sizes"]
    data["defaults"] = {
        kind: [one[key] for one in data["providers"].values() if key in one]
        for kind, key in zip(_KINDS, _DEFAULTS, strict=True)
    }
    built_in = {"image": HARD_CODED_IMAGE_MODELS, "video": HARD_CODED_VIDEO_MODELS}
    for kind in _KINDS:
        for row in data[kind]:
            row["aliases"] += built_in[kind] if row["id"] in data["defaults"][kind] else ()
    data["name_patterns"] = {pattern: data["defaults"][kind] for pattern, kind in data["name_patterns"].items()}
    # Names that the operator removed; no pattern matches them.
    data["removed_names"] = {}
    return _merge(Reader(path, _parse(path)), data, shipped) if path else data


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


def _merge(reader: Reader, data: Data, shipped: Data) -> Data:
    allowed = [*_KINDS, *_DEFAULTS, "currencies", *_TABLES]
    for key in reader.content:
        if key not in allowed:
            raise reader.error(key, f"is unknown; allowed are {', '.join(allowed)}")
    _add_sizes(reader, data)
    for kind in _KINDS:
        add_models(reader, data, kind, shipped[kind])
    _check_names(reader, data)
    ids = {name: row["id"] for kind in _KINDS for row in data[kind] for name in (row["id"], *row["aliases"])}
    for kind, key in zip(_KINDS, _DEFAULTS, strict=True):
        value = reader.content.get(key, data[key])
        if value not in ids:
            raise reader.error(key, f"is not a model: {value!r}")
        data[key] = value
        # The operator's default first; the other providers keep theirs.
        provider_of = {row["id"]: row["provider"] for row in data[kind]}
        chosen = ids[value]
        if chosen not in provider_of:
            raise reader.error(key, f"is not a model of this kind: {value!r}")
        others = [one for one in data["defaults"][kind] if provider_of[one] != provider_of[chosen]]
        data["defaults"][kind] = [chosen, *others]
    _add_aliases(reader, data)
    check_routes(reader, data, _KINDS)
    _add_prices(reader, data, {*_KINDS, *ids})
    data["currencies"] = reader.content.get("currencies", data["currencies"])
    if not isinstance(data["currencies"], list) or sorted(map(str, data["currencies"])) != sorted(CURRENCIES):
        raise reader.error("currencies", f"must be a list of {', '.join(CURRENCIES)} in your order")
    provider_overrides.check(reader.content, reader.error)
    return data


def _add_sizes(reader: Reader, data: Data) -> None:
    ratios = list(data["ratios"])
    for resolution, table in reader.table("sizes").items():
        where = f"sizes.{resolution!r}"
        if not isinstance(table, dict):
            raise reader.error(where, 'must be a table of ratio = [width, height], such as "1:1" = [2048, 2048]')
        for ratio, pair in table.items():
            if ratio not in ratios:
                raise reader.error(where, f"unknown ratio {ratio!r}; allowed are {', '.join(ratios)}")
            if not (isinstance(pair, list) and len(pair) == 2 and all(is_count(side) for side in pair)):
                raise reader.error(where, f"{ratio!r} must be [width, height]; got {pair!r}")
        data["sizes"][resolution] = {**data["sizes"].get(resolution, {}), **table}
        if missing := [ratio for ratio in ratios if ratio not in data["sizes"][resolution]]:
            raise reader.error(where, f"is missing a size for {', '.join(missing)}")


def _check_names(reader: Reader, data: Data) -> None:
    """Check that no name means two models of a provider, and no id two models.

    A model whose id is a hard-coded name replaces the shipped alias.
    """
    ids = [row["id"] for kind in _KINDS for row in data[kind]]
    owner = {(row["provider"], row["id"]): row["id"] for kind in _KINDS for row in data[kind]}
    for kind in _KINDS:
        for row in data[kind]:
            row["aliases"] = [name for name in row["aliases"] if not (name in ids and name in BUILT_IN_NAMES)]
            for name in row["aliases"]:
                known = owner.setdefault((row["provider"], name), row["id"])
                if known != row["id"] or name == row["id"]:
                    where = f"{kind} {row['id']!r}, field 'aliases'"
                    raise reader.error(where, f"{name!r} is already a name of {known!r}")


def _add_aliases(reader: Reader, data: Data) -> None:
    rows = {row["id"]: row for kind in _KINDS for row in data[kind]}
    # With a name of several providers the first one's model is meant.
    model_of: dict[str, str] = {}
    for model_id, row in rows.items():
        for name in (model_id, *row["aliases"], *row.get("ids", {}).values()):
            model_of.setdefault(name, model_id)
    model_of |= {model_id: model_id for model_id in rows}
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
    patterns = {alias: [target] if target else [] for alias, target in aliases.items() if "*" in alias}
    # The operator's patterns come first; "" removes a shipped one.
    shipped = {pattern: targets for pattern, targets in data["name_patterns"].items() if pattern not in patterns}
    data["name_patterns"] = {pattern: targets for pattern, targets in patterns.items() if targets} | shipped


def _set_aliases(data: Data, aliases: Data) -> None:
    """Assign each alias to its model only; an empty model removes the alias."""
    for kind in _KINDS:
        for row in data[kind]:
            remaining = [name for name in row["aliases"] if name not in aliases]
            row["aliases"] = remaining + [name for name, target in aliases.items() if target == row["id"]]
            row["removed_names"] = [name for name, target in aliases.items() if target != row["id"]]


def _add_prices(reader: Reader, data: Data, names: set[str]) -> None:
    """Merge the prices over the shipped ones, line by line."""
    for place, tables in reader.table("prices").items():
        where = f"prices.{place}"
        if not _PLACE.fullmatch(place) or not isinstance(tables, dict):
            raise reader.error(where, "must be tables of a region, such as [prices.cn.image]")
        for name, lines in tables.items():
            field = f"{where}.{name!r}"
            if name not in names:
                raise reader.error(field, "is not a model; use `image` or `video` for all models of a kind")
            if not isinstance(lines, dict):
                raise reader.error(field, 'must be a table, such as { "2k" = 1 }')
            for shape, price in lines.items():
                if not _PRICED.fullmatch(shape):
                    raise reader.error(field, f"{shape!r} must have the form '2k', '2k x4', '720p' or '720p omni 10s'")
                if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < 1e6:
                    raise reader.error(field, f"{shape!r} must be credits, 0 or more; got {price!r}")
            known = data["prices"].setdefault(place, {}).setdefault(name, {})
            known.update(lines)
