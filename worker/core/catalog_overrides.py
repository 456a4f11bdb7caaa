"""The operator's own file (`DREAMERY_CATALOG_FILE`): models, aliases, sizes, hosts, wire constants without a release.

It has the form of `models.toml` and is laid over it before anything reads the catalog. What a row may hold is learned
from the rows that ship with this version, so a new kind of model needs nothing here. Every complaint names the file,
the model and the field. See docs/models.md.
"""

import copy
import re
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

# Names that tools have built in (openai-compat rule 13). They mean the default model until the operator says otherwise.
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
# Sessions of region `auto` are told their own site by upstream; the rest of the table holds for them too.
_HOST_REGIONS = ("auto", "cn", "us", "sg", "hk", "jp")
_ORIGINS = ("site", "mweb", "commerce")
_AUTHORITIES = ("upload", "vod")
_SERVICES = ("upload_service", "vod_service")
_PAIRS = ("cookies", "query")
_HOST_FIELDS = (*_ORIGINS, *_AUTHORITIES, *_SERVICES, "aid", *_PAIRS)
_WIRE_FIELDS = ("appvr", "da_version", "agent_da_version", "web_version", "sdk_version", "user_agent")
_TABLES = ("aliases", "sizes", "hosts", "wire", "prices")
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?")
_AUTHORITY = re.compile(r"[a-z0-9.-]+(:[0-9]{1,5})?")
_SERVICE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HEADER_TEXT = re.compile(r"[ -~]{1,300}")
_VERSION = re.compile(r"[0-9A-Za-z._-]{1,32}")
# `2k`, `2k x4`, `720p 10s`, `720p omni 10s`; see the shipped table.
_PRICED = re.compile(r"\S+( omni)?( x[1-9][0-9]{0,2}| [1-9][0-9]{0,3}s)?")
_PLACE = re.compile(r"auto|sandbox|[a-z]{2}")
_PAIR_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# What a cookie value may hold (RFC 6265); in a query it is encoded.
_PAIR_VALUE = re.compile(r"[!#-+\--:<-\[\]-~]{0,2000}")
# Ours to say: the session itself, and what tells upstream which site speaks.
_TAKEN = frozenset(
    {"sessionid", "sessionid_ss", "sid_tt", "aid", "device_platform", "region", "webid", "web_id", "da_version",
     "web_version"}
)  # fmt: skip
Data = dict[str, Any]


class CatalogFileError(ValueError):
    """The operator's file cannot be used; the message says where."""


def load(path: Path | None, shipped: Data) -> Data:
    """The catalog data that counts: the shipped one with the built-in aliases, changed by the file if there is one."""
    data = copy.deepcopy(shipped)
    pictures: str = data["default_image_model"]
    videos: str = data["default_video_model"]
    _point(data, dict.fromkeys(HARD_CODED_IMAGE_MODELS, pictures) | dict.fromkeys(HARD_CODED_VIDEO_MODELS, videos))
    return _merged(_Reader(path, _parsed(path)), data, shipped) if path else data


def shipped_data() -> Data:
    """The catalog of this version."""
    return tomllib.loads((Path(__file__).parent / "catalog" / "models.toml").read_text(encoding="utf-8"))


def check(path: Path | None) -> None:
    """Raise `CatalogFileError` when the file cannot be used."""
    if path is not None:
        load(path, shipped_data())


@lru_cache(maxsize=8)
def hosts(path: Path | None, region: str) -> dict[str, Any]:
    """What the file says of a region's hosts: `site`, `mweb`, `upload`, `aid`, `cookies`, ...; see docs/models.md."""
    return dict(_parsed(path).get("hosts", {}).get(region, {})) if path else {}


@lru_cache(maxsize=8)
def wire(path: Path | None) -> dict[str, str]:
    """The version constants the file changes; their names are `_WIRE_FIELDS`."""
    return dict(_parsed(path).get("wire", {})) if path else {}


def _parsed(path: Path) -> Data:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatalogFileError(f"{path}: cannot be read ({error.strerror}).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CatalogFileError(f"{path}: is not TOML: {error}.") from None


def _kinds(data: Data) -> list[str]:
    """The tables of models: lists of rows, where other lists hold plain values."""
    return [key for key, value in data.items() if isinstance(value, list) and isinstance(value[0], dict)]


class _Reader:
    """The file's content and how complaints about it are worded."""

    def __init__(self, path: Path, content: Data) -> None:
        self.path, self.content = path, content

    def refuse(self, where: str, why: str) -> CatalogFileError:
        return CatalogFileError(f"{self.path}: {where}: {why}.")

    def table(self, name: str) -> Data:
        value = self.content.get(name, {})
        if not isinstance(value, dict):
            raise self.refuse(name, f"must be a table, written [{name}]")
        return value


def _merged(reader: _Reader, data: Data, shipped: Data) -> Data:
    kinds = _kinds(shipped)
    defaults = [key for key, value in shipped.items() if key.startswith("default_") and isinstance(value, str)]
    for key in reader.content:
        if key not in {*kinds, *defaults, *_TABLES}:
            raise reader.refuse(key, f"is not known here; known are {', '.join([*kinds, *defaults, *_TABLES])}")
    _add_sizes(reader, data)
    for kind in kinds:
        _add_models(reader, data, kind, shipped[kind])
    _check_names(reader, data, kinds)
    names = {name for kind in kinds for row in data[kind] for name in (row["id"], *row["aliases"])}
    for key in defaults:
        value = reader.content.get(key, data[key])
        if value not in names:
            raise reader.refuse(key, f"names no model: {value!r}")
        data[key] = value
    _add_aliases(reader, data, kinds)
    _add_prices(reader, data, {*kinds, *names})
    _check_hosts(reader)
    _check_wire(reader)
    return data


def _add_sizes(reader: _Reader, data: Data) -> None:
    ratios = list(data["ratios"])
    for resolution, table in reader.table("sizes").items():
        where = f"sizes.{resolution!r}"
        if not isinstance(table, dict):
            raise reader.refuse(where, 'must be a table of ratio = [width, height], such as "1:1" = [2048, 2048]')
        for ratio, pair in table.items():
            if ratio not in ratios:
                raise reader.refuse(where, f"unknown ratio {ratio!r}; known are {', '.join(ratios)}")
            if not (isinstance(pair, list) and len(pair) == 2 and all(_is_count(side) for side in pair)):
                raise reader.refuse(where, f"{ratio!r} must be [width, height]; got {pair!r}")
        data["sizes"][resolution] = {**data["sizes"].get(resolution, {}), **table}
        if missing := [ratio for ratio in ratios if ratio not in data["sizes"][resolution]]:
            raise reader.refuse(where, f"has no size for {', '.join(missing)}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _add_models(reader: _Reader, data: Data, kind: str, examples: list[Data]) -> None:
    rows = reader.content.get(kind, [])
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise reader.refuse(kind, f"must be a list of tables, each written [[{kind}]]")
    by_id = {row["id"]: row for row in data[kind]}
    for number, change in enumerate(rows, start=1):
        model_id = change.get("id")
        if not (isinstance(model_id, str) and model_id.strip()):
            raise reader.refuse(f"{kind} number {number}, field 'id'", "must be a text")
        _check_row(reader, f"{kind} {model_id!r}", change, data, examples)
        known = by_id.get(model_id)
        if known is not None:
            known.update(change)
            continue
        needed = [name for name in examples[0] if all(name in row for row in examples) and name != "aliases"]
        if missing := [name for name in needed if name not in change]:
            fields = ", ".join(repr(name) for name in missing)
            raise reader.refuse(f"{kind} {model_id!r}", f"is new and needs also {fields}")
        by_id[model_id] = {"aliases": [], **change}
        data[kind].append(by_id[model_id])


def _check_row(reader: _Reader, where: str, row: Data, data: Data, examples: list[Data]) -> None:
    """Each field must be one that a shipped row has, with a value of the same type; names of sets must be known."""
    samples: Data = {}
    for example in examples:
        for name, value in example.items():
            # An empty list says nothing about its items.
            if name not in samples or samples[name] == []:
                samples[name] = value
    for name, value in row.items():
        field = f"{where}, field {name!r}"
        if name not in samples:
            raise reader.refuse(field, f"is not known; known are {', '.join(samples)}")
        if not _alike(value, samples[name]):
            raise reader.refuse(field, f"must look like {samples[name]!r}; got {value!r}")
        _check_known(reader, field, name, value, sizes=data["sizes"], examples=examples)


def _check_known(reader: _Reader, field: str, name: str, value: Any, *, sizes: Data, examples: list[Data]) -> None:
    if name == "counts" and not all(_is_count(count) for count in value):
        raise reader.refuse(field, "must hold numbers above 0")
    if name in {"where", "resolutions"}:
        known = {item for example in examples for item in example.get(name, ())}
        _only(reader, field, value, known | set(sizes if name == "resolutions" else ()))
        if not value:
            raise reader.refuse(field, "must not be empty")


def _only(reader: _Reader, field: str, value: list[str], known: set[str]) -> None:
    if strange := [item for item in value if item not in known]:
        raise reader.refuse(field, f"{strange[0]!r} is not known; known are {', '.join(sorted(known))}")


def _alike(value: object, sample: object) -> bool:
    if isinstance(sample, list):
        return isinstance(value, list) and (not sample or all(_alike(item, sample[0]) for item in value))
    if isinstance(sample, dict):
        return isinstance(value, dict) and all(k in value and _alike(value[k], v) for k, v in sample.items())
    if isinstance(sample, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(sample)


def _check_names(reader: _Reader, data: Data, kinds: list[str]) -> None:
    """No name may stand for two models; a shipped alias of a hard-coded name gives way to a model of that id."""
    ids = [row["id"] for kind in kinds for row in data[kind]]
    owner = {model_id: model_id for model_id in ids}
    for kind in kinds:
        for row in data[kind]:
            row["aliases"] = [name for name in row["aliases"] if not (name in ids and name in _BUILT_IN)]
            for name in row["aliases"]:
                if owner.setdefault(name, row["id"]) != row["id"] or name == row["id"]:
                    where = f"{kind} {row['id']!r}, field 'aliases'"
                    raise reader.refuse(where, f"{name!r} is already a name of {owner[name]!r}")


def _add_aliases(reader: _Reader, data: Data, kinds: list[str]) -> None:
    rows = {row["id"]: row for kind in kinds for row in data[kind]}
    meant = {alias: model_id for model_id, row in rows.items() for alias in (model_id, *row["aliases"])}
    wanted: dict[str, str] = {}
    for alias, target in reader.table("aliases").items():
        where = f"aliases.{alias!r}"
        if alias in rows:
            raise reader.refuse(where, "is the id of a model; give the alias another name")
        if target != "" and (not isinstance(target, str) or target not in meant):
            raise reader.refuse(where, f'names no model: {target!r} ("" takes the alias away)')
        wanted[alias] = meant[target] if target else ""
    _point(data, wanted)


def _point(data: Data, wanted: dict[str, str]) -> None:
    """Let each alias mean that model and no other; the empty model takes it away."""
    for kind in _kinds(data):
        for row in data[kind]:
            kept = [name for name in row["aliases"] if name not in wanted]
            row["aliases"] = kept + [name for name, target in wanted.items() if target == row["id"]]


def _add_prices(reader: _Reader, data: Data, names: set[str]) -> None:
    """Prices are laid over the shipped ones line by line."""
    for place, tables in reader.table("prices").items():
        where = f"prices.{place}"
        if not _fits(_PLACE, place) or not isinstance(tables, dict):
            raise reader.refuse(where, "must be tables of a region, such as [prices.cn.image]")
        for name, lines in tables.items():
            field = f"{where}.{name!r}"
            if name not in names:
                raise reader.refuse(field, "names no model; `image` and `video` stand for all of a kind")
            if not isinstance(lines, dict):
                raise reader.refuse(field, 'must be a table, such as { "2k" = 1 }')
            for shape, price in lines.items():
                if not _fits(_PRICED, shape):
                    raise reader.refuse(field, f"{shape!r} must look like '2k', '2k x4', '720p' or '720p omni 10s'")
                if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < 1e6:
                    raise reader.refuse(field, f"{shape!r} must be credits, 0 or more; got {price!r}")
            known = data["prices"].setdefault(place, {}).setdefault(name, {})
            known.update(lines)


def _check_hosts(reader: _Reader) -> None:
    for region, table in reader.table("hosts").items():
        where = f"hosts.{region}"
        if region not in _HOST_REGIONS:
            raise reader.refuse(where, f"unknown region; known are {', '.join(_HOST_REGIONS)}")
        if not isinstance(table, dict):
            raise reader.refuse(where, f"must be a table, written [hosts.{region}]")
        for name, value in table.items():
            field = f"{where}, field {name!r}"
            if name not in _HOST_FIELDS:
                raise reader.refuse(field, f"is not known; known are {', '.join(_HOST_FIELDS)}")
            if region == "auto" and name in _ORIGINS:
                raise reader.refuse(field, "upstream names the hosts of these sessions itself")
            _check_host_field(reader, field, name, value)


def _check_host_field(reader: _Reader, field: str, name: str, value: Any) -> None:
    if name in _ORIGINS and not _fits(_ORIGIN, value):
        raise reader.refuse(field, f"must be an origin such as 'https://mweb-api-sg.capcut.com'; got {value!r}")
    if name in _AUTHORITIES and not _fits(_AUTHORITY, value):
        raise reader.refuse(field, f"must be a host such as 'imagex-normal-sg.capcutapi.com'; got {value!r}")
    if name in _SERVICES and not _fits(_SERVICE, value):
        raise reader.refuse(field, f"must be a service id such as 'wopfjsm1ax'; got {value!r}")
    if name == "aid" and not _is_count(value):
        raise reader.refuse(field, f"must be a number such as 513641; got {value!r}")
    if name in _PAIRS:
        if not isinstance(value, dict):
            raise reader.refuse(field, 'must be a table, such as { "name" = "value" }')
        for key, text in value.items():
            if not _PAIR_NAME.fullmatch(key) or key.lower() in _TAKEN:
                raise reader.refuse(field, f"{key!r} cannot be set here")
            # The value may be a secret of the operator's browser: it is not repeated.
            if not _fits(_PAIR_VALUE, text):
                raise reader.refuse(field, f"the value of {key!r} must be a text without spaces, quotes or semicolons")


def _check_wire(reader: _Reader) -> None:
    for name, value in reader.table("wire").items():
        field = f"wire, field {name!r}"
        if name not in _WIRE_FIELDS:
            raise reader.refuse(field, f"is not known; known are {', '.join(_WIRE_FIELDS)}")
        if not _fits(_HEADER_TEXT if name == "user_agent" else _VERSION, value):
            raise reader.refuse(field, f"must be a text such as '8.4.0'; got {value!r}")


def _fits(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
