"""Reads the lines of a batch: JSONL in OpenAI's format, or CSV with one column per field. It plans nothing."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import orjson

from api.batches.schemas import ENDPOINTS, MIXED
from api.generation.variants.request_matrix import ExpandedRequest
from api.http.bodies.json_shape import parse_json
from api.images.schemas import ImageGenerationRequest
from api.videos.schemas import VideoGenerationRequest
from worker.core.catalog.models import get_catalog
from worker.core.errors import DreameryError

# Lines may contain pictures as base64.
MOST_LINE_BYTES = 30_000_000
MOST_ID_CHARS = 256
_FIELDS = {"custom_id", "method", "url", "body"}
# Columns of a CSV file that are no fields of its requests.
_CSV_ID, _CSV_URL = "custom_id", "url"
_CSV_FIELDS = {
    info.alias or name
    for schema in (ImageGenerationRequest, VideoGenerationRequest)
    for name, info in schema.model_fields.items()
} | {"image", "images", "input_reference"}


@dataclass(frozen=True, slots=True)
class Line:
    """One request of a batch, with the number of its line. `error`: it cannot be read."""

    n: int
    custom_id: str | None = None
    url: str = ""
    body: dict[str, Any] = field(default_factory=dict, repr=False)
    error: DreameryError | None = None


def read_lines(file: IO[bytes], *, is_csv: bool, endpoint: str) -> Iterator[Line]:
    """Yield the lines of a file in order, without empty ones. Raises the error of a CSV file without a header."""
    return _read_csv(file, endpoint) if is_csv else _read_jsonl(file, endpoint)


def _read_jsonl(file: IO[bytes], endpoint: str) -> Iterator[Line]:
    n = 0
    while text := file.readline(MOST_LINE_BYTES + 1):
        n += 1
        if len(text) > MOST_LINE_BYTES:
            message = f"The line is longer than {MOST_LINE_BYTES} bytes. Send links instead of files within it."
            yield Line(n, error=DreameryError("invalid_value", message))
            # The rest of the line.
            while text and not text.endswith(b"\n"):
                text = file.readline(MOST_LINE_BYTES)
        elif text.strip():
            yield _parse_line(n, text.removeprefix(b"\xef\xbb\xbf") if n == 1 else text, endpoint)


def _parse_line(n: int, text: bytes, endpoint: str) -> Line:
    try:
        value = parse_json(text.decode())
    except UnicodeDecodeError:
        return Line(n, error=DreameryError("invalid_json", "The line is not UTF-8."))
    except DreameryError as error:
        return Line(n, error=error)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "cannot parse")
        return Line(n, error=DreameryError("invalid_json", f"The line is not valid JSON: {reason}."))
    if not isinstance(value, dict):
        return Line(n, error=DreameryError("invalid_json", "The line must be an object with `custom_id` and `body`."))
    custom_id = value.get("custom_id")
    known_id = custom_id if isinstance(custom_id, str) else None
    try:
        return Line(n, _checked_id(custom_id), _checked_url(value, endpoint), _checked_body(value))
    except DreameryError as error:
        return Line(n, known_id[:MOST_ID_CHARS] if known_id else None, error=error)


def _checked_id(custom_id: Any) -> str:
    if not isinstance(custom_id, str) or not custom_id.strip():
        message = "Each line needs a `custom_id`: a text that names its result."
        raise DreameryError("missing_required_parameter", message, param="custom_id")
    if len(custom_id) > MOST_ID_CHARS or not custom_id.isprintable():
        message = f"`custom_id` has at most {MOST_ID_CHARS} printable characters."
        raise DreameryError("invalid_value", message, param="custom_id")
    return custom_id


def _checked_url(value: dict[str, Any], endpoint: str) -> str:
    if unknown := next((name for name in value if name not in _FIELDS), None):
        names = ", ".join(sorted(_FIELDS))
        message = f"A line has {names}; got {unknown[:60]!r}. Fields of the request belong in `body`."
        raise DreameryError("invalid_value", message, param=unknown[:60])
    method = value.get("method", "POST")
    if method != "POST":
        raise DreameryError("invalid_value", f"`method` must be POST; got {str(method)[:20]!r}.", param="method")
    url = value.get("url") or (endpoint if endpoint != MIXED else None)
    if url not in ENDPOINTS:
        message = f"`url` must be one of {', '.join(ENDPOINTS)}; got {str(url)[:60]!r}."
        raise DreameryError("invalid_value", message, param="url")
    if endpoint not in {MIXED, url}:
        message = f'The batch is for {endpoint}, but the line is for {url}. Use `"endpoint": "*"` to mix them.'
        raise DreameryError("invalid_value", message, param="url")
    return str(url)


def _checked_body(value: dict[str, Any]) -> dict[str, Any]:
    body = value.get("body")
    if not isinstance(body, dict):
        message = "Each line needs a `body`: the JSON object that its endpoint gets."
        raise DreameryError("missing_required_parameter", message, param="body")
    return body


def _read_csv(file: IO[bytes], endpoint: str) -> Iterator[Line]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    csv.field_size_limit(MOST_LINE_BYTES)
    rows = csv.reader(text, strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        _check_header(header)
        for row in rows:
            if any(cell.strip() for cell in row):
                yield _csv_line(rows.line_num, header, row, endpoint)
    except UnicodeDecodeError:
        raise DreameryError("invalid_value", "The CSV file is not UTF-8.", param="input_file_id") from None
    except csv.Error as error:
        message = f"Line {rows.line_num} of the CSV file cannot be read: {error}."
        raise DreameryError("invalid_value", message, param="input_file_id") from None
    finally:
        text.detach()


def _check_header(header: list[str]) -> None:
    if "prompt" not in header:
        message = "The first line of a CSV file names its columns, and one of them must be `prompt`."
        raise DreameryError("missing_required_parameter", message, param="prompt")
    known = {_CSV_ID, _CSV_URL, *_CSV_FIELDS}
    for n, name in enumerate(header):
        if name not in known:
            message = f"The CSV file has the column {name[:60]!r}, which is no field of a request."
            raise DreameryError("unsupported_parameter", message, param=name[:60] or None)
        if name in header[:n]:
            raise DreameryError("invalid_value", f"The CSV file has two columns {name!r}.", param=name)


def _csv_line(n: int, header: list[str], row: list[str], endpoint: str) -> Line:
    if len(row) > len(header):
        message = f"The line has {len(row)} cells, and the header {len(header)}. Quote cells with commas."
        return Line(n, error=DreameryError("invalid_value", message))
    # An empty cell counts as absent, as in a form.
    cells = {name: cell.strip() for name, cell in zip(header, row, strict=False) if cell.strip()}
    value: dict[str, Any] = {"custom_id": cells.pop(_CSV_ID, f"line-{n}"), "body": cells}
    url = cells.pop(_CSV_URL, "")
    if not url and endpoint == MIXED:
        model = cells.get("model")
        url = "/v1/videos/generations" if model and get_catalog().knows_video(model) else "/v1/images/generations"
    custom_id = value["custom_id"]
    try:
        return Line(n, _checked_id(custom_id), _checked_url({**value, "url": url}, endpoint), cells)
    except DreameryError as error:
        return Line(n, custom_id[:MOST_ID_CHARS], error=error)


def jsonl_of(requests: list[ExpandedRequest]) -> bytes:
    """Return expanded requests as the file of a batch. Their ids are `request-1` and so on."""
    lines = [
        orjson.dumps({"custom_id": f"request-{n}", "method": "POST", "url": one.endpoint, "body": one.body})
        for n, one in enumerate(requests, 1)
    ]
    return b"\n".join([*lines, b""])
