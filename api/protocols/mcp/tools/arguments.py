"""Check the arguments of a tool call, with the same codes as the REST API."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from worker.core.errors import DreameryError

Schema = TypeVar("Schema", bound=BaseModel)


def read_arguments(schema: type[Schema], arguments: Mapping[str, Any], *, prefix: str = "") -> Schema:
    """Return the arguments as `schema`. Raises DreameryError with the name of the first wrong one in `param`."""
    try:
        return schema.model_validate(dict(arguments))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        param = prefix + ".".join(str(part)[:60] for part in first["loc"])
        if first["type"] == "missing":
            message = f"Missing required parameter: {param!r}."
            raise DreameryError("missing_required_parameter", message, param=param) from None
        if first["type"] == "extra_forbidden":
            names = ", ".join(schema.model_fields)
            message = f"Unknown argument {param!r}. Known are: {names or 'none'}."
            raise DreameryError("unsupported_parameter", message, param=param) from None
        raise DreameryError("invalid_value", f"Invalid value for {param!r}: {first['msg']}.", param=param) from None
