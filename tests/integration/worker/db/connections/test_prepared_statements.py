"""Statements on the path of each job are planned once per connection, and stay prepared."""

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from tests.support.engine import Engine
from worker.db.engine import Transaction, get_engine, transaction

_ASK = text("/* repeated */ SELECT count(*) FROM jobs WHERE owner = :owner")
_PREPARED = text(
    """SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE '/* repeated */%'"""
)


@pytest.fixture(autouse=True)
def _one_connection(engine: Engine) -> Any:
    get_engine().dispose()  # the next ones use the same new connection, one after the other
    yield
    get_engine().dispose()


def ask(times: int, *, plan_once: bool) -> None:
    for _ in range(times):
        with transaction(plan_once=plan_once) as tx:
            tx.run(_ASK, {"owner": "alice"})


def prepared(tx: Transaction) -> list[tuple[int, int]]:
    return [(row.generic_plans, row.custom_plans) for row in tx.all(_PREPARED)]


def test_repeated_statements_are_planned_without_their_values() -> None:
    ask(5, plan_once=True)
    with transaction() as tx:
        assert prepared(tx) == [(4, 0)]  # the first time it was not prepared


def test_other_statements_are_planned_with_their_values() -> None:
    ask(5, plan_once=False)
    with transaction() as tx:
        assert prepared(tx) == []
        assert tx.run(text("SHOW plan_cache_mode")).scalar() == "auto"
    ask(3, plan_once=False)
    with transaction() as tx:
        assert prepared(tx) == [(0, 3)]


def test_mode_ends_with_its_transaction() -> None:
    with transaction(plan_once=True) as tx:
        assert tx.run(text("SHOW plan_cache_mode")).scalar() == "force_generic_plan"
    with transaction() as tx:
        assert tx.run(text("SHOW plan_cache_mode")).scalar() == "auto"


def test_statements_stay_prepared_when_nothing_was_written() -> None:
    ask(2, plan_once=True)
    with transaction(plan_once=True) as tx:
        tx.run(_ASK, {"owner": "alice"})
        tx.end_unwritten()
    with transaction() as tx:
        assert prepared(tx) == [(2, 0)]


def test_statements_are_prepared_again_after_an_error() -> None:
    """A migration may have changed the table of one of them."""
    ask(2, plan_once=True)
    with pytest.raises(ProgrammingError), transaction() as tx:
        tx.run(text("SELECT 1 FROM no_such_table"))
    with transaction() as tx:
        assert prepared(tx) == []
    ask(3, plan_once=True)
    with transaction() as tx:
        assert prepared(tx) == [(2, 0)]
