"""What makes the console an app: the manifest, the service worker and the page without a connection, also below a path."""

import io
import json
import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from api.console import routes

PATHS = ["", "/studio"]


def client_below(root: str) -> TestClient:
    app = FastAPI()
    app.include_router(routes.router)
    return TestClient(app, root_path=root, follow_redirects=False)


@pytest.mark.parametrize("root", PATHS, ids=["at-the-root", "below-a-path"])
def test_manifest_names_addresses_below_the_path_of_the_platform(root):
    response = client_below(root).get("/console/manifest.webmanifest")
    assert response.headers["content-type"] == "application/manifest+json"
    manifest = response.json()
    assert {manifest[name] for name in ("id", "start_url", "scope")} == {f"{root}/console"}
    assert manifest["display"] == "standalone"
    share = manifest["share_target"]
    assert (share["action"], share["method"], share["enctype"]) == (
        f"{root}/console/share",
        "POST",
        "multipart/form-data",
    )
    assert "image/*" in share["params"]["files"][0]["accept"]
    assert all(item["url"].startswith(f"{root}/console") for item in manifest["shortcuts"])
    assert {(icon["sizes"], icon["purpose"]) for icon in manifest["icons"]} >= {
        ("192x192", "any"),
        ("512x512", "any"),
        ("512x512", "maskable"),
    }


def test_every_icon_has_its_size_and_maskable_ones_have_no_transparent_corner():
    client = client_below("")
    for icon in client.get("/console/manifest.webmanifest").json()["icons"]:
        response = client.get(icon["src"])
        assert response.headers["content-type"] == "image/png"
        assert "immutable" in response.headers["cache-control"]
        picture = Image.open(io.BytesIO(response.content)).convert("RGBA")
        assert f"{picture.width}x{picture.height}" == icon["sizes"]
        alpha = picture.getpixel((0, 0))[3]
        assert (alpha == 255) == (icon["purpose"] == "maskable"), icon["src"]


@pytest.mark.parametrize("root", PATHS, ids=["at-the-root", "below-a-path"])
def test_service_worker_may_control_the_console_and_lists_existing_files(root):
    client = client_below(root)
    response = client.get("/console/service-worker.js")
    assert response.headers["service-worker-allowed"] == f"{root}/console"
    assert response.headers["cache-control"] == "no-cache"
    assert "connect-src 'self'" in response.headers["content-security-policy"]
    head = re.findall(r"^const (\w+) = (.*);$", response.text, re.MULTILINE)[:3]
    values = {name: json.loads(value) for name, value in head}
    assert values["ROOT"] == root
    assert "app.js" in values["FILES"]
    assert "index.html" not in values["FILES"]
    page = client.get("/console/offline").text
    for path in values["FILES"]:
        assert client.get(f"/console/static/{values['VERSION']}/{path}").status_code == 200, path
    assert f"/static/{values['VERSION']}/app.js" in page


def test_page_without_a_connection_is_the_same_for_everybody():
    client = client_below("")
    stranger = client.get("/console/offline")
    user = client.get("/console/offline", headers={"Cookie": "dreamery_session=anything"})
    assert stranger.text == user.text
    assert 'data-session="unknown"' in stranger.text
    assert "manifest-src 'self'" in stranger.headers["content-security-policy"]


@pytest.mark.parametrize("root", PATHS, ids=["at-the-root", "below-a-path"])
def test_share_without_a_service_worker_leads_to_the_page(root):
    answer = client_below(root).post("/console/share", files={"files": ("a.png", b"not stored", "image/png")})
    assert answer.status_code == 303
    assert answer.headers["location"] == f"{root}/console?shared=lost"
