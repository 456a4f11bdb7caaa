"""Positions in the queue: the same as counting every job ahead, up to the number that is counted."""

import random
from uuid import UUID

from tests.support import factories
from tests.support.engine import Engine
from worker.db.engine import transaction
from worker.db.jobs import queries, state_machine
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
    made = [factories.new_job([account]) for _ in range(queries.MOST_AHEAD + 3)]
    with transaction() as tx:
        state_machine.accept(tx, made)
    asked = [job.id for job in (made[0], *made[-5:])]
    found, most = positions(asked), queries.MOST_AHEAD
    assert [found[job_id] for job_id in asked] == [1, most - 1, most, most + 1, most + 1, most + 1]
