"""The page /docs: the basics, settings of common clients, and Swagger UI, without internet access."""

import html
import tomllib
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool

from api.http.errors import error_responses, select_language
from api.http.responses import base_url
from worker.core.catalog.provider_data import shipped_model
from worker.core.errors import DreameryError

router = APIRouter(include_in_schema=False)

_TYPES = {"css": "text/css", "js": "text/javascript", "png": "image/png"}
# The package that contains the Swagger UI files; its code is not used.
_SWAGGER, _SWAGGER_FILES = "fastapi_offline", ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")
_OWN_FILES = ("page.css", "start.js", "theme.js")
# Strict, because users enter keys on this page. Swagger UI sets inline styles and uses `data:` icons.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/docs")
async def docs(request: Request, lang: str | None = None) -> Response:
    """The page in the language of `lang` (`en` or `zh`), otherwise of `Accept-Language`."""
    chinese = lang == "zh" if lang in {"en", "zh"} else select_language(_accepted(request)).chinese
    headers = {"Content-Security-Policy": _POLICY, "Vary": "Accept-Language"}
    return HTMLResponse(_render(base_url(request), "zh" if chinese else "en"), headers=headers)


@router.get("/docs/{name}", responses=error_responses(404))
async def asset(name: str) -> Response:
    """A script, style sheet or icon of the page."""
    if name not in _SWAGGER_FILES and name not in _OWN_FILES:
        raise DreameryError("unknown_url")
    content = await run_in_threadpool(_read_asset, name)
    age = 86400 if name in _SWAGGER_FILES else 300
    return Response(
        content, media_type=_TYPES[name.rpartition(".")[2]], headers={"Cache-Control": f"public, max-age={age}"}
    )


def _accepted(request: Request) -> str:
    return request.headers.get("accept-language", "")


def _read_asset(name: str) -> bytes:
    folder = files(_SWAGGER) / "static" if name in _SWAGGER_FILES else files(__package__)
    return (folder / name).read_bytes()


@cache
def _parts() -> tuple[Template, dict[str, Any]]:
    folder = files(__package__)
    return Template((folder / "page.html").read_text("utf-8")), tomllib.loads((folder / "page.toml").read_text("utf-8"))


def _render(base: str, language: str) -> str:
    page, content = _parts()
    root = urlsplit(base).path.rstrip("/")
    values = {"BASE": base, "IMAGE_MODEL": shipped_model("image"), "VIDEO_MODEL": shipped_model("video")}
    texts = {name: html.escape(text[language]) for name, text in content["texts"].items()}
    rules = "".join(
        f"<div><dt>{html.escape(rule[language][0])}</dt><dd>{_with_code(rule[language][1], values)}</dd></div>"
        for rule in content["rules"]
    )
    clients = "".join(_client(client, language, values) for client in content["clients"])
    return page.substitute(
        texts,
        lang={"en": "en", "zh": "zh-CN"}[language],
        other={"en": "zh", "zh": "en"}[language],
        root=html.escape(root),
        base=html.escape(base),
        rules=rules,
        clients=clients,
    )


def _client(client: dict[str, Any], language: str, values: dict[str, str]) -> str:
    """Return how to set up one client: steps in words, and code to copy."""
    steps = client.get("steps", {}).get(language, "")
    code = Template(client["code"].strip()).substitute(values) if "code" in client else ""
    return (
        f"<details{' open' if client.get('open') else ''}><summary>{html.escape(client['name'])}</summary>"
        + (f"<p>{_with_code(steps, values)}</p>" if steps else "")
        + (f'<pre tabindex="0"><code>{html.escape(code)}</code></pre>' if code else "")
        + "</details>"
    )


def _with_code(text: str, values: dict[str, str]) -> str:
    """Return a text as HTML; words in backticks are code."""
    parts = html.escape(Template(text).substitute(values)).split("`")
    return "".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))
