"""The doctor's check of the address that clients use: the proxy in front passes everything on, and hides metrics."""

import ssl
from urllib.parse import urlsplit

import httpx

from api.cli.operator.findings import Finding, first_line
from worker.core.settings import get_settings

_SECONDS = 5.0
_PROXY = "Compare the proxy with deploy/proxy/nginx.conf, below a path with nginx-sub-path.conf."


def check_public_url() -> list[Finding]:
    """Ask the API at DREAMERY_PUBLIC_URL, if it is set, as a client would."""
    url = get_settings().public_url
    if not url:
        return []
    try:
        with httpx.Client(timeout=_SECONDS, verify=ssl.create_default_context(), trust_env=False) as client:
            return [_answers(client, url), _shows_documents(client, url), _hides_metrics(client, url)]
    except httpx.HTTPError as error:
        # A container may not reach the address that its clients use, so this is no failure.
        detail = f"{url} cannot be reached from here ({first_line(error)}): try it where clients are"
        return [Finding("public url", ok=True, detail=detail)]


def _answers(client: httpx.Client, url: str) -> Finding:
    answer = client.get(f"{url}/healthz")
    if answer.status_code == 200 and answer.text.replace(" ", "") == '{"status":"ok"}':
        return Finding("public url", ok=True, detail=f"{url} leads to the API")
    detail = f"{url}/healthz is answered with {answer.status_code} by something else than the API"
    return Finding("public url", ok=False, detail=detail, hint=_PROXY)


def _shows_documents(client: httpx.Client, url: str) -> Finding:
    """The page names its files by the path of PUBLIC_URL."""
    found = {path: client.get(f"{url}{path}").status_code for path in ("/docs", "/docs/start.js", "/openapi.json")}
    broken = [path for path, status in found.items() if status != 200]
    detail = f"{', '.join(broken)} not found" if broken else f"/docs works below {urlsplit(url).path or '/'}"
    return Finding("public url", ok=not broken, detail=detail, hint=_PROXY if broken else "")


def _hides_metrics(client: httpx.Client, url: str) -> Finding:
    shown = [path for path in ("/metrics", "/metrics/", "/metrics//") if client.get(f"{url}{path}").status_code == 200]
    detail = f"{shown[0]} is shown to everyone" if shown else "metrics are hidden from outside"
    hint = f"Set DREAMERY_METRICS_TOKEN. {_PROXY}"
    return Finding("public url", ok=not shown, detail=detail, hint=hint if shown else "")
