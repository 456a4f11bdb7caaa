"""Unexpected exceptions in checks, webhooks, dispatch and background work: they end what has them, and nothing else."""

import threading
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from tests.integration.worker.faults.test_faults_of_jobs import SECRET, PanicError, fault_of, raises, raises_async
from tests.integration.worker.tasks.test_converse import chat
from tests.integration.worker.tasks.test_webhook_delivery import add_endpoint, fail
from tests.support.engine import Engine
from tests.support.platform import eventually
from tests.support.servers.http_servers import WebhookReceiver
from worker import celery_tasks
from worker.core.ids import new_id
from worker.db.accounts import model_listings, session_checks
from worker.db.engine import transaction
from worker.db.jobs import conversations, state_machine
from worker.messaging.celery_app import app
from worker.messaging.timer import Timer
from worker.providers.credits import CreditHistory, CreditRecord
from worker.providers.registry import PROVIDERS
from worker.tasks import cleanup, deliver_webhooks, dispatch, sync_credits
from worker.tasks.check_session import check
from worker.tasks.deliver_webhooks import deliver
from worker.tasks.refresh_accounts import refresh_accounts
from worker.tasks.stages import conversation_heartbeat

KINDS = [AttributeError, RecursionError, MemoryError, SystemExit, PanicError]


# --- checks of accounts ---


@pytest.mark.parametrize("kind", KINDS)
def test_fault_of_a_check_answers_its_caller(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    account, check_id = engine.add_account(), new_id()
    with transaction() as tx:
        session_checks.create_account_checks(tx, owner="user:x", accounts_by_check={check_id: account})
    monkeypatch.setattr(PROVIDERS["dreamina"](), "fetch_credits", raises_async(fault_of(kind)))
    check(check_id=check_id)
    [row] = engine.sql("SELECT state, result FROM account_checks")
    assert row.state == "succeeded"
    assert row.result["error"]["code"] == "internal_error"
    assert SECRET not in str(row.result)


def test_result_of_a_check_that_cannot_be_stored_answers_its_caller(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, check_id = engine.add_account(), new_id()
    with transaction() as tx:
        session_checks.create_account_checks(tx, owner="user:x", accounts_by_check={check_id: account})
    monkeypatch.setattr(model_listings, "store_models", raises(ValueError(SECRET)))
    check(check_id=check_id)
    [row] = engine.sql("SELECT state, result FROM account_checks")
    assert (row.state, row.result["error"]["code"]) == ("succeeded", "internal_error")


@pytest.mark.parametrize("kind", KINDS)
def test_fault_of_one_account_leaves_the_refresh_of_the_others_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    bad, *good = [engine.add_account(pool=True) for _ in range(4)]
    real = PROVIDERS["dreamina"]().fetch_credits
    monkeypatch.setattr(
        PROVIDERS["dreamina"](),
        "fetch_credits",
        raises_async(fault_of(kind), lambda account: account.id == bad.hex, real),
    )
    refresh_accounts()
    rows = {row.id: row for row in engine.sql("SELECT id, credits, check_code FROM accounts")}
    assert (rows[bad].credits, rows[bad].check_code) == (None, "internal_error")
    assert all(rows[account].credits is not None for account in good)


def test_fault_of_one_history_leaves_the_other_accounts_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = [engine.add_account() for _ in range(3)]
    for account in accounts:
        engine.add_succeeded_job(account)
    engine.sql("UPDATE jobs SET submitted_at = now() - interval '1 hour', finished_at = now() - interval '1 hour'")
    asked: list[str] = []

    async def history(account: Any, *, cursor: str = "0") -> CreditHistory:
        asked.append(account.id)
        if account.id == accounts[0].hex:
            raise KeyError(SECRET)
        return CreditHistory(5, (CreditRecord("", 1, datetime.now(UTC).timestamp()),), "", more=False, complete=True)

    monkeypatch.setattr(PROVIDERS["dreamina"](), "fetch_credit_history", history)
    sync_credits.sync_credits()
    assert sorted(set(asked)) == sorted(account.hex for account in accounts)
    credits_of = {row.id: row.credits for row in engine.sql("SELECT id, credits FROM accounts")}
    assert [credits_of[account] for account in accounts[1:]] == [5, 5]


# --- webhooks ---


@pytest.mark.parametrize("kind", KINDS)
def test_fault_of_a_delivery_is_a_failed_try_with_a_next_time(
    engine: Engine, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    add_endpoint(engine, receiver.url)
    fail(engine)
    [row] = engine.sql("SELECT id FROM webhook_deliveries")
    monkeypatch.setattr(deliver_webhooks, "event_body", raises(fault_of(kind)))
    engine.make_due()
    deliver(delivery_id=row.id)
    [row] = engine.sql("SELECT *, due_at > now() AS later FROM webhook_deliveries")
    assert (row.tries, row.claimed_until, row.later) == (1, None, True)
    assert kind.__name__ in row.last_error
    assert SECRET not in row.last_error
    monkeypatch.undo()
    engine.make_due()
    engine.sql("UPDATE webhook_endpoints SET slow_until = NULL")
    deliver(delivery_id=row.id)
    assert engine.sql("SELECT delivered_at IS NOT NULL AS d FROM webhook_deliveries")[0].d


def test_job_that_cannot_be_read_does_not_block_its_lane(
    engine: Engine, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_endpoint(engine, receiver.url)
    bad, good = fail(engine), fail(engine)
    real = deliver_webhooks.queries.group_views
    monkeypatch.setattr(
        deliver_webhooks.queries, "group_views", raises(KeyError(SECRET), lambda _tx, ids: bad in ids, real)
    )
    for _ in range(2):
        for row in engine.sql("SELECT id FROM webhook_deliveries WHERE delivered_at IS NULL ORDER BY created_at"):
            engine.make_due()
            engine.sql("UPDATE webhook_endpoints SET slow_until = NULL")
            deliver(delivery_id=row.id)
    ends = {row.job_id: row for row in engine.sql("SELECT * FROM webhook_deliveries")}
    assert ends[good].delivered_at is not None
    assert ends[bad].delivered_at is None
    assert "KeyError" in ends[bad].last_error


# --- dispatch ---


@pytest.mark.parametrize("kind", KINDS)
def test_fault_of_one_overdue_job_leaves_the_sweep_of_the_others_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    jobs = [engine.add_job(engine.add_account()) for _ in range(3)]
    for job in jobs:
        engine.pass_deadline(job)
    real = dispatch.fail_job
    monkeypatch.setattr(
        dispatch, "fail_job", raises(fault_of(kind), lambda _tx, *, job_id, **_: job_id == jobs[1], real)
    )
    if kind is SystemExit:
        with pytest.raises(SystemExit):
            dispatch.sweep()  # in the main thread it ends the process
        return
    dispatch.sweep()
    assert engine.states(jobs) == ["failed", "queued", "failed"]


def test_fault_of_one_query_leaves_the_other_work_of_tick_and_sweep_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = engine.add_account()
    job = engine.add_job(account)
    overdue = engine.add_job(account)
    engine.pass_deadline(overdue)
    engine.make_due()
    engine.take_messages()
    for name in ("take_due_saves", "schedule_missing_polls", "find_lost_conversations"):
        monkeypatch.setattr(dispatch.due_work, name, raises(RecursionError(SECRET)))
    monkeypatch.setattr(dispatch.queries, "accounts_to_poll", raises(KeyError(SECRET)))
    assert "submits" in dispatch.tick()
    assert engine.take_messages("dreamery.submit")
    dispatch.sweep()
    assert engine.states([job, overdue]) == ["queued", "failed"]


# --- background work and Celery ---


@pytest.mark.parametrize("kind", [AttributeError, MemoryError, PanicError])
def test_fault_of_one_part_of_the_clean_up_leaves_the_others_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    done: list[str] = []
    parts = (
        (("inputs",), raises(fault_of(kind))),
        (("files",), lambda: (done.append("files") or 1,)),  # type: ignore[func-returns-value]
    )
    monkeypatch.setattr(cleanup, "_PARTS", parts)
    with pytest.raises(Exception, match="internal_error"):
        cleanup.clean_up()
    assert done == ["files"]
    assert engine.sql("SELECT 1 AS n")[0].n == 1


def test_panic_in_a_task_is_an_error_that_celery_knows(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery takes what is no Exception for a lost worker, and forgets to count the task as ended."""
    monkeypatch.setattr(celery_tasks.dispatch_task, "tick", raises(PanicError(SECRET)))
    result = app.tasks["dreamery.tick"].apply()
    assert result.state == "FAILURE"
    assert type(result.result) is RuntimeError
    assert SECRET not in str(result.result)
    assert engine.sql("SELECT 1 AS n")[0].n == 1


@pytest.mark.parametrize("kind", KINDS)
def test_fault_while_leases_are_renewed_loses_no_conversation(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    """One thread renews the leases of all conversations of a process: it continues."""
    job = chat(engine, engine.add_account())
    engine.sql(
        """UPDATE jobs SET state = 'running', holds_slot = true, attempt = 1, submit_key = gen_random_uuid(),
               account_id = account_ids[1], due_at = now() - interval '1 second' WHERE id = :id""",
        id=job,
    )
    failed = threading.Event()
    real = conversations.renew_leases

    def renew(tx: Any, attempts: Any) -> None:
        if not failed.is_set():
            failed.set()
            raise fault_of(kind)
        real(tx, attempts)

    monkeypatch.setattr(conversation_heartbeat.conversations, "renew_leases", renew)
    monkeypatch.setattr(conversation_heartbeat, "_RENEWALS_PER_LEASE", 1000)
    with conversation_heartbeat.ConversationHeartbeat().keep_lease(job, 1):
        assert failed.wait(30)
        eventually(
            lambda: engine.sql("SELECT due_at > now() AS kept FROM jobs WHERE id = :id", id=job)[0].kept,
            what="the lease is renewed by the same thread",
        )


def test_timer_goes_on_after_any_exception_of_an_action() -> None:
    timer, done = Timer(), threading.Event()
    timer.after(0, raises(PanicError(SECRET)))
    timer.after(0.01, done.set)
    assert done.wait(30)


def test_fault_of_a_refill_leaves_the_refusal_as_it_is(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credits the account gets a look; if that breaks, another account takes the job as usual."""
    poor, rich = engine.add_account(), engine.add_account()
    job = engine.add_job(poor, rich, prompt="[[fail:1006]]")
    monkeypatch.setattr(PROVIDERS["dreamina"](), "fetch_credits", raises_async(KeyError(SECRET)))
    engine.submit(job)
    codes = [row.note.get("code") for row in engine.job_events(job)]
    assert "internal_error" not in codes
    assert engine.job_row(job).state in {"queued", "running", "failed"}


def test_note_is_for_the_open_attempt_only(engine: Engine) -> None:
    """Only open jobs of the same attempt get a note; one that has moved on is left alone."""
    from worker.db.jobs import progress_and_leases

    job: UUID = engine.add_job(engine.add_account())
    with transaction() as tx:
        args = {"code": "internal_error", "detail": "internal_error: X", "actor": "poll"}
        assert len(progress_and_leases.record_fault(tx, [(job, 0)], **args)) == 1
        assert progress_and_leases.record_fault(tx, [(job, 0)], **args) == []
        assert progress_and_leases.record_fault(tx, [(job, 7)], **args) == []
        state_machine.mark_failed(tx, job_id=job, attempt=None, code="upstream_error", message="x", actor="test")
        assert progress_and_leases.record_fault(tx, [(job, 0)], **args) == []
