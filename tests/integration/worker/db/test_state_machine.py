"""`worker/db/jobs/state_machine.py`: random sequences compared with a model, and a small test for each guard."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from tests.support import factories
from tests.support.engine import FINAL, Engine
from worker.core.job_state import OPEN, UPSTREAM
from worker.db.accounts import accounts
from worker.db.engine import Transaction, transaction
from worker.db.jobs import claims, files, progress_and_leases, state_machine
from worker.db.jobs.files import NewFile
from worker.db.scheduling import job_selection

LIMITS = (2, 1)


@dataclass
class Known:
    """A job in the model."""

    allowed: list[int]
    state: str = "queued"
    attempt: int = 0
    holds: bool = False
    account: int | None = None
    cancel_requested: bool = False
    save_tries: int = 0
    save_due: bool = False
    files: bool = False
    ended: str | None = None  # the whole row, once final


class JobMachine(RuleBasedStateMachine):
    """Each rule calls one function, in time or late, and checks its result."""

    engine: Engine

    @initialize()
    def start(self) -> None:
        self.engine.sql(
            "DELETE FROM webhook_deliveries; DELETE FROM files; DELETE FROM job_events; DELETE FROM jobs; DELETE FROM accounts"
        )
        self.accounts = [self.engine.add_account(max_images=limit) for limit in LIMITS]
        self.jobs: dict[UUID, Known] = {}

    def pick(self, number: int) -> tuple[UUID, Known]:
        job_id = list(self.jobs)[number % len(self.jobs)]
        return job_id, self.jobs[job_id]

    def expect(self, row: Any, known: Known, expected: Any, **changes: Any) -> None:
        assert (row is not None and row is not False) == bool(expected)
        if expected:
            for name, value in changes.items():
                setattr(known, name, value)

    @rule(allowed=st.sampled_from([[0], [1], [0, 1]]), webhook=st.booleans())
    def accept(self, allowed: list[int], webhook: bool) -> None:
        if len(self.jobs) >= 8:
            return
        with transaction() as tx:
            ids = [self.accounts[n] for n in allowed]
            job_id = factories.make_job(tx, ids, webhook_url="https://example.org/" if webhook else None)
        self.jobs[job_id] = Known(allowed)

    @rule(number=st.integers(0, 1))
    def claim(self, number: int) -> None:
        self.engine.sql("UPDATE accounts SET next_submit_at = now() - interval '1 second'")
        self.engine.sql("UPDATE jobs SET due_at = now() - interval '1 second' WHERE state = 'queued'")
        used = sum(known.holds and known.account == number for known in self.jobs.values())
        waiting = [
            job_id
            for job_id, known in self.jobs.items()
            if known.state == "queued" and not known.cancel_requested and number in known.allowed
        ]
        with transaction() as tx:
            got = claims.claim_next(tx, account_id=self.accounts[number])
        if used >= LIMITS[number] or not waiting:
            assert got is None
            return
        assert got is not None
        assert got.id == min(waiting)
        known = self.jobs[got.id]
        known.state, known.attempt, known.holds, known.account = "submitting", known.attempt + 1, True, number
        assert got.attempt == known.attempt

    @rule(number=st.integers(0, 1), most=st.integers(1, 5))
    def claim_batch(self, number: int, most: int) -> None:
        """Several claims in one statement take the same jobs as claims one after the other."""
        self.engine.sql("UPDATE accounts SET next_submit_at = now() - interval '1 second'")
        self.engine.sql("UPDATE jobs SET due_at = now() - interval '1 second' WHERE state = 'queued'")
        used = sum(known.holds and known.account == number for known in self.jobs.values())
        waiting = sorted(
            job_id
            for job_id, known in self.jobs.items()
            if known.state == "queued" and not known.cancel_requested and number in known.allowed
        )
        keys = [uuid4() for _ in range(most)]
        with transaction() as tx:
            batch = claims.claim_batch(tx, self.accounts[number], claims.ClaimRequest(keys=keys))
        expected = waiting[: max(min(LIMITS[number] - used, most), 0)]
        assert [claim.id for claim in batch.claims] == expected
        for claim in batch.claims:
            known = self.jobs[claim.id]
            known.state, known.attempt, known.holds, known.account = "submitting", known.attempt + 1, True, number
            assert claim.attempt == known.attempt
            assert claim.submit_key in keys
        with transaction() as tx:
            found = claims.find_claims(tx, keys, started=0.0)
        assert {claim.submit_key for claim in found} == {claim.submit_key for claim in batch.claims}

    @precondition(lambda self: self.jobs)
    @rule(lates=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 1)), min_size=1, max_size=8))
    def batches_of_all_kinds(self, lates: list[tuple[int, int]]) -> None:
        """Running, saving and succeeded in batches with jobs in any state and with wrong attempts among them."""
        picked = {job_id: (known, late) for number, late in lates for job_id, known in [self.pick(number)]}
        accepted = [state_machine.Accepted(i, known.attempt - late, "u") for i, (known, late) in picked.items()]
        with transaction() as tx:
            rows = state_machine.mark_running_many(tx, accepted, actor="test")
        for job_id, (known, late) in picked.items():
            self.expect(rows.get(job_id), known, known.state == "submitting" and not late, state="running")
        refs = [{"url": "http://x/"}]
        finished = [state_machine.Finished(i, known.attempt - late, refs) for i, (known, late) in picked.items()]
        with transaction() as tx:
            rows = state_machine.mark_saving_many(tx, finished)
        for job_id, (known, late) in picked.items():
            expected = known.state == "running" and not late
            self.expect(rows.get(job_id), known, expected, state="saving", holds=False, save_tries=0, save_due=True)
        stored = [state_machine.Stored(i, known.attempt - late, 1, 1) for i, (known, late) in picked.items()]
        one = NewFile(n=0, key="k", mime="image/png", bytes=1, sha256="0", width=1, height=1)
        with_files = [
            i for n, (i, (known, late)) in enumerate(picked.items()) if n % 2 and known.state == "saving" and not late
        ]
        with transaction() as tx:
            files.add_files(tx, [(job_id, one) for job_id in with_files])
            for job_id in with_files:
                picked[job_id][0].files = True
            rows = state_machine.mark_succeeded_many(tx, stored)
        for job_id, (known, late) in picked.items():
            expected = known.state == "saving" and not late and known.files
            self.expect(rows.get(job_id), known, expected, state="succeeded")

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 7), late=st.integers(0, 1))
    def mark_running(self, number: int, late: int) -> None:
        job_id, known = self.pick(number)
        with transaction() as tx:
            row = state_machine.mark_running(
                tx, job_id=job_id, attempt=known.attempt - late, upstream_id="u", actor="test"
            )
        self.expect(row, known, known.state == "submitting" and not late, state="running")

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 7), late=st.integers(0, 1), counts=st.booleans())
    def requeue(self, number: int, late: int, counts: bool) -> None:
        job_id, known = self.pick(number)
        with transaction() as tx:
            row = state_machine.requeue(
                tx, job_id=job_id, attempt=known.attempt - late, actor="test", reason="x", delay=0, counts=counts
            )
        state = "cancelled" if known.cancel_requested else "queued"
        self.expect(row, known, known.state == "submitting" and not late, state=state, holds=False)

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 7), late=st.integers(0, 1))
    def mark_submit_unclear(self, number: int, late: int) -> None:
        job_id, known = self.pick(number)
        with transaction() as tx:
            row = progress_and_leases.mark_submit_unclear(tx, job_id=job_id, attempt=known.attempt - late)
        self.expect(row, known, known.state == "submitting" and not late)

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 7), late=st.integers(0, 1), progress=st.integers(0, 90), items=st.integers(0, 3))
    def record_progress(self, number: int, late: int, progress: int, items: int) -> None:
        job_id, known = self.pick(number)
        with transaction() as tx:
            before = self.engine.job_row(job_id)
            report = progress_and_leases.Progress(
                job_id,
                known.attempt - late,
                queue_position=None,
                forecast_seconds=None,
                ready_items=items,
                progress=progress,
            )
            row = next(iter(progress_and_leases.record_progress_many(tx, [report])), None)
            changed = items != before.ready_items or progress > before.progress or before.queue_position is not None
            assert (row is not None) == (known.state == "running" and not late and changed)
            stable = progress_and_leases.count_stable_poll(tx, job_id=job_id, attempt=known.attempt - late)
            assert (stable is not None) == (known.state == "running" and not late)
            progress_and_leases.mark_absent(tx, job_id=job_id, attempt=known.attempt - late)

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 7), late=st.integers(0, 1))
    def mark_saving(self, number: int, late: int) -> None:
        job_id, known = self.pick(number)
        with transaction() as tx:
            row = state_machine.mark_saving(
                tx, job_id=job_id, attempt=known.attempt - late, refs=[{"url": "http://x/"}]
            )
        expected = known.state == "running" and not late
        self.expect(row, known, expected, state="saving", holds=False, save_tries=0, save_due=True)

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 7))
    def claim_save(self, number: int) -> None:
        job_id, known = self.pick(number)
        with transaction() as tx:
            row = progress_and_leases.claim_save(tx, job_id)
        expected = known.state == "saving" and known.save_due
        self.expect(row, known, expected, save_tries=known.save_tries + 1, save_due=False)

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 7), late=st.integers(0, 1), again=st.booleans())
    def renew_or_defer(self, number: int, late: int, again: bool) -> None:
        job_id, known = self.pick(number)
        tries = known.save_tries - late
        expected = known.state == "saving" and not late
        with transaction() as tx:
            if again:
                row = progress_and_leases.defer_save(tx, job_id=job_id, save_tries=tries, delay=-1, refs=None)
                self.expect(row, known, expected, save_due=True)
            else:
                row = progress_and_leases.renew_save_lease(tx, job_id=job_id, save_tries=tries)
                self.expect(row, known, expected, save_due=False)

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 7), late=st.integers(0, 1), with_files=st.booleans())
    def mark_succeeded(self, number: int, late: int, with_files: bool) -> None:
        job_id, known = self.pick(number)
        expected = known.state == "saving" and not late
        with transaction() as tx:
            if expected and with_files:
                one = NewFile(n=0, key="k", mime="image/png", bytes=1, sha256="0", width=1, height=1)
                files.add_files(tx, [(job_id, one)])
                known.files = True
            row = state_machine.mark_succeeded(tx, job_id=job_id, attempt=known.attempt - late, stored=1, expected=1)
        self.expect(row, known, expected and known.files, state="succeeded")

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 7), late=st.integers(0, 1), overdue=st.booleans())
    def mark_failed(self, number: int, late: int, overdue: bool) -> None:
        job_id, known = self.pick(number)
        with transaction() as tx:
            row = state_machine.mark_failed(
                tx,
                job_id=job_id,
                attempt=known.attempt - late,
                code="upstream_error",
                message="x",
                actor="test",
                overdue_only=overdue,
            )
        expected = known.state in OPEN and not late and not overdue
        self.expect(row, known, expected, state="failed", holds=False)

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 7))
    def cancel(self, number: int) -> None:
        job_id, known = self.pick(number)
        with transaction() as tx:
            row = state_machine.cancel(tx, job_id)
        known.cancel_requested = known.cancel_requested or known.state in {"queued", *UPSTREAM}
        self.expect(row, known, known.state == "queued", state="cancelled")

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 7), late=st.integers(0, 1))
    def mark_cancelled(self, number: int, late: int) -> None:
        job_id, known = self.pick(number)
        with transaction() as tx:
            row = state_machine.mark_cancelled(tx, job_id=job_id, attempt=known.attempt - late)
        # It keeps its slot: upstream continues.
        self.expect(row, known, known.state == "running" and known.cancel_requested and not late, state="cancelled")

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 7))
    def release_slot(self, number: int) -> None:
        job_id, known = self.pick(number)
        with transaction() as tx:
            row = progress_and_leases.release_slot(tx, job_id)
        self.expect(row or None, known, known.state == "cancelled" and known.holds, holds=False)

    @invariant()
    def rows_match_the_model(self) -> None:
        rows = self.engine.sql(
            """SELECT j.*, (SELECT array_agg(e.seq ORDER BY e.seq) FROM job_events e WHERE e.job_id = j.id) AS seqs,
                   (SELECT e.to_state FROM job_events e WHERE e.job_id = j.id ORDER BY e.seq DESC LIMIT 1) AS last_event_state,
                   (SELECT count(*) FROM webhook_deliveries w WHERE w.job_id = j.id) AS hooks,
                   (to_jsonb(j) - 'holds_slot' - 'absent_since')::text AS whole
               FROM jobs j ORDER BY j.id"""
        )
        for row in rows:
            known = self.jobs[row.id]
            assert (row.state, row.attempt, row.holds_slot) == (known.state, known.attempt, known.holds)
            assert (row.cancel_requested_at is not None) == known.cancel_requested
            assert row.save_tries == known.save_tries
            assert row.seqs == list(range(1, row.event_seq + 1)), "no event is missing or duplicated"
            assert row.last_event_state == row.state
            assert (row.finished_at is not None) == (row.state in FINAL)
            assert (row.error_code is not None) == (row.state == "failed")
            assert row.hooks == (1 if row.webhook_url and row.state in FINAL else 0)
            if row.state in UPSTREAM:
                assert row.holds_slot
                assert row.account_id == self.accounts[known.account or 0]
                assert row.submit_key
            if known.state in FINAL:
                known.ended = known.ended or row.whole
                assert row.whole == known.ended, "a final row never changes"
        for number, limit in enumerate(LIMITS):
            assert sum(k.holds and k.account == number for k in self.jobs.values()) <= limit


def test_job_state_machine(engine: Engine) -> None:
    JobMachine.engine = engine
    run_state_machine_as_test(
        JobMachine,
        settings=settings(
            max_examples=24,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


# --- one small test for each guard ---

STATES = (*sorted(OPEN), *sorted(FINAL))
ATTEMPT = 2
IMAGE = NewFile(n=0, key="k", mime="image/png", bytes=1, sha256="0", width=1, height=1)


def put(engine: Engine, state: str, *, kind: str = "image", cancel_requested: bool = False, file: bool = True) -> UUID:
    """Add a job in this state, in its second attempt, with a file unless `file` is False."""
    account = engine.add_account()
    job = engine.add_job(account, kind=kind)
    with transaction() as tx:
        overwrite_state(tx, job, account, state)
        if cancel_requested:
            tx.run(text("UPDATE jobs SET cancel_requested_at = now() WHERE id = :id"), {"id": job})
        if file:
            files.add_files(tx, [(job, IMAGE)])
    return job


def overwrite_state(tx: Transaction, job: UUID, account: UUID, state: str) -> None:
    """Set the state with the columns that belong to it, past the state machine."""
    sql = """UPDATE jobs SET state = :state, attempt = :attempt, account_id = :account, holds_slot = :holds,
                 submit_key = gen_random_uuid(), finished_at = CASE WHEN :final THEN now() END,
                 error_code = CASE WHEN :failed THEN 'upstream_error' END WHERE id = :id"""
    values = {"id": job, "state": state, "account": account, "attempt": ATTEMPT, "holds": state in UPSTREAM}
    tx.run(text(sql), {**values, "final": state in FINAL, "failed": state == "failed"})


def whole(engine: Engine, job: UUID) -> tuple[Any, ...]:
    """Return everything that a change of state writes, except the request of a cancel."""
    row = engine.sql("SELECT to_jsonb(j) - 'cancel_requested_at' AS row FROM jobs j WHERE id = :id", id=job)[0]
    return row.row, [event.to_state for event in engine.job_events(job)]


def fail_args(job: UUID, attempt: int | None, **flags: Any) -> dict[str, Any]:
    return {"job_id": job, "attempt": attempt, "code": "upstream_error", "message": "x", "actor": "test", **flags}


def requeue_args(job: UUID, attempt: int, **flags: Any) -> dict[str, Any]:
    return {"job_id": job, "attempt": attempt, "actor": "test", "reason": "x", "delay": 0, **flags}


Change = Callable[[Transaction, UUID, int], Any]
# Name -> the call, the states that it may change, and the job it needs.
CHANGES: dict[str, tuple[Change, set[str], dict[str, Any]]] = {
    "mark_running": (
        lambda tx, job, n: state_machine.mark_running(tx, job_id=job, attempt=n, upstream_id="u", actor="test"),
        {"submitting"},
        {},
    ),
    "requeue": (lambda tx, job, n: state_machine.requeue(tx, **requeue_args(job, n)), {"submitting"}, {}),
    "requeue_with_cancel": (
        lambda tx, job, n: state_machine.requeue(tx, **requeue_args(job, n)),
        {"submitting"},
        {"cancel_requested": True},
    ),
    "mark_saving": (
        lambda tx, job, n: state_machine.mark_saving(tx, job_id=job, attempt=n, refs=[{"url": "http://x/"}]),
        {"running"},
        {},
    ),
    "mark_succeeded": (
        lambda tx, job, n: state_machine.mark_succeeded(tx, job_id=job, attempt=n, stored=1, expected=1),
        {"saving"},
        {},
    ),
    "mark_failed": (lambda tx, job, n: state_machine.mark_failed(tx, **fail_args(job, n)), set(OPEN), {}),
    "mark_cancelled": (
        lambda tx, job, n: state_machine.mark_cancelled(tx, job_id=job, attempt=n),
        {"running"},
        {"cancel_requested": True},
    ),
    "mark_collecting": (
        lambda tx, job, n: state_machine.mark_collecting(tx, job_id=job, attempt=n, deadline=60, characters=1),
        {"running"},
        {"kind": "chat"},
    ),
}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_i1_change_expects_its_states_and_its_attempt(engine: Engine, name: str) -> None:
    change, allowed, needs = CHANGES[name]
    for state in STATES:
        job = put(engine, state, **needs)
        before = whole(engine, job)
        for other in (ATTEMPT - 1, ATTEMPT + 1):
            with transaction() as tx:
                assert change(tx, job, other) is None, (state, other)
            assert whole(engine, job) == before, (state, other)
        with transaction() as tx:
            changed = change(tx, job, ATTEMPT)
        assert (changed is not None) == (state in allowed), state
        assert (whole(engine, job) != before) == (state in allowed), state


def test_i1_cancel_without_attempt_changes_queued_jobs_only(engine: Engine) -> None:
    for state in STATES:
        job = put(engine, state)
        before = whole(engine, job)
        with transaction() as tx:
            assert (state_machine.cancel(tx, job) is not None) == (state == "queued"), state
        assert (whole(engine, job) != before) == (state in {"queued", *UPSTREAM}), state
        assert (engine.job_row(job).cancel_requested_at is not None) == (state in {"queued", *UPSTREAM}), state


def test_i1_failure_without_attempt_never_changes_a_final_state(engine: Engine) -> None:
    for state in FINAL:
        job = put(engine, state)
        before = whole(engine, job)
        with transaction() as tx:
            assert state_machine.mark_failed(tx, **fail_args(job, None)) is None
        assert whole(engine, job) == before


def test_i1_job_with_requested_cancel_is_not_queued_again(engine: Engine) -> None:
    job = put(engine, "submitting", cancel_requested=True)
    with transaction() as tx:
        assert state_machine.requeue(tx, **requeue_args(job, ATTEMPT))
    assert engine.job_row(job).state == "cancelled"


def test_i1_running_job_is_cancelled_on_request_only(engine: Engine) -> None:
    job = put(engine, "running")
    with transaction() as tx:
        assert state_machine.mark_cancelled(tx, job_id=job, attempt=ATTEMPT) is None
    assert engine.job_row(job).state == "running"


def test_i1_job_without_files_does_not_succeed(engine: Engine) -> None:
    job = put(engine, "saving", file=False)
    with transaction() as tx:
        assert state_machine.mark_succeeded(tx, job_id=job, attempt=ATTEMPT, stored=1, expected=1) is None
    assert engine.job_row(job).state == "saving"


@pytest.mark.parametrize("late", [True, False])
def test_i1_lease_is_checked_again_under_the_lock(engine: Engine, *, late: bool) -> None:
    requeued, failed = put(engine, "submitting"), put(engine, "submitting")
    engine.sql("UPDATE jobs SET due_at = now() + make_interval(secs => :n)", n=-60 if late else 60)
    with transaction() as tx:
        assert bool(state_machine.requeue(tx, **requeue_args(requeued, ATTEMPT, lapsed_only=True))) == late
        assert bool(state_machine.mark_failed(tx, **fail_args(failed, ATTEMPT, lapsed_only=True))) == late
    assert engine.states([requeued, failed]) == (["queued", "failed"] if late else ["submitting", "submitting"])


@pytest.mark.parametrize("late", [True, False])
def test_i1_deadline_is_checked_again_under_the_lock(engine: Engine, *, late: bool) -> None:
    job = put(engine, "running")
    engine.sql("UPDATE jobs SET deadline_at = now() + make_interval(secs => :n)", n=-60 if late else 60)
    with transaction() as tx:
        assert bool(state_machine.mark_failed(tx, **fail_args(job, None, overdue_only=True))) == late
    assert engine.job_row(job).state == ("failed" if late else "running")


def test_i1_states_of_a_conversation_are_for_conversations(engine: Engine) -> None:
    running, saving = put(engine, "running"), put(engine, "saving")
    with transaction() as tx:
        values: dict[str, Any] = {"job_id": running, "attempt": ATTEMPT, "deadline": 60, "characters": 1}
        assert state_machine.mark_collecting(tx, **values) is None
        assert state_machine.mark_answered(tx, job_id=saving, actor="test") is None
    assert engine.states([running, saving]) == ["running", "saving"]


@pytest.mark.parametrize("child", STATES)
def test_i1_conversation_ends_after_its_jobs(engine: Engine, child: str) -> None:
    for state in STATES:
        parent, job = put(engine, state, kind="chat"), put(engine, child)
        engine.sql("UPDATE jobs SET parent_id = :parent WHERE id = :id", parent=parent, id=job)
        before = whole(engine, parent)
        with transaction() as tx:
            ended = state_machine.mark_answered(tx, job_id=parent, actor="test") is not None
        assert ended == (state == "saving" and child in FINAL), state
        assert (whole(engine, parent) != before) == ended


def test_i1_job_of_a_conversation_is_adopted_once(engine: Engine) -> None:
    chat, image = put(engine, "running", kind="chat"), put(engine, "running")
    key, own = uuid4(), engine.job_row(image).submit_key
    for parent, submit_key, expected in (
        (chat, key, True),
        (chat, key, False),
        (chat, own, False),
        (image, uuid4(), False),
    ):
        with transaction() as tx:
            adopted = state_machine.adopt_child(
                tx, parent_id=parent, kind="image", submit_key=submit_key, upstream_id="u", params={}
            )
        assert (adopted is not None) == expected
    [child] = engine.sql("SELECT id FROM jobs WHERE parent_id = :id", id=chat)
    started = [event.note["started"] for event in engine.job_events(chat) if "started" in event.note]
    assert started == [child.id.hex], "what was refused leaves no event"
    assert [row.state for row in engine.sql("SELECT state FROM jobs WHERE parent_id IS NOT NULL")] == ["running"]


@pytest.mark.parametrize("state", [state for state in STATES if state != "queued"])
def test_i1_only_queued_jobs_are_claimed(engine: Engine, state: str) -> None:
    """Also if the state changes between the selection and the claim."""
    job = put(engine, state)
    account = engine.job_row(job).account_id
    engine.make_due()
    before = whole(engine, job)
    with transaction() as tx:
        assert claims.claim_next(tx, account_id=account) is None
    assert whole(engine, job) == before
    queued = engine.add_job(engine.add_account(max_images=9))
    account = engine.job_row(queued).account_ids[0]
    with transaction() as tx:
        row = accounts.lock_ready(tx, account, waits=True)
        assert row is not None
        selected = job_selection.select_jobs(tx, row, ("image",), can_upload=True, limit=1)
        assert [one.id for one in selected.jobs] == [queued]
        overwrite_state(tx, queued, account, state)
        plan = claims._Plan([(one, {}) for one in selected.jobs])
        assert claims._claim(tx, plan, row, claims.ClaimRequest(), started=0.0) == []
    assert (engine.job_row(queued).state, engine.job_row(queued).attempt) == (state, ATTEMPT)
