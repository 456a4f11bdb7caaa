"""A process whose master key is wrong takes no job, and no job or account pays for it."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from tests.integration.conftest import MASTER_KEY
from tests.support.engine import Engine
from tests.support.platform import ROOT, clean_env, eventually, free_port
from worker.core.concurrency import event_loop
from worker.core.security.encryption import reencrypt_secret
from worker.db.accounts import accounts
from worker.db.engine import transaction
from worker.db.platform import root_key
from worker.messaging import celery_app
from worker.tasks.stages import worker_keys
from worker.tasks.stages.account_check import check_account

OTHER_KEY = "another master key, of a second host that was set up by hand"


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The signals that the worker sends to itself."""
    found: list[int] = []
    monkeypatch.setattr("os.kill", lambda _pid, number: found.append(number))
    yield found
    worker_keys._stopping.clear()


def run_role(engine: Engine, *arguments: str, **env: str) -> subprocess.Popen[str]:
    values = {**engine.env, "DREAMERY_API_PORT": str(free_port()), **env}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "api.cli.main", "run", *arguments],
        env=clean_env(**values), cwd=ROOT / "tests", text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def refuse(engine: Engine, *arguments: str, **env: str) -> str:
    """Run a role that must not start. Return what it prints."""
    output, _ = (process := run_role(engine, *arguments, **env)).communicate(timeout=100)
    assert process.returncode == 1, output
    assert "Traceback" not in output
    return output


@pytest.mark.parametrize("role", [("api",), ("worker",), ("worker", "--all"), ("talker",), ("scheduler",)])
@pytest.mark.parametrize(("key", "reason"), [(OTHER_KEY, "does not match this database"), ("", "is not set")])
def test_every_role_refuses_to_start(engine: Engine, role: tuple[str, ...], key: str, reason: str) -> None:
    job = engine.add_job(engine.add_account())
    celery_app.enqueue_submit(job_id=job)
    output = refuse(engine, *role, DREAMERY_MASTER_KEY=key)
    assert f"Error: DREAMERY_MASTER_KEY {reason}" in output
    assert engine.job_row(job).state == "queued"
    assert engine.state_history(job) == ["queued"]
    assert engine.take_messages("dreamery.submit")  # nothing consumed it


def move_to_another_key(engine: Engine) -> None:
    """Re-encrypt everything with another key, as `rotate-master-key` on another host does."""
    engine.configure(MASTER_KEY=f"{OTHER_KEY},{MASTER_KEY}")
    with transaction() as tx:
        for row in tx.all(text("SELECT name, sealed FROM keyring")):
            new = reencrypt_secret(row.sealed, context=root_key.key_context(row.name))
            tx.run(text("UPDATE keyring SET sealed = :new WHERE name = :name"), {"new": new, "name": row.name})
    engine.configure(MASTER_KEY=OTHER_KEY)


def test_worker_whose_key_became_wrong_gives_its_jobs_back_and_ends(engine: Engine) -> None:
    engine.configure(MASTER_KEY=MASTER_KEY)
    worker = run_role(engine, "worker")
    try:
        eventually(lambda: engine.redis.hlen("dreamery:workers"), what="the worker runs")
        move_to_another_key(engine)
        account = engine.add_account()
        job = engine.add_job(account)
        celery_app.enqueue_submit(job_id=job)
        output, _ = worker.communicate(timeout=100)
    finally:
        worker.kill()
        worker.wait()
    assert "master_key_wrong" in output
    assert engine.job_row(job).state == "queued"
    assert engine.account_row(account).rests is None
    assert "DREAMERY_MASTER_KEY does not match" in refuse(engine, "worker", DREAMERY_MASTER_KEY=MASTER_KEY)
    assert engine.run_until_final(job) == ["succeeded"]


@pytest.mark.parametrize("kind", ["image", "video"])
def test_wrong_key_costs_no_attempt_and_no_account(engine: Engine, stops: list[int], kind: str) -> None:
    engine.configure(MAX_ATTEMPTS="1")
    account = engine.add_account()
    job = engine.add_job(account, kind=kind)
    engine.configure(MASTER_KEY=OTHER_KEY)
    for _ in range(5):
        engine.submit(job)
    assert engine.job_row(job).state == "queued"
    assert engine.state_history(job).count("submitting") == 5
    assert engine.account_row(account).rests is None
    assert stops == [signal.SIGTERM]
    engine.configure(MASTER_KEY=MASTER_KEY)
    assert engine.run_until_final(job) == ["succeeded"]


def test_account_with_a_key_of_its_own_leaves_its_jobs_to_other_accounts(engine: Engine, stops: list[int]) -> None:
    engine.configure(MASTER_KEY=OTHER_KEY)
    locked = engine.add_account()
    engine.configure(MASTER_KEY=MASTER_KEY)
    usable = engine.add_account(max_images=0)
    engine.configure(MAX_ATTEMPTS="1")
    job = engine.add_job(locked, usable)
    engine.submit(job)
    assert engine.job_row(job).state == "queued"
    assert engine.account_row(locked).rests.total_seconds() > 0
    engine.sql("UPDATE accounts SET max_images = 2")
    engine.submit(job)
    assert (engine.job_row(job).state, engine.job_row(job).account_id) == ("running", usable)
    assert stops == []


def test_check_of_a_locked_account_does_not_call_its_session_expired(engine: Engine, stops: list[int]) -> None:
    account = engine.add_account()
    engine.configure(MASTER_KEY=OTHER_KEY)
    with transaction() as tx:
        row = accounts.get_account(tx, account)
    assert row is not None
    result = event_loop.run(check_account(row, models=False))
    assert (result["live"], result["error"]["code"]) == (None, "overloaded")
    assert engine.account_row(account).state == "ok"
    assert stops == [signal.SIGTERM]
