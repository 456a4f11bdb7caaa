"""JSON schemas of arguments in the form that all clients and models understand: no `$ref`, no `anyOf` with null."""

from typing import Any

from pydantic import BaseModel


def input_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a model without nested models. An argument that may be left out has no null in its type."""
    full = model.model_json_schema()
    fields, required = full.get("properties", {}), full.get("required", [])
    ordered = [*required, *(name for name in fields if name not in required)]
    return {
        "type": "object",
        "properties": {name: _plain(fields[name]) for name in ordered},
        "required": required,
        "additionalProperties": False,
    }


def _plain(field: dict[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in field.items() if name != "title" and not _is_null_default(name, value)}
    options = [one for one in plain.pop("anyOf", []) if one.get("type") != "null"]
    return {**(options[0] if options else {}), **plain}


def _is_null_default(name: str, value: Any) -> bool:
    return name == "default" and value is None
