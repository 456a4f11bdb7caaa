"""Kinds of jobs on one account: each has its own slots and its own cooldown, and none blocks another."""

import random
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from tests.integration.worker.scheduling.test_claim import run_in_threads
from tests.support.engine import Engine
from worker.db.engine import transaction
from worker.db.jobs import claims, state_machine
from worker.db.jobs.claims import Claim
from worker.db.scheduling import account_scoring
from worker.tasks.dispatch import tick
from worker.tasks.poll import poll
from worker.tasks.submit import submit


def add_video(engine: Engine, *account_ids: UUID, **changes: Any) -> UUID:
    return engine.add_job(*account_ids, kind="video", **changes)


def claim(account: UUID) -> Claim | None:
    with transaction() as tx:
        return claims.claim_next(tx, account_id=account)


def slots_in_use(engine: Engine, account: UUID) -> dict[str, int]:
    rows = engine.sql(
        "SELECT kind, count(*) AS n FROM jobs WHERE holds_slot AND account_id = :id GROUP BY kind", id=account
    )
    return {row.kind: row.n for row in rows}


def test_full_kind_does_not_block_the_other(engine: Engine) -> None:
    account = engine.add_account(max_images=2, max_videos=1)
    videos = [add_video(engine, account) for _ in range(3)]
    images = [engine.add_job(account) for _ in range(3)]
    taken = []
    for _ in range(5):
        engine.make_due()
        taken.append(claim(account))
    assert sorted(one.id for one in taken if one) == sorted([videos[0], images[0], images[1]])
    assert slots_in_use(engine, account) == {"video": 1, "image": 2}


def test_accounts_without_own_limits_use_the_settings(engine: Engine) -> None:
    engine.configure(ACCOUNT_MAX_IMAGES="1", ACCOUNT_MAX_VIDEOS="3")
    account = engine.add_account()
    for _ in range(4):
        add_video(engine, account)
        engine.add_job(account)
    for _ in range(8):
        engine.make_due()
        claim(account)
    assert slots_in_use(engine, account) == {"video": 3, "image": 1}


def test_submit_task_does_not_claim_conversations(engine: Engine) -> None:
    account = engine.add_account()
    chats = [engine.add_job(account, kind="chat") for _ in range(3)]
    assert claim(account) is None
    assert tick() == "nothing due"
    taken = []
    for _ in range(3):
        engine.make_due()
        with transaction() as tx:
            taken.append(claims.claim_next(tx, account_id=account, kinds=("chat",), actor="converse"))
    assert [one.id for one in taken if one] == chats[:2]
    assert engine.job_events(chats[0])[-1].actor == "converse"


def test_i5_concurrent_claims_never_exceed_the_slots_of_any_kind(engine: Engine) -> None:
    """I5 for both kinds: a mixed queue and sixteen threads fill the slots of both kinds."""
    engine.configure(DB_POOL_SIZE="16")
    account = engine.add_account(max_images=2, max_videos=1)
    dice = random.Random(11)
    for _ in range(60):
        add_video(engine, account) if dice.random() < 0.5 else engine.add_job(account)
    for _ in range(8):
        run_in_threads(16, lambda _i: [claim(account) for _ in range(3)])
        assert slots_in_use(engine, account) == {"image": 2, "video": 1}
        with transaction() as tx:
            for row in engine.sql("SELECT id, attempt FROM jobs WHERE holds_slot"):
                if dice.random() < 0.7:
                    state_machine.mark_failed(
                        tx, job_id=row.id, attempt=row.attempt, code="upstream_error", message="x", actor="test"
                    )


def test_real_tasks_use_the_slots_of_both_kinds(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox refuses a second concurrent video and a fourth concurrent job; this must never happen."""
    engine.configure(DB_POOL_SIZE="16", POLL_MIN_SECONDS="0.01", POLL_MAX_SECONDS="0.02")
    monkeypatch.setattr(engine.sandbox, "options", replace(engine.sandbox.options, slots=3, video_slots=1))
    account = engine.add_account(max_images=2, max_videos=1)
    made = [engine.add_job(account, prompt=f"boat {n} [[seconds:0.2]]") for n in range(20)]
    made += [add_video(engine, account, prompt=f"video {n} [[seconds:0.2]]") for n in range(10)]

    def work(index: int) -> None:
        for _ in range(30):
            if index % 4:
                submit(account_id=account)
            else:
                poll(account_id=account)

    for _ in range(8):
        run_in_threads(12, work)
        if "queued" not in engine.states(made):
            break
    [seen] = engine.ledger()["accounts"].values()
    assert seen["max_in_flight"] == 3
    assert not [e for job in made for e in engine.job_events(job) if e.note.get("code")]
    assert len(engine.submits()) == len({line["submit_id"] for line in engine.submits()}) >= 15


def test_job_goes_to_an_account_with_a_free_slot_for_its_kind(engine: Engine) -> None:
    first, second = engine.add_account(max_videos=1), engine.add_account(max_videos=1)
    add_video(engine, first)
    claim(first)
    engine.make_due()
    for _ in range(2):
        engine.add_job(second)
        claim(second)
        engine.make_due()
    job = add_video(engine, first, second)
    with transaction() as tx:
        assert account_scoring.find_best_account(tx, job) == second
    claim(second)
    engine.make_due()
    late = add_video(engine, first, second)
    with transaction() as tx:
        assert account_scoring.find_best_account(tx, late) is None


def test_dispatch_finds_jobs_behind_a_long_queue_of_a_full_kind(engine: Engine) -> None:
    account = engine.add_account(max_images=2, max_videos=1)
    for _ in range(3):
        add_video(engine, account)
    engine.make_due()
    claim(account)
    image = engine.add_job(account)
    engine.sql("UPDATE jobs SET nudged_at = NULL")
    engine.make_due()
    engine.take_messages()
    assert "1 submits" in tick()
    [message] = engine.take_messages("dreamery.submit")
    assert message.ids == {"job_id": image.hex}


def test_kind_cooldown_affects_only_that_kind_and_ends_by_itself(engine: Engine) -> None:
    account = engine.add_account(max_images=2, max_videos=2)
    stuck = add_video(engine, account, prompt="a video [[refuse:1310]]")
    behind = add_video(engine, account, prompt="another video [[hang]]")
    image = engine.add_job(account, prompt="a boat [[hang]]")
    engine.submit(stuck)
    row = engine.account_row(account)
    assert (engine.job_row(stuck).state, row.rests, row.rest_code) == ("queued", None, None)
    assert row.kind_rests.keys() == {"video"}
    engine.make_due()
    assert submit(job_id=behind) == "waits for a slot"
    engine.submit(image)
    assert engine.states([stuck, behind, image]) == ["queued", "queued", "running"]
    engine.end_cooldowns()
    engine.sql(
        "UPDATE jobs SET params = jsonb_set(params, '{order,prompt}', '\"a video [[hang]]\"') WHERE id = :id", id=stuck
    )
    for _ in range(2):
        engine.make_due()
        submit(account_id=account)
    assert engine.states([stuck, behind]) == ["running", "running"]
    assert engine.job_row(stuck).attempt == 2
    poll(account_id=account)
