"""What a user reads when a link cannot be fetched: what happened, in words."""

import contextlib
import datetime as dt
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.worker.test_safe_fetch import download, raw_peer, send_chunks
from tests.support.engine import reload_settings
from worker.core.concurrency import transfer_rate
from worker.core.messages.chinese import translate
from worker.safe_fetch import async_client
from worker.safe_fetch.checks import FetchError


@pytest.fixture(autouse=True)
def _local_hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DREAMERY_FETCH_ALLOW", "127.0.0.1,localhost")
    reload_settings()
    yield
    reload_settings()


def problem(url: str, *, deadline: float = 5.0) -> str:
    """Return why the link could not be fetched; it has a Chinese translation too."""
    with pytest.raises(FetchError) as raised:
        download(url, max_bytes=1000, deadline_seconds=deadline)
    text = str(raised.value)
    assert not re.search(r"\b[A-Z][a-z]+Error\b|\bErrno\b", text), "the name of an exception"
    assert translate(text), text
    return text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "no such name in the DNS"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "the name server did not answer"),
        (UnicodeError("label too long"), "it is not a valid name"),
    ],
)
def test_unknown_host_name(monkeypatch: pytest.MonkeyPatch, error, text) -> None:
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert problem("http://no-such-host.example/a.png") == (
        f"the host name 'no-such-host.example' cannot be resolved: {text}"
    )


def test_refused_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert problem(f"http://127.0.0.1:{port}/") == "'127.0.0.1' refused the connection"


def test_server_that_never_answers() -> None:
    with raw_peer(send_chunks(b"", pause=2)) as port:
        assert problem(f"http://127.0.0.1:{port}/", deadline=0.5) == "'127.0.0.1' did not answer in time"


def test_server_that_sends_a_byte_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer_rate, "WINDOW_SECONDS", 1.0)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"
    with raw_peer(send_chunks(head, *[b"x"] * 60, pause=0.1)) as port:
        text = problem(f"http://127.0.0.1:{port}/", deadline=20)
    assert text == "'127.0.0.1' is too slow: fewer than 8192 bytes per second arrived in the last 1 seconds"


def test_server_whose_headers_trickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_client, "HEADERS_SECONDS", 1.0)
    with raw_peer(send_chunks(b"HTTP/1.1 200 OK\r\nX-Long: ", *[b"a"] * 60, pause=0.1)) as port:
        assert problem(f"http://127.0.0.1:{port}/", deadline=20) == "'127.0.0.1' did not answer in time"


@pytest.mark.parametrize(
    ("status", "text"), [(404, "404 (Not Found)"), (403, "403 (Forbidden)"), (500, "500 (Internal Server Error)"), (599, "599")]
)  # fmt: skip
def test_http_error(status, text) -> None:
    head = f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    with raw_peer(send_chunks(head)) as port:
        assert problem(f"http://127.0.0.1:{port}/") == f"the server answered with HTTP status {text}"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nshort", "incomplete or invalid HTTP response"),
        (b"SSH-2.0-OpenSSH\r\n", "incomplete or invalid HTTP response"),
        (b"", "incomplete or invalid HTTP response"),
    ],
    ids=["cut off", "not HTTP", "closed"],
)
def test_response_that_is_no_complete_http(answer, text) -> None:
    with raw_peer(send_chunks(answer)) as port:
        assert text in problem(f"http://127.0.0.1:{port}/")


def make_certificate(folder: Path, name: str) -> ssl.SSLContext:
    """Return the TLS context of a server with a self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    today = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - dt.timedelta(days=2))
        .not_valid_after(today + dt.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "key.pem").write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "key.pem")
    return context


def test_invalid_tls_certificate(tmp_path: Path) -> None:
    context = make_certificate(tmp_path, "localhost")

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with contextlib.suppress(OSError, ssl.SSLError), context.wrap_socket(connection, server_side=True):
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        text = problem(f"https://localhost:{server.getsockname()[1]}/")
        thread.join(10)
    assert text == "the TLS certificate of 'localhost' is not valid: self-signed certificate"


def test_server_without_tls() -> None:
    with raw_peer(send_chunks(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        text = problem(f"https://127.0.0.1:{port}/")
    assert text == "no encrypted connection to '127.0.0.1' was possible (TLS)"
