"""Which account takes a job: the best of those that are free, told on the timeline; and no free one stays idle."""

import random
from typing import Any
from uuid import UUID

import pytest

from tests.integration.worker.scheduling.test_claim import many
from tests.support.engine import Engine
from worker.core.errors import ERRORS, Fault
from worker.db.credits import balances
from worker.db.engine import transaction
from worker.db.jobs import state_machine
from worker.db.scheduling import account_scoring
from worker.messaging import celery_app
from worker.providers.dreamina.error_codes import CODES
from worker.tasks.dispatch import sweep, tick
from worker.tasks.stages import claim as claiming
from worker.tasks.stages.claim import How
from worker.tasks.submit import submit_batch


def take(account: UUID) -> state_machine.Claim:
    """What the step of an account claims; for whom is in the claim."""
    found, _ = claiming.claim(How(), account_id=account)
    assert isinstance(found, state_machine.Claim)
    return found


def fast(engine: Engine, **changes: Any) -> UUID:
    return engine.add_account(**{"pool": True, "max_images": 2, "submits_per_minute": 10**9, **changes})


def note(engine: Engine, job: UUID) -> dict[str, Any]:
    """What the claim of a job wrote down."""
    found: dict[str, Any] = [e.note for e in engine.job_events(job) if e.to_state == "submitting"][-1]
    return found


def failures(account: UUID, code: str, *, model: str = "any", times: int = 1) -> None:
    for _ in range(times):
        with transaction() as tx:
            account_scoring.note_outcome(tx, account, model, code=code)


def test_the_step_of_one_account_claims_for_a_better_one(engine: Engine) -> None:
    shaky, good = fast(engine), fast(engine)
    failures(shaky, "upstream_session_expired")
    made = [engine.add_job() for _ in range(5)]
    # The good one until the shaky one's free slots outweigh its failure; never beyond the limits; then none is left.
    taken = [take(shaky) for _ in range(4)]
    assert [claim.id for claim in taken] == made[:4]
    assert taken[0].account.id == good
    assert sorted(claim.account.id for claim in taken) == sorted([shaky, shaky, good, good])
    assert claiming.claim(How(), account_id=shaky) == (None, shaky)
    assert claiming.claim(How(), job_id=made[4]) == (None, None)


def test_failures_and_successes_of_the_model_count(engine: Engine) -> None:
    one, two = fast(engine), fast(engine)
    job = engine.add_job()
    model = engine.job_row(job).model
    failures(one, "generation_failed", model=model)
    with transaction() as tx:
        assert next(iter(account_scoring.ranked(tx, job))) == two
        found = account_scoring.ranked(tx, job)
    assert found[one].success < found[two].success == 1
    # An hour halves what is remembered.
    engine.sql("UPDATE account_marks SET at = at - interval '1 hour'")
    with transaction() as tx:
        assert account_scoring.ranked(tx, job)[one].success == pytest.approx(1 / 1.5, abs=0.01)


def test_an_account_known_to_have_too_little_takes_nothing(engine: Engine) -> None:
    poor, rich = fast(engine), fast(engine)
    engine.sql("UPDATE accounts SET credits = 5, credits_at = now() WHERE id = :id", id=poor)
    engine.sql("UPDATE accounts SET credits = 100, credits_at = now() WHERE id = :id", id=rich)
    job = engine.add_job()
    engine.sql("UPDATE jobs SET price = 8")
    with transaction() as tx:
        assert state_machine.claim_next(tx, account_id=poor) is None
    claim = take(rich)
    assert (claim.id, claim.account.id) == (job, rich)
    assert note(engine, job)["passed_over"] == [{"account": engine.account_row(poor).label, "why": "too few credits"}]


def test_what_is_under_way_counts_against_the_credits(engine: Engine) -> None:
    account = fast(engine, max_images=5)
    engine.sql("UPDATE accounts SET credits = 20, credits_at = now()")
    for _ in range(3):
        engine.add_job()
    engine.sql("UPDATE jobs SET price = 8")
    for _ in range(2):
        take(account)
    with transaction() as tx:
        assert state_machine.claim_next(tx, account_id=account) is None
    assert sweep().startswith("0 ended"), "once those two are settled it may have the credits after all"


def test_a_job_nobody_has_the_credits_for_fails_but_not_on_old_news(engine: Engine) -> None:
    account = fast(engine)
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
    assert engine.job_row(third).state == "queued", "the account may have been given some since; the ledger asks"
    with transaction() as tx:
        balances.note_credits(tx, account, 8)
    assert take(account).id == third


def test_the_timeline_tells_the_score_and_every_reason(engine: Engine) -> None:
    good, worse, full, off, tired, paced = (fast(engine, max_images=1) for _ in range(6))
    failures(worse, "upstream_error")
    engine.add_job(full)
    assert take(full)
    engine.sql("UPDATE accounts SET state = 'paused' WHERE id = :id", id=off)
    engine.sql("UPDATE accounts SET rest_until = now() + interval '1 hour' WHERE id = :id", id=tired)
    engine.sql("UPDATE accounts SET next_submit_at = now() + interval '1 hour' WHERE id = :id", id=paced)
    job = engine.add_job()
    assert take(worse).account.id == good
    told = note(engine, job)
    assert told["account"] == engine.account_row(good).label
    assert told["score"].keys() == {"health", "load", "success", "credits", "wear", "total"}
    why = {one["account"]: one["why"] for one in told["passed_over"]}
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
    [scored] = [one for one in told["passed_over"] if "score" in one]
    assert scored["score"] < told["score"]["total"]


def test_a_better_one_that_is_just_being_used_is_not_waited_for(engine: Engine) -> None:
    shaky, good = fast(engine), fast(engine)
    failures(shaky, "upstream_error", times=3)
    job = engine.add_job()
    with engine.connect() as somebody:
        somebody.execute("SELECT 1 FROM accounts WHERE id = %s FOR NO KEY UPDATE", (good,))
        claim = take(shaky)
        somebody.rollback()
    assert (claim.id, claim.account.id) == (job, shaky)
    assert note(engine, job)["passed_over"][0]["why"] == "just taken"


def test_a_job_whose_references_are_with_an_account_stays_there(engine: Engine) -> None:
    mine, better = fast(engine), fast(engine)
    failures(mine, "upstream_error")
    job = engine.add_job()
    engine.sql("INSERT INTO job_inputs (job_id, n, key) VALUES (:job, 0, 'inputs/x/0.png')", job=job)
    engine.sql(
        """INSERT INTO input_uploads (job_id, n, account_id, uri, width, height, format)
           VALUES (:job, 0, :account, 'x', 8, 8, 'png')""",
        job=job,
        account=mine,
    )
    assert take(mine).account.id == mine
    assert engine.account_row(better).last_submit_at is None


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_free_account_stays_idle_while_a_job_it_may_run_waits(engine: Engine, seed: int) -> None:
    """Eight threads obey the nudges in any order, some doubled, without a tick that would make good what they lose."""
    engine.configure(DB_POOL_SIZE="16")
    dice = random.Random(seed)
    hands = [fast(engine, max_images=dice.randint(1, 3), pool=n < 4) for n in range(7)]
    for account in dice.sample(hands, 3):
        failures(account, "upstream_error", times=dice.randint(1, 4))
    letters: list[dict[str, UUID]] = []
    for _ in range(4):
        for _ in range(dice.randint(3, 12)):
            chosen = dice.sample(hands, dice.randint(1, 4)) if dice.random() < 0.6 else []
            job = engine.add_job(*chosen, prompt="a boat [[hang]]", owner=f"tokens:{dice.randint(1, 4)}")
            letters.append({"account_id": chosen[0]} if len(chosen) == 1 else {"job_id": job})
        held = engine.sql("SELECT id, attempt, account_id FROM jobs WHERE holds_slot")
        for row in dice.sample(held, min(len(held), 4)):
            with transaction() as tx:
                state_machine.mark_failed(
                    tx, job_id=row.id, attempt=row.attempt, code="generation_failed", message="x", actor="test"
                )
            letters.append({"account_id": row.account_id})
        while letters:
            letters += [letter for letter in letters if dice.random() < 0.2]
            dice.shuffle(letters)
            work = [letters[n::8] for n in range(8)]
            many(8, lambda n, work=work: [submit_batch(**letter) for letter in work[n]])
            found = engine.take_messages("dreamery.submit")
            letters = [{name: UUID(hex=value) for name, value in message.ids.items()} for message in found]
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


def test_no_refusal_that_is_about_the_job_touches_its_account(engine: Engine) -> None:
    """Every code upstream knows, at the door and after it; only what is the account's own may let it rest."""
    accounts = [fast(engine, session=f"the-{n}-session-of-many", max_images=100) for n in range(2)]
    about_jobs = [number for number, ours in CODES.items() if ERRORS[ours].fault is not Fault.ACCOUNT]
    assert len(about_jobs) > 50
    made = [
        engine.add_job(*accounts, prompt=f"bad {number} [[{word}:{number}]]")
        for number in about_jobs
        for word in ("refuse", "fail")
    ]
    assert set(engine.run_until_final(*made)) == {"failed"}
    faults = [ERRORS[engine.job_row(job).error_code].fault for job in made]
    assert set(faults) == {Fault.CONTENT, Fault.REQUEST, Fault.UPSTREAM}
    for account in accounts:
        row = engine.account_row(account)
        assert (row.rest_until, row.rest_code, row.kind_rests, row.state) == (None, None, {}, "ok")
    [marks] = engine.sql("SELECT sum(bad) AS bad, sum(good) AS good FROM account_marks")
    # A little has faded meanwhile.
    assert marks.bad == pytest.approx(faults.count(Fault.UPSTREAM), rel=0.05), (
        "what a job is to blame for leaves no mark"
    )
    assert marks.good == 0


def test_a_nudge_of_a_job_that_waits_elsewhere_is_no_harm(engine: Engine) -> None:
    account = fast(engine)
    job = engine.add_job(account, prompt="a boat [[hang]]")
    celery_app.enqueue_submit(job_id=job)
    celery_app.enqueue_submit(job_id=job)
    assert [message.execute().startswith("submitted") for message in engine.take_messages("dreamery.submit")] == [True, False]
