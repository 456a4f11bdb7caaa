"""Rows of models and routes in the operator's catalog file (`worker.core.catalog_overrides`)."""

from pathlib import Path
from typing import Any

from worker.core.catalog.model_rows import image_model, video_model
from worker.core.catalog.provider_data import all_providers, first_provider, shipped_model

Data = dict[str, Any]
_NUMBERS = (int, float)
# Fields that a row of any provider may have, with an example of the form.
_COMMON: Data = {
    "id": "",
    "aliases": [""],
    "name": "",
    "provider": "",
    "ends": {},
    "ids": {},
    "fields": [""],
    "seed": "",
}


class OwnTable(dict[str, Any]):
    """The form of a table that needs all of its keys."""


class CatalogFileError(ValueError):
    """The operator's file is invalid; the message says where."""


class Reader:
    """The content of the file, and its error messages."""

    def __init__(self, path: Path, content: Data) -> None:
        self.path, self.content = path, content

    def error(self, where: str, reason: str) -> CatalogFileError:
        """Return the error for a place in the file."""
        return CatalogFileError(f"{self.path}: {where}: {reason}.")

    def table(self, name: str) -> Data:
        """Return a table of the file; {} if it has none."""
        value = self.content.get(name, {})
        if not isinstance(value, dict):
            raise self.error(name, f"must be a table, written [{name}]")
        return value


def is_count(value: object) -> bool:
    """Return whether a value is a positive whole number."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def add_models(reader: Reader, data: Data, kind: str, shipped: list[Data]) -> None:
    """Merge the rows of one kind over those of the data; a new id is a new model."""
    rows = reader.content.get(kind, [])
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise reader.error(kind, f"must be a list of tables, each written [[{kind}]]")
    by_id = {row["id"]: row for row in data[kind]}
    for number, given in enumerate(rows, start=1):
        model_id = given.get("id")
        if not (isinstance(model_id, str) and model_id.strip()):
            raise reader.error(f"{kind} number {number}, field 'id'", "must be a string")
        where = f"{kind} {model_id!r}"
        known = by_id.get(model_id)
        provider = _provider_of(reader, where, given, known)
        tables = data["providers"][provider]
        examples = [row for row in shipped if row["provider"] == provider]
        _check_row(reader, where, given, _forms(examples, tables, kind), _known_items(data, examples))
        change = _with_present_names(given, tables)
        if known is not None:
            known.update({name: _merged(known.get(name), value, name) for name, value in change.items()})
        else:
            needed = [name for name in examples[0] if all(name in row for row in examples)]
            missing = [name for name in needed if name not in {*change, "aliases", "provider"}]
            if missing:
                fields = ", ".join(repr(name) for name in missing)
                raise reader.error(where, f"is a new model and also needs {fields}")
            known = by_id[model_id] = {"aliases": [], "provider": provider, **change}
            data[kind].append(known)
        _check_complete(reader, where, known, tables, kind)


def check_routes(reader: Reader, data: Data, kinds: tuple[str, ...]) -> None:
    """Read `[routes]`: name -> models, or providers that have the name, in the order in which they are tried."""
    rows = {row["id"]: (kind, row) for kind in kinds for row in data[kind]}
    for name, targets in reader.table("routes").items():
        where = f"routes.{name!r}"
        if not (isinstance(targets, list) and targets and all(isinstance(one, str) for one in targets)):
            example = [shipped_model(kinds[0]), *list(all_providers())[-1:]]
            raise reader.error(where, f"must be a list of models or providers, such as {example}")
        found: list[str] = []
        for target in targets:
            if target in all_providers():
                target_id = _model_with_name(data, kinds, target, name)
                if target_id is None:
                    raise reader.error(where, f"provider {target!r} has no model with this name")
                found.append(target_id)
            elif target in rows:
                found.append(target)
            else:
                raise reader.error(where, f"is not a model or provider: {target!r}")
        if len({rows[one][0] for one in found}) > 1:
            raise reader.error(where, "has image and video models; a route is of one kind")
        data["routes"][name] = list(dict.fromkeys(found))


def _model_with_name(data: Data, kinds: tuple[str, ...], provider: str, name: str) -> str | None:
    return next(
        (
            row["id"]
            for kind in kinds
            for row in data[kind]
            if row["provider"] == provider and name in (row["id"], *row["aliases"], *row.get("ids", {}).values())
        ),
        None,
    )


def _provider_of(reader: Reader, where: str, row: Data, known: Data | None) -> str:
    provider = row.get("provider", known["provider"] if known else first_provider())
    if not isinstance(provider, str) or provider not in all_providers():
        allowed = ", ".join(all_providers())
        raise reader.error(f"{where}, field 'provider'", f"unknown provider {provider!r}; allowed are {allowed}")
    if known is not None and provider != known["provider"]:
        raise reader.error(f"{where}, field 'provider'", f"the model is one of {known['provider']!r}; use another id")
    return provider


def _with_present_names(row: Data, tables: Data) -> Data:
    """Return the row with fields that had another name in earlier versions under their present one."""
    former: dict[str, str] = tables.get("former_fields", {})
    result = {name: value for name, value in row.items() if name not in former}
    for name, present in former.items():
        if name in row:
            field, _, key = present.partition(".")
            result[field] = {**result.get(field, {}), key: row[name]}
    return result


def _merged(known: Any, value: Any, name: str) -> Any:
    """Return the new value of a field: single ids, days and limits can be changed alone."""
    partial = name in {"ids", "ends", "limits", "sizes"} and isinstance(known, dict)
    return {**known, **value} if partial else value


def _forms(examples: list[Data], tables: Data, kind: str) -> dict[str, list[Any]]:
    """Return examples of each field's form: the shipped rows', those of the provider's own fields, and common ones."""
    forms: dict[str, list[Any]] = {}
    own: Data = tables.get("own_fields", {}).get(kind, {})
    former = dict.fromkeys(tables.get("former_fields", {}), "")
    defaults: Data = tables.get("defaults", {}).get(kind, {})
    for row in (_COMMON, *examples, defaults, own, former):
        for name, value in row.items():
            known = forms.setdefault(name, [])
            if isinstance(value, dict) and name not in own:
                # Rows need not have all keys of a table.
                merged = next((one for one in known if isinstance(one, dict)), None)
                known.append(dict(value)) if merged is None else merged.update(value)
            elif isinstance(value, dict):
                known.append(OwnTable(value))
            elif value != [] or not known:
                # An empty list does not show the type of its items.
                known[:] = [one for one in known if one != []]
                known.append(value)
    return forms


def _known_items(data: Data, examples: list[Data]) -> dict[str, set[str]]:
    """Return the names that lists of a row may contain."""
    where = {item for example in examples for item in example.get("where", ())}
    resolutions = {item for example in examples for item in example.get("resolutions", ())}
    return {"where": where, "disputed": where, "resolutions": resolutions | set(data["sizes"])}


def _check_row(reader: Reader, where: str, row: Data, forms: dict[str, list[Any]], known: dict[str, set[str]]) -> None:
    """Check that every field exists in a shipped row and has the same type, and that listed names are known."""
    for name, value in row.items():
        field = f"{where}, field {name!r}"
        if name not in forms:
            raise reader.error(field, f"is unknown; allowed are {', '.join(forms)}")
        if not any(_has_form(value, form) for form in forms[name]):
            raise reader.error(field, f"must have the form {forms[name][0]!r}; got {value!r}")
        if name == "counts" and not all(is_count(count) for count in value):
            raise reader.error(field, "must contain positive numbers")
        if name in known:
            _check_items(reader, field, value, known[name])
            if not value and name != "disputed":
                raise reader.error(field, "must not be empty")


def _check_items(reader: Reader, field: str, value: list[str], known: set[str]) -> None:
    if unknown := [item for item in value if item not in known]:
        raise reader.error(field, f"{unknown[0]!r} is unknown; allowed are {', '.join(sorted(known))}")


def _has_form(value: object, form: object) -> bool:
    if isinstance(form, list):
        if not isinstance(value, list):
            return False
        return not form or all(any(_has_form(item, one) for one in form) for item in value)
    if isinstance(form, OwnTable):
        return isinstance(value, dict) and all(key in value and _has_form(value[key], one) for key, one in form.items())
    if isinstance(form, dict):
        return isinstance(value, dict) and _table_has_form(value, form)
    if isinstance(form, float):
        return isinstance(value, _NUMBERS) and not isinstance(value, bool)
    return type(value) is type(form)


def _table_has_form(value: dict[str, Any], form: dict[str, Any]) -> bool:
    """Whether the keys that the form knows have its types. Numbers in tables may be whole or not."""
    return all(
        isinstance(value[key], _NUMBERS) if type(one) in _NUMBERS else _has_form(value[key], one)
        for key, one in form.items()
        if key in value
    )


def _check_complete(reader: Reader, where: str, row: Data, tables: Data, kind: str) -> None:
    """Check that the row makes a model: tables in it may lack a key."""
    try:
        (image_model if kind == "image" else video_model)(row, tables)
    except KeyError as error:
        raise reader.error(where, f"lacks {error.args[0]!r}") from None
    except (TypeError, ValueError) as error:
        raise reader.error(where, f"is no model ({error})") from None
