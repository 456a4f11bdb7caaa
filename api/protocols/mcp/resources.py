"""Resources: the models, finished jobs, and their files up to a size; larger files are read through their links."""

import base64
import json
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp.types import (
    INVALID_PARAMS,
    BlobResourceContents,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)

from api.protocols.mcp.gateways.protocol import Gateway, RefusedError, call, call_json
from api.protocols.mcp.tools.results import job_files, job_resource, own_path
from api.protocols.mcp.tools.uris import MODELS, FileName, JobName, parse_uri

PAGE = 50
MOST_FILE_BYTES = 8_000_000
_JSON = "application/json"
_TEMPLATES = [
    ResourceTemplate(
        uri_template="dreamery://jobs/{job_id}",
        name="job",
        title="Job",
        description="everything that is known about a job",
        mime_type=_JSON,
    ),
    ResourceTemplate(
        uri_template="dreamery://jobs/{job_id}/files/{number}",
        name="file",
        title="Picture or video of a job",
        description=f"the bytes of a result of up to {MOST_FILE_BYTES // 1_000_000} MB; 1 = the first",
    ),
]


def list_templates() -> ListResourceTemplatesResult:
    """Return the forms of names."""
    return ListResourceTemplatesResult(resource_templates=_TEMPLATES)


async def list_resources(gateway: Gateway, cursor: str | None) -> ListResourcesResult:
    """Return a page of the caller's finished jobs, newest first; the first page begins with the models."""
    after = f"&after={_checked(cursor)}" if cursor else ""
    page = await _ask(gateway, f"/v1/jobs?status=completed&limit={PAGE}{after}")
    first = [] if cursor else [Resource(uri=MODELS, name="models", title="Models", mime_type=_JSON)]
    return ListResourcesResult(
        resources=[*first, *(Resource(**job_resource(job)) for job in page["data"])],
        next_cursor=page["last_id"] if page["has_more"] else None,
    )


async def read_resource(gateway: Gateway, uri: str) -> ReadResourceResult:
    """Return the content of a resource. Raises MCPError for one that does not exist or is too large."""
    if uri.rstrip("/") == MODELS:
        return _as_json(uri, await _ask(gateway, "/v1/models"))
    name = parse_uri(uri)
    if isinstance(name, JobName):
        return _as_json(uri, await _ask(gateway, f"/v1/jobs/{name.job_id}"))
    if isinstance(name, FileName):
        return await _read_file(gateway, uri, name)
    raise MCPError(INVALID_PARAMS, f"There is no resource {uri[:100]!r}.", {"uri": uri[:1000]})


def _as_json(uri: str, value: Any) -> ReadResourceResult:
    text = json.dumps(value, ensure_ascii=False)
    return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type=_JSON, text=text)])


async def _read_file(gateway: Gateway, uri: str, name: FileName) -> ReadResourceResult:
    # The job says whether the caller may see the file, and gives the link that is valid now.
    files = job_files(await _ask(gateway, f"/v1/jobs/{name.job_id}"))
    if not 1 <= name.number <= len(files):
        raise MCPError(INVALID_PARAMS, f"{name.job_id} has {len(files)} files.", {"uri": uri})
    item = files[name.number - 1]
    if item["bytes"] > MOST_FILE_BYTES:
        message = f"The file has {item['bytes']} bytes, more than {MOST_FILE_BYTES}. Download it from {item['url']}"
        raise MCPError(INVALID_PARAMS, message, {"uri": uri, "url": item["url"], "bytes": item["bytes"]})
    try:
        answer = await call(gateway, "GET", own_path(item["url"]), most_bytes=MOST_FILE_BYTES)
    except RefusedError as refused:
        raise _as_mcp_error(refused) from None
    blob = base64.b64encode(answer.body).decode()
    return ReadResourceResult(contents=[BlobResourceContents(uri=uri, mime_type=item["mime"], blob=blob)])


async def _ask(gateway: Gateway, path: str) -> Any:
    try:
        return await call_json(gateway, "GET", path)
    except RefusedError as refused:
        raise _as_mcp_error(refused) from None


def _as_mcp_error(refused: RefusedError) -> MCPError:
    return MCPError(INVALID_PARAMS, str(refused), {"status": refused.status, "error": dict(refused.error)})


def _checked(cursor: str) -> str:
    if not cursor.replace("_", "").isalnum() or not cursor.isascii():
        raise MCPError(INVALID_PARAMS, "This cursor is not of this server.")
    return cursor
