"""A real SMTP server with TLS and a login, and what it received."""

import datetime as dt
import socket
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USERNAME = "dreamery"
PASSWORD = "correct horse battery"


class Mailbox:
    """The handler of the server: keeps mails and answers with the next of `answers`."""

    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.answers: list[str] = []
        self.tls: list[bool] = []

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - called by the library
        """Take a mail, unless the next answer refuses it."""
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer.startswith("250"):
            self.mails.append(message_from_bytes(envelope.content, policy=default))
            self.tls.append(session.ssl is not None)
        return answer


class MailServers:
    """Starts servers on localhost; `certificate` = the PEM file that its clients must trust."""

    def __init__(self, certificate: Path) -> None:
        self._certificate = certificate
        self._running: list[Controller] = []

    def __call__(self, security: str) -> tuple[Mailbox, int]:
        """Start a server with `starttls`, `tls` or `none`; with TLS it requires a login."""
        context = SSLContext(PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate)
        mailbox = Mailbox()
        options: dict[str, Any] = {"ssl_context": context} if security == "tls" else {}
        if security == "starttls":
            options |= {"tls_context": context, "require_starttls": True}
        if security != "none":
            options |= {"authenticator": _check, "auth_required": True, "auth_require_tls": security == "starttls"}
        with socket.create_server(("localhost", 0)) as free:
            port = free.getsockname()[1]
        controller = Controller(mailbox, hostname="localhost", port=port, **options)
        controller.start()
        self._running.append(controller)
        return mailbox, port

    def stop(self) -> None:
        """Stop all servers."""
        for controller in self._running:
            controller.stop()


def _check(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=(data.login, data.password) == (USERNAME.encode(), PASSWORD.encode()), handled=False)


def write_certificate(folder: Path) -> Path:
    """Write key and certificate of localhost as one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=9))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file
