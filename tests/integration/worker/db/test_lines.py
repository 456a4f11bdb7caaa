"""Lines of the queue: jobs that nobody can run hide no other jobs, however many they are."""

from uuid import UUID, uuid4

from sqlalchemy import text

from tests.support.engine import Engine
from worker.db.accounts import accounts, queue_lines
from worker.db.accounts.concurrency import slot_limits
from worker.db.accounts.eligibility import bound
from worker.db.engine import transaction
from worker.db.scheduling import due_work, fair_queue, job_selection, unschedulable
from worker.tasks.dispatch import tick

# More than any limit of rows that one statement may look at.
MANY = 6000


def copy_job(engine: Engine, job_id: UUID, count: int, *, step: float = 0.001) -> None:
    """Insert copies of a queued job, each a little behind the one before."""
    names = [
        row.name
        for row in engine.sql(
            """SELECT column_name AS name FROM information_schema.columns
               WHERE table_name = 'jobs' AND is_generated = 'NEVER' AND column_name NOT IN ('id', 'turn')"""
        )
    ]
    columns = ", ".join(names)
    engine.sql(
        f"""INSERT INTO jobs (id, turn, {columns})
            SELECT gen_random_uuid(), turn + n * :step, {columns}
            FROM jobs CROSS JOIN generate_series(1, :count) n WHERE id = :id""",
        id=job_id,
        count=count,
        step=step,
    )


def take(engine: Engine) -> list[UUID]:
    engine.make_due()
    with transaction() as tx:
        return due_work.take_due_submits(tx, again_after=1.0, limit=300)


def test_runnable_jobs_behind_thousands_of_others_are_found(engine: Engine) -> None:
    resting, ready = engine.add_account(), engine.add_account(max_images=2)
    blocked = engine.add_job(resting)
    copy_job(engine, blocked, MANY)
    behind = [engine.add_job(ready, owner="tokens:other") for _ in range(3)]
    engine.sql("UPDATE jobs SET turn = 1000 WHERE owner = 'tokens:other'")
    engine.sql("UPDATE accounts SET rest_until = now() + interval '30 seconds' WHERE id = :id", id=resting)
    assert take(engine) == behind[:2]
    engine.sql("UPDATE jobs SET nudged_at = NULL")
    engine.take_messages()
    tick()
    assert {UUID(message.ids["job_id"]) for message in engine.take_messages("dreamery.submit")} == set(behind[:2])


def test_jobs_that_an_account_cannot_pay_hide_no_cheap_ones(engine: Engine) -> None:
    account = engine.add_account(max_images=2)
    engine.sql("UPDATE accounts SET credits = 10, credits_at = now()")
    dear = engine.add_job(account, price=50)
    copy_job(engine, dear, MANY)
    cheap = engine.add_job(account, price=5)
    engine.sql("UPDATE jobs SET turn = 1000 WHERE id = :id", id=cheap)
    assert take(engine) == [cheap]


def test_jobs_that_wait_for_their_next_attempt_hide_no_others(engine: Engine) -> None:
    account = engine.add_account(max_images=2)
    later = engine.add_job(account)
    copy_job(engine, later, MANY)
    due = engine.add_job(account)
    engine.make_due()
    engine.sql("UPDATE jobs SET due_at = now() + interval '1 minute' WHERE id <> :id", id=due)
    engine.sql("UPDATE jobs SET turn = 1000 WHERE id = :id", id=due)
    with transaction() as tx:
        assert due_work.take_due_submits(tx, again_after=1.0, limit=300) == [due]


def test_each_account_gets_the_first_jobs_of_all_lines_that_it_may_run(engine: Engine) -> None:
    first, second = engine.add_account(max_images=3), engine.add_account(max_images=1)
    jobs = [
        engine.add_job(first, owner="tokens:a"),
        engine.add_job(second, owner="tokens:b"),
        engine.add_job(first, second, owner="tokens:c"),
        engine.add_job(second, owner="tokens:b"),
        engine.add_job(first, owner="tokens:a", price=7),
        engine.add_job(first, owner="tokens:a"),
    ]
    for turn, job in enumerate(jobs):
        engine.sql("UPDATE jobs SET turn = :turn WHERE id = :id", id=job, turn=turn)
    # Account 1 takes the jobs 0, 2 and 4, account 2 the job 1.
    assert take(engine) == [jobs[0], jobs[1], jobs[2], jobs[4]]


def test_an_account_that_refused_a_job_is_not_offered_it(engine: Engine) -> None:
    refused, other = engine.add_account(max_images=1), engine.add_account(max_images=1)
    job = engine.add_job(refused, other)
    engine.sql("UPDATE jobs SET avoid_accounts = ARRAY[CAST(:a AS uuid)]", a=refused)
    engine.sql("UPDATE accounts SET rest_until = now() + interval '30 seconds' WHERE id = :id", id=other)
    assert take(engine) == []
    engine.end_cooldowns()
    assert take(engine) == [job]


def test_unschedulable_jobs_are_found_among_thousands_of_others(engine: Engine) -> None:
    fine, paused = engine.add_account(), engine.add_account()
    copy_job(engine, engine.add_job(fine), MANY)
    lost = [engine.add_job(paused, owner="tokens:other"), engine.add_job(paused, owner="tokens:other", price=3)]
    engine.sql("UPDATE accounts SET state = 'paused' WHERE id = :id", id=paused)
    with transaction() as tx:
        assert unschedulable.find_unschedulable_jobs(tx, limit=300) == lost


def test_owners_left_behind_are_found_among_thousands_of_others(engine: Engine) -> None:
    account = engine.add_account(pool=True)
    copy_job(engine, engine.add_job(account), MANY)
    late = engine.add_job(account, owner=f"tokens:{uuid4().hex}")
    engine.sql("UPDATE jobs SET turn = 5000 WHERE id = :id", id=late)
    engine.sql("""UPDATE accounts SET turns = '{"image": {"place": 10, "at": 0}}'""")
    owner = engine.job_row(late).owner
    with transaction() as tx:
        assert fair_queue.find_owners_to_rebase(tx, limit=10) == [owner]
        assert fair_queue.rebase(tx, owner) == 1
        assert fair_queue.find_owners_to_rebase(tx, limit=10) == []


def test_the_walk_from_line_to_line_uses_its_index(engine: Engine) -> None:
    """The expression in the statements is that of the index."""
    with transaction() as tx:
        # Whatever the statistics of the small table say.
        tx.run(text("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"))
        walk = f"WITH RECURSIVE {queue_lines.line_heads('lines', 'CAST(:kinds AS text[])')} SELECT * FROM lines"
        plan = "\n".join(row[0] for row in tx.all(text(f"EXPLAIN {walk}"), {"kinds": ["image"]}))
    assert plan.count("Index Scan using ix_jobs_queue_lines on jobs") == 2
    assert "Sort" not in plan
    assert "> p.line" in plan


def test_claims_read_the_queue_in_order_and_stop_early(engine: Engine) -> None:
    """The planner would rather sort the whole queue, because it does not know how many jobs a claim takes."""
    account_id = engine.add_account()
    copy_job(engine, engine.add_job(account_id), 50)
    with transaction() as tx:
        account = accounts.lock_ready(tx, account_id)
        assert account is not None
        values = {
            **bound(account),
            **slot_limits(),
            "kinds": ["image"],
            "slots": [2],
            "can_upload": True,
            "takes_files": False,
            "full": [],
            "members": [account.id],
            "limit": 2,
        }
        plan = "\n".join(row[0] for row in tx.all(text(f"EXPLAIN {job_selection._SELECT.text}"), values))
    assert "Index Scan using ix_jobs_queue on jobs" in plan
    assert "Sort Key: jobs.place" not in plan
