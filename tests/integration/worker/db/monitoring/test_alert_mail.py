"""Alerts by mail: a real SMTP server with TLS and a login; what it refuses is tried again and recorded without secrets."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.engine import Engine
from tests.support.servers.mail_server import PASSWORD, MailServers, write_certificate
from worker.core.ids import new_id
from worker.core.security.encryption import encrypt_secret
from worker.core.webhook_policy import TEST_EVENT
from worker.db.engine import transaction
from worker.db.monitoring import alerts, channels
from worker.db.monitoring.channels import NewChannel
from worker.db.webhooks.endpoints import secret_context
from worker.tasks.deliver_webhooks import deliver


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def mail_server(certificate: Path) -> Iterator[MailServers]:
    servers = MailServers(certificate)
    yield servers
    servers.stop()


def add_channel(port: int, security: str, *, password: str = "", language: str = "en") -> UUID:
    channel_id = new_id()
    mail = {
        "host": "localhost",
        "port": port,
        "security": security,
        "username": "dreamery" if password else "",
        "sender": "dreamery@example.com",
        "recipients": ["ops@example.com", "boss@example.com"],
    }
    secret = encrypt_secret(password, context=secret_context(channel_id))
    with transaction() as tx:
        assert channels.add_channel(
            tx, NewChannel(channel_id, "email", "ops", language, None, "mailto:ops@example.com", mail, secret)
        )
    return channel_id


def send_test(channel_id: UUID) -> str:
    with transaction() as tx:
        message = alerts.add_message(tx, channels.get_channel(tx, channel_id), TEST_EVENT, None, [])
    return deliver(delivery_id=message)


# The library takes a server with TLS from the begin for one without.
@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
@pytest.mark.parametrize("security", ["starttls", "tls", "none"])
def test_mail_arrives(engine: Engine, mail_server, certificate, monkeypatch, security) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    mailbox, port = mail_server(security)
    channel = add_channel(port, security, password="" if security == "none" else PASSWORD, language="zh")
    assert send_test(channel).startswith("delivered")
    [mail] = mailbox.mails
    assert mail["subject"] == "[Dreamery] 测试"
    assert mail["to"] == "ops@example.com, boss@example.com"
    assert "这是对此告警渠道的测试" in mail.get_content()
    assert "/console/system" in mail.get_content()
    # A server that speaks TLS from the begin understands nothing else.
    assert mailbox.tls == [security == "starttls"]


def test_server_that_cannot_be_trusted_gets_no_password(engine: Engine, mail_server) -> None:
    mailbox, port = mail_server("starttls")
    line = send_test(add_channel(port, "starttls", password=PASSWORD))
    assert "TLS" in line
    assert mailbox.mails == []


def test_refused_mail_is_tried_again_and_a_wrong_password_is_not_shown(
    engine: Engine, mail_server, certificate, monkeypatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    mailbox, port = mail_server("starttls")
    channel = add_channel(port, "starttls", password="wrong password")
    assert "refused the login" in send_test(channel)
    [row] = engine.sql("SELECT last_error, due_at FROM webhook_deliveries")
    assert "wrong password" not in row.last_error
    assert row.due_at is None, "a test is sent once"
    engine.sql("DELETE FROM webhook_endpoints")
    channel = add_channel(port, "starttls", password=PASSWORD)
    mailbox.answers = ["451 try later"]
    engine.sql(
        """INSERT INTO alerts (id, rule, subject, label, value, threshold)
           VALUES (:id, 'account_credits_low', :subject, 'pool-1', 1, 20)""",
        id=new_id(),
        subject=new_id().hex,
    )
    with transaction() as tx:
        rows, _ = alerts.list_alerts(tx, status="firing", rule=None, after=None, limit=5) or ([], False)
        message = alerts.add_message(tx, channels.get_channel(tx, channel), "alert.firing", "account_credits_low", rows)
    assert "451" in deliver(delivery_id=message)
    engine.make_due()
    assert deliver(delivery_id=message).startswith("delivered")
    [mail] = mailbox.mails
    assert mail["subject"] == "[Dreamery] Alert: Low credits"
    assert "pool-1 has 1 credits" in mail.get_content()
