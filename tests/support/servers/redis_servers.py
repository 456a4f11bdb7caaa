"""Runs Redis servers and Sentinels of the machine for tests, with certificates of an authority that nobody knows."""

import contextlib
import datetime as dt
import ipaddress
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.platform import eventually, free_port

PASSWORD = "p@ss/w:rd#1"
ENCODED = "p%40ss%2Fw%3Ard%231"
_DAY = dt.timedelta(days=1)


@dataclass
class Certificates:
    """PEM files: the authority, and the certificate and key of a server for 127.0.0.1."""

    ca: Path
    certificate: Path
    key: Path

    @property
    def config(self) -> str:
        """The lines of a server's configuration."""
        return (
            f"tls-ca-cert-file {self.ca}\ntls-cert-file {self.certificate}\ntls-key-file {self.key}\n"
            "tls-auth-clients optional\n"
        )


def make_certificates(folder: Path, *, address: str = "127.0.0.1") -> Certificates:
    """Create an authority, and a certificate for this address."""
    folder.mkdir(parents=True, exist_ok=True)
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority of the tests")])
    server = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")])
    now = dt.datetime.now(dt.UTC)

    def sign(subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> bytes:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(authority).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - _DAY)
        builder = builder.not_valid_after(now + 30 * _DAY).add_extension(extension, critical=True)
        return builder.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    paths = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    paths.ca.write_bytes(sign(authority, authority_key, x509.BasicConstraints(ca=True, path_length=None)))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    paths.certificate.write_bytes(sign(server, server_key, names))
    paths.key.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


@dataclass
class RedisServer:
    """A running server or Sentinel."""

    port: int
    process: subprocess.Popen[bytes]
    client: redis.Redis

    def kill(self) -> None:
        """End it as a power failure would."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def running_server(
    program: Path, folder: Path, config: str = "", *, tls: Certificates | None = None, password: str = PASSWORD
) -> Iterator[RedisServer]:
    """Run `redis-server` with these lines of configuration until the block ends."""
    port = free_port()
    listen = f"port 0\ntls-port {port}\ntls-replication yes\n{tls.config}" if tls else f"port {port}\n"
    login = f'requirepass "{password}"\nmasterauth "{password}"\n' if password else ""
    text = f'bind 127.0.0.1\nsave ""\nrepl-diskless-sync-delay 0\n{listen}{login}{config}'
    with _running([str(program)], folder, port, text, tls=tls, password=password) as server:
        yield server


@contextlib.contextmanager
def running_sentinel(
    program: Path, folder: Path, primary: RedisServer, *, tls: Certificates | None = None, password: str = "sentinel"
) -> Iterator[RedisServer]:
    """Run `redis-sentinel`, which watches this primary under the name `main`, two votes needed."""
    port = free_port()
    listen = f"port 0\ntls-port {port}\ntls-replication yes\n{tls.config}" if tls else f"port {port}\n"
    text = (
        f'bind 127.0.0.1\n{listen}requirepass "{password}"\nsentinel sentinel-pass "{password}"\n'
        f"sentinel monitor main 127.0.0.1 {primary.port} 2\n"
        f'sentinel auth-pass main "{PASSWORD}"\nsentinel down-after-milliseconds main 1000\n'
        "sentinel failover-timeout main 4000\nsentinel parallel-syncs main 1\n"
    )
    with _running([str(program)], folder, port, text, tls=tls, password=password, sentinel=True) as server:
        yield server


@contextlib.contextmanager
def _running(
    command: list[str],
    folder: Path,
    port: int,
    config: str,
    *,
    tls: Certificates | None,
    password: str,
    sentinel: bool = False,
) -> Iterator[RedisServer]:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "redis.conf"
    file.write_text(config)
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen([*command, str(file)], cwd=folder, stdout=log, stderr=log)
    options = {"ssl": True, "ssl_ca_certs": str(tls.ca)} if tls else {}
    client = redis.Redis("127.0.0.1", port, password=password or None, protocol=2, decode_responses=True, **options)  # type: ignore[call-overload]
    try:
        eventually(lambda: _answers(client), what=f"a server answers, see {folder / 'redis.log'}")
        yield RedisServer(port, process, client)
    finally:
        client.close()
        process.kill()
        process.wait()


def _answers(client: redis.Redis) -> bool:
    with contextlib.suppress(redis.RedisError, OSError):
        return bool(client.ping())
    return False
