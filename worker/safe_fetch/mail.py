"""Sends mail to the server of a channel, over SMTP with TLS from Python's standard library.

The server is one that an administrator named, and is often in the private network, so its address is not checked as
those of webhooks are. An answer of the server is shown to administrators, without the password.
"""

import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any

from worker.core.ids import public_id

# Of each step; there are about eight. The lease of a delivery is longer.
_STEP_SECONDS = 10.0
_MOST_CHARS = 300


def alert_mail(server: Mapping[str, Any], delivery: Any, *, console: str) -> EmailMessage:
    """Return the mail of a delivery. Its id is that of the delivery, so a repeated one can be recognised."""
    mail = EmailMessage()
    mail["Subject"] = f"[Dreamery] {delivery.data['title']}"
    mail["From"] = server["sender"]
    mail["To"] = ", ".join(server["recipients"])
    mail["Date"] = formatdate(delivery.created_at.timestamp())
    mail["Message-ID"] = f"<{public_id('msg', delivery.id)}@dreamery>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(f"{delivery.data['text']}\n\n{console}\n")
    return mail


def send_alert(server: Mapping[str, Any] | None, password: str, delivery: Any, *, console: str) -> str | None:
    """Send the mail of a delivery. Return why the server did not accept it; None = it did.

    `server` has `host`, `port`, `security` (starttls, tls, none), `username`, `sender` and `recipients`.
    """
    if server is None:
        return "the channel has no mail server"
    try:
        refused = _send(server, password, alert_mail(server, delivery, console=console))
    except (smtplib.SMTPException, OSError, UnicodeError) as error:
        return _explain(error)[:_MOST_CHARS]
    return f"the mail server refused some recipients: {_answers(refused)}" if refused else None


def _send(server: Mapping[str, Any], password: str, mail: EmailMessage) -> Mapping[str, Any]:
    with _connect(server) as smtp:
        if server["security"] == "starttls":
            smtp.starttls(context=ssl.create_default_context())
        if server["username"]:
            smtp.login(server["username"], password)
        return smtp.send_message(mail)


def _explain(error: Exception) -> str:
    match error:
        case smtplib.SMTPAuthenticationError():
            return f"the mail server refused the login ({error.smtp_code})"
        case smtplib.SMTPResponseException():
            return f"the mail server answered {error.smtp_code} {_text(error.smtp_error)}"
        case smtplib.SMTPRecipientsRefused():
            return f"the mail server refused all recipients: {_answers(error.recipients)}"
        case ssl.SSLError():
            return f"the TLS connection to the mail server failed: {_text(str(error.reason or 'closed'))}"
        case smtplib.SMTPException() | UnicodeError():
            return f"the mail was not sent: {_text(str(error))}"
        case _:
            return f"the mail server cannot be reached: {getattr(error, 'strerror', None) or type(error).__name__}"


def _connect(server: Mapping[str, Any]) -> smtplib.SMTP:
    if server["security"] == "tls":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(server["host"], server["port"], timeout=_STEP_SECONDS, context=context)
    return smtplib.SMTP(server["host"], server["port"], timeout=_STEP_SECONDS)


def _text(answer: bytes | str) -> str:
    shown = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
    return " ".join(shown.split())[:_MOST_CHARS]


def _answers(refused: Mapping[str, Any]) -> str:
    return "; ".join(f"{name}: {answer[0]} {_text(answer[1])}" for name, answer in refused.items())[:_MOST_CHARS]
