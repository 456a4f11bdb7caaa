"""`/metrics`: counts of several processes add up, survive Redis being away, and come out as Prometheus reads them."""

import json
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.metrics import exposition
from tests.platform import ROOT, clean_env
from worker.bus import metrics as carried
from worker.core import metrics

COUNT_IN_ANOTHER_PROCESS = """
from worker.bus import metrics as carried
from worker.core import metrics
metrics.count("dreamery_webhooks", "delivered", by=2)
metrics.observe("dreamery_poll_delay_seconds", 0.2)
carried.start()
"""


@pytest.fixture(autouse=True)
def _nothing_counted(engine):
    carried._client.cache_clear()
    metrics.take()
    yield
    carried._client().close()
    carried._client.cache_clear()


def samples() -> dict[tuple[str, str], float]:
    return {
        (sample.name, json.dumps(sample.labels, sort_keys=True)): sample.value
        for family in text_string_to_metric_families(exposition().decode())
        for sample in family.samples
    }


def of(name: str, **labels: str) -> float | None:
    return samples().get((name, json.dumps(labels, sort_keys=True)))


def test_counts_of_processes_add_up(engine):
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-c", COUNT_IN_ANOTHER_PROCESS], check=True, cwd=ROOT, env=clean_env(**engine.env)
        )
    metrics.count("dreamery_webhooks", "delivered")
    metrics.observe("dreamery_poll_delay_seconds", 100.0)
    assert carried.flush()
    assert of("dreamery_webhooks_total", outcome="delivered") == 5
    assert of("dreamery_poll_delay_seconds_count") == 3
    assert of("dreamery_poll_delay_seconds_bucket", le="0.25") == 2
    assert of("dreamery_poll_delay_seconds_bucket", le="+Inf") == 3
    assert of("dreamery_poll_delay_seconds_sum") == pytest.approx(100.4)


def test_counts_wait_while_redis_is_away(engine):
    url = engine.env["DREAMERY_REDIS_URL"]
    metrics.count("dreamery_nudges_lost", "submit")
    engine.configure(REDIS_URL="redis://127.0.0.1:1/0")
    carried._client.cache_clear()
    assert not carried.flush()
    assert of("dreamery_up", source="redis") == 0
    metrics.count("dreamery_nudges_lost", "submit")
    engine.configure(REDIS_URL=url)
    carried._client.cache_clear()
    assert carried.flush()
    assert of("dreamery_nudges_lost_total", task="submit") == 2
    assert of("dreamery_up", source="redis") == 1


def test_the_rows_of_this_moment(engine):
    account = engine.account()
    engine.job(account)
    engine.job(account)
    engine.sql("UPDATE accounts SET credits = 70, rest_until = now() + interval '1 hour'")
    assert of("dreamery_jobs", kind="image", state="queued") == 2
    assert of("dreamery_queue_oldest_seconds", kind="image") >= 0
    assert of("dreamery_accounts", region="sandbox", state="resting", pool="false") == 1
    assert of("dreamery_account_credits", region="sandbox", pool="false") == 70
    assert of("dreamery_up", source="database") == 1


def test_an_exposition_without_a_database(engine):
    engine.configure(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert of("dreamery_up", source="database") == 0


def test_a_count_of_another_version_is_left_out(engine):
    carried._client().hincrbyfloat(carried.KEY, '["dreamery_gone",["x"],""]', 1)
    assert "dreamery_gone" not in exposition().decode()


@pytest.mark.parametrize("name", metrics.MEASURES)
def test_every_measure_has_a_help_text_and_a_name_of_ours(name):
    assert name.startswith("dreamery_")
    assert len(metrics.MEASURES[name].help) > 5


def test_the_way_of_a_job_is_counted(engine):
    account = engine.account()
    engine.to_end(account)
    job = engine.job(account, prompt="[[fail:2005]]")
    engine.drive(job)
    assert carried.flush()
    model = "jimeng-4.0"
    assert of("dreamery_jobs_accepted_total", kind="image", model=model) == 2
    assert of("dreamery_jobs_ended_total", code="", kind="image", model=model, state="succeeded") == 1
    assert (
        of("dreamery_jobs_ended_total", code="content_policy_violation", kind="image", model=model, state="failed") == 1
    )
    assert of("dreamery_job_run_seconds_count", kind="image", model=model) == 2
    assert of("dreamery_upstream_calls_total", code="ok", endpoint="generate") == 2
    assert of("dreamery_poll_delay_seconds_count") >= 2
