"""Abuse protection: failed logins, concurrent requests, slow or large heads, expiring links, security headers."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.cli.operator.doctor import run_checks
from api.http.server import MAX_HEAD_BYTES, LimitedHttpProtocol
from tests.support.api_client import assert_error, new_key
from tests.support.engine import Engine
from tests.support.platform import clean_env, free_port
from tests.support.servers.http_servers import running_app
from worker.core.security.encryption import master_keys
from worker.core.security.signed_links import _signer
from worker.core.settings import get_settings
from worker.db.engine import transaction
from worker.db.users import api_keys

IMAGES = "/v1/images/generations"
INVALID_KEY = "sk-dreamery-wrong"


class LimitedApi:
    """An API server on this machine; `client_ip` sets the client address as a trusted proxy does."""

    def __init__(self, url: str, admin_key: str) -> None:
        self.url = url
        self.admin_key = admin_key
        self.address = (url.split("/")[2].split(":", maxsplit=1)[0], int(url.rpartition(":")[2]))

    def get(self, key: str, *, client_ip: str | None = None, path: str = "/v1/models", **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} | ({"X-Forwarded-For": client_ip} if client_ip else {})
        return httpx.get(self.url + path, headers=headers, trust_env=False, **more)


@pytest.fixture
def api(engine: Engine) -> Iterator[LimitedApi]:
    engine.configure(
        FAILED_LOGINS_PER_MINUTE="3",
        OPEN_REQUESTS="4",
        OPEN_REQUESTS_PER_CALLER="2",
        REQUEST_HEADER_TIMEOUT_SECONDS="1",
    )
    with running_app(create_app(), lifespan="on", http=LimitedHttpProtocol) as url:
        yield LimitedApi(url, engine.env["DREAMERY_ADMIN_KEY"])


# --- failed logins ---


def test_failed_logins_are_limited_and_known_keys_keep_working(api: LimitedApi, engine: Engine) -> None:
    assert api.get(api.admin_key, client_ip="192.0.2.1").status_code == 200
    for _ in range(3):
        assert_error(api.get(INVALID_KEY, client_ip="192.0.2.1"), 401, "invalid_api_key")
    rejected = api.get(INVALID_KEY, client_ip="192.0.2.1")
    assert_error(rejected, 429, "too_many_failed_keys")
    assert rejected.headers["retry-after"] == "60"
    # A key that was valid before keeps working; an unknown key has to wait; other addresses are not affected.
    assert api.get(api.admin_key, client_ip="192.0.2.1").status_code == 200
    with transaction() as tx:
        [admin] = api_keys.list_keys(tx, user_id=None, after=None, limit=1)
        _, fresh = api_keys.create_key(tx, api_keys.NewKey(user_id=admin.user_id, name="fresh"))
    assert_error(api.get(fresh, client_ip="192.0.2.1"), 429, "too_many_failed_keys")
    assert api.get(fresh, client_ip="192.0.2.2").status_code == 200
    # After one success the key is known.
    assert api.get(fresh, client_ip="192.0.2.1").status_code == 200


def test_ipv6_addresses_of_one_64_network_count_together(api: LimitedApi) -> None:
    for n in range(3):
        assert_error(api.get(INVALID_KEY, client_ip=f"2001:db8:1:2:{n}::9"), 401, "invalid_api_key")
    assert_error(api.get(INVALID_KEY, client_ip="2001:db8:1:2:ffff::1"), 429, "too_many_failed_keys")
    assert_error(api.get(INVALID_KEY, client_ip="2001:db8:1:3::1"), 401, "invalid_api_key")


def test_revoked_key_is_not_remembered_as_valid(api: LimitedApi) -> None:
    assert api.get(api.admin_key, client_ip="192.0.2.3").status_code == 200
    with transaction() as tx:
        [admin] = api_keys.list_keys(tx, user_id=None, after=None, limit=1)
        api_keys.revoke_key(tx, admin.id)
    for _ in range(3):
        assert_error(api.get(api.admin_key, client_ip="192.0.2.3"), 401, "invalid_api_key")
    assert_error(api.get(api.admin_key, client_ip="192.0.2.3"), 429, "too_many_failed_keys")


def test_without_redis_failed_logins_are_not_limited(engine: Engine) -> None:
    live = engine.env["DREAMERY_REDIS_URL"]
    engine.configure(FAILED_LOGINS_PER_MINUTE="1", REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    with running_app(create_app(), lifespan="on") as url:
        api = LimitedApi(url, "")
        for _ in range(3):
            assert_error(api.get(INVALID_KEY, client_ip="192.0.2.4", timeout=30), 401, "invalid_api_key")
    engine.configure(REDIS_URL=live)


# --- concurrent requests ---


def test_open_requests_are_limited_per_caller_and_in_total(api: LimitedApi) -> None:
    streams: list[httpx.Client] = []
    open_streams = []

    def open_stream(key: str) -> httpx.Response:
        client = httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=30)
        streams.append(client)
        job = client.post(IMAGES, json={"prompt": "a boat", "async": True}).json()["id"]
        stream = client.stream("GET", f"/v1/jobs/{job}/events")
        open_streams.append(stream)
        return stream.__enter__()

    one, other = new_key(), new_key()
    try:
        assert [open_stream(one).status_code for _ in range(2)] == [200, 200]
        assert_error(api.get(one), 429, "too_many_open_requests")
        assert [open_stream(other).status_code for _ in range(2)] == [200, 200]
        full = api.get(new_key())
        assert_error(full, 503, "overloaded")
        assert full.headers["retry-after"]
        assert api.get("nobody", path="/healthz").status_code == 200
    finally:
        for stream in open_streams:
            stream.__exit__(None, None, None)
        for client in streams:
            client.close()
    # Ended requests no longer count.
    deadline = time.monotonic() + 20
    while api.get(one).status_code != 200:
        assert time.monotonic() < deadline


# --- request heads ---


def read_response(line: socket.socket) -> httpx.Response:
    """Read the next response from the socket."""
    data = b""
    while b"\r\n\r\n" not in data and (chunk := line.recv(65536)):
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = [tuple(each.split(": ", 1)) for each in lines]
    length = int(dict(headers).get("content-length", 0))
    while len(body) < length and (chunk := line.recv(65536)):
        body += chunk
    return httpx.Response(int(first.split()[1]), headers=headers, content=body[:length])


def is_closed(line: socket.socket) -> bool:
    return line.recv(1) == b""


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_incomplete_head_times_out(api: LimitedApi, sent: bytes) -> None:
    with socket.create_connection(api.address, timeout=20) as line:
        line.sendall(sent)
        assert_error(read_response(line), 408, "request_incomplete")
        assert is_closed(line)


def test_next_head_of_keep_alive_connection_times_out(api: LimitedApi) -> None:
    with socket.create_connection(api.address, timeout=20) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_response(line).status_code == 200
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        assert_error(read_response(line), 408, "request_incomplete")


def test_head_size_is_limited(api: LimitedApi) -> None:
    with socket.create_connection(api.address, timeout=20) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        with pytest.raises(OSError), line:  # noqa: PT012
            for _ in range(200):
                line.sendall(b"X-Much: " + b"a" * MAX_HEAD_BYTES + b"\r\n")
    large = {"Accept-Language": "zh", "X-Much": "a" * (MAX_HEAD_BYTES + 1)}
    answer = httpx.get(f"{api.url}/healthz", headers=large, trust_env=False)
    assert "请求头过大" in assert_error(answer, 431, "headers_too_large")


CHUNKED = b"POST /v1/estimate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n"
WHOLE_BODY = b'e\r\n{"prompt":"x"}\r\n0\r\n'


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (WHOLE_BODY, b"X-A: b\r\n" * 8000),
        (WHOLE_BODY + b"X-A: ", b"a" * 64_000),
        (WHOLE_BODY, (b"a" * 1000 + b":\r\n") * 64),
        (b"e;", b"a" * 64_000),
    ],
    ids=["trailers", "long trailer", "names", "chunk extension"],
)
@pytest.mark.parametrize("with_key", [True, False])
def test_endless_trailers_and_extensions_end_the_connection(
    api: LimitedApi, begin: bytes, more: bytes, with_key: bool
) -> None:
    key = b"Authorization: Bearer %b\r\n" % api.admin_key.encode() if with_key else b""
    with socket.create_connection(api.address, timeout=20) as line:
        line.sendall(CHUNKED + key + b"\r\n" + begin)
        with pytest.raises(OSError):  # noqa: PT012
            for _ in range(400):
                line.sendall(more)


def test_trailers_are_no_headers(api: LimitedApi) -> None:
    with socket.create_connection(api.address, timeout=20) as line:
        key = b"Authorization: Bearer %b\r\n" % api.admin_key.encode()
        line.sendall(CHUNKED + b"\r\n" + WHOLE_BODY + key + b"\r\n")
        assert_error(read_response(line), 401, "missing_api_key")
    with socket.create_connection(api.address, timeout=20) as line:
        line.sendall(CHUNKED + key + b"\r\n" + WHOLE_BODY + b"X-A: b\r\n\r\n")
        # Accepted with its key, and its body is read.
        assert_error(read_response(line), 400, "missing_required_parameter", "endpoint")


@pytest.mark.parametrize("size", [MAX_HEAD_BYTES + 1, 70_000, 500_000])
def test_too_long_url_returns_414(api: LimitedApi, size: int) -> None:
    """Longer than the URL parser accepts (65,535 bytes), and longer than one read of the socket."""
    request = f"GET /v1/files/archive?ids={'a' * size} HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(api.address, timeout=20) as line:
        line.sendall(request.encode())
        answer = read_response(line)
        assert_error(answer, 414, "url_too_long")
        assert is_closed(line)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    assert (answer.headers["x-content-type-options"], answer.headers["access-control-allow-origin"]) == ("nosniff", "*")
    with socket.create_connection(api.address, timeout=20) as line:
        line.sendall(f"GET /healthz?a={'a' * (MAX_HEAD_BYTES - 20)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert read_response(line).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /h\xe9althz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"POST /v1/estimate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnot a length\r\n",
    ],
)
def test_invalid_http_returns_400(api: LimitedApi, sent: bytes) -> None:
    with socket.create_connection(api.address, timeout=20) as line:
        line.sendall(sent)
        assert_error(read_response(line), 400, "invalid_http")
        assert is_closed(line)


@pytest.mark.parametrize(
    ("path", "param"),
    [("/admin/v1/prices?model=%00", "model"), ("/v1/jobs?limit=2&after=a%00b", "after"), ("/v1/models?%00=1", None)],
)
def test_nul_in_query_is_rejected(api: LimitedApi, path: str, param: str | None) -> None:
    assert "NUL" in assert_error(api.get(api.admin_key, path=path), 400, "invalid_value", param)


def test_nul_in_path_returns_404(api: LimitedApi) -> None:
    assert_error(api.get(api.admin_key, path="/admin/v1/users/%00"), 404, "user_not_found")
    assert_error(api.get(api.admin_key, path="/%00"), 404, "unknown_url")


def test_invalid_chunk_ends_the_request_without_a_crash(api: LimitedApi, caplog: pytest.LogCaptureFixture) -> None:
    """The connection gets one error; the application's own response is discarded without an exception."""
    for _ in range(5):
        with socket.create_connection(api.address, timeout=20) as line:
            line.sendall(b"POST /v1/estimate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            line.sendall(b"not a length\r\n")
            assert read_response(line).status_code in {400, 401}
            assert is_closed(line)
    api.get(api.admin_key)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_body_that_breaks_off_after_its_response_gets_no_second_one(api: LimitedApi) -> None:
    """A client would read a second response as that of its next request."""
    with socket.create_connection(api.address, timeout=20) as line:
        line.sendall(b"POST /v1/estimate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        response = read_response(line)
        assert response.status_code == 401
        line.sendall(b"not a length\r\n")
        assert is_closed(line)


def test_garbage_after_a_request_cuts_its_stream(api: LimitedApi) -> None:
    """A started response is cut off, because a second head inside it would be read as its data."""
    job = httpx.post(
        api.url + IMAGES,
        json={"prompt": "a boat", "async": True},
        headers={"Authorization": f"Bearer {api.admin_key}"},
        trust_env=False,
    ).json()["id"]
    with socket.create_connection(api.address, timeout=20) as line:
        line.sendall(
            f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.admin_key}\r\n\r\n".encode()
        )
        received = line.recv(65536)
        assert received.startswith(b"HTTP/1.1 200 OK")
        line.sendall(b"\x00 nonsense\r\n\r\n")
        while chunk := line.recv(65536):
            received += chunk
    assert received.count(b"HTTP/1.1") == 1


# --- links ---


@pytest.fixture
def client(engine: Engine) -> Iterator[TestClient]:
    engine.configure(LINK_TTL_SECONDS="3600", PUBLIC_URL="https://images.example")
    with TestClient(
        create_app(), headers={"Authorization": f"Bearer {new_key()}"}, base_url="https://images.example"
    ) as client:
        yield client


def change_settings(engine: Engine, **values: str) -> None:
    """Change settings of the running application without closing its connections."""
    for name, value in values.items():
        engine._monkeypatch.setenv(f"DREAMERY_{name}", value)
    get_settings.cache_clear()


def finished_image(engine: Engine, client: TestClient) -> tuple[str, str]:
    """Run a job of the caller to its end; return its id and the link of its image."""
    job = client.post(IMAGES, json={"prompt": "a boat", "n": 1, "async": True}).json()["id"]
    [row] = engine.sql("SELECT id FROM jobs WHERE id = :id", id=job.removeprefix("job_"))
    engine.run_until_final(row.id)
    return job, client.get(f"/v1/jobs/{job}").json()["output"][0]["url"]


def test_links_expire_and_each_read_returns_a_valid_one(client: TestClient, engine: Engine) -> None:
    job, link = finished_image(engine, client)
    answer = client.get(link)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.headers["cache-control"].startswith("private, max-age=")
    bare, _, query = link.partition("?")
    expires, signature = (part.partition("=")[2] for part in query.split("&"))
    other_file = f"{bare.rpartition('/v1/')[0]}/v1/files/file_{uuid4().hex}/content?{query}"
    for invalid in (bare, f"{bare}?expires={int(expires) + 1}&signature={signature}", f"{link}x", other_file):
        assert_error(client.get(invalid), 403, "link_not_signed")
    past = int(time.time()) - 1
    old_signature = _signer().get_signature(f"{bare.split('/')[5]}.{past}").decode()
    old = f"{bare}?expires={past}&signature={old_signature}"
    assert_error(client.get(old), 403, "link_expired")
    rejected = client.post("/v1/images/edits", json={"prompt": "again", "image": old, "async": True})
    assert_error(rejected, 403, "link_expired", "image")
    assert client.get(client.get(f"/v1/jobs/{job}").json()["output"][0]["url"]).status_code == 200


@pytest.mark.parametrize("size", ["", "size=small", "size=medium"])
def test_thumbnails_need_the_signature_of_the_link(client: TestClient, engine: Engine, size: str) -> None:
    _, link = finished_image(engine, client)
    bare, _, query = link.replace("/content", "/thumbnail").partition("?")
    answer = client.get(f"{bare}?{query}&{size}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
    assert answer.headers["cache-control"].startswith("private, max-age=")
    other_file = f"{bare.rpartition('/v1/')[0]}/v1/files/file_{uuid4().hex}/thumbnail?{query}"
    etag = {"If-None-Match": answer.headers["etag"]}
    assert client.get(f"{bare}?{query}&{size}", headers=etag).status_code == 304
    other_size = "size=medium" if size == "size=small" else "size=small"
    assert client.get(f"{bare}?{query}&{other_size}", headers=etag).status_code == 200, "another picture"
    for invalid in (f"{bare}?{size}", f"{bare}?{query}x&{size}", other_file):
        assert_error(client.get(invalid), 403, "link_not_signed")
        assert_error(client.get(invalid, headers=etag), 403, "link_not_signed")
    past = int(time.time()) - 1
    old_signature = _signer().get_signature(f"{bare.split('/')[5]}.{past}").decode()
    assert_error(client.get(f"{bare}?expires={past}&signature={old_signature}&{size}"), 403, "link_expired")


def test_signed_links_work_as_inputs_and_survive_key_rotation(client: TestClient, engine: Engine) -> None:
    _, link = finished_image(engine, client)
    again = client.post("/v1/images/edits", json={"prompt": "again", "image": link, "async": True})
    assert again.status_code == 202, again.text
    assert_error(client.post("/v1/images/edits", json={"prompt": "again", "image": link.partition("?")[0]}), 403,
        "link_not_signed", "image")  # fmt: skip
    video = {"prompt": "a boat", "input_reference": {"file_id": link.split("/")[5]}}
    assert_error(client.post("/v1/videos", json=video), 403, "link_not_signed", "input_reference.file_id")
    old = engine.env["DREAMERY_MASTER_KEY"]
    change_settings(engine, MASTER_KEY=f"another master key that is long enough,{old}")
    assert len(master_keys()) == 2
    assert client.get(link).status_code == 200
    change_settings(engine, MASTER_KEY="another master key that is long enough")
    assert_error(client.get(link), 403, "link_not_signed")


# --- headers ---


def test_security_headers(client: TestClient, engine: Engine) -> None:
    _, link = finished_image(engine, client)
    for path in ("/v1/jobs", "/v1/nonsense", "/healthz", link, "/docs"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "no-referrer", path
        assert headers["x-frame-options"] == "DENY", path
        assert headers["strict-transport-security"] == "max-age=31536000", path
        assert "default-src 'none'" in headers["content-security-policy"], path
    assert client.get("/v1/jobs").headers["cache-control"] == "no-store"
    image = client.get(link).headers
    assert "sandbox" in image["content-security-policy"]
    assert image["content-disposition"].startswith('inline; filename="dreamery-')
    page = client.get("/docs")
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert "<script>" not in page.text
    change_settings(engine, PUBLIC_URL="")
    assert "strict-transport-security" not in client.get("/healthz").headers
    # No folder is listed: this address lists the uploads for batches, which need a key.
    for folder in ("/v1/files", "/v1/files/"):
        assert_error(client.get(folder), 403, "forbidden")


# --- production ---

STRONG = {
    "ENV": "production",
    "MASTER_KEY": "q8Zt0sJ1nVw4Xc7Lr2Hy6Kd9Gm3Bf5Pa",
    "ADMIN_KEY": "u7Re2Wn9Yk4Td1Vs6Qj3Xb8Zm5Lg0HcE",
}


def begin_production(engine: Engine, **values: str) -> None:
    engine.sql("DELETE FROM keyring")
    engine.configure(**STRONG, **values)


def test_sandbox_is_disabled_in_production(engine: Engine) -> None:
    begin_production(engine, SESSION_TOKENS="true")
    with TestClient(create_app()) as client:
        assert engine.sql("SELECT 1 FROM accounts") == []
        for key in ("demo:sandbox", new_key()):
            assert_error(client.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"}), 401, "invalid_api_key")
        assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {STRONG['ADMIN_KEY']}"}).status_code == 200


def test_production_disables_session_ids_and_doctor_reports_weak_settings(engine: Engine) -> None:
    begin_production(engine, PUBLIC_URL="http://images.example")
    engine._monkeypatch.delenv("DREAMERY_SESSION_TOKENS")
    get_settings.cache_clear()
    with TestClient(create_app()) as client:
        answer = client.get("/v1/jobs", headers={"Authorization": f"Bearer {uuid4().hex}"})
        assert_error(answer, 401, "invalid_api_key")
    findings = [finding for finding in run_checks() if finding.check == "production"]
    assert all(finding.ok for finding in findings)
    assert any("PUBLIC_URL is http" in finding.detail for finding in findings)
    engine.configure(ADMIN_KEY="short")
    assert any("at least 32" in f.detail for f in run_checks() if f.check == "production" and not f.ok)
    with pytest.raises(SystemExit, match="at least 32"):
        create_app()


def test_up_creates_no_keys_in_production(tmp_path: Path) -> None:
    env = clean_env(DREAMERY_ENV="production")
    command = [sys.executable, "-m", "api.cli.main", "up", "--data-dir", str(tmp_path / "data"), "--no-flower"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "DREAMERY_MASTER_KEY is not set" in done.stderr
    assert not (tmp_path / "data" / "keys").exists()
