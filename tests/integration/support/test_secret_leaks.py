"""The leak check at the end of each end-to-end platform finds secrets in logs and in the database."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.api_client import new_session
from tests.support.crash.secret_leaks import find_secret_leaks
from tests.support.engine import Engine
from worker.core.security.encryption import new_webhook_secret
from worker.db.engine import transaction
from worker.db.users import api_keys

SESSION = new_session()
SECRETS = {
    "the admin key": "the operator's own admin key",
    "master key 2": "an older master key",
    "a session id": SESSION,
    "an API key": "sk-dreamery-" + "k" * 43,
    "a webhook secret": new_webhook_secret(),
    "a password in a URL": "socks5://user:hunter2@proxy.example:1080",
}


def platform(engine: Engine, logs: Path) -> Any:
    return SimpleNamespace(
        admin_key=SECRETS["the admin key"],
        master_key=f"the newest master key,{SECRETS['master key 2']}",
        logs_dir=logs,
        database_url=engine.env["DREAMERY_DATABASE_URL"],
    )


@pytest.mark.parametrize("name", SECRETS)
def test_leaked_secret_is_found_in_logs_and_rows(engine: Engine, tmp_path: Path, name: str) -> None:
    account = engine.add_account(session=SESSION)
    with transaction() as tx:
        engine.sql("INSERT INTO users (id, name, role) VALUES (gen_random_uuid(), 'ann', 'member')")
        [user] = engine.sql("SELECT id FROM users")
        api_keys.create_key(tx, api_keys.NewKey(user_id=user.id, name="hers"))
    assert find_secret_leaks(platform(engine, tmp_path)) == []
    # Far into a long file, across a block boundary.
    secret = SECRETS[name]
    (tmp_path / "worker-1.log").write_text("x" * ((1 << 20) - 10) + f" {secret} and more\n")
    engine.add_job(account, metadata={"note": f"said {secret} once"})
    found = find_secret_leaks(platform(engine, tmp_path))
    assert sorted(line.partition(",")[0] for line in found) == [
        f"{name} in table jobs", f"{name} in worker-1.log",
    ]  # fmt: skip
    assert secret not in "".join(found)
