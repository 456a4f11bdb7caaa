"""Tick and sweep: due work is enqueued once, rows are repaired after a crash, and nothing is claimed."""

import json
from uuid import uuid4

from tests.support.engine import Engine
from worker.messaging import celery_app
from worker.tasks.dispatch import sweep, tick


def tasks(engine: Engine):
    return sorted({message.task for message in engine.take_messages()})


def test_tick_without_due_work_enqueues_nothing(engine: Engine) -> None:
    assert tick() == "nothing due"
    assert engine.take_messages() == []


def test_due_work_is_enqueued_once(engine: Engine) -> None:
    account = engine.add_account(max_images=2)
    engine.add_saving_job(account)
    engine.add_running_job(account)
    engine.add_job(account)
    engine.take_messages()
    engine.make_due()
    tick()
    assert tasks(engine) == ["dreamery.poll", "dreamery.save", "dreamery.submit"]
    engine.sql("UPDATE accounts SET poll_due_at = now() + interval '1 minute'")
    assert tick() == "nothing due"
    engine.sql("UPDATE jobs SET nudged_at = now() - interval '1 minute'")
    tick()
    assert set(tasks(engine)) - {"dreamery.poll"} == {"dreamery.save", "dreamery.submit"}


def test_enqueued_jobs_are_limited_to_free_slots(engine: Engine) -> None:
    account = engine.add_account(max_images=2)
    for _ in range(9):
        engine.add_job(account)
    engine.make_due()
    tick()
    assert len(engine.take_messages("dreamery.submit")) == 2
    resting = engine.add_account()
    engine.sql("UPDATE accounts SET rest_until = now() + interval '5 seconds'")
    engine.add_job(resting)
    engine.sql("UPDATE jobs SET nudged_at = NULL")
    tick()
    assert engine.take_messages("dreamery.submit") == []


def test_messages_contain_only_ids_and_expire(engine: Engine) -> None:
    account = engine.add_account(session="not-in-a-message-01")
    engine.add_job(account, prompt="not in a message either")
    engine.make_due()
    tick()
    [raw] = engine.redis.lrange("fast", 0, -1)
    envelope = json.loads(raw)
    assert envelope["headers"]["dreamery_until"]
    assert b"not-in-a-message" not in raw
    [message] = engine.take_messages("dreamery.submit")
    assert set(message.ids) == {"job_id"}


def test_tick_claims_nothing(engine: Engine) -> None:
    account = engine.add_account()
    running, queued = engine.add_running_job(account), engine.add_job(account)
    engine.make_due()
    before = [(r.state, r.attempt, r.due_at) for r in map(engine.job_row, (queued, running))]
    tick()
    assert [(r.state, r.attempt, r.due_at) for r in map(engine.job_row, (queued, running))] == before


def test_tick_without_redis_does_not_fail(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_job(account)
    home = engine.env["DREAMERY_REDIS_URL"]
    engine.configure(REDIS_URL="redis://127.0.0.1:9/0")
    engine.make_due()
    tick()
    engine.submit(job)
    assert engine.job_row(job).state == "running"
    engine.configure(REDIS_URL=home)


def test_sweep_repairs_lost_polls(engine: Engine) -> None:
    account = engine.add_account()
    engine.add_running_job(account)
    engine.sql("UPDATE accounts SET poll_due_at = NULL")
    assert "1 healed" in sweep()
    assert engine.account_row(account).poll_due_at is not None


def test_unschedulable_jobs_fail_with_the_reason(engine: Engine) -> None:
    paused, resting, refused, fine = (engine.add_account() for _ in range(4))
    jobs = [engine.add_job(account) for account in (paused, resting, refused, fine)]
    engine.sql("UPDATE accounts SET state = 'paused' WHERE id = :id", id=paused)
    engine.sql(
        "UPDATE accounts SET rest_until = now() + interval '1 hour', rest_code = 'account_limited' WHERE id = :id",
        id=resting,
    )
    engine.sql("UPDATE jobs SET avoid_accounts = ARRAY[CAST(:a AS uuid)] WHERE id = :id", a=refused, id=jobs[2])
    sweep()
    assert [engine.job_row(job).error_code for job in jobs] == [
        "no_account_available",
        "account_limited",
        "no_account_available",
        None,
    ]


def test_job_waits_for_a_short_cooldown(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_job(account)
    engine.sql("UPDATE accounts SET rest_until = now() + interval '30 seconds', rest_code = 'rate_limit_exceeded'")
    sweep()
    assert engine.job_row(job).state == "queued"


def test_job_for_an_empty_pool_fails(engine: Engine) -> None:
    job = engine.add_job()
    sweep()
    assert engine.job_row(job).error_code == "no_account_available"


def test_messages_with_unknown_ids_do_nothing(engine: Engine) -> None:
    celery_app.enqueue_submit(job_id=uuid4())
    celery_app.enqueue_submit(account_id=uuid4())
    celery_app.enqueue_upload_references(uuid4())
    celery_app.enqueue_poll(uuid4())
    celery_app.enqueue_save(uuid4())
    celery_app.enqueue_notify(uuid4())
    answers = [message.execute() for message in engine.take_messages()]
    assert len(answers) == 6
    assert engine.ledger()["totals"]["submits_seen"] == 0
