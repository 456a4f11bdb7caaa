"""`/metrics` in the Prometheus format: counters of all processes, and gauges read at scrape time."""

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from worker.core.job_state import JobState
from worker.core.observability.metrics import METRICS, Field
from worker.db.engine import DATABASE_ERRORS, transaction
from worker.db.platform import gauges
from worker.db.platform import state as platform_state
from worker.messaging import heartbeat, metrics_store
from worker.messaging.redis_connection import find_redis_problem
from worker.messaging.redis_errors import REDIS_ERRORS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render_metrics() -> bytes:
    """Return all current metrics. If Redis or Postgres is away, its metrics are missing and `dreamery_up` is 0."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_PlatformCollector())
    return generate_latest(registry)


# Gauges read at scrape time: help text and labels. Counters are in `METRICS`.
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "dreamery_up": ("whether this source responds and takes what is written: 1 or 0", ("source",)),
    "dreamery_build_info": ("the version that served the scrape; always 1", ("version",)),
    "dreamery_jobs": ("open jobs", ("kind", "model", "state")),
    "dreamery_queue_oldest_seconds": ("age of the oldest queued job", ("kind",)),
    "dreamery_accounts": (
        "upstream accounts; state is ok, resting, needs_login, blocked, paused or retired",
        ("region", "state", "pool"),
    ),
    "dreamery_account_credits": ("last known credits", ("region", "pool")),
    "dreamery_webhooks_waiting": ("pending webhook deliveries", ()),
    "dreamery_scrape_time_seconds": ("time when the rows were read, in unix seconds", ()),
    "dreamery_messages_waiting": ("messages that no worker has received yet", ("queue",)),
    "dreamery_seen_age_seconds": ("seconds since the tick last ran, or the scheduler last sent one", ("what",)),
    "dreamery_workers": ("worker processes; hears = whether they process messages", ("queues", "hears")),
    "dreamery_worker_threads": ("threads of worker processes", ("queues",)),
    "dreamery_worker_threads_busy": ("busy threads of worker processes", ("queues",)),
    "dreamery_worker_memory_bytes": ("memory of the largest worker process", ("queues",)),
}
# A worker without a heartbeat for this long was stopped or killed, and no longer counts as unhealthy.
_STOPPED_SECONDS = 120.0


class _PlatformCollector(Collector):
    def collect(self) -> Iterator[Metric]:
        up, build = _gauge("dreamery_up"), _gauge("dreamery_build_info")
        build.add_metric([version("dreamery")], 1)
        try:
            yield from _stored_metrics(metrics_store.read())
            yield from _redis_gauges()
            # A server that refuses writes still answers what it is asked.
            up.add_metric(["redis"], int(find_redis_problem() is None))
        except REDIS_ERRORS:
            up.add_metric(["redis"], 0)
        try:
            with transaction() as tx:
                rows = gauges.read(tx)
                storage_problem = platform_state.get_storage_problem(tx)
            yield from _database_gauges(rows)
            up.add_metric(["database"], 1)
            up.add_metric(["storage"], int(storage_problem is None))
        except DATABASE_ERRORS:
            up.add_metric(["database"], 0)
        yield from (up, build)


def _stored_metrics(sums: dict[Field, float]) -> Iterator[Metric]:
    for name, measure in METRICS.items():
        own = {(labels, part): value for (known, labels, part), value in sums.items() if known == name}
        if measure.buckets:
            yield _histogram(name, own)
        else:
            counter = CounterMetricFamily(name, measure.help, labels=measure.labels)
            for (labels, _), value in sorted(own.items()):
                counter.add_metric(labels, value)
            yield counter


def _histogram(name: str, parts: dict[tuple[tuple[str, ...], str], float]) -> Metric:
    measure = METRICS[name]
    bounds = [*map(str, measure.buckets), "+Inf"]
    family = HistogramMetricFamily(name, measure.help, labels=measure.labels)
    for labels in sorted({labels for labels, _ in parts}):
        total, buckets = 0.0, []
        for index, bound in enumerate(bounds):
            total += parts.get((labels, str(index)), 0.0)
            buckets.append((bound, total))
        family.add_metric(labels, buckets, parts.get((labels, "sum"), 0.0))
    return family


def _database_gauges(rows: gauges.Gauges) -> Iterator[Metric]:
    jobs = _gauge("dreamery_jobs")
    oldest = _gauge("dreamery_queue_oldest_seconds")
    ages: dict[str, float] = {}
    for row in rows.open_jobs:
        jobs.add_metric([row.kind, row.model, row.state], row.n)
        if row.state == JobState.QUEUED:
            ages[row.kind] = max(ages.get(row.kind, 0.0), float(row.oldest))
    for kind, age in sorted(ages.items()):
        oldest.add_metric([kind], age)
    accounts, credit = _gauge("dreamery_accounts"), _gauge("dreamery_account_credits")
    money: dict[tuple[str, str], float] = {}
    for row in rows.accounts:
        pool = str(row.pool).lower()
        accounts.add_metric([row.region, row.state, pool], row.n)
        money[row.region, pool] = money.get((row.region, pool), 0.0) + float(row.credits)
    for labels, left in sorted(money.items()):
        credit.add_metric(labels, left)
    webhooks = _gauge("dreamery_webhooks_waiting")
    webhooks.add_metric([], rows.webhooks)
    at = _gauge("dreamery_scrape_time_seconds")
    at.add_metric([], datetime.now(UTC).timestamp())
    yield from (jobs, oldest, accounts, credit, webhooks, at)


def _redis_gauges() -> Iterator[Metric]:
    """Gauges from Redis: waiting messages, age of the tick, workers."""
    messages, ages = _gauge("dreamery_messages_waiting"), _gauge("dreamery_seen_age_seconds")
    for queue, waiting in metrics_store.queue_lengths().items():
        messages.add_metric([queue], waiting)
    for what in ("tick", "scheduler"):
        seconds = heartbeat.seconds_since(what)
        if seconds is not None:
            ages.add_metric([what], seconds)
    yield from (messages, ages)
    yield from _workers([w for w in heartbeat.list_workers() if w.told_seconds <= _STOPPED_SECONDS])


def _workers(workers: list[heartbeat.Worker]) -> Iterator[Metric]:
    number, threads, busy, memory = map(
        _gauge,
        ("dreamery_workers", "dreamery_worker_threads", "dreamery_worker_threads_busy", "dreamery_worker_memory_bytes"),
    )
    for queues in sorted({",".join(worker.queues) for worker in workers}):
        own = [worker for worker in workers if ",".join(worker.queues) == queues]
        for state in (True, False):
            number.add_metric([queues, str(state).lower()], sum(worker.is_responsive is state for worker in own))
        threads.add_metric([queues], sum(worker.threads for worker in own))
        busy.add_metric([queues], sum(worker.busy for worker in own))
        memory.add_metric([queues], max(worker.resident_bytes for worker in own))
    yield from (number, threads, busy, memory)


def _gauge(name: str) -> GaugeMetricFamily:
    help_text, labels = GAUGES[name]
    return GaugeMetricFamily(name, help_text, labels=labels)
