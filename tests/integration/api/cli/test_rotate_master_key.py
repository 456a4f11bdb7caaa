"""The master key is replaced while the platform runs: nothing is lost, nobody notices, the old key can go."""

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

OLD = "the old master key of the drill that is long enough"
NEW = "the new master key of the drill that is long enough"
BOTH = f"{NEW},{OLD}"
KILLED = "import os; from worker.db.platform import encrypted_columns as sealed; sealed.reencrypt_all(on_change=lambda: os.kill(os.getpid(), 9))"


def begin_with(engine: Engine, keys: str) -> None:
    """An installation that never knew other keys."""
    engine.sql("DELETE FROM keyring")
    engine.configure(MASTER_KEY=keys)
    root_key.load_root_key()


class Drill:
    """What a caller with session ids, through a proxy, has here; and how it is seen with the keys of the moment."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.session = new_session()
        self.token = f"http://user:proxypass@proxy.example:8080@{self.session}:sandbox"
        begin_with(engine, OLD)
        with self.client() as client:
            self.job = client.post("/v1/images/generations", json={"prompt": "a boat", "async": True}).json()["id"]
            made = client.post("/v1/webhooks/endpoints", json={"url": "https://example.com/hook"}).json()
            self.endpoint, first = made["id"], made["secret"]
            rotated = client.post(f"/v1/webhooks/endpoints/{self.endpoint}/rotate").json()["secret"]
            self.secrets = [rotated, first]
            self.own_secret = client.get("/v1/webhooks/secret").json()["secret"]

    def use(self, keys: str) -> None:
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

    def everything_is_there(self) -> None:
        """The caller still sees its job, the same secrets sign, steps can open the session and the proxy."""
        with self.client() as client:
            assert client.get(f"/v1/jobs/{self.job}").json()["id"] == self.job
            assert client.get("/v1/webhooks/secret").json()["secret"] == self.own_secret
            assert [e["id"] for e in client.get("/v1/webhooks/endpoints").json()["data"]] == [self.endpoint]
        ((digest, _token),) = parse_session_tokens(self.token)
        with transaction() as tx:
            row = accounts.by_lookup_hash(tx, digest)
        assert row is not None
        assert decrypt_secret(row.secret, context=row.lookup_context) == self.session
        assert decrypt_secret(row.proxy or "", context=row.proxy_context).endswith("proxypass@proxy.example:8080")
        [hook] = self.engine.sql("SELECT * FROM webhook_endpoints")
        context = endpoints.secret_context(hook.id)
        assert [decrypt_secret(one, context=context) for one in (hook.secret, hook.previous_secret)] == self.secrets


def ciphertexts(database_url: str) -> set[str]:
    """`table.column` of every value in the database that looks sealed, and the values."""
    found = set()
    with psycopg.connect(database_url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            for (row,) in connection.execute(f"SELECT to_jsonb(t) FROM {table} t").fetchall():
                for column, value in row.items():
                    found |= {(f"{table}.{column}", one) for one in re.findall(r"v[12]:[\w:+/=]{40,}", str(value))}
    return found


def master_key_line() -> Any:
    return next(finding for finding in run_checks() if finding.check == "master key")


def test_the_rotation_drill(engine: Engine) -> None:
    engine.configure(FETCH_ALLOW=f"{engine.env['DREAMERY_FETCH_ALLOW']},proxy.example")
    drill = Drill(engine)
    old = ciphertexts(engine.env["DREAMERY_DATABASE_URL"])
    assert len(old) == 6  # the demo account has a session too

    drill.use(BOTH)
    drill.everything_is_there()
    newest, older = (key.id for key in master_keys())
    assert drill.rotate("--check")[0] == 1
    assert "older key" in master_key_line().detail

    # Killed after each single value: every run goes on where the last one fell.
    for round_ in range(1, 4):
        assert drill.run("-c", KILLED).returncode == -signal.SIGKILL
        assert encrypted_columns.count_by_key() == {newest: round_, older: 6 - round_}
        drill.everything_is_there()
    code, report = drill.rotate()
    assert (code, report["changed"], report["old_keys_removable"]) == (0, 3, True)
    assert drill.rotate() == (0, report | {"changed": 0})
    assert engine.sql("SELECT action FROM audit_log ORDER BY id DESC LIMIT 1")[0].action == "master_key.rotate"

    drill.use(NEW)
    drill.everything_is_there()
    assert drill.rotate("--check")[0] == 0
    assert master_key_line().ok
    now = ciphertexts(engine.env["DREAMERY_DATABASE_URL"])
    assert {column for column, _ in now} == {column for column, _ in old}
    assert {value.split(":")[1] for _, value in now} == {newest}
    # What is taken over by a rotation is what there is.
    assert {column for column, _ in now} <= {f"{column.table}.{column.column}" for column in encrypted_columns.ENCRYPTED_COLUMNS}


@pytest.mark.parametrize("keys", [NEW, ""])
def test_with_another_master_key_or_none_nothing_starts_and_it_is_said_why(engine: Engine, keys: str) -> None:
    begin_with(engine, OLD)
    engine.configure(MASTER_KEY=keys)
    with (
        pytest.raises((SecretUnreadableError, SystemExit), match="DREAMERY_MASTER_KEY is not"),
        TestClient(create_app()),
    ):
        pass
    line = master_key_line()
    assert (line.ok, bool(line.hint)) == (False, True)
    env = clean_env(**{name: value for name, value in engine.env.items() if name.startswith("DREAMERY_")})
    command = [sys.executable, "-m", "api.cli.main", "rotate-master-key"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: DREAMERY_MASTER_KEY is not")
    assert OLD not in done.stdout + done.stderr


def test_rows_of_an_earlier_version_are_found_again(engine: Engine) -> None:
    """It had no root key: its hashes were made with the oldest master key."""
    engine.add_account()
    begin_with(engine, BOTH)
    key = hashlib.sha256(b"dreamery-master:" + OLD.encode()).digest()
    assert lookup_hash("session") == hmac.new(key, b"lookup:session", hashlib.sha256).hexdigest()
    [row] = engine.sql("SELECT sealed FROM keyring")
    assert row.sealed.startswith(f"v2:{master_keys()[0].id}:")


def test_the_report_for_people(engine: Engine) -> None:
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
