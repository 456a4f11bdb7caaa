"""The OpenAPI document, and a Swagger UI page that needs no internet access.

Completes the framework's document: bodies that `parse_body` reads become components, and each response lists the
headers that every response has.
"""

import html
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool

from api.http.errors import error_responses
from api.http.responses import base_url
from worker.core.errors import DreameryError
from worker.core.settings import get_settings

router = APIRouter(include_in_schema=False)

# The package that contains the Swagger UI files; its code is not used.
_PACKAGE, _FOLDER = "fastapi_offline", "static"
_ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon.png": "image/png"}

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} API</title>
<link rel="stylesheet" href="{root}/docs/swagger-ui.css">
<link rel="icon" href="{root}/docs/favicon.png">
</head>
<body>
<div id="swagger-ui" data-document="{root}/openapi.json"></div>
<script src="{root}/docs/swagger-ui-bundle.js"></script>
<script src="{root}/docs/start.js"></script>
</body>
</html>
"""
_START = """const root = document.getElementById("swagger-ui");
SwaggerUIBundle({
  url: root.dataset.document,
  domNode: root,
  layout: "BaseLayout",
  deepLinking: true,
  tryItOutEnabled: true,
  persistAuthorization: true,
  displayRequestDuration: true,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
});
"""
# Strict, because users enter keys on this page. Swagger UI sets inline styles and uses `data:` icons.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_ABOUT = """OpenAI-compatible generation on your own upstream accounts.

**Authentication**: `Authorization: Bearer sk-dreamery-...`, or upstream session ids where they are enabled. Azure's
`api-key` header works too. **Errors** have the same form on every path: a status and
`{"error": {"message", "type", "param", "code"}}`, in Chinese if `Accept-Language` prefers it, otherwise in English.
**After a job was accepted**, each response carries `X-Job-Id`, and each error `x-should-retry: false`, because a retry
would pay again. **Creating calls** accept `Idempotency-Key`, `Prefer: respond-async` and `Prefer: wait=N`. Unknown
fields of a body are ignored.
"""
_TAGS = [
    {"name": "images", "description": "Generate images from text and images."},
    {"name": "videos", "description": "Generate videos from text, frames and references."},
    {"name": "chat", "description": "Generate images and videos, or use the agent, through chat."},
    {"name": "jobs", "description": "List, follow and cancel accepted jobs."},
    {"name": "files", "description": "Stored results. The link grants access to the file."},
    {"name": "models", "description": "Available models."},
    {"name": "webhooks", "description": "Notifications when a job ends."},
    {"name": "ark", "description": "The official API's own format, for the vendor's libraries."},
    {"name": "session ids", "description": "Check whether upstream session ids are valid and what credit they have."},
    {"name": "accounts", "description": "Your own upstream accounts, used only for your jobs."},
    {"name": "keys", "description": "Your own API keys."},
    {"name": "usage", "description": "Your usage and your limits."},
    {"name": "admin", "description": "Users, API keys, limits, jobs and the audit log."},
    {"name": "console", "description": "Sign in to the web console."},
    {"name": "operations", "description": "Health, readiness and metrics."},
]
_HEADERS = {
    "X-Request-Id": "quote it when you report a problem",
    "openai-processing-ms": "milliseconds until the response began",
}
_CREATING_HEADERS = {
    "X-Job-Id": "the first job of the request, after it was accepted",
    "x-ratelimit-limit-requests": "creating requests that the caller may send per minute",
    "x-ratelimit-remaining-requests": "remaining creating requests",
    "x-ratelimit-reset-requests": "time until the limit resets, as `12ms`, `1s` or `6m0s`",
    "x-budget-warning": "limits that are almost reached: `user.jobs_per_day; used=81; soft=80; hard=100; reset=...`",
}


def install_openapi(app: FastAPI) -> None:
    """Serve the completed OpenAPI document and the Swagger UI page."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build_document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the framework's own way to replace it
    app.include_router(router)


def _build_document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=_ABOUT, routes=app.routes, webhooks=app.webhooks.routes
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    _move_definitions(document["paths"], schemas)
    used: set[str] = set()
    for item in document["paths"].values():
        for method, operation in item.items():
            _add_examples(operation, schemas)
            _add_response_headers(operation, creating=method == "post")
            used.update(operation.get("tags", []))
    if root := urlsplit(get_settings().public_url).path.rstrip("/"):
        document["servers"] = [{"url": root}]
    document["tags"] = [tag for tag in _TAGS if tag["name"] in used]
    return document


def _move_definitions(node: Any, schemas: dict[str, Any]) -> None:
    """Move every `$defs` of the tree to the components, where the references made by `ref_template` point."""
    if isinstance(node, dict):
        for name, schema in node.pop("$defs", {}).items():
            _move_definitions(schema, schemas)
            schemas.setdefault(name, schema)
        for value in node.values():
            _move_definitions(value, schemas)
    elif isinstance(node, list):
        for value in node:
            _move_definitions(value, schemas)


def _add_examples(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Copy the examples of a schema to the request body and the responses, where tools show them."""
    for body in (operation.get("requestBody", {}), *operation["responses"].values()):
        content = body.get("content", {}).get("application/json", {})
        schema = schemas.get(content.get("schema", {}).get("$ref", "").rpartition("/")[2], {})
        if "examples" not in content and schema.get("examples"):
            content["examples"] = {str(n): {"value": example} for n, example in enumerate(schema["examples"], start=1)}


def _add_response_headers(operation: dict[str, Any], *, creating: bool) -> None:
    descriptions = {**_HEADERS, **(_CREATING_HEADERS if creating else {})}
    for response in operation["responses"].values():
        headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in descriptions.items()}
        response["headers"] = {**headers, **response.get("headers", {})}


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Swagger UI over /openapi.json."""
    root = urlsplit(base_url(request)).path.rstrip("/")
    # Not the framework's page: it has an inline script, which the policy forbids.
    page = _PAGE.format(root=html.escape(root), title=html.escape(request.app.title))
    return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})


@router.get("/docs/{name}", responses=error_responses(404))
async def asset(name: str) -> Response:
    """A script, style sheet or icon of the page."""
    headers = {"Cache-Control": "public, max-age=86400"}
    if name == "start.js":
        return Response(_START, media_type="text/javascript", headers=headers)
    if name not in _ASSETS:
        raise DreameryError("unknown_url")
    content = await run_in_threadpool(_read_asset, name)
    return Response(content, media_type=_ASSETS[name], headers=headers)


def _read_asset(name: str) -> bytes:
    return (files(_PACKAGE) / _FOLDER / name).read_bytes()
