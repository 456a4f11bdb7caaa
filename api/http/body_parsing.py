"""Parse request bodies sent as JSON or as forms into one shape, and validate both with the same schema.

Clients write lists as `image[]` or by repeating a name, and objects as `input_reference[image_url]` (openai-compat
rules 14 to 16). All form values are text; the schema converts them. Uploaded files stay on disk until they are read.
Field names are unified before the validation: `api/http/bodies/field_names.py`.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header

from api.http.bodies.charsets import CharsetError, decode_json
from api.http.bodies.embedded_files import MAX_TEXT_BYTES, MIN_CHARS, use_embedded_files
from api.http.bodies.field_values import UnifiedFields, unify_fields
from api.http.bodies.forms import MULTIPART, URLENCODED, FilePart, FormError, FormLimits, read_form
from api.http.bodies.json_shape import parse_json, parsed_size
from api.http.bodies.received import ReceivedBody, received_body
from api.http.bodies.shares import UNCOUNTED_BYTES
from worker.core.errors import DreameryError
from worker.db.jobs.inputs import SENT, InputOrigin

# Paths whose bodies may contain images or videos, so the larger size limit applies.
PATHS_WITH_UPLOADS = frozenset(
    {
        "/api/v3/contents/generations/tasks",
        "/api/v3/images/generations",
        "/v1/batches",
        "/v1/chat/completions",
        "/v1/estimate",
        "/v1/files",
        "/v1/images/compositions",
        "/v1/images/edits",
        "/v1/images/generations",
        "/v1/video/generations",
        "/v1/videos",
        "/v1/videos/generations",
    }
)
_MAX_FILES = 64
_LIMITS = FormLimits(files=_MAX_FILES, fields=500, text_bytes=MAX_TEXT_BYTES)
# Memory that parsing takes per byte of text: the bytes, their text, and the strings in it.
_PARSE_FACTOR = 4
# `a[b][c]`; deeper names stay as they are.
_NESTED = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\]){1,4})")
_LIST_NUMBER = re.compile(r"\[([0-9]{1,2})\]")
_KEY = re.compile(r"\[([^\[\]]*)\]")
_LIST_KEYS = frozenset({"", *map(str, range(_MAX_FILES))})

_COMPONENT = "#/components/schemas/{model}"

Schema = TypeVar("Schema", bound=BaseModel)

# A schema with one of these fields describes what to generate.
_CREATING_FIELDS = {"prompt", "messages"}


@dataclass(frozen=True, slots=True)
class Upload:
    """A file part of a form. Its name is only a hint; its type is detected from the content.

    `origin` is set for a copy of a stored file, which stands for the upload.
    """

    name: str
    size: int
    file: IO[bytes] = field(repr=False)
    origin: InputOrigin = SENT

    def read(self) -> bytes:
        """Return all bytes, from the start."""
        self.file.seek(0)
        return self.file.read()


@dataclass(frozen=True, slots=True)
class _ParsedBody:
    """The fields of a body as its form and its schema give them, and the memory in bytes that they take."""

    value: Any
    sent_names: dict[str, str]
    memory: int
    digest: str


async def parse_body(request: Request, schema: type[Schema]) -> Schema:
    """Parse the JSON or form body of a request into `schema`. Raises DreameryError or RequestValidationError.

    The body arrives on disk. Long ones are parsed in a thread, within the caller's share of threads and memory.
    """
    body = received_body(request)
    # Not with `request.body()`, which keeps it in memory while the caller waits.
    async for chunk in request.stream():
        if not body.is_collected:
            await body.write(chunk)
    parse = _parser(request, body, schema)
    # A short body may become a large one: `[[],[],[], ...]`.
    needed = _PARSE_FACTOR * min(body.spool.size, MAX_TEXT_BYTES)
    if body.spool.size < MIN_CHARS:
        needed += parsed_size(body.spool.read_at(0, MIN_CHARS).decode("latin-1"))
    if needed <= UNCOUNTED_BYTES:
        parsed = parse()
    else:
        parsed = await body.parse(parse, needed)
        body.keep_memory(parsed.memory)
    use_embedded_files(body.extractor.files)
    request.state.body_digest = parsed.digest
    # Error responses name a field as the client spelled it.
    request.state.sent_names = parsed.sent_names
    if isinstance(parsed.value, Exception):
        raise parsed.value
    found: Schema = parsed.value
    return found


def _parser(request: Request, body: ReceivedBody, schema: type[BaseModel]) -> Callable[[], _ParsedBody]:
    """Return the function that parses a received body. Azure names the model in the path: that one counts."""
    raw_type, options = parse_options_header(request.headers.get("content-type"))
    content_type, charset = raw_type.decode("latin-1"), options.get(b"charset", b"").decode("latin-1") or None
    deployment = getattr(request.state, "deployment", None)
    model = {} if deployment is None else {"model": deployment}

    def parse() -> _ParsedBody:
        if content_type in {MULTIPART, URLENCODED}:
            fields, memory, digest = _parse_form(request, body, schema)
        else:
            fields, memory = _parse_json(body, content_type, charset)
            digest = body.digest.hexdigest()
        unified = _unify({**fields, **model}, schema)
        try:
            value: Any = _validate(unified.fields, schema)
        except (DreameryError, RequestValidationError) as error:
            value = error
        return _ParsedBody(value, unified.sent_names, memory, digest)

    return parse


def validate_body(fields: dict[str, Any], schema: type[Schema]) -> Schema:
    """Validate the fields of a body as `schema`, in any spelling. Raises DreameryError or RequestValidationError."""
    return _validate(_unify(fields, schema).fields, schema)


def _unify(fields: dict[str, Any], schema: type[BaseModel]) -> UnifiedFields:
    """Bring the fields of a creating call into one form. Other bodies have one spelling, and `seed: -1` is invalid."""
    if not _CREATING_FIELDS & schema.model_fields.keys():
        return UnifiedFields(fields, {})
    return unify_fields(fields, {info.alias or name for name, info in schema.model_fields.items()})


def _validate(fields: dict[str, Any], schema: type[Schema]) -> Schema:
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        # The framework's own class, so that one handler formats every validation error.
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in error.errors()]) from None


def _json_as_form(schema: type[BaseModel]) -> DreameryError:
    """Return the error of JSON with a form's content type, which `curl -d` sends by default."""
    needed = next((name for name, info in schema.model_fields.items() if info.is_required()), None)
    message = "The body is JSON, but its Content-Type is that of a form. Send `Content-Type: application/json`."
    return DreameryError("missing_required_parameter", message, param=needed)


def _parse_json(received: ReceivedBody, content_type: str, charset: str | None) -> tuple[dict[str, Any], int]:
    """Return the fields of a JSON body, and the memory that they take."""
    if content_type and content_type != "application/json" and not content_type.endswith("+json"):
        message = f"The body must be application/json or multipart/form-data, not {content_type[:80]!r}."
        raise DreameryError("unsupported_media_type", message)
    body = received.extractor.extract(received.spool, 0, received.spool.size)
    if not body:
        raise DreameryError("invalid_json", "A body is required (Content-Type: application/json or a form).")
    try:
        text = decode_json(body, charset)
        memory = parsed_size(text)
        fields = parse_json(text)
    except CharsetError as error:
        raise DreameryError("invalid_json", f"The body cannot be parsed: {error}.") from None
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "cannot parse")
        raise DreameryError("invalid_json", f"The body is not valid JSON: {reason}.") from None
    if not isinstance(fields, dict):
        raise DreameryError("invalid_json", 'The body must be a JSON object, such as {"prompt": "a boat"}.')
    return fields, memory


def _parse_form(request: Request, received: ReceivedBody, schema: type[BaseModel]) -> tuple[dict[str, Any], int, str]:
    """Return the fields of a form, the memory that they take, and a digest of them."""
    try:
        form = read_form(request.headers, received.spool, _LIMITS, received.extractor)
    except (CharsetError, FormError) as error:
        raise DreameryError("invalid_form", f"The form cannot be parsed: {error}.") from None
    if any(name.lstrip().startswith("{") for name, _ in form):
        raise _json_as_form(schema)
    fields: dict[str, Any] = {}
    memory = 0
    for name, value in sorted(form, key=_list_number):
        # An empty form field counts as absent.
        if value != "":
            _set_field(fields, name, _form_value(value))
            memory += parsed_size(value) if isinstance(value, str) else 0
    # Without the files, and not of the bytes: each attempt of a client has other boundaries.
    texts = json.dumps(fields, sort_keys=True, default=lambda _: "")
    return fields, memory, hashlib.sha256(texts.encode(errors="surrogatepass")).hexdigest()


def _list_number(item: tuple[str, Any]) -> int:
    """Return the number in `image[1]`, so that numbered parts are read in the order of their numbers; else 0."""
    match = _LIST_NUMBER.search(item[0])
    return int(match[1]) if match else 0


def _form_value(value: str | FilePart) -> str | Upload:
    return Upload(name=value.name, size=value.size, file=value.file) if isinstance(value, FilePart) else value


def _set_field(fields: dict[str, Any], name: str, value: Any) -> None:
    """Add a form field: `a` sets a value, a second `a` or `a[]` makes a list, `a[b]` an object, `a[b][c]` one in it."""
    nested = _NESTED.fullmatch(name)
    path = [nested[1], *_KEY.findall(nested[2])] if nested else [name]
    is_list = path[-1] in _LIST_KEYS and len(path) > 1
    if is_list:
        path.pop()
    for key in path[:-1]:
        inner = fields.get(key)
        if not isinstance(inner, dict):
            fields[key] = inner = {}
        fields = inner
    known = fields.get(path[-1])
    if known is None and not is_list:
        fields[path[-1]] = value
    else:
        fields[path[-1]] = [*(known if isinstance(known, list) else [] if known is None else [known]), value]


def body_openapi(
    schema: type[BaseModel], *, form: bool = True, as_json: bool = True, example: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that uses `parse_body`; `example` replaces the examples of the schema.

    `as_json` is false for a body that needs a file part. Its schema has no `$defs` of its own.
    `api.http.docs.openapi` moves its `$defs` to the components of the document, where the references point.
    """
    full = schema.model_json_schema(ref_template=_COMPONENT)
    nested, examples = full.pop("$defs", {}), full.pop("examples", [])
    examples = [example] if example else examples
    named = {example.get("prompt", str(n))[:40]: {"value": example} for n, example in enumerate(examples)}
    reference = {"$ref": _COMPONENT.format(model=schema.__name__), "$defs": {**nested, schema.__name__: full}}
    content: dict[str, Any] = {}
    if as_json:
        content["application/json"] = {"schema": reference, **({"examples": named} if named else {})}
    if form:
        form_reference = {"$ref": _COMPONENT.format(model=f"{schema.__name__}Form")}
        content["multipart/form-data"] = {
            "schema": {**form_reference, "$defs": {f"{schema.__name__}Form": _form_schema(full)}}
        }
    return {"requestBody": {"required": True, "content": content}}


def _form_schema(full: dict[str, Any]) -> dict[str, Any]:
    """The same schema as form fields; a field without a type accepts files."""
    fields = {
        name: field if _has_type(field) else {**field, "type": "array", "items": {"type": "string", "format": "binary"}}
        for name, field in full["properties"].items()
    }
    description = "In a form, a file field may appear once, repeatedly, or as `name[]`; an object as `name[key]`."
    return {**full, "title": f"{full['title']}Form", "description": description, "properties": fields}


def _has_type(field: dict[str, Any]) -> bool:
    return bool({"type", "anyOf", "oneOf", "allOf", "$ref", "enum"} & set(field))
