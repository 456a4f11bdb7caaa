"""Positions in the queue: the same as counting every job ahead, up to the number that is counted."""

import random
from typing import Any
from uuid import UUID

from sqlalchemy import text

from tests.integration.worker.db.test_lines import copy_job
from tests.support import factories
from tests.support.engine import Engine
from worker.db.engine import transaction
from worker.db.jobs import queries, state_machine
from worker.db.scheduling import queue_positions
from worker.db.scheduling.queue_positions import MOST_AHEAD
from worker.db.users import users


def positions(job_ids: list[UUID]) -> dict[UUID, int | None]:
    with transaction() as tx:
        return {view.job.id: view.position for view in queries.group_views(tx, job_ids)}


def counted(engine: Engine, job_ids: list[UUID]) -> dict[UUID, int]:
    """Count the jobs ahead of each job that may take an account which it needs."""
    rows = engine.sql(
        """SELECT w.id, 1 + count(o.id) AS position FROM jobs w
           LEFT JOIN jobs o ON o.state = 'queued' AND o.kind = w.kind AND (o.place, o.id) < (w.place, w.id)
               AND (o.account_ids && w.account_ids OR (o.account_ids = '{}' AND w.account_ids = '{}' AND (
                   o.user_id IS NOT DISTINCT FROM w.user_id
                   OR (o.account_choice <> 'own' AND w.account_choice <> 'own'))))
           WHERE w.id = ANY(CAST(:ids AS uuid[])) GROUP BY w.id""",
        ids=[str(one) for one in job_ids],
    )
    return {row.id: row.position for row in rows}


def test_positions_of_mixed_lines_count_the_jobs_ahead(engine: Engine) -> None:
    """Users, session ids with shared accounts, own accounts only, two kinds, priorities, in random order."""
    dice = random.Random(11)
    accounts = [engine.add_account() for _ in range(4)]
    people = []
    with transaction() as tx:
        for n in range(3):
            row = users.add_user(tx, name=f"user {n}", role="member", priority=n - 1)
            assert row is not None
            people.append(row.id)
    job_ids = []
    for _ in range(120):
        if dice.random() < 0.5:
            person = dice.choice(people)
            identity = {
                "owner": f"user:{person}",
                "user_id": person,
                "account_choice": dice.choice(["any", "own", "pool"]),
            }
            named: list[UUID] = dice.choice([[], [], [accounts[0]]])
        else:
            named = dice.sample(accounts, dice.choice([1, 2]))
            identity = {"owner": f"tokens:{dice.randrange(3)}"}
        job_ids.append(engine.add_job(*named, kind=dice.choice(["image", "image", "video"]), **identity))
    assert positions(job_ids) == counted(engine, job_ids)


def test_position_far_behind_is_the_next_number(engine: Engine) -> None:
    account = engine.add_account()
    made = [factories.new_job([account]) for _ in range(MOST_AHEAD + 3)]
    with transaction() as tx:
        state_machine.accept(tx, made)
    asked = [job.id for job in (made[0], *made[-5:])]
    found, most = positions(asked), MOST_AHEAD
    assert [found[job_id] for job_id in asked] == [1, most - 1, most, most + 1, most + 1, most + 1]


def add_person(name: str) -> dict[str, object]:
    with transaction() as tx:
        row = users.add_user(tx, name=name, role="member")
    assert row is not None
    return {"owner": f"user:{row.id}", "user_id": row.id}


def test_positions_behind_thousands_of_jobs_count_only_those_that_compete(engine: Engine) -> None:
    """Own accounts and named ones are behind few others there, so that the whole queue must not be counted."""
    named, other = engine.add_account(), engine.add_account()
    first, second = add_person("first"), add_person("second")
    copy_job(engine, engine.add_job(**first), 2 * MOST_AHEAD + 100)
    copy_job(engine, engine.add_job(**second, account_choice="own"), 40, step=100.0)
    copy_job(engine, engine.add_job(named, owner="tokens:a"), 40, step=100.0)
    copy_job(engine, engine.add_job(named, other, owner="tokens:b"), 20, step=200.0)
    copy_job(engine, engine.add_job(other, owner="tokens:c"), MOST_AHEAD + 20)
    engine.sql("UPDATE jobs SET turn = turn + 5000 WHERE owner <> :owner", owner=first["owner"])
    with transaction() as tx:
        tx.run(text("ANALYZE jobs"))
    asked = [row.id for row in engine.sql("SELECT id FROM jobs WHERE owner <> :owner", owner=first["owner"])][::20]
    asked += [engine.add_job(**who, account_choice=choice) for who in (first, second) for choice in ("any", "own")]
    expected = {job_id: min(n, MOST_AHEAD + 1) for job_id, n in counted(engine, asked).items()}
    assert positions(asked) == expected
    assert {1, MOST_AHEAD + 1} < set(expected.values())
    assert len(set(expected.values())) > 20


def test_a_page_reads_the_front_of_the_queue_once(engine: Engine) -> None:
    people = [add_person(f"user {n}") for n in range(5)]
    made = [engine.add_job(**person) for person in people]
    copy_job(engine, made[0], MOST_AHEAD + 500)
    copy_job(engine, made[1], MOST_AHEAD + 500)
    asked = [engine.add_job(**person) for person in people for _ in range(5)]
    with transaction() as tx:
        tx.run(text("ANALYZE jobs"))
        rows = tx.all(
            text("SELECT id, kind, place, account_ids, user_id, account_choice FROM jobs WHERE id = ANY(:ids)"),
            {"ids": asked},
        )
        waiting = [queue_positions.Waiting(*row) for row in rows]
        with queue_positions.queue_order(tx):
            plan = tx.all(
                text(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {queue_positions._IN_FRONT.text}"),
                queue_positions._values(waiting),
            )[0][0]
        assert set(queue_positions.find_positions(tx, waiting).values()) == {MOST_AHEAD + 1}
    scans = [node for node in nodes(plan[0]["Plan"]) if node.get("Relation Name") == "jobs"]
    assert [scan["Index Name"] for scan in scans] == ["ix_jobs_queue"]
    assert sum(scan["Actual Rows"] * scan["Actual Loops"] for scan in scans) == 2 * MOST_AHEAD


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(found for part in plan.get("Plans", []) for found in nodes(part))]
