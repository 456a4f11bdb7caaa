"""Jobs by the accounts that they name, one, several or none: the same jobs as without an index, found through one."""

import random
from uuid import UUID

from sqlalchemy import text

from tests.support.engine import Engine
from worker.db.engine import transaction
from worker.db.jobs.queries import Viewer, visibility_condition


def visible(viewer: Viewer) -> set[UUID]:
    condition, values = visibility_condition(viewer)
    with transaction() as tx:
        return {row.id for row in tx.all(text(f"SELECT id FROM jobs WHERE {condition}"), values)}


def test_callers_see_the_jobs_that_name_one_of_their_accounts(engine: Engine) -> None:
    dice = random.Random(5)
    accounts = [engine.add_account() for _ in range(5)]
    named: dict[UUID, set[UUID]] = {}
    for _ in range(60):
        some = dice.sample(accounts, dice.choice([1, 1, 2, 3]))
        named[engine.add_job(*some, owner="tokens:a")] = set(some)
    engine.add_job(owner="tokens:b")  # names none
    for number in range(1, 4):
        ids = dice.sample(accounts, number)
        assert visible(Viewer(account_ids=ids)) == {job for job, some in named.items() if some & set(ids)}
    assert visible(Viewer(account_ids=[])) == set()


def test_jobs_of_accounts_are_found_through_indexes(engine: Engine) -> None:
    accounts = [engine.add_account() for _ in range(20)]
    for number in range(200):
        engine.add_job(accounts[number % 20], *accounts[: number % 3], owner="tokens:a")
    condition, values = visibility_condition(Viewer(account_ids=accounts[18:]))
    with transaction() as tx:
        tx.run(text("ANALYZE jobs"))
        tx.run(text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join(row[0] for row in tx.all(text(f"EXPLAIN SELECT id FROM jobs WHERE {condition}"), values))
    assert "ix_jobs_one_account" in plan
    assert "ix_jobs_many_accounts" in plan
