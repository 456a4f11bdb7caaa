"""What makes the console an app of a phone: manifest, service worker, page without a connection, shared files.

Sources: W3C Web Application Manifest, Service Workers, Web Share Target.
"""

import json

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api.console.assets import console_assets, console_root, render_page
from api.http.responses import json_response

router = APIRouter()

_NO_CACHE = {"Cache-Control": "no-cache"}
# The worker has a policy of its own: it fetches files of this platform, and loads no other script.
_WORKER_POLICY = "default-src 'none'; connect-src 'self'"
# Colours of the theme (`css/base.css`): the splash screen and the bar of the window.
_BACKGROUND, _THEME = "#f6f6f4", "#ffffff"
# What a reference can be; iPhones and Android name pictures differently.
_SHARED_TYPES = ["image/*", "video/*", "audio/*", ".heic", ".heif"]
# Not part of the page without a connection: the page itself is stored under its own address.
_NOT_SHELL = ("index.html", "service_worker.js")


@router.get("/manifest.webmanifest", include_in_schema=False)
async def manifest(request: Request) -> Response:
    """The manifest of the app. All addresses include the path of the platform."""
    version, _ = await run_in_threadpool(console_assets)
    root = console_root(request)
    icons = [
        {"src": f"{root}/console/static/{version}/icons/{name}.png", "sizes": size, "type": "image/png", "purpose": use}
        for name, size, use in (
            ("icon-192", "192x192", "any"),
            ("icon-512", "512x512", "any"),
            ("maskable-192", "192x192", "maskable"),
            ("maskable-512", "512x512", "maskable"),
        )
    ]
    pages = (("Playground", "console?mode=image"), ("Agent", "console?mode=agent"), ("Gallery", "console/gallery"))
    content = {
        "id": f"{root}/console",
        "name": "Dreamery",
        "short_name": "Dreamery",
        "description": "Pictures, videos and conversations on your own accounts.",
        "start_url": f"{root}/console",
        "scope": f"{root}/console",
        "display": "standalone",
        "background_color": _BACKGROUND,
        "theme_color": _THEME,
        "icons": icons,
        "shortcuts": [{"name": name, "url": f"{root}/{path}"} for name, path in pages],
        "share_target": {
            "action": f"{root}/console/share",
            "method": "POST",
            "enctype": "multipart/form-data",
            "params": {
                "title": "title",
                "text": "text",
                "url": "url",
                "files": [{"name": "files", "accept": _SHARED_TYPES}],
            },
        },
    }
    return json_response(content, headers={**_NO_CACHE, "Content-Type": "application/manifest+json"})


@router.get("/service-worker.js", include_in_schema=False)
async def service_worker(request: Request) -> Response:
    """The service worker. Its text changes with each version, so that browsers install the new one."""
    version, contents = await run_in_threadpool(console_assets)
    paths = sorted(path for path in contents if path not in _NOT_SHELL)
    root = console_root(request)
    values = {"VERSION": version, "ROOT": root, "FILES": paths}
    head = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in values.items())
    text = head + contents["service_worker.js"].decode()
    # The page has no slash at its end, so the scope is wider than the folder of the script.
    headers = {**_NO_CACHE, "Service-Worker-Allowed": f"{root}/console", "Content-Security-Policy": _WORKER_POLICY}
    return Response(text, media_type="text/javascript", headers=headers)


@router.get("/offline", include_in_schema=False)
async def page_without_connection(request: Request) -> Response:
    """The page as the service worker keeps it: without anything about a user."""
    return await run_in_threadpool(render_page, request, "unknown")


@router.post("/share", include_in_schema=False)
async def shared_without_service_worker(request: Request) -> Response:
    """The service worker receives what a phone shares. Without one nothing is stored, and the page says so."""
    location = f"{console_root(request)}/console?shared=lost"
    return Response(status_code=303, headers={"Location": location, "Cache-Control": "no-store"})
