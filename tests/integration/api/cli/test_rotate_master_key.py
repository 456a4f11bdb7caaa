"""Rotating the master key while the platform runs: no secret is lost and the old key can be removed."""

import hashlib
import hmac
import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from api.app import create_app
from api.auth.session_tokens import parse_session_tokens
from api.cli.main import app as cli
from api.cli.operator.doctor import run_checks
from tests.support.api_client import new_session
from tests.support.engine import Engine
from tests.support.platform import ROOT, clean_env
from worker.core.security.encryption import SecretUnreadableError, decrypt_secret, lookup_hash, master_keys
from worker.db.accounts import accounts
from worker.db.engine import transaction
from worker.db.platform import encrypted_columns, root_key
from worker.db.webhooks import endpoints

OLD = "the old master key that is long enough for a test"
NEW = "the new master key that is long enough for a test"
BOTH = f"{NEW},{OLD}"
RUN_AND_CRASH = "import os; from worker.db.platform import encrypted_columns; encrypted_columns.reencrypt_all(on_change=lambda: os.kill(os.getpid(), 9))"


def install_with_keys(engine: Engine, keys: str) -> None:
    """Set up an installation that has only ever used these keys."""
    engine.sql("DELETE FROM keyring")
    engine.configure(MASTER_KEY=keys)
    root_key.load_root_key()


class RotationScenario:
    """The data of a session-id caller with a proxy, read with the currently configured keys."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.session = new_session()
        self.token = f"http://user:proxypass@proxy.example:8080@{self.session}:sandbox"
        install_with_keys(engine, OLD)
        with self.client() as client:
            self.job = client.post("/v1/images/generations", json={"prompt": "a boat", "async": True}).json()["id"]
            made = client.post("/v1/webhooks/endpoints", json={"url": "https://example.com/hook"}).json()
            self.endpoint, first = made["id"], made["secret"]
            rotated = client.post(f"/v1/webhooks/endpoints/{self.endpoint}/rotate").json()["secret"]
            self.secrets = [rotated, first]
            self.own_secret = client.get("/v1/webhooks/secret").json()["secret"]

    def configure_keys(self, keys: str) -> None:
        self.engine.configure(MASTER_KEY=keys)

    def client(self) -> TestClient:
        return TestClient(create_app(), headers={"Authorization": f"Bearer {self.token}"})

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        env = clean_env(**{name: value for name, value in self.engine.env.items() if name.startswith("DREAMERY_")})
        return subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )

    def rotate(self, *options: str) -> tuple[int, dict[str, Any]]:
        done = CliRunner().invoke(cli, ["rotate-master-key", "--json", *options], catch_exceptions=False)
        return done.exit_code, json.loads(done.stdout)

    def assert_data_is_readable(self) -> None:
        """The caller sees its job, the webhook secrets are unchanged, workers can decrypt the session and the proxy."""
        with self.client() as client:
            assert client.get(f"/v1/jobs/{self.job}").json()["id"] == self.job
            assert client.get("/v1/webhooks/secret").json()["secret"] == self.own_secret
            assert [e["id"] for e in client.get("/v1/webhooks/endpoints").json()["data"]] == [self.endpoint]
        ((digest, _token),) = parse_session_tokens(self.token)
        with transaction() as tx:
            row = accounts.find_by_lookup_hash(tx, digest)
        assert row is not None
        assert decrypt_secret(row.secret, context=row.lookup_context) == self.session
        assert decrypt_secret(row.proxy or "", context=row.proxy_context).endswith("proxypass@proxy.example:8080")
        [hook] = self.engine.sql("SELECT * FROM webhook_endpoints")
        context = endpoints.secret_context(hook.id)
        assert [decrypt_secret(one, context=context) for one in (hook.secret, hook.previous_secret)] == self.secrets


def ciphertexts(database_url: str) -> set[str]:
    """Return `table.column` and value of everything in the database that looks encrypted."""
    found = set()
    with psycopg.connect(database_url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            for (row,) in connection.execute(f"SELECT to_jsonb(t) FROM {table} t").fetchall():
                for column, value in row.items():
                    found |= {(f"{table}.{column}", one) for one in re.findall(r"v[12]:[\w:+/=]{40,}", str(value))}
    return found


def master_key_finding() -> Any:
    return next(finding for finding in run_checks() if finding.check == "master key")


def test_master_key_rotation_with_crashes(engine: Engine) -> None:
    engine.configure(FETCH_ALLOW=f"{engine.env['DREAMERY_FETCH_ALLOW']},proxy.example")
    scenario = RotationScenario(engine)
    old = ciphertexts(engine.env["DREAMERY_DATABASE_URL"])
    assert len(old) == 7  # the demo accounts have secrets too

    scenario.configure_keys(BOTH)
    scenario.assert_data_is_readable()
    newest, older = (key.id for key in master_keys())
    assert scenario.rotate("--check")[0] == 1
    assert "older key" in master_key_finding().detail

    # Killed after each value: every run continues where the previous one stopped.
    for count in range(1, 4):
        assert scenario.run("-c", RUN_AND_CRASH).returncode == -signal.SIGKILL
        assert encrypted_columns.count_by_key() == {newest: count, older: 7 - count}
        scenario.assert_data_is_readable()
    code, report = scenario.rotate()
    assert (code, report["changed"], report["old_keys_removable"]) == (0, 4, True)
    assert scenario.rotate() == (0, report | {"changed": 0})
    assert engine.sql("SELECT action FROM audit_log ORDER BY id DESC LIMIT 1")[0].action == "master_key.rotate"

    scenario.configure_keys(NEW)
    scenario.assert_data_is_readable()
    assert scenario.rotate("--check")[0] == 0
    assert master_key_finding().ok
    now = ciphertexts(engine.env["DREAMERY_DATABASE_URL"])
    assert {column for column, _ in now} == {column for column, _ in old}
    assert {value.split(":")[1] for _, value in now} == {newest}
    # The rotation covers every encrypted column.
    assert {column for column, _ in now} <= {
        f"{column.table}.{column.column}" for column in encrypted_columns.ENCRYPTED_COLUMNS
    }


@pytest.mark.parametrize(("keys", "reason"), [(NEW, "does not match this database"), ("", "is not set")])
def test_wrong_or_missing_master_key_prevents_start_with_an_explanation(engine: Engine, keys: str, reason: str) -> None:
    install_with_keys(engine, OLD)
    engine.configure(MASTER_KEY=keys)
    with (
        pytest.raises((SecretUnreadableError, SystemExit), match=f"DREAMERY_MASTER_KEY {reason}"),
        TestClient(create_app()),
    ):
        pass
    finding = master_key_finding()
    assert (finding.ok, bool(finding.hint)) == (False, True)
    env = clean_env(**{name: value for name, value in engine.env.items() if name.startswith("DREAMERY_")})
    command = [sys.executable, "-m", "api.cli.main", "rotate-master-key"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: DREAMERY_MASTER_KEY {reason}")
    assert OLD not in done.stdout + done.stderr


def test_lookup_hashes_of_earlier_versions_still_match(engine: Engine) -> None:
    """Earlier versions had no root key: hashes were keyed with the oldest master key."""
    engine.add_account()
    install_with_keys(engine, BOTH)
    key = hashlib.sha256(b"dreamery-master:" + OLD.encode()).digest()
    assert lookup_hash("session") == hmac.new(key, b"lookup:session", hashlib.sha256).hexdigest()
    [row] = engine.sql("SELECT sealed FROM keyring")
    assert row.sealed.startswith(f"v2:{master_keys()[0].id}:")


def test_text_report(engine: Engine) -> None:
    engine.add_account()
    done = subprocess.run(
        [sys.executable, "-m", "api.cli.main", "rotate-master-key", "--check"],
        cwd=ROOT,
        env={**os.environ, **clean_env(), **engine.env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "(newest): 2 values" in done.stdout
    assert "DREAMERY_MASTER_KEY=NEW,OLD" in done.stdout
