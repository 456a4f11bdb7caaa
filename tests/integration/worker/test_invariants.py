"""The invariants I1 to I12 of docs/architecture.md, one test or more for each.

Those of whole processes are in tests/e2e/outages/test_crash.py.
"""

import ast
import json
import logging
import random
import re
import socket
import threading
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import structlog
from sqlalchemy import event
from standardwebhooks import Webhook
from starlette.testclient import TestClient

from api.app import create_app
from api.auth.caller import Caller
from tests.integration.conftest import ADMIN_KEY
from tests.support.engine import FINAL, GENERATE, MEDIA, Engine
from tests.support.servers.http_servers import RequestPause, WebhookReceiver
from worker import storage
from worker.core.ids import public_id
from worker.core.security.encryption import webhook_secret
from worker.core.security.session_tokens import parse_tokens
from worker.db.accounts import accounts, polling
from worker.db.engine import get_engine, transaction
from worker.db.jobs import claims, files, progress_and_leases, state_machine
from worker.providers.base import Account
from worker.tasks.deliver_webhooks import deliver
from worker.tasks.dispatch import sweep, tick
from worker.tasks.poll import poll
from worker.tasks.save import save
from worker.tasks.submit import submit

ROOT = Path(__file__).parents[3]
SOURCES = [
    p for package in ("api", "worker") for p in sorted((ROOT / package).rglob("*.py")) if "sandbox" not in p.parts
]
STATES = ("queued", "submitting", "running", "saving")


@lru_cache(maxsize=1)
def parsed() -> list[tuple[str, ast.Module]]:
    return [(str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))) for path in SOURCES]


def string_constants(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)


def in_state(engine: Engine, state: str) -> Any:
    """Return a job in that state and its account."""
    account = engine.add_account()
    if state == "queued":
        return engine.add_job(account), account
    if state == "submitting":
        job = engine.add_job(account, prompt=f"{uuid4()} [[reset:before]]")
        engine.submit(job)
        return job, account
    made = {"running": engine.add_running_job, "saving": engine.add_saving_job, "succeeded": engine.add_succeeded_job}[
        state
    ]
    return made(account), account


# --- I1 ---


def test_i1_only_the_state_machine_writes_states() -> None:
    writes_state = re.compile(
        r"\bUPDATE\s+jobs\b[^;]*?\bSET\b(?:(?!\bWHERE\b|\bRETURNING\b).)*?(?<![\w.])state\s*=",
        re.IGNORECASE | re.DOTALL,
    )
    new_rows = re.compile(r"\b(INSERT\s+INTO|MERGE\s+INTO|COPY)\s+jobs\b", re.IGNORECASE)
    found = {
        name
        for name, tree in parsed()
        for sql in string_constants(tree)
        if writes_state.search(sql) or new_rows.search(sql)
    }
    assert found == {"worker/db/jobs/state_machine.py", "worker/db/jobs/claims.py"}
    # No other code uses the table objects.
    for name, tree in parsed():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("worker.db.schema"):
                assert name.startswith("worker/db/schema/"), name


@pytest.mark.parametrize("end", sorted(FINAL))
def test_i1_final_states_never_change(engine: Engine, end: str) -> None:
    account = engine.add_account()
    job = engine.add_succeeded_job(account) if end == "succeeded" else engine.add_job(account)
    if end != "succeeded":
        with transaction() as tx:
            if end == "cancelled":
                state_machine.cancel(tx, job)
            else:
                state_machine.mark_failed(
                    tx, job_id=job, attempt=None, code="upstream_error", message="x", actor="test"
                )
    before, events = tuple(engine.job_row(job)), len(engine.job_events(job))
    attempt = engine.job_row(job).attempt
    same: dict[str, Any] = {"job_id": job, "attempt": attempt}
    with transaction() as tx:
        assert state_machine.mark_running(tx, **same, upstream_id="x", actor="test") is None
        assert state_machine.requeue(tx, **same, actor="test", reason="x", delay=0) is None
        assert not progress_and_leases.mark_submit_unclear(tx, **same)
        assert state_machine.mark_saving(tx, **same, refs=[{"url": "x"}]) is None
        assert progress_and_leases.claim_save(tx, job) is None
        assert not progress_and_leases.renew_save_lease(tx, job_id=job, save_tries=engine.job_row(job).save_tries)
        assert not progress_and_leases.defer_save(
            tx, job_id=job, save_tries=engine.job_row(job).save_tries, delay=0, refs=[{"url": "x"}]
        )
        assert state_machine.mark_succeeded(tx, **same, stored=1, expected=1) is None
        assert state_machine.mark_failed(tx, **same, code="upstream_error", message="x", actor="test") is None
        assert (
            state_machine.mark_failed(tx, job_id=job, attempt=None, code="upstream_error", message="x", actor="test")
            is None
        )
        assert state_machine.cancel(tx, job) is None
        assert state_machine.mark_cancelled(tx, **same) is None
        assert progress_and_leases.count_stable_poll(tx, **same) is None
        progress_and_leases.mark_absent(tx, **same)
        progress_and_leases.release_slot(tx, job)
        report = progress_and_leases.Progress(
            job, attempt, queue_position=3, forecast_seconds=3, ready_items=2, progress=99
        )
        assert progress_and_leases.record_progress_many(tx, [report]) == []
    engine.pass_deadline(job)
    engine.make_due()
    submit(job_id=job)
    poll(account_id=account)
    save(job_id=job)
    tick()
    sweep()
    after = engine.job_row(job)
    changed = {name for name, a, b in zip(after._fields, before, after, strict=True) if a != b}
    assert changed == {"deadline_at"}, "only the column that this test changed"
    assert len(engine.job_events(job)) == events


# --- I2 ---

OUTSIDE = {
    "safe_fetch",
    "storage",
    "provider",
    "get_provider",
    "celery_app",
    "pubsub",
    "httpx",
    "redis",
    "decrypt_secret",
}


def outside_calls(body: list[ast.stmt]) -> Iterator[str]:
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Call):
                root: ast.expr = node.func
                while isinstance(root, ast.Attribute | ast.Call):
                    root = root.value if isinstance(root, ast.Attribute) else root.func
                if isinstance(root, ast.Name) and root.id in OUTSIDE:
                    yield f"{ast.unparse(node.func)} in line {node.lineno}"


def test_i2_no_code_inside_a_transaction_calls_outside() -> None:
    wrong = []
    for name, tree in parsed():
        for node in ast.walk(tree):
            opens = isinstance(node, ast.With) and any(
                "transaction()" in ast.unparse(i.context_expr) for i in node.items
            )
            inside = isinstance(node, ast.FunctionDef) and any(
                a.arg == "tx" for a in [*node.args.args, *node.args.kwonlyargs]
            )
            if opens or inside:
                wrong += [f"{name}: {call}" for call in outside_calls(node.body)]
    assert wrong == []


def test_i2_nothing_leaves_the_process_while_a_database_connection_is_held(
    engine: Engine, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres is accessed by C code, so all traffic of Python sockets is HTTP or Redis."""
    held, socket_calls, wrong = threading.local(), [], []

    def out(*_: Any) -> None:
        held.count = getattr(held, "count", 0) + 1

    def back(*_: Any) -> None:
        held.count = getattr(held, "count", 0) - 1

    event.listen(get_engine(), "checkout", out)
    event.listen(get_engine(), "checkin", back)
    for name in ("connect", "send", "sendall", "recv", "recv_into"):
        real = getattr(socket.socket, name)

        def watched(self: socket.socket, *args: Any, _real: Any = real, _name: str = name) -> Any:
            if not threading.current_thread().name.startswith(("server-", "asyncio", "gate")):
                socket_calls.append(_name)
                if getattr(held, "count", 0):
                    wrong.append((_name, threading.current_thread().name))
            return _real(self, *args)

        monkeypatch.setattr(socket.socket, name, watched)
    engine.add_succeeded_job(
        engine.add_account(session="us-watched-000001", region="auto"), webhook_url=receiver.url, count=2
    )
    engine.run_until_final(engine.add_job(engine.add_account(session="gift-watched-0001")))
    engine.run_until_final(engine.add_job(engine.add_account(), prompt="bad [[refuse:2038]]"))
    engine.run_until_final(engine.add_job(engine.add_account(), prompt="a boat [[reset:after]]"))
    engine.run_until_final(engine.add_job(engine.add_account(session="dead-watched-0001"), engine.add_account()))
    worn_out = engine.add_saving_job(engine.add_account())
    engine.sandbox.results.clear()
    engine.run_until_final(worn_out)
    for row in engine.sql("SELECT id FROM webhook_deliveries"):
        engine.make_due()
        deliver(delivery_id=row.id)
    engine.add_job(engine.add_account())
    engine.make_due()
    tick()
    sweep()
    assert len(socket_calls) > 100
    assert wrong == []


def test_i2_on_commit_actions_run_only_after_a_commit(engine: Engine) -> None:
    actions: list[str] = []
    with transaction() as tx:
        tx.on_commit(lambda: actions.append("committed"))
        assert actions == []
    assert actions == ["committed"]

    def roll_back() -> None:
        with transaction() as tx:
            tx.on_commit(lambda: actions.append("never"))
            raise RuntimeError("rollback")

    with pytest.raises(RuntimeError, match="rollback"):
        roll_back()
    assert actions == ["committed"]


# --- I3, I12 ---


@pytest.mark.parametrize("seed", [1, 2])
def test_i3_lost_duplicate_and_reordered_messages_only_change_timing(engine: Engine, seed: int) -> None:
    pool = [engine.add_account(max_images=2), engine.add_account(max_images=3)]
    endings = ["", "[[reset:after]]", "[[html]]", "[[absent:2]]", "[[partial:1]]", "[[refuse:2038]]", "[[fail:2038]]"]
    all_jobs = [engine.add_job(*pool, prompt=f"boat {n} {endings[n % 7]}", count=2) for n in range(21)]
    engine.run_worker(*all_jobs, rng=random.Random(seed), loss=0.25, duplication=0.4)
    expected = ["failed" if n % 7 in {5, 6} else "succeeded" for n in range(21)]
    assert engine.states(all_jobs) == expected
    assert {engine.job_row(j).error_code for j, w in zip(all_jobs, expected, strict=True) if w == "failed"} == {
        "content_policy_violation"
    }
    # Every job is charged once, except those refused at submit.
    assert engine.charge_count() == 18
    assert engine.ledger()["totals"]["duplicate_submit_ids"] == 0
    assert max(view["max_in_flight"] for view in engine.ledger()["accounts"].values()) <= 3


def test_i12_empty_redis_and_dead_claims_lose_no_job(engine: Engine) -> None:
    jobs_by_state = {state: in_state(engine, state)[0] for state in STATES}
    dead = engine.add_account()  # a worker claims, and dies
    jobs_by_state["claimed"] = engine.add_job(dead)
    with transaction() as tx:
        assert claims.claim_next(tx, account_id=dead)
    with transaction() as tx:
        assert progress_and_leases.claim_save(tx, jobs_by_state["saving"])
    engine.redis.flushall()
    engine.finish_upstream()
    engine.run_worker(*jobs_by_state.values(), rng=random.Random(3), rounds=20)
    assert engine.states(jobs_by_state.values()) == ["succeeded"] * 5
    assert engine.charge_count() == 5


# --- I4 ---


def test_i4_submit_key_is_committed_before_the_call_and_sent_once(engine: Engine) -> None:
    seen = []

    def look(_path: str, body: bytes) -> None:
        key = json.loads(body)["submit_id"]
        with engine.connect() as connection:
            row = connection.execute("SELECT state, holds_slot FROM jobs WHERE submit_key = %s", (key,)).fetchone()
        seen.append((key, row))

    engine.interceptor.before[GENERATE] = look
    account = engine.add_account(max_images=4)
    scripts = ["", "[[reset:before]]", "[[reset:after]]", "[[html]]", "[[http:500]]", "[[empty:after]]"]
    all_jobs = [engine.add_job(account, prompt=f"boat {n} {script}") for n, script in enumerate(scripts)]
    assert engine.run_until_final(*all_jobs) == ["succeeded"] * 6
    assert {row for _, row in seen} == {("submitting", True)}
    keys = [key for key, _ in seen]
    assert len(keys) == len(set(keys)) == 9
    assert engine.charge_count() == 6


# --- I5, I6 (more tests in test_claim.py and test_poll.py) ---


def test_i5_slots_and_pace_hold_with_sixteen_threads(engine: Engine) -> None:
    engine.configure(DB_POOL_SIZE="16")
    account = engine.add_account(max_images=3, submits_per_minute=6000)
    for _ in range(30):
        engine.add_job(account)
    for _ in range(4):
        barrier = threading.Barrier(16)

        def claim(barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            for _ in range(12):
                with transaction() as tx:
                    claims.claim_next(tx, account_id=account)

        threads = [threading.Thread(target=claim) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rows = engine.sql("SELECT id, attempt, due_at FROM jobs WHERE holds_slot ORDER BY due_at")
        assert len(rows) == 3
        gaps = [(b.due_at - a.due_at).total_seconds() for a, b in pairwise(rows)]
        assert min(gaps) >= 0.01 - 0.001
        with transaction() as tx:
            for row in rows:
                state_machine.mark_failed(
                    tx, job_id=row.id, attempt=row.attempt, code="upstream_error", message="x", actor="t"
                )


def test_i6_one_poll_per_account_and_interval(engine: Engine) -> None:
    account = engine.add_account(max_images=8)
    for _ in range(8):
        engine.add_running_job(account)
    for _ in range(3):
        engine.make_due()
        before = engine.poll_count()
        threads = [threading.Thread(target=poll, kwargs={"account_id": account}) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert engine.poll_count() == before + 1
        with transaction() as tx:
            polling.schedule_poll(tx, account)
        assert poll(account_id=account) == "not due", "an early poll waits for the interval"


# --- I7 ---


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("queued", "queue_timeout"),
        ("submitting", "submit_unclear"),
        ("running", "generation_timeout"),
        ("saving", "result_unavailable"),
    ],
)
def test_i7_every_open_state_ends_at_its_deadline(engine: Engine, state: str, code: str) -> None:
    job, _ = in_state(engine, state)
    sweep()
    assert engine.job_row(job).state == state
    engine.pass_deadline(job)
    sweep()
    row = engine.job_row(job)
    assert (row.state, row.error_code, row.holds_slot) == ("failed", code, False)
    assert row.finished_at


# --- I8 ---


def test_i8_session_ids_are_never_exposed(engine: Engine, receiver: WebhookReceiver, tmp_path: Path) -> None:
    mark = "5eCr3t"
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage() + str(record.exc_info) + str(record.__dict__))

    keep = Keep()
    logging.getLogger().addHandler(keep)
    logging.getLogger().setLevel(logging.DEBUG)
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    sessions = [f"{word}-{mark}-0123456789" for word in ("plain", "dead", "broke", "limited", "shark", "gift", "us")]
    scripts = ["", "[[reset:after]]", "[[html]]", "[[refuse:2038]]", "[[fail:2038]]", "[[http:500]]"]
    all_jobs = [
        engine.add_job(engine.add_account(session=s, region="auto" if s.startswith("us") else "sandbox"), prompt=f"b {n} {script}",
                   webhook_url=receiver.url)
        for s in sessions
        for n, script in enumerate(scripts)
    ]  # fmt: skip
    engine.run_until_final(*all_jobs, each_round=engine.end_cooldowns)
    home = engine.env["DREAMERY_SANDBOX_URL"]
    running = engine.add_running_job(engine.add_account(session=f"{mark}-unreachable-01"))
    engine.configure(SANDBOX_URL="http://127.0.0.1:9", UPSTREAM_ORIGIN="http://127.0.0.1:9")
    engine.poll(engine.job_row(running).account_id)
    engine.submit(engine.add_job(engine.add_account(session=f"{mark}-unreachable-02")))
    engine.submit(engine.add_job(engine.add_account(session=f"us-{mark}-unreach-3", region="auto")))
    engine.configure(SANDBOX_URL=home, UPSTREAM_ORIGIN=home)
    engine.make_due()
    tick()
    for row in engine.sql("SELECT id FROM webhook_deliveries LIMIT 3"):
        deliver(delivery_id=row.id)
    app = create_app()
    logging.getLogger().addHandler(keep)
    with TestClient(app) as http:
        for token in (f"plain-{mark}-0123456789", f"dead-{mark}-0123456789", f"{mark} bad", f"{mark}:nowhere"):
            auth = {"Authorization": f"Bearer {token}"}
            answers = (
                http.get("/v1/jobs", headers=auth),
                http.post("/v1/images/generations", headers=auth, json={"prompt": "x", "n": 99}),
                http.get("/v1/jobs/nope", headers=auth),
            )
            lines += [answer.text + str(answer.headers) for answer in answers]
    for table in ("jobs", "job_events", "accounts", "webhook_deliveries", "files", "requests"):
        lines += [str(row) for row in engine.sql(f"SELECT to_jsonb(t)::text FROM {table} t")]
    lines += [got.body.decode() + str(got.headers) for got in receiver.received]
    lines += [str(raw) for name in ("fast", "bulk", "outbox") for raw in engine.redis.lrange(name, 0, -1)]
    assert any("submit_refused" in line for line in lines), "the log was captured"
    assert [line[:300] for line in lines if mark in line] == []


def test_i8_worker_log_contains_no_session_id(engine: Engine, tmp_path: Path) -> None:
    """At log level debug, with tracebacks of the libraries."""
    mark = "5eCr3t"
    log = tmp_path / "worker.log"
    for word in ("dead", "plain"):
        job = engine.add_job(engine.add_account(session=f"{word}-{mark}-0123456789"), prompt=f"{word} [[reset:before]]")
        process = engine.start_process("submit", env={"DREAMERY_LOG_LEVEL": "debug"}, log=log, job_id=job)
        process.join(20)
        assert process.exitcode == 0
    text = log.read_text(encoding="utf-8")
    assert "submit_refused" in text
    assert mark not in text


def test_i8_reprs_hide_secrets(engine: Engine) -> None:
    account_id = engine.add_account(session="5eCr3t-in-a-repr-01")
    [token] = parse_tokens("Bearer 5eCr3t-in-a-repr-01:sandbox", "auto")
    with transaction() as tx:
        row = accounts.get_account(tx, account_id)
    engine.add_job(account_id)
    with transaction() as tx:
        claim = claims.claim_next(tx, account_id=account_id)
    caller = Caller(owner="tokens:x", tokens=(("hash", token),))
    presented = accounts.PresentedToken(lookup_hash="h", region="cn", label="l", secret="v1:sealed")
    shown = f"{token!r} {row!r} {claim!r} {caller!r} {presented!r} {Account(id='1', region='cn', session='5eCr3t')!r}"
    assert "5eCr3t" not in shown
    assert "v1:" not in shown, "nor the encrypted form"


def test_i8_only_tasks_decrypt_secrets() -> None:
    users = {
        name
        for name, tree in parsed()
        for node in ast.walk(tree)
        if (isinstance(node, ast.ImportFrom) and any(alias.name == "decrypt_secret" for alias in node.names))
        or (isinstance(node, ast.Attribute) and node.attr == "decrypt_secret")
    }
    assert users
    assert all(name.startswith("worker/tasks/") for name in users), users


# --- I9 ---


def test_i9_other_users_get_404_and_an_empty_list(engine: Engine) -> None:
    owner, other_user = (
        {"Authorization": "Bearer owner-0123456789:sandbox"},
        {"Authorization": "Bearer other-0123456789:sandbox"},
    )
    admin = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with TestClient(create_app()) as http:
        made = http.post(
            "/v1/images/generations",
            headers={**owner, "Prefer": "respond-async"},
            json={"prompt": "a boat", "n": 1, "size": "1024x1024"},
        )
        assert made.status_code == 202
        job_id = made.json()["id"]
        own = http.get(f"/v1/jobs/{job_id}", headers=owner)
        assert own.status_code == 200
        for who in (other_user, admin):
            for method, path in (("GET", ""), ("POST", "/cancel"), ("GET", "/events")):
                answer = http.request(method, f"/v1/jobs/{job_id}{path}", headers=who)
                assert answer.status_code == 404, (who, path)
                unknown = http.request(method, f"/v1/jobs/{public_id('job', uuid4())}{path}", headers=who)
                assert answer.json()["error"]["code"] == unknown.json()["error"]["code"] == "job_not_found"
            assert http.get("/v1/jobs", headers=who).json()["data"] == []
        assert http.get(f"/v1/jobs/{job_id}", headers=owner).json()["status"] == "queued", "it was not cancelled"
        # A caller with the session id sees its jobs, also in a list of session ids.
        both = {"Authorization": "Bearer fresh-0123456789:sandbox, owner-0123456789:sandbox"}
        assert http.get(f"/v1/jobs/{job_id}", headers=both).status_code == 200
        other_region = {"Authorization": "Bearer owner-0123456789:cn"}
        assert http.get(f"/v1/jobs/{job_id}", headers=other_region).status_code == 404
        file_answer = http.get(f"/v1/files/{public_id('file', uuid4())}/content", headers=owner)
        assert (file_answer.status_code, file_answer.json()["error"]["code"]) == (404, "file_not_found")
        engine.run_until_final(*[row.id for row in engine.sql("SELECT id FROM jobs")])
        [link] = [o["url"] for o in http.get(f"/v1/jobs/{job_id}", headers=owner).json()["output"]]
        # The link is unguessable and works without a key.
        assert http.get(link).status_code == 200
        assert all(row.id.version == 4 for row in engine.sql("SELECT id FROM files"))
    assert engine.sql("SELECT count(*) AS n FROM accounts WHERE NOT pool")[0].n == 1, "reading creates no rows"


# --- I10 ---


def test_i10_saving_twice_leaves_the_same_bytes_and_rows(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account(), count=2)
    engine.make_due()
    stop = engine.interceptor.before[MEDIA] = RequestPause(nth=2)
    slow = threading.Thread(target=save, kwargs={"job_id": job})
    slow.start()
    stop.wait()  # the first file is stored, the second under way
    engine.save(job)
    kept = [tuple(row) for row in engine.files(job)]
    stored = [storage.read_file(row.key) for row in engine.files(job)]
    history = engine.state_history(job)
    stop.release()
    slow.join(20)
    assert [tuple(row) for row in engine.files(job)] == kept
    assert [storage.read_file(row.key) for row in engine.files(job)] == stored
    assert engine.state_history(job) == history
    # A late save does not add rows.
    with transaction() as tx:
        one = files.NewFile(n=0, key="elsewhere", mime="image/png", bytes=1, sha256="0", width=1, height=1)
        files.add_files(tx, [(job, one)])
    assert [tuple(row) for row in engine.files(job)] == kept
    assert engine.sql("SELECT count(*) AS n FROM webhook_deliveries")[0].n == 0
    folder = tmp_files(engine)
    assert sorted(folder) == sorted(row.key for row in engine.files(job)), "no orphaned files"


def tmp_files(engine: Engine) -> list[str]:
    home = Path(engine.env["DREAMERY_DATA_DIR"]) / "files"
    return [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]


# --- I11 ---


def test_i11_outbox_row_is_written_with_the_final_state_only(engine: Engine, receiver: WebhookReceiver) -> None:
    job = engine.add_job(engine.add_account(), webhook_url=receiver.url)

    def crash() -> None:
        with transaction() as tx:
            assert state_machine.mark_failed(
                tx, job_id=job, attempt=None, code="upstream_error", message="x", actor="test"
            )
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        crash()
    assert engine.job_row(job).state == "queued"
    assert engine.sql("SELECT 1 FROM webhook_deliveries") == []
    for end in ("succeeded", "failed", "cancelled"):
        if end == "succeeded":
            other = engine.add_succeeded_job(engine.add_account(), webhook_url=receiver.url)
        else:
            other = engine.add_job(engine.add_account(), webhook_url=receiver.url, prompt="bad [[refuse:2038]]")
        if end == "failed":
            engine.submit(other)
        if end == "cancelled":
            with transaction() as tx:
                state_machine.cancel(tx, other)
        [row] = engine.sql("SELECT *, xmin::text AS x FROM webhook_deliveries WHERE job_id = :id", id=other)
        [same] = engine.sql("SELECT xmin::text AS x FROM jobs WHERE id = :id", id=other)
        assert row.x == same.x, "written by one transaction"
        assert row.event == {"succeeded": "job.completed"}.get(end, f"job.{end}")
    receiver.answers = [500]
    [first] = engine.sql("SELECT * FROM webhook_deliveries WHERE event = 'job.completed'")
    for _ in range(2):
        engine.make_due()
        deliver(delivery_id=first.id)
    ids = {got.headers["webhook-id"] for got in receiver.received}
    assert len(ids) == 1
    assert len(receiver.received) == 2
    for got in receiver.received:
        assert Webhook(webhook_secret("tokens:test")).verify(got.body, got.headers)["type"] == "job.completed"
