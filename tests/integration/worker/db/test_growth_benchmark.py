"""The growth benchmark with a few rows: its rows are valid, and each of its operations runs and leaves no trace."""

import psycopg
import pytest

from tests.bench.scale import Databases, Step, measure_in_turn, ratio, steps
from tests.bench.scale_operations import OPERATIONS, Operation
from tests.bench.scale_rows import HEAVY_USER, Filler
from tests.support.engine import Engine
from worker.db import engine as engine_module
from worker.db.engine import transaction


@pytest.fixture
def filled(engine: Engine) -> Engine:
    with psycopg.connect(engine.env["DREAMERY_DATABASE_URL"], autocommit=True) as connection:
        filler = Filler(connection)
        filler.finish_until(240)
        filler.wait_until(60)
        filler.settle_down()
        assert filler.megabytes() > 0
    return engine


def test_filled_rows_have_the_promised_shape(filled: Engine) -> None:
    [row] = filled.sql(
        """SELECT count(*) FILTER (WHERE state = 'succeeded') AS succeeded, count(*) FILTER (WHERE state = 'queued') AS queued,
               count(*) FILTER (WHERE holds_slot) AS running, count(*) FILTER (WHERE user_id = :heavy) AS heavy,
               count(*) FILTER (WHERE result_count = 1) AS counted FROM jobs""",
        heavy=HEAVY_USER,
    )
    assert tuple(row) == (220, 40, 20, 60, 220)
    [files] = filled.sql("SELECT count(DISTINCT job_id) AS jobs, count(*) AS files FROM files")
    assert (files.jobs, files.files) == (220, 244)
    assert filled.sql("SELECT count(*) AS n FROM prompts")[0].n == 300


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_each_operation_runs(filled: Engine, operation: Operation) -> None:
    with transaction() as tx:
        operation.prepare(tx)
        operation.run(tx)


def test_two_databases_are_measured_in_turn(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    # Restored at the end, as is the URL.
    monkeypatch.setattr(engine_module, "get_engine", engine_module.get_engine)
    url = filled.env["DREAMERY_DATABASE_URL"]
    monkeypatch.setenv("DREAMERY_DATABASE_URL", url)
    databases = Databases({"base": url, "grown": url})
    try:
        assert all(value is not None for value in measure_in_turn(OPERATIONS[0], databases).values())
    finally:
        databases.close()


def test_steps_end_with_the_largest_and_small_ratios_count_as_one() -> None:
    assert steps(1_000_000, 100_000) == [
        Step(100_000, 0), Step(1_000_000, 0), Step(1_000_000, 10_000), Step(1_000_000, 100_000),
    ]  # fmt: skip
    assert steps(20_000, 5_000)[-1] == Step(20_000, 5_000)
    assert Step(1_000_000, 10_000).title == "1 M + 10 k"
    assert (ratio(4.0, 0.1), ratio(30.0, 10.0), ratio(None, 1.0)) == (1.0, 3.0, None)
