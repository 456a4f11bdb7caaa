"""The documented nginx configuration with the real program: another port, streams, large uploads, a sub-path, metrics."""

import json
import re
import socket
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.ops.nginx_server import Nginx, running_nginx, site
from tests.support.platform import ROOT, CheckedPlatform, clean_env, free_port, start_platform
from tests.support.uploads import make_image

SUB_PATH = "/dreamery"


@pytest.fixture(scope="module", params=["", SUB_PATH], ids=["root", "sub-path"])
def path(request: pytest.FixtureRequest) -> str:
    """The path of the site below which the platform is."""
    return str(request.param)


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def platform(path: str, port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CheckedPlatform]:
    """A platform whose URL is set only where it must be: below a sub-path."""
    env = {"DREAMERY_PUBLIC_URL": f"https://127.0.0.1:{port}{path}"} if path else {}
    with start_platform(tmp_path_factory.mktemp("platform"), extra_env=env) as platform:
        yield platform


@pytest.fixture(scope="module")
def nginx(
    path: str,
    port: int,
    platform: CheckedPlatform,
    program: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Nginx]:
    text = site(api_port=httpx.URL(platform.url).port or 0, sub_path=bool(path))
    with running_nginx(program("nginx"), tmp_path_factory.mktemp("nginx"), text, port) as nginx:
        yield nginx


@pytest.fixture
def client(nginx: Nginx, path: str, platform: CheckedPlatform) -> Iterator[httpx.Client]:
    with nginx.client(path, Authorization=f"Bearer {platform.admin_key}") as client:
        yield client


def test_links_keep_the_port_and_the_path(client: httpx.Client, nginx: Nginx, path: str) -> None:
    answer = client.post("/v1/images/generations", json={"prompt": "a boat", "response_format": "url"})
    assert answer.status_code == 200, answer.text
    link = answer.json()["data"][0]["url"]
    assert link.startswith(f"{nginx.url}{path}/v1/files/")
    image = client.get(link)
    assert (image.status_code, image.headers["content-type"].partition("/")[0]) == (200, "image")


def test_console_signs_in_and_finds_its_files(client: httpx.Client, nginx: Nginx, path: str) -> None:
    page = client.get("/console")
    assert page.status_code == 200
    assert f'<base href="{path}/">' in page.text
    found = re.findall(r'(?:src|href)="(console/static/[^"]+)"', page.text)
    assert len(found) > 5
    assert {client.get(f"/{name}").status_code for name in found} == {200}
    session = client.post("/console/session", headers={"Origin": nginx.url})
    assert session.status_code == 201, session.text
    assert "secure" in session.headers["set-cookie"].lower()


def test_docs_find_their_files_and_the_document(client: httpx.Client, nginx: Nginx, path: str) -> None:
    page = client.get("/docs").text
    # Without those within the page and to itself in the other language.
    links = re.findall(r'(?:src|href|data-document)="([^"#?][^"]*)"', page)
    assert len(links) >= 5
    for link in links:
        assert link.startswith(f"{path}/")
        assert client.get(f"{nginx.url}{link}").status_code == 200, link
    document = client.get("/openapi.json", timeout=60).json()
    assert document.get("servers", [{"url": ""}]) == [{"url": path}]


def test_stream_arrives_while_the_job_runs(client: httpx.Client) -> None:
    job = client.post(
        "/v1/images/generations", json={"prompt": "a boat [[hang]]"}, headers={"Prefer": "respond-async"}
    ).json()
    with client.stream("GET", f"/v1/jobs/{job['id']}/events") as stream:
        assert stream.status_code == 200
        first = next(stream.iter_text())
    assert "event: snapshot" in first
    assert "event: completed" not in first
    client.post(f"/v1/jobs/{job['id']}/cancel")


def test_upload_of_a_hundred_megabytes_is_accepted(client: httpx.Client) -> None:
    image = padded_png(99_000_000)
    answer = client.post(
        "/v1/images/edits",
        data={"prompt": "a boat"},
        files={"image": ("a.png", image, "image/png")},
        headers={"Prefer": "respond-async"},
    )
    assert answer.status_code in {200, 202}, answer.text[:300]


def test_larger_upload_is_refused_without_reaching_the_api(client: httpx.Client) -> None:
    answer = client.post("/v1/images/edits", files={"image": ("a.png", bytes(151 * 1024 * 1024), "image/png")})
    assert answer.status_code == 413


def padded_png(size: int) -> bytes:
    """A valid PNG of this size, most of it a chunk that readers skip."""
    image = make_image()
    padding = b"paDd" + bytes(size - len(image) - 12)
    chunk = (len(padding) - 4).to_bytes(4, "big") + padding + zlib.crc32(padding).to_bytes(4, "big")
    end = image.rindex(b"IEND") - 4
    return image[:end] + chunk + image[end:]


@pytest.mark.parametrize(
    "spelling",
    ["/metrics", "/metrics/", "/metrics//", "//metrics", "/%6detrics", "/x/../metrics", "/./metrics/", "/metrics?x=1"],
)
def test_metrics_are_not_shown_outside(nginx: Nginx, platform: CheckedPlatform, path: str, spelling: str) -> None:
    """Sent as they are: a library would normalise the path."""
    request = f"GET {path}{spelling} HTTP/1.1\r\nHost: 127.0.0.1:{nginx.port}\r\nConnection: close\r\n\r\n"
    with (
        socket.create_connection(("127.0.0.1", nginx.port), timeout=20) as plain,
        nginx.context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(request.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    assert answer.split()[1] in {"404", "403"}, answer[:200]
    assert "dreamery_" not in answer


def test_doctor_finds_nothing_wrong(nginx: Nginx, platform: CheckedPlatform, path: str) -> None:
    env = clean_env(
        DREAMERY_PUBLIC_URL=f"{nginx.url}{path}",
        DREAMERY_DATA_DIR=str(platform.data_dir),
        SSL_CERT_FILE=str(nginx.certificate),
    )
    command = [sys.executable, "-P", "-m", "api.cli.main", "doctor", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120)
    found = [each for each in json.loads(done.stdout)["data"] if each["check"] == "public url"]
    assert [each["ok"] for each in found] == [True, True, True], found
    assert "leads to the API" in found[0]["detail"]


def test_client_address_cannot_be_invented(client: httpx.Client) -> None:
    """The proxy replaces the header, so the audit log shows the address of the connection."""
    answer = client.post("/admin/v1/users", json={"name": "ann"}, headers={"X-Forwarded-For": "203.0.113.9"})
    assert answer.status_code in {200, 201}, answer.text
    entries = client.get("/admin/v1/audit").text
    assert "203.0.113.9" not in entries
    assert json.loads(entries)["data"]
