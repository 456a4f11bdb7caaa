"""Unexpected exceptions while a job is worked on: the attempt ends at once, its slot is free, and nothing is paid twice."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import DataError

from tests.integration.worker.tasks.test_converse import chat, run_converse, sent_conversations
from tests.integration.worker.tasks.test_killed_tasks import charged_once
from tests.support.engine import Engine
from worker.core.observability.faults import FAULT_PREFIX, UnexpectedError
from worker.db.engine import transaction
from worker.db.jobs import queries, state_machine
from worker.providers.registry import PROVIDERS
from worker.tasks import save as save_task
from worker.tasks.poll import poll
from worker.tasks.save import save_batch
from worker.tasks.stages.files import fetch_references
from worker.tasks.stages.orders import build_order, upload_references
from worker.tasks.submit import submit, submit_batch

SECRET = "a secret of the exception 4711"


class PanicError(BaseException):
    """What a library written in Rust raises: no subclass of Exception."""


def fault_of(kind: type[BaseException]) -> BaseException:
    if kind is UnicodeEncodeError:
        return UnicodeEncodeError("utf-8", SECRET, 0, 1, SECRET)
    return kind(SECRET)


FAULTS = [
    AttributeError,
    KeyError,
    RecursionError,
    MemoryError,
    UnicodeEncodeError,
    StopIteration,
    TimeoutError,
    asyncio.CancelledError,
    SystemExit,
    PanicError,
]


def raises(error: BaseException, when: Callable[..., bool] = lambda *_a, **_k: True, real: Any = None) -> Any:
    def broken(*args: Any, **values: Any) -> Any:
        if when(*args, **values):
            raise error
        return real(*args, **values)

    return broken


def raises_async(error: BaseException, when: Callable[..., bool] = lambda *_a, **_k: True, real: Any = None) -> Any:
    async def broken(*args: Any, **values: Any) -> Any:
        if when(*args, **values):
            raise error
        return await real(*args, **values)

    return broken


def faults_in(engine: Engine, job: UUID) -> list[str]:
    notes = [row.note.get("detail") or "" for row in engine.job_events(job)]
    assert SECRET not in str([dict(row._mapping) for row in engine.job_events(job)])
    assert SECRET not in str(engine.job_row(job)._mapping)
    return [note for note in notes if note.startswith(FAULT_PREFIX)]


# --- submit ---


@pytest.mark.parametrize("kind", FAULTS)
def test_fault_before_the_order_frees_the_slot_at_once_and_is_retried(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    account = engine.add_account(max_images=1)
    job = engine.add_job(account)
    monkeypatch.setattr(build_order, "build_image_order", raises(fault_of(kind)))
    engine.submit(job)
    row = engine.job_row(job)
    assert (row.state, row.holds_slot, row.attempt) == ("queued", False, 1)
    [fault] = faults_in(engine, job)
    assert kind.__name__ in fault
    assert engine.charge_count() == 0
    monkeypatch.undo()
    charged_once(engine, job)


def test_fault_that_stays_fails_the_job_when_its_attempts_run_out(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = engine.add_account()
    bad, good = engine.add_job(account), engine.add_job(account, prompt="another boat")
    real = build_order.build_image_order
    monkeypatch.setattr(build_order, "build_image_order", raises(KeyError(SECRET), lambda c, _: c.id == bad, real))
    states = engine.run_until_final(bad, good)
    assert states == ["failed", "succeeded"]
    row = engine.job_row(bad)
    assert (row.error_code, row.attempt) == ("internal_error", row.max_attempts)
    assert SECRET not in row.error_message
    assert engine.charge_count() == 1


@pytest.mark.parametrize("kind", FAULTS)
def test_fault_after_the_order_is_looked_up_and_never_sent_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    account = engine.add_account()
    job = engine.add_job(account)
    provider = PROVIDERS["dreamina"]()
    real = provider.submit_image

    async def accepted_then_broken(*args: Any, **values: Any) -> Any:
        await real(*args, **values)
        raise fault_of(kind)

    monkeypatch.setattr(provider, "submit_image", accepted_then_broken)
    engine.submit(job)
    assert (engine.job_row(job).state, engine.job_row(job).attempt) == ("submitting", 1)
    [fault] = faults_in(engine, job)
    assert kind.__name__ in fault
    monkeypatch.undo()
    charged_once(engine, job)
    assert engine.job_row(job).attempt == 1


def test_fault_while_the_body_of_an_order_is_built_is_known_as_not_sent(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.providers.dreamina import client

    job = engine.add_job(engine.add_account())
    monkeypatch.setattr(client, "build_image_body", raises(KeyError(SECRET)))
    engine.submit(job)
    assert engine.job_row(job).state == "queued"
    assert len(faults_in(engine, job)) == 1


def test_fault_while_a_refusal_is_handled_ends_the_attempt(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from worker.tasks.stages import handle_refusal

    job = engine.add_job(engine.add_account(), prompt="[[fail:1057]]")
    monkeypatch.setattr(handle_refusal, "_react", raises(AttributeError(SECRET)))
    monkeypatch.setattr(handle_refusal, "_try_remedy", raises(AttributeError(SECRET)))
    engine.submit(job)
    assert engine.job_row(job).state in {"queued", "failed"}
    assert not engine.job_row(job).holds_slot


@pytest.mark.parametrize("kind", [AttributeError, OverflowError, PanicError])
def test_fault_while_a_reference_is_inspected_holds_no_slot(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    """As with media that a parser does not expect: the slot was held for three leases."""
    account = engine.add_account(max_images=1)
    bad, good = engine.add_job(account), engine.add_job(account, prompt="another boat")
    engine.sql("INSERT INTO job_inputs (job_id, n, url) VALUES (:id, 0, 'https://example.com/a.png')", id=bad)
    monkeypatch.setattr(fetch_references, "_fetch", raises_async(kind(SECRET)))
    for attempt in range(1, engine.job_row(bad).max_attempts + 1):
        engine.submit(bad)
        row = engine.job_row(bad)
        assert not row.holds_slot
        if row.state == "failed":
            break
        assert (row.state, row.attempt) == ("queued", attempt)
    assert (row.state, row.error_code) == ("failed", "internal_error")
    assert kind.__name__ in faults_in(engine, bad)[0]
    engine.submit(good)
    assert engine.job_row(good).state == "running"


def test_fault_while_a_reference_is_uploaded_frees_the_slot(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    account = engine.add_account(max_images=1)
    bad, good = engine.add_job(account), engine.add_job(account, prompt="another boat")
    engine.sql(
        """INSERT INTO job_inputs (job_id, n, key, mime, bytes, width, height, sha256)
           VALUES (:id, 0, 'inputs/a.png', 'image/png', 1, 1, 1, '')""",
        id=bad,
    )
    monkeypatch.setattr(upload_references, "upload", raises_async(AttributeError(SECRET)))
    engine.submit(bad)
    assert (engine.job_row(bad).state, engine.job_row(bad).holds_slot) == ("queued", False)
    assert len(faults_in(engine, bad)) == 1
    engine.sql("UPDATE accounts SET next_submit_at = now()")
    submit(job_id=good)
    assert engine.job_row(good).state == "running", "the slot is free"


def test_row_that_cannot_be_written_leaves_the_others_of_the_batch_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upstream's queue position is out of the range of its column, for one of ten accepted jobs."""
    account = engine.add_account(max_images=100)
    jobs = [engine.add_job(account, prompt=f"boat {n}") for n in range(10)]
    bad = jobs[3]
    real = state_machine.mark_running_many
    hit: list[int] = []

    def mark(tx: Any, accepted: Any, **values: Any) -> Any:
        if any(one.job_id == bad for one in accepted):
            hit.append(len(accepted))
            raise DataError("UPDATE", {}, ValueError(SECRET))
        return real(tx, accepted, **values)

    monkeypatch.setattr(state_machine, "mark_running_many", mark)
    submit_batch(account_id=account)
    states = dict(zip(jobs, engine.states(jobs), strict=True))
    assert states.pop(bad) == "submitting"
    assert set(states.values()) == {"running"}
    assert "DataError (ValueError)" in faults_in(engine, bad)[0]
    assert hit[-1] == 1
    monkeypatch.undo()
    charged_once(engine, *jobs)


# --- save ---


@pytest.mark.parametrize("kind", FAULTS)
def test_fault_of_a_copy_is_noted_and_tried_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    account = engine.add_account()
    bad, good = engine.add_job(account), engine.add_job(account, prompt="another boat")
    submit_batch(account_id=account)
    engine.finish_upstream()
    engine.make_due()
    poll(account_id=account)
    engine.make_due()
    real = save_task._copy_image
    monkeypatch.setattr(
        save_task, "_copy_image", raises_async(fault_of(kind), lambda claim, *_a, **_k: claim.id == bad, real)
    )
    save_batch(job_ids=[bad, good])
    assert engine.states([bad, good]) == ["saving", "succeeded"]
    assert len(faults_in(engine, bad)) == 1
    wait = engine.sql("SELECT extract(epoch FROM due_at - now()) AS s FROM jobs WHERE id = :id", id=bad)[0].s
    assert 0 < wait < 10
    monkeypatch.undo()
    charged_once(engine, bad, good)


def test_fault_of_one_result_keeps_the_others_of_its_job(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """All results are tried again, and at the deadline those that are there are the result."""
    job = engine.add_saving_job(engine.add_account())
    engine.sql("UPDATE jobs SET result_refs = result_refs || (result_refs -> 0) WHERE id = :id", id=job)
    last = len(engine.job_row(job).result_refs) - 1
    real = save_task._copy_image
    monkeypatch.setattr(
        save_task, "_copy_image", raises_async(OverflowError(SECRET), lambda _claim, n, *_a, **_k: n == 0, real)
    )
    engine.save(job)
    assert engine.job_row(job).state == "saving"
    assert "OverflowError" in faults_in(engine, job)[0]
    engine.sql("UPDATE jobs SET deadline_at = now() + interval '0.5 seconds' WHERE id = :id", id=job)
    engine.save(job)
    assert engine.job_row(job).state == "succeeded"
    assert [row.n for row in engine.files(job)] == list(range(1, last + 1))


def test_save_whose_row_cannot_be_written_ends_at_its_deadline(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    job = engine.add_saving_job(engine.add_account())
    monkeypatch.setattr(save_task.files, "add_files", raises(DataError("INSERT", {}, ValueError(SECRET))))
    engine.save(job)
    assert engine.job_row(job).state == "saving"
    assert "DataError" in faults_in(engine, job)[0]
    engine.sql("UPDATE jobs SET deadline_at = now() + interval '0.5 seconds' WHERE id = :id", id=job)
    engine.save(job)
    row = engine.job_row(job)
    assert (row.state, row.error_code) == ("failed", "result_unavailable")


# --- converse ---


def test_fault_before_a_conversation_is_sent_is_retried(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from worker.tasks import converse as converse_task

    job = chat(engine, engine.add_account())
    monkeypatch.setattr(converse_task, "prepare_account", raises(AttributeError(SECRET)))
    run_converse(engine, job)
    row = engine.job_row(job)
    assert (row.state, row.holds_slot) == ("queued", False)
    assert len(faults_in(engine, job)) == 1
    assert sent_conversations(engine) == []
    monkeypatch.undo()
    run_converse(engine, job)
    assert engine.job_row(job).state == "succeeded"


@pytest.mark.parametrize("kind", [AttributeError, RecursionError, PanicError])
def test_fault_in_a_conversation_ends_it_and_it_is_never_sent_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    from worker.tasks import converse as converse_task

    job = chat(engine, engine.add_account())
    monkeypatch.setattr(converse_task._ConversationStream, "_finish", raises(fault_of(kind)))
    run_converse(engine, job)
    row = engine.job_row(job)
    assert (row.state, row.error_code, row.holds_slot) == ("failed", "stream_broken", False)
    assert len(faults_in(engine, job)) == 1
    engine.run_until_final(job)
    assert len(sent_conversations(engine)) == 1


# --- what callers see ---


def test_timeline_names_the_fault_but_not_its_text(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from api.auth.caller import Caller
    from api.jobs.timeline.entries import timeline_object

    job = engine.add_saving_job(engine.add_account())
    monkeypatch.setattr(save_task.files, "add_files", raises(KeyError(SECRET)))
    engine.save(job)
    with transaction() as tx:
        rows, view = queries.transitions(tx, job), queries.group_views(tx, [job])[0]
    timeline = timeline_object(view, rows, Caller(owner=view.job.owner), shows_labels=False)
    texts = [entry["text"]["en"] for entry in timeline["data"]]
    assert any("an error inside Dreamery, KeyError" in text for text in texts)
    assert SECRET not in str(texts)


def test_error_of_a_fault_has_neither_text_nor_locals() -> None:
    fault = UnexpectedError(KeyError(SECRET))
    assert SECRET not in f"{fault} {fault.detail} {fault.frames} {fault!r}"
