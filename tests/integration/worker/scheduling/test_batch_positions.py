"""Jobs that are accepted in one batch get the positions that they would get one by one."""

import random
from typing import Any
from uuid import UUID

import pytest

from tests.support import factories
from tests.support.engine import Engine
from worker.db.engine import transaction
from worker.db.jobs import state_machine
from worker.db.jobs.state_machine import NewGroup, NewJob
from worker.db.users import users


def add_user(name: str, **changes: Any) -> UUID:
    with transaction() as tx:
        row = users.add_user(tx, name=name, role="member", **changes)
    assert row is not None
    user_id: UUID = row.id
    return user_id


def places(engine: Engine, requests: list[list[NewJob]]) -> list[float]:
    rows = {row.id: row.place for row in engine.sql("SELECT id, place FROM jobs")}
    return [rows[job.id] for jobs in requests for job in jobs]


@pytest.mark.parametrize("seed", range(6))
def test_positions_in_a_batch_are_those_of_one_by_one(engine: Engine, seed: int) -> None:
    """Requests of both kinds for accounts whose queues have progressed differently, of two equal users."""
    dice = random.Random(seed)
    accounts = [engine.add_account(pool=True) for _ in range(3)]
    for account in accounts:
        clock = dice.choice([0, 3, 50, 500])
        engine.sql(
            """UPDATE accounts SET turns = jsonb_build_object('image', jsonb_build_object('place', CAST(:clock AS float8)),
                   'video', jsonb_build_object('place', CAST(:clock AS float8) / 2)) WHERE id = :id""",
            id=account,
            clock=clock,
        )
    changes = {"weight": dice.choice([0.5, 1, 3]), "priority": dice.choice([-1, 0, 2])}
    one_by_one, together = add_user("one by one", **changes), add_user("together", **changes)
    requests = [
        (
            dice.choice(["image", "image", "video"]),
            dice.sample(accounts, dice.choice([0, 1, 2])),
            dice.choice([1, 1, 3]),
        )
        for _ in range(15)
    ]

    def make(user_id: UUID) -> list[list[NewJob]]:
        return [
            [factories.new_job(named, kind=kind, owner=f"user:{user_id}", user_id=user_id) for _ in range(count)]
            for kind, named, count in requests
        ]

    single, batch = make(one_by_one), make(together)
    for jobs in single:
        with transaction() as tx:
            state_machine.accept(tx, jobs)
    with transaction() as tx:
        state_machine.accept_groups(tx, [NewGroup(jobs, {}) for jobs in batch])
    assert places(engine, batch) == pytest.approx(places(engine, single))
