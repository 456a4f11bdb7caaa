"""The OpenAPI document as it is served, and the pages that show it without reaching for the internet.

The framework's document is completed here: bodies that `read_body` reads become components, each answer names the
headers that every answer has.
"""

import html
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool

from api.http.errors import error_responses
from worker.core.errors import DreameryError

router = APIRouter(include_in_schema=False)

# The package that brings Swagger UI along; its files are read, its code is not used.
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
_START = """const place = document.getElementById("swagger-ui");
SwaggerUIBundle({
  url: place.dataset.document,
  domNode: place,
  layout: "BaseLayout",
  deepLinking: true,
  tryItOutEnabled: true,
  persistAuthorization: true,
  displayRequestDuration: true,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
});
"""
# A key may be typed in here. Swagger UI sets styles by itself and draws its icons from `data:`.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_ABOUT = """OpenAI-compatible generation on your own Dreamina and Jimeng accounts.

**Who calls**: `Authorization: Bearer sk-dreamery-...`, or upstream session ids where they are switched on. Azure's
`api-key` header works too. **Errors**, on every path: a status and `{"error": {"message", "type", "param", "code"}}`,
in English, or in Chinese where `Accept-Language` likes it better. **After a job was accepted** each answer carries
`X-Job-Id`, and each error `x-should-retry: false`: repeating would pay again. **Creating calls** take
`Idempotency-Key`, `Prefer: respond-async` and `Prefer: wait=N`. Unknown fields of a body are ignored.
"""
_TAGS = [
    {"name": "images", "description": "Pictures from text and pictures."},
    {"name": "videos", "description": "Videos from text, frames and references."},
    {"name": "chat", "description": "Pictures, videos and the agent as a chat."},
    {"name": "jobs", "description": "What was accepted: list, follow, cancel."},
    {"name": "files", "description": "Stored results. The link is the right to read them."},
    {"name": "models", "description": "What can be asked for."},
    {"name": "webhooks", "description": "Being told when a job has ended."},
    {"name": "session ids", "description": "Upstream session ids: do they live, what is left on them."},
    {"name": "accounts", "description": "Your own upstream accounts: only your jobs run on them."},
    {"name": "keys", "description": "Your own API keys."},
    {"name": "usage", "description": "What you used, and where your limits stand."},
    {"name": "admin", "description": "Users, their keys, limits and jobs, and the log of what administrators did."},
    {"name": "console", "description": "Signing in to the web console."},
    {"name": "operations", "description": "For whoever runs this."},
]
_HEADERS = {
    "X-Request-Id": "name it when you report a problem",
    "openai-processing-ms": "milliseconds until the answer began",
}
_CREATING_HEADERS = {
    "X-Job-Id": "the first job of the request, once one was accepted",
    "x-ratelimit-limit-requests": "creating requests a caller may send in a minute",
    "x-ratelimit-remaining-requests": "how many are left",
    "x-ratelimit-reset-requests": "until more are free, as `12ms`, `1s` or `6m0s`",
    "x-budget-warning": "limits that are nearly used: `user.jobs_per_day; used=81; soft=80; hard=100; reset=...`",
}


def describe(app: FastAPI) -> None:
    """Have the app serve the completed document, and its pages."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # the framework's own way to replace it
    app.include_router(router)


def _document(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(
        title=app.title, version=app.version, description=_ABOUT, routes=app.routes, webhooks=app.webhooks.routes
    )
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    _hoist(made["paths"], schemas)
    used: set[str] = set()
    for item in made["paths"].values():
        for method, operation in item.items():
            _show_example(operation, schemas)
            _name_headers(operation, creating=method == "post")
            used.update(operation.get("tags", []))
    made["tags"] = [tag for tag in _TAGS if tag["name"] in used]
    return made


def _hoist(node: Any, schemas: dict[str, Any]) -> None:
    """Move every `$defs` in the tree to the components, which is where `ref_template` made its references point."""
    if isinstance(node, dict):
        for name, schema in node.pop("$defs", {}).items():
            _hoist(schema, schemas)
            schemas.setdefault(name, schema)
        for value in node.values():
            _hoist(value, schemas)
    elif isinstance(node, list):
        for value in node:
            _hoist(value, schemas)


def _show_example(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """The examples of a body's schema where readers of the document look for them: at the body, and at the answer."""
    for body in (operation.get("requestBody", {}), *operation["responses"].values()):
        content = body.get("content", {}).get("application/json", {})
        schema = schemas.get(content.get("schema", {}).get("$ref", "").rpartition("/")[2], {})
        if "examples" not in content and schema.get("examples"):
            content["examples"] = {str(n): {"value": example} for n, example in enumerate(schema["examples"], start=1)}


def _name_headers(operation: dict[str, Any], *, creating: bool) -> None:
    named = {**_HEADERS, **(_CREATING_HEADERS if creating else {})}
    for answer in operation["responses"].values():
        told = {name: {"description": text, "schema": {"type": "string"}} for name, text in named.items()}
        answer["headers"] = {**told, **answer.get("headers", {})}


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Swagger UI over /openapi.json."""
    root = request.scope.get("root_path", "").rstrip("/")
    # Not the framework's page: its script stands in the page itself, which the policy forbids.
    page = _PAGE.format(root=html.escape(root), title=html.escape(request.app.title))
    return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})


@router.get("/docs/{name}", responses=error_responses(404))
async def asset(name: str) -> Response:
    """A part of the page."""
    headers = {"Cache-Control": "public, max-age=86400"}
    if name == "start.js":
        return Response(_START, media_type="text/javascript", headers=headers)
    if name not in _ASSETS:
        raise DreameryError("unknown_url")
    content = await run_in_threadpool(_asset, name)
    return Response(content, media_type=_ASSETS[name], headers=headers)


def _asset(name: str) -> bytes:
    return (files(_PACKAGE) / _FOLDER / name).read_bytes()
