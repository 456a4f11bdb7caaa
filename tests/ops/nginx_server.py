"""Debian's nginx with the documented configuration, on a free port of this machine and with a certificate of its own."""

import contextlib
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.platform import ROOT, eventually

_HOST = "127.0.0.1"
_MAIN = """
user root;
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {site}
}}
"""
_EXISTING_SITE = """
server {{
    listen 443 ssl;
    ssl_certificate /etc/ssl/images.example.com.pem;
    ssl_certificate_key /etc/ssl/images.example.com.key;
    location / {{ return 200 "another site"; }}
    {inside}
}}
"""


@dataclass
class Nginx:
    """A running nginx. `url` is its https origin; `port` is not the default."""

    url: str
    port: int
    context: ssl.SSLContext
    certificate: Path

    @contextlib.contextmanager
    def client(self, path: str = "", **headers: str) -> Iterator[httpx.Client]:
        """A client that trusts the certificate; `path` = the path below which it asks."""
        with httpx.Client(
            base_url=f"{self.url}{path}", verify=self.context, headers=headers, timeout=150, trust_env=False
        ) as client:
            yield client

    def answers(self) -> bool:
        """Whether it accepts connections and answers."""
        try:
            with self.client() as client:
                return client.get("/").status_code > 0
        except httpx.TransportError:
            return False


def site(*, api_port: int = 0, apis: Sequence[str] = (), flower_port: int = 1, sub_path: bool = False) -> str:
    """The documented configuration in front of the API on this port, or of those at these addresses."""
    text = (ROOT / "deploy/proxy/nginx.conf").read_text()
    addresses = list(apis) or [f"127.0.0.1:{api_port}"]
    documented, ours = "server 127.0.0.1:8000;", " ".join(f"server {address};" for address in addresses)
    if sub_path:
        text = _EXISTING_SITE.format(inside=(ROOT / "deploy/proxy/nginx-sub-path.conf").read_text())
        (address,) = addresses
        documented, ours = "http://127.0.0.1:8000/", f"http://{address}/"
    assert text.count(documented) == 1, f"the documented configuration has no {documented!r}"
    return text.replace(documented, ours).replace("127.0.0.1:5555", f"127.0.0.1:{flower_port}")


def prepare_nginx(
    program: Path, folder: Path, site_text: str, port: int, *, host: str = _HOST
) -> tuple[Nginx, list[str]]:
    """Write certificate and configuration; returns what will run, and its command."""
    certificate, key = _write_certificate(folder, host)
    site_text = (
        site_text.replace("listen 443 ssl", f"listen {host}:{port} ssl")
        .replace("/etc/ssl/images.example.com.pem", str(certificate))
        .replace("/etc/ssl/images.example.com.key", str(key))
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(_MAIN.format(folder=folder, site=site_text))
    command = [str(program), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(configuration)]
    context = ssl.create_default_context(cafile=str(certificate))
    return Nginx(f"https://{host}:{port}", port, context, certificate), command


@contextlib.contextmanager
def running_nginx(program: Path, folder: Path, site_text: str, port: int) -> Iterator[Nginx]:
    """Run nginx with this configuration until the block ends."""
    nginx, command = prepare_nginx(program, folder, site_text, port)
    subprocess.run([*command, "-t"], check=True, capture_output=True, timeout=30)
    with subprocess.Popen(command) as process:
        try:
            eventually(nginx.answers, within=20, what="nginx answers")
            yield nginx
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _write_certificate(folder: Path, host: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "images.example.com")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "site.pem", folder / "site.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths
