"""`dreamery alerts`: channels of both kinds, with the checks of the API; mail reaches a real server."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from api.app import create_app
from api.cli.main import app as cli
from tests.support.engine import Engine
from tests.support.servers.http_servers import running_app
from tests.support.servers.mail_server import PASSWORD, USERNAME, MailServers, write_certificate
from worker.core.webhook_policy import TEST_EVENT
from worker.tasks.deliver_webhooks import deliver

Run = Callable[..., Result]
ADDRESSES = ("--sender", "dreamery@example.com", "--to", "ops@example.com", "--to", "boss@example.com")


@pytest.fixture
def run(engine: Engine) -> Iterator[Run]:
    with running_app(create_app(), lifespan="on") as url:
        env = {"DREAMERY_URL": url, "DREAMERY_ADMIN_KEY": engine.env["DREAMERY_ADMIN_KEY"], "COLUMNS": "200"}

        def invoke(*words: str, typed: str = "") -> Result:
            return CliRunner().invoke(cli, ["alerts", *words], env=env, input=typed)

        yield invoke


@pytest.fixture
def mail_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServers]:
    certificate = write_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    servers = MailServers(certificate)
    yield servers
    servers.stop()


def text_of(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def deliver_test(engine: Engine) -> str:
    [row] = engine.sql("SELECT id FROM webhook_deliveries WHERE event = :event", event=TEST_EVENT)
    return deliver(delivery_id=row.id)


# The library takes a server with TLS from the begin for one without.
@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
@pytest.mark.parametrize("security", ["starttls", "tls", "none"])
def test_mail_channel_sends_to_a_real_server(run: Run, engine: Engine, mail_server: MailServers, security: str) -> None:
    mailbox, port = mail_server(security)
    login = () if security == "none" else ("--username", USERNAME)
    words = ("add-mail", "localhost", "--port", str(port), "--security", security, *ADDRESSES, *login)
    added = text_of(run(*words, "--name", "night shift", "--language", "zh", typed=f"{PASSWORD}\n"))
    assert f"localhost:{port}" in added
    assert PASSWORD not in added
    assert "pending" in text_of(run("test", "night shift"))
    assert deliver_test(engine).startswith("delivered")
    [mail] = mailbox.mails
    assert mail["subject"] == "[Dreamery] 测试"
    assert (mail["from"], mail["to"]) == ("dreamery@example.com", "ops@example.com, boss@example.com")
    listed = run("channels", "--json").stdout
    assert PASSWORD not in listed
    [channel] = json.loads(listed)["data"]
    assert channel["mail"]["username"] == (USERNAME if login else "")
    assert "delivered" in text_of(run("channels"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("smtp.example.com", *ADDRESSES, "--username", "u"), "`mail.username` and `password` together"),
        (("smtp.example.com", *ADDRESSES, "--username", "u", "--security", "none"), "`mail.username` and `password`"),
        (("smtp.example.com", *ADDRESSES, "--security", "ssl"), "mail.security"),
        (("smtp.example.com", *ADDRESSES, "--to", "a@b.c\r\nBcc: x@example.com"), "must be one mail address"),
        (("a b", *ADDRESSES), "must be a host name"),
        (("smtp.example.com", *ADDRESSES, "--rule", "weather"), "rules"),
    ],
    ids=range(6),
)
def test_invalid_mail_channels_are_refused_as_by_the_api(run: Run, words: tuple[str, ...], said: str) -> None:
    refused = run("add-mail", *words, typed="\n")
    assert refused.exit_code == 1
    assert said in str(refused.exception)
    assert json.loads(run("channels", "--json").stdout)["data"] == []


def test_a_password_is_not_sent_in_clear(run: Run) -> None:
    refused = run(
        "add-mail", "smtp.example.com", *ADDRESSES, "--username", "u", "--security", "none", typed="secret-x\n"
    )
    assert refused.exit_code == 1
    assert "so that nobody can read it on the way" in str(refused.exception)
    assert "secret-x" not in refused.output + str(refused.exception)


def test_ports_follow_the_security(run: Run) -> None:
    for security, port in (("starttls", 587), ("tls", 465), ("none", 25)):
        made = run(
            "add-mail", "smtp.example.com", *ADDRESSES, "--security", security, "--rule", "queue_stuck", "--json"
        )
        channel = json.loads(text_of(made))
        assert (channel["mail"]["port"], channel["rules"]) == (port, ["queue_stuck"])
    assert "3 channels have the name 'mail'" in str(run("test", "mail").exception)


def test_webhook_channel_is_found_by_short_id_and_removed(run: Run) -> None:
    *_, title, secret = text_of(run("add-webhook", "https://example.com/hooks", "--rule", "backup_old")).splitlines()
    assert (title, secret[:6]) == ("Secret, shown only this once:", "whsec_")
    [channel] = json.loads(run("channels", "--json").stdout)["data"]
    assert channel["rules"] == ["backup_old"]
    short = channel["id"][-8:]
    assert short in text_of(run("channels"))
    assert channel["id"] in text_of(run("remove", short))
    assert "No channel has the id" in str(run("remove", short).exception)
    assert json.loads(run("channels", "--json").stdout)["data"] == []
