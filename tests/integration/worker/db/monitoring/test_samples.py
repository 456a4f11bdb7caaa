"""The samples of the platform: one for each minute whatever schedulers run, rolled up, bounded, and exact about jobs."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.engine import Engine
from worker.core.observability import metrics
from worker.core.observability.samples import KEPT, fold, percentile, shown
from worker.db.engine import transaction
from worker.db.monitoring import samples
from worker.messaging import metrics_store
from worker.messaging.redis_connection import redis_client
from worker.tasks.monitor import monitor


def stored(engine: Engine, step: int = 60) -> list[dict]:
    return [
        row.measures
        for row in engine.sql("SELECT measures FROM metric_samples WHERE step = :step ORDER BY at", step=step)
    ]


def next_minute(engine: Engine, minutes: int = 1) -> None:
    """Let time pass for what was sampled: the rows move into the past."""
    engine.sql("UPDATE metric_samples SET at = at - make_interval(mins => :minutes)", minutes=minutes)
    engine.sql(
        """UPDATE platform_state SET value = value || jsonb_build_object(
               'until', CAST(value ->> 'until' AS float8) - 60 * :minutes,
               'sampled', CAST(value ->> 'sampled' AS float8) - 60 * :minutes)
           WHERE name = 'monitoring_totals'""",
        minutes=minutes,
    )


def insert(engine: Engine, step: int, age_seconds: float, measures: str) -> None:
    engine.sql(
        """INSERT INTO metric_samples (step, at, measures)
           VALUES (:step, to_timestamp(floor((extract(epoch FROM now()) - :age) / :step) * :step), CAST(:measures AS jsonb))
           ON CONFLICT DO NOTHING""",
        step=step,
        age=age_seconds,
        measures=measures,
    )


def test_one_of_several_schedulers_samples_a_minute(engine: Engine) -> None:
    with ThreadPoolExecutor(4) as pool:
        lines = list(pool.map(lambda _: monitor(), range(4)))
    # The minute may change meanwhile.
    assert len(stored(engine)) == sum(line.startswith("sampled") for line in lines) <= 2
    assert len(stored(engine)) >= 1


def test_jobs_that_ended_are_counted_once_with_their_durations(engine: Engine) -> None:
    account = engine.add_account(pool=True)
    engine.sql("UPDATE accounts SET credits = 70")
    monitor()
    next_minute(engine)
    engine.add_succeeded_job(account, prompt="a boat")
    engine.run_until_final(engine.add_job(account, prompt="a boat [[refuse:2038]]"))
    engine.add_job(account)
    engine.sql("UPDATE jobs SET finished_at = finished_at - interval '30 s' WHERE finished_at IS NOT NULL")
    assert monitor().startswith("sampled")
    newest = stored(engine)[-1]
    assert (newest["jobs_succeeded"], newest["jobs_failed"], newest["jobs_failed_by_us"]) == (1, 1, 0)
    assert (newest["jobs_waiting"], newest["credits_left"]) == (1, 70)
    assert sum(newest["queue_wait"]) >= 1
    assert shown(newest)["queue_wait_p95"] is not None
    assert newest["database_bytes"] > 0
    assert newest["redis_bytes"] > 0
    next_minute(engine)
    engine.sql("UPDATE jobs SET finished_at = finished_at - interval '1 min'")
    monitor()
    assert stored(engine)[-1]["jobs_succeeded"] == 0


def test_counters_of_all_processes_become_counts_of_a_minute(engine: Engine) -> None:
    metrics_store.flush()
    for status in ("200", "200", "503"):
        metrics.count("dreamery_requests", "GET", "/v1/jobs", status)
    metrics_store.flush()
    monitor()
    assert "requests" not in stored(engine)[-1], "what was before the first sample is not of its minute"
    for status in ("200", "500"):
        metrics.count("dreamery_requests", "GET", "/v1/jobs", status)
    metrics.observe("dreamery_upstream_seconds", 0.3, "generate")
    metrics_store.flush()
    next_minute(engine)
    monitor()
    newest = stored(engine)[-1]
    assert (newest["requests"], newest["request_errors"]) == (2, 1)
    assert 0.25 <= shown(newest)["upstream_call_p50"] <= 0.5
    # An emptied Redis counts from zero.
    redis_client().delete(metrics_store.KEY)
    metrics.count("dreamery_requests", "GET", "/v1/jobs", "200")
    metrics_store.flush()
    next_minute(engine)
    monitor()
    assert stored(engine)[-1]["requests"] == 1


def test_minutes_become_ten_minutes_and_hours_and_old_ones_are_deleted(engine: Engine) -> None:
    for minute in range(130):
        insert(engine, 60, 60 * minute + 60, '{"jobs_succeeded": 2, "workers": 3}')
    for step, seconds in KEPT.items():
        insert(engine, step, seconds + 2 * step, '{"jobs_succeeded": 7}')
    for _ in range(8):
        with transaction() as tx:
            samples.roll_up(tx)
    tens, hours = stored(engine, 600), stored(engine, 3600)
    assert {"jobs_succeeded": 20, "workers": 3} in tens
    assert {"jobs_succeeded": 120, "workers": 3} in hours
    old = engine.sql("SELECT step, extract(epoch FROM now() - min(at)) AS age FROM metric_samples GROUP BY step")
    assert all(row.age < KEPT[row.step] + row.step for row in old)
    with transaction() as tx:
        now = int(samples.now(tx))
        found = samples.history(tx, now - 7200, now + 60, 600)
    # The newest windows are made of the minutes that there are.
    assert sum(measures["jobs_succeeded"] for _, measures in found) == pytest.approx(2 * 120, abs=22)
    assert [at for at, _ in found] == sorted(at for at, _ in found)
    assert found[-1][0] > now - 700


def test_gap_leaves_no_samples_and_a_clock_set_back_deletes_those_of_the_future(engine: Engine) -> None:
    monitor()
    next_minute(engine, 120)
    assert monitor().startswith("sampled")
    assert len(stored(engine)) == 2
    insert(engine, 60, -86_400, "{}")
    next_minute(engine)
    monitor()
    assert len(stored(engine)) == 3


def test_percentiles_and_sums() -> None:
    assert percentile([], 0.5) is None
    assert percentile([0, 10], 0.5, (1.0, 2.0)) == 1.5
    assert percentile([0, 0, 5], 0.95, (1.0, 2.0)) == 2.0
    assert fold([{"requests": 1, "workers": 2, "save": [1, 2]}, {"workers": 4, "save": [1, 0]}]) == {
        "requests": 1,
        "workers": 3.0,
        "save": [2, 2],
    }
