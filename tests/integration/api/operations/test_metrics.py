"""`/metrics`: counters of several processes are summed, survive a Redis outage and are valid for Prometheus."""

import json
import subprocess
import sys
from uuid import uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.operations.metrics import GAUGES, render_metrics
from tests.support.platform import ROOT, clean_env
from worker.core.observability import metrics
from worker.messaging import celery_app, heartbeat, metrics_store
from worker.tasks.deliver_webhooks import deliver

COUNT_IN_ANOTHER_PROCESS = """
from worker.messaging import metrics_store
from worker.core.observability import metrics
metrics.count("dreamery_webhooks", "delivered", by=2)
metrics.observe("dreamery_poll_delay_seconds", 0.2)
metrics_store.start()
"""


@pytest.fixture(autouse=True)
def _reset_counters(engine):
    metrics.drain_counts()
    engine.redis.delete(heartbeat._WORKERS, heartbeat._SEEN)


def samples() -> dict[tuple[str, str], float]:
    return {
        (sample.name, json.dumps(sample.labels, sort_keys=True)): sample.value
        for family in text_string_to_metric_families(render_metrics().decode())
        for sample in family.samples
    }


def value_of(name: str, **labels: str) -> float | None:
    return samples().get((name, json.dumps(labels, sort_keys=True)))


def test_counters_of_processes_are_summed(engine):
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-c", COUNT_IN_ANOTHER_PROCESS], check=True, cwd=ROOT, env=clean_env(**engine.env)
        )
    metrics.count("dreamery_webhooks", "delivered")
    metrics.observe("dreamery_poll_delay_seconds", 100.0)
    assert metrics_store.flush()
    assert value_of("dreamery_webhooks_total", outcome="delivered") == 5
    assert value_of("dreamery_poll_delay_seconds_count") == 3
    assert value_of("dreamery_poll_delay_seconds_bucket", le="0.25") == 2
    assert value_of("dreamery_poll_delay_seconds_bucket", le="+Inf") == 3
    assert value_of("dreamery_poll_delay_seconds_sum") == pytest.approx(100.4)


def test_counters_are_kept_while_redis_is_away(engine):
    url = engine.env["DREAMERY_REDIS_URL"]
    metrics.count("dreamery_nudges_lost", "submit")
    engine.configure(REDIS_URL="redis://127.0.0.1:1/0")
    assert not metrics_store.flush()
    assert value_of("dreamery_up", source="redis") == 0
    metrics.count("dreamery_nudges_lost", "submit")
    engine.configure(REDIS_URL=url)
    assert metrics_store.flush()
    assert value_of("dreamery_nudges_lost_total", task="submit") == 2
    assert value_of("dreamery_up", source="redis") == 1


def test_gauges_from_the_database(engine):
    account = engine.add_account()
    engine.add_job(account)
    engine.add_job(account)
    engine.sql("UPDATE accounts SET credits = 70, rest_until = now() + interval '1 hour'")
    assert value_of("dreamery_jobs", kind="image", model="jimeng-4.0", state="queued") == 2
    assert value_of("dreamery_queue_oldest_seconds", kind="image") >= 0
    assert value_of("dreamery_accounts", region="sandbox", state="resting", pool="false") == 1
    assert value_of("dreamery_account_credits", region="sandbox", pool="false") == 70
    assert value_of("dreamery_up", source="database") == 1


def test_metrics_without_a_database(engine):
    engine.configure(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert value_of("dreamery_up", source="database") == 0


def test_counter_of_another_version_is_ignored(engine):
    engine.redis.hincrbyfloat(metrics_store.KEY, '["dreamery_unknown",["x"],""]', 1)
    assert "dreamery_unknown" not in render_metrics().decode()


@pytest.mark.parametrize("name", [*metrics.METRICS, *GAUGES])
def test_every_metric_has_help_text_and_prefix(name):
    help_text = GAUGES[name][0] if name in GAUGES else metrics.METRICS[name].help
    assert name.startswith("dreamery_")
    assert len(help_text) > 5


def test_every_gauge_is_exported(engine):
    engine.add_job(engine.add_account())
    heartbeat.publish_status("worker@here", queues=["fast"], threads=1)
    heartbeat._status.seen.clear()
    heartbeat.record_activity("tick")
    exported = {family.name for family in text_string_to_metric_families(render_metrics().decode())}
    assert set(GAUGES) <= exported
    assert {"process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds"} <= exported


def test_waiting_messages_are_counted_by_queue(engine):
    engine.take_messages()
    celery_app.enqueue_poll(uuid4())
    celery_app.enqueue_save(uuid4())
    celery_app.enqueue_save(uuid4())
    assert value_of("dreamery_messages_waiting", queue="fast") == 1
    assert value_of("dreamery_messages_waiting", queue="bulk") == 2
    assert value_of("dreamery_messages_waiting", queue="outbox") == 0


def test_age_of_the_tick(engine):
    assert value_of("dreamery_seen_age_seconds", what="tick") is None
    heartbeat._status.seen.clear()
    heartbeat.record_activity("tick")
    assert value_of("dreamery_seen_age_seconds", what="tick") < 60
    engine.redis.hset(heartbeat._SEEN, "tick", 0)
    assert value_of("dreamery_seen_age_seconds", what="tick") > 1e9


def report_worker(engine, name: str, **changes) -> None:
    """Publish the status of a worker, with timestamps some seconds ago."""
    heartbeat.publish_status(name, queues=["fast"], threads=4)
    (field,) = [field for field in engine.redis.hkeys(heartbeat._WORKERS) if field.decode().startswith(f"{name}#")]
    line = json.loads(engine.redis.hget(heartbeat._WORKERS, field))
    ago = {moment: line[moment] - seconds for moment, seconds in changes.items() if moment in {"heard", "told"}}
    rest = {what: value for what, value in changes.items() if what not in ago}
    engine.redis.hset(heartbeat._WORKERS, field, json.dumps({**line, **ago, **rest}))


def test_responsive_and_unresponsive_workers_are_counted(engine):
    heartbeat.record_heartbeat()
    report_worker(engine, "healthy@a")
    report_worker(engine, "stuck@b", heard=30)
    report_worker(engine, "stopped@c", heard=30, told=30)
    report_worker(engine, "full@d", heard=30, busy=4)
    report_worker(engine, "killed@e", heard=300, told=300)
    report_worker(engine, "forgotten@f", heard=3000, told=3000)
    assert value_of("dreamery_workers", queues="fast", hears="true") == 2
    assert value_of("dreamery_workers", queues="fast", hears="false") == 2
    assert value_of("dreamery_worker_threads", queues="fast") == 16
    assert value_of("dreamery_worker_threads_busy", queues="fast") == 4
    assert value_of("dreamery_worker_memory_bytes", queues="fast") > 1e6
    heartbeat.list_workers()
    assert not [field for field in engine.redis.hkeys(heartbeat._WORKERS) if field.startswith(b"forgotten@")]


def test_stopping_worker_is_not_reported_missing(engine):
    heartbeat.publish_status("leaving@a", queues=["fast"], threads=1)
    assert [worker.name for worker in heartbeat.list_workers()] == ["leaving@a"]
    heartbeat._status.consumed_at -= 1000
    try:
        heartbeat.mark_leaving()
        report_worker(engine, "leaving@a")
        (worker,) = heartbeat.list_workers()
        assert worker.is_responsive
        report_worker(engine, "leaving@a", told=30)
        assert heartbeat.list_workers() == []
    finally:
        heartbeat._status.leaving = False


def test_failed_webhook_delivery_is_counted(engine, receiver):
    account = engine.add_account()
    for status in (500, 200):
        receiver.answers = [status]
        job = engine.add_succeeded_job(account, webhook_url=receiver.url)
        (delivery,) = engine.sql("SELECT id FROM webhook_deliveries WHERE job_id = :id", id=job)
        deliver(delivery_id=delivery.id)
    assert metrics_store.flush()
    assert value_of("dreamery_webhooks_total", outcome="failed") == 1
    assert value_of("dreamery_webhooks_total", outcome="delivered") == 1


def test_job_transitions_are_counted(engine):
    account = engine.add_account()
    engine.add_succeeded_job(account)
    job = engine.add_job(account, prompt="[[fail:2005]]")
    engine.run_until_final(job)
    assert metrics_store.flush()
    model = "jimeng-4.0"
    assert value_of("dreamery_jobs_accepted_total", kind="image", model=model) == 2
    assert (
        value_of(
            "dreamery_jobs_ended_total", code="", kind="image", model=model, outcome="succeeded", state="succeeded"
        )
        == 1
    )
    refused = {"code": "content_policy_violation", "outcome": "content", "state": "failed"}
    assert value_of("dreamery_jobs_ended_total", kind="image", model=model, **refused) == 1
    assert value_of("dreamery_job_run_seconds_count", kind="image", model=model) == 2
    assert value_of("dreamery_upstream_calls_total", code="ok", endpoint="generate") == 2
    assert value_of("dreamery_poll_delay_seconds_count") >= 2
