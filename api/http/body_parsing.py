"""Bodies that may come as JSON or as multipart forms: read into one shape, then checked by the same schema.

Clients write lists as `image[]` or by repeating a name, and objects as `input_reference[image_url]` (openai-compat
rules 14 to 16). All form values are text; the schema turns them into numbers. Files stay on disk until they are read.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from worker.core.errors import DreameryError

# Whose bodies may hold pictures or videos, so that a larger limit holds for them.
PATHS_WITH_FILES = frozenset(
    {
        "/v1/chat/completions",
        "/v1/estimate",
        "/v1/images/compositions",
        "/v1/images/edits",
        "/v1/images/generations",
        "/v1/video/generations",
        "/v1/videos",
        "/v1/videos/generations",
    }
)
_MOST_FILES = 64
_MOST_FIELDS = 500
_LONGEST_FIELD = 4_000_000
_QUICK = 1_000_000
_FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")
_NESTED = re.compile(r"([^\[\]]+)\[([^\[\]]*)\]")

_COMPONENT = "#/components/schemas/{model}"

Schema = TypeVar("Schema", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Upload:
    """A file part. Its name and declared type are hints only: what it is says its content."""

    name: str
    size: int
    file: IO[bytes] = field(repr=False)

    def read(self) -> bytes:
        """All bytes, from the start."""
        self.file.seek(0)
        return self.file.read()


async def read_body(request: Request, schema: type[Schema]) -> Schema:
    """The body of a request as `schema`, whether it came as JSON or as a form. Raises what is wrong with it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _FORM_TYPES:
        fields = await _form_fields(request)
    else:
        body = await _all_bytes(request)
        # Reading 100 MB takes half a second, in which nobody else would be served.
        fields = await run_in_threadpool(_json_fields, body, kind) if len(body) > _QUICK else _json_fields(body, kind)
    return checked(fields, schema)


def checked(fields: dict[str, Any], schema: type[Schema]) -> Schema:
    """The fields of a body as `schema`. Raises what is wrong with them."""
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        # The framework's own class, so that one handler words every complaint.
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in error.errors()]) from None


async def _all_bytes(request: Request) -> bytearray:
    """The body. Not `request.body()`: that keeps 100 MB of pictures alive for as long as their caller waits."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
    return body


def _json_fields(body: bytearray, kind: str) -> dict[str, Any]:
    if kind and kind != "application/json" and not kind.endswith("+json"):
        message = f"The body must be application/json or multipart/form-data, not {kind[:80]!r}."
        raise DreameryError("unsupported_media_type", message)
    if not body:
        raise DreameryError("invalid_json", "A body is required (Content-Type: application/json or a form).")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "cannot parse")
        raise DreameryError("invalid_json", f"The body is not valid JSON: {reason}.") from None
    if not isinstance(fields, dict):
        raise DreameryError("invalid_json", 'The body must be a JSON object, such as {"prompt": "a boat"}.')
    return fields


async def _form_fields(request: Request) -> dict[str, Any]:
    try:
        form = await request.form(max_files=_MOST_FILES, max_fields=_MOST_FIELDS, max_part_size=_LONGEST_FIELD)
    except HTTPException as error:
        if error.status_code == 413:
            raise
        raise DreameryError("invalid_form", f"The form cannot be read: {error.detail}") from None
    # Its files are read later; whoever frames the request closes them with it.
    request.state.form = form
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        # A field that was left empty was left out.
        if value != "":
            _put(fields, name, _plain(value))
    return fields


async def close_form(state: Mapping[str, Any]) -> None:
    """Close the files of a form that `read_body` read in the request with this state."""
    form = state.get("form")
    if isinstance(form, FormData):
        await form.close()


def _plain(value: Any) -> Any:
    if isinstance(value, UploadFile):
        return Upload(name=value.filename or "", size=value.size or 0, file=value.file)
    return value


def _put(fields: dict[str, Any], name: str, value: Any) -> None:
    """`a` sets, a second `a` or `a[]` makes a list, `a[b]` an object."""
    nested = _NESTED.fullmatch(name)
    if nested is None:
        known = fields.get(name)
        fields[name] = value if known is None else [*(known if isinstance(known, list) else [known]), value]
    elif nested[2] in {"", *map(str, range(_MOST_FILES))}:
        known = fields.get(nested[1], [])
        fields[nested[1]] = [*(known if isinstance(known, list) else [known]), value]
    else:
        known = fields.get(nested[1])
        fields[nested[1]] = {**(known if isinstance(known, dict) else {}), nested[2]: value}


def body_docs(schema: type[BaseModel], *, form: bool = True, example: dict[str, Any] | None = None) -> dict[str, Any]:
    """`openapi_extra` of a route whose body `read_body` reads; `example` in place of those of the schema.

    The `$defs` in it are moved to the document's components by `api.http.openapi`, where the references point.
    """
    whole = schema.model_json_schema(ref_template=_COMPONENT)
    nested, examples = whole.pop("$defs", {}), whole.pop("examples", [])
    examples = [example] if example else examples
    named = {example.get("prompt", str(n))[:40]: {"value": example} for n, example in enumerate(examples)}
    reference = {"$ref": _COMPONENT.format(model=schema.__name__), "$defs": {**nested, schema.__name__: whole}}
    content = {"application/json": {"schema": reference, **({"examples": named} if named else {})}}
    if form:
        as_form = {"$ref": _COMPONENT.format(model=f"{schema.__name__}Form")}
        content["multipart/form-data"] = {"schema": {**as_form, "$defs": {f"{schema.__name__}Form": _as_form(whole)}}}
    return {"requestBody": {"required": True, "content": content}}


def _as_form(whole: dict[str, Any]) -> dict[str, Any]:
    """The same body as form fields: where anything may stand, files may."""
    fields = {
        name: field if _has_type(field) else {**field, "type": "array", "items": {"type": "string", "format": "binary"}}
        for name, field in whole["properties"].items()
    }
    said = "As a form: a file field may come once, several times, or as `name[]`; an object as `name[key]`."
    return {**whole, "title": f"{whole['title']}Form", "description": said, "properties": fields}


def _has_type(field: dict[str, Any]) -> bool:
    return bool({"type", "anyOf", "oneOf", "allOf", "$ref", "enum"} & set(field))
