"""The choice of an account for a job: the best free one, recorded on the timeline, and no free account stays idle."""

import random
from typing import Any
from uuid import UUID

import pytest

from tests.integration.worker.scheduling.test_claim import run_in_threads
from tests.support.engine import Engine
from worker.core.errors import ERRORS, Fault
from worker.db.credits import balances
from worker.db.engine import transaction
from worker.db.jobs import claims, state_machine
from worker.db.jobs.claims import Claim
from worker.db.scheduling import account_scoring
from worker.messaging import celery_app
from worker.providers.dreamina.error_codes import CODES
from worker.tasks.dispatch import sweep, tick
from worker.tasks.stages import claim as claim_stage
from worker.tasks.stages.claim import ClaimOptions
from worker.tasks.submit import submit_batch


def claim_with(account: UUID) -> Claim:
    """Claim a job like the submit task of an account; the claim contains the account that got it."""
    found, _ = claim_stage.claim_job(ClaimOptions(), account_id=account)
    assert isinstance(found, Claim)
    return found


def add_account(engine: Engine, **changes: Any) -> UUID:
    return engine.add_account(**{"pool": True, "max_images": 2, "submits_per_minute": 10**9, **changes})


def claim_note(engine: Engine, job: UUID) -> dict[str, Any]:
    """Return the note of the newest claim of a job."""
    found: dict[str, Any] = [e.note for e in engine.job_events(job) if e.to_state == "submitting"][-1]
    return found


def record_failures(account: UUID, code: str, *, model: str = "any", times: int = 1) -> None:
    for _ in range(times):
        with transaction() as tx:
            account_scoring.record_outcome(tx, account, model, code=code)


def test_task_of_one_account_claims_for_a_better_account(engine: Engine) -> None:
    shaky, good = add_account(engine), add_account(engine)
    record_failures(shaky, "upstream_session_expired")
    made = [engine.add_job() for _ in range(5)]
    # The good account gets jobs until the free slots of the shaky one outweigh its failure, within the slot limits.
    taken = [claim_with(shaky) for _ in range(4)]
    assert [claim.id for claim in taken] == made[:4]
    assert taken[0].account.id == good
    assert sorted(claim.account.id for claim in taken) == sorted([shaky, shaky, good, good])
    assert claim_stage.claim_job(ClaimOptions(), account_id=shaky) == (None, shaky)
    assert claim_stage.claim_job(ClaimOptions(), job_id=made[4]) == (None, None)


def test_outcomes_of_the_model_affect_the_choice(engine: Engine) -> None:
    one, two = add_account(engine), add_account(engine)
    job = engine.add_job()
    model = engine.job_row(job).model
    record_failures(one, "generation_failed", model=model)
    with transaction() as tx:
        assert next(iter(account_scoring.rank_accounts(tx, job))) == two
        found = account_scoring.rank_accounts(tx, job)
    assert found[one].success < found[two].success == 1
    # Outcomes have a half-life of one hour.
    engine.sql("UPDATE account_marks SET at = at - interval '1 hour'")
    with transaction() as tx:
        assert account_scoring.rank_accounts(tx, job)[one].success == pytest.approx(1 / 1.5, abs=0.01)


def test_account_with_known_insufficient_credits_takes_no_job(engine: Engine) -> None:
    poor, rich = add_account(engine), add_account(engine)
    engine.sql("UPDATE accounts SET credits = 5, credits_at = now() WHERE id = :id", id=poor)
    engine.sql("UPDATE accounts SET credits = 100, credits_at = now() WHERE id = :id", id=rich)
    job = engine.add_job()
    engine.sql("UPDATE jobs SET price = 8")
    with transaction() as tx:
        assert claims.claim_next(tx, account_id=poor) is None
    claim = claim_with(rich)
    assert (claim.id, claim.account.id) == (job, rich)
    assert claim_note(engine, job)["passed_over"] == [
        {"account": engine.account_row(poor).label, "why": "too few credits"}
    ]


def test_jobs_in_flight_reduce_the_available_credits(engine: Engine) -> None:
    account = add_account(engine, max_images=5)
    engine.sql("UPDATE accounts SET credits = 20, credits_at = now()")
    for _ in range(3):
        engine.add_job()
    engine.sql("UPDATE jobs SET price = 8")
    for _ in range(2):
        claim_with(account)
    with transaction() as tx:
        assert claims.claim_next(tx, account_id=account) is None
    assert sweep().startswith("0 ended"), "the account may have the credits once these two jobs are settled"


def test_unaffordable_job_fails_only_with_a_fresh_balance(engine: Engine) -> None:
    account = add_account(engine)
    engine.sql("UPDATE accounts SET credits = 5, credits_at = now()")
    first, second = engine.add_job(), engine.add_job(account)
    engine.sql("UPDATE jobs SET price = 8")
    engine.make_due()
    engine.take_messages()
    assert tick() == "nothing due"
    sweep()
    assert [engine.job_row(job).error_code for job in (first, second)] == ["insufficient_quota"] * 2
    engine.sql("UPDATE accounts SET credits_at = now() - interval '11 minutes'")
    third = engine.add_job()
    engine.sql("UPDATE jobs SET price = 8 WHERE id = :id", id=third)
    sweep()
    assert engine.job_row(third).state == "queued", (
        "the account may have received credits since; sync_credits reads the balance"
    )
    with transaction() as tx:
        balances.record_credits(tx, account, 8)
    assert claim_with(account).id == third


def test_timeline_records_the_score_and_all_reasons(engine: Engine) -> None:
    good, worse, full, off, tired, paced = (add_account(engine, max_images=1) for _ in range(6))
    record_failures(worse, "upstream_error")
    engine.add_job(full)
    assert claim_with(full)
    engine.sql("UPDATE accounts SET state = 'paused' WHERE id = :id", id=off)
    engine.sql("UPDATE accounts SET rest_until = now() + interval '1 hour' WHERE id = :id", id=tired)
    engine.sql("UPDATE accounts SET next_submit_at = now() + interval '1 hour' WHERE id = :id", id=paced)
    job = engine.add_job()
    assert claim_with(worse).account.id == good
    recorded = claim_note(engine, job)
    assert recorded["account"] == engine.account_row(good).label
    assert recorded["score"].keys() == {"health", "load", "success", "credits", "wear", "total"}
    why = {one["account"]: one["why"] for one in recorded["passed_over"]}
    assert why == {
        engine.account_row(account).label: reason
        for account, reason in [
            (worse, "no better score"),
            (full, "no free slot"),
            (off, "paused"),
            (tired, "resting"),
            (paced, "pace"),
        ]
    }
    [scored] = [one for one in recorded["passed_over"] if "score" in one]
    assert scored["score"] < recorded["score"]["total"]


def test_claim_does_not_wait_for_a_locked_better_account(engine: Engine) -> None:
    shaky, good = add_account(engine), add_account(engine)
    record_failures(shaky, "upstream_error", times=3)
    job = engine.add_job()
    with engine.connect() as connection:
        connection.execute("SELECT 1 FROM accounts WHERE id = %s FOR NO KEY UPDATE", (good,))
        claim = claim_with(shaky)
        connection.rollback()
    assert (claim.id, claim.account.id) == (job, shaky)
    assert claim_note(engine, job)["passed_over"][0]["why"] == "just taken"


def test_job_stays_with_the_account_that_has_its_uploads(engine: Engine) -> None:
    uploaded_to, better = add_account(engine), add_account(engine)
    record_failures(uploaded_to, "upstream_error")
    job = engine.add_job()
    engine.sql("INSERT INTO job_inputs (job_id, n, key) VALUES (:job, 0, 'inputs/x/0.png')", job=job)
    engine.sql(
        """INSERT INTO input_uploads (job_id, n, account_id, uri, width, height, format)
           VALUES (:job, 0, :account, 'x', 8, 8, 'png')""",
        job=job,
        account=uploaded_to,
    )
    assert claim_with(uploaded_to).account.id == uploaded_to
    assert engine.account_row(better).last_submit_at is None


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_free_account_is_idle_while_a_job_it_may_run_waits(engine: Engine, seed: int) -> None:
    """Eight threads execute the messages in any order, some twice, without a dispatch that repairs lost wake-ups."""
    engine.configure(DB_POOL_SIZE="16")
    dice = random.Random(seed)
    accounts = [add_account(engine, max_images=dice.randint(1, 3), pool=n < 4) for n in range(7)]
    for account in dice.sample(accounts, 3):
        record_failures(account, "upstream_error", times=dice.randint(1, 4))
    messages: list[dict[str, UUID]] = []
    for _ in range(4):
        for _ in range(dice.randint(3, 12)):
            chosen = dice.sample(accounts, dice.randint(1, 4)) if dice.random() < 0.6 else []
            job = engine.add_job(*chosen, prompt="a boat [[hang]]", owner=f"tokens:{dice.randint(1, 4)}")
            messages.append({"account_id": chosen[0]} if len(chosen) == 1 else {"job_id": job})
        held = engine.sql("SELECT id, attempt, account_id FROM jobs WHERE holds_slot")
        for row in dice.sample(held, min(len(held), 4)):
            with transaction() as tx:
                state_machine.mark_failed(
                    tx, job_id=row.id, attempt=row.attempt, code="generation_failed", message="x", actor="test"
                )
            messages.append({"account_id": row.account_id})
        while messages:
            messages += [message for message in messages if dice.random() < 0.2]
            dice.shuffle(messages)
            work = [messages[n::8] for n in range(8)]
            run_in_threads(8, lambda n, work=work: [submit_batch(**message) for message in work[n]])
            found = engine.take_messages("dreamery.submit")
            messages = [{name: UUID(hex=value) for name, value in message.ids.items()} for message in found]
        idle = engine.sql(
            """SELECT j.id, a.id FROM jobs j JOIN accounts a ON a.id = ANY(j.account_ids)
                   OR (j.account_ids = '{}' AND a.pool)
               WHERE j.state = 'queued' AND NOT a.id = ANY(j.avoid_accounts) AND a.max_images > (
                   SELECT count(*) FROM jobs s WHERE s.account_id = a.id AND s.holds_slot)"""
        )
        assert idle == []
        over = engine.sql(
            """SELECT 1 FROM accounts a WHERE a.max_images < (
                   SELECT count(*) FROM jobs s WHERE s.account_id = a.id AND s.holds_slot)"""
        )
        assert over == []


def test_refusals_caused_by_the_job_do_not_affect_the_account(engine: Engine) -> None:
    """Every upstream code, at submit and later; only codes about the account may start a cooldown."""
    accounts = [add_account(engine, session=f"the-{n}-session-of-many", max_images=100) for n in range(2)]
    jobs_context = [number for number, ours in CODES.items() if ERRORS[ours].fault is not Fault.ACCOUNT]
    assert len(jobs_context) > 50
    made = [
        engine.add_job(*accounts, prompt=f"bad {number} [[{word}:{number}]]")
        for number in jobs_context
        for word in ("refuse", "fail")
    ]
    assert set(engine.run_until_final(*made)) == {"failed"}
    faults = [ERRORS[engine.job_row(job).error_code].fault for job in made]
    assert set(faults) == {Fault.CONTENT, Fault.REQUEST, Fault.UPSTREAM}
    for account in accounts:
        row = engine.account_row(account)
        assert (row.rest_until, row.rest_code, row.kind_rests, row.state) == (None, None, {}, "ok")
    [marks] = engine.sql("SELECT sum(bad) AS bad, sum(good) AS good FROM account_marks")
    # The marks have decayed a little.
    assert marks.bad == pytest.approx(faults.count(Fault.UPSTREAM), rel=0.05), "errors caused by the job leave no mark"
    assert marks.good == 0


def test_wake_up_for_a_job_that_waits_for_another_account_is_harmless(engine: Engine) -> None:
    account = add_account(engine)
    job = engine.add_job(account, prompt="a boat [[hang]]")
    celery_app.enqueue_submit(job_id=job)
    celery_app.enqueue_submit(job_id=job)
    assert [message.execute().startswith("submitted") for message in engine.take_messages("dreamery.submit")] == [
        True,
        False,
    ]
