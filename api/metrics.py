"""`/metrics` in the form of Prometheus: what all processes counted, and what the rows say at this moment."""

from collections.abc import Iterator
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from worker.bus import metrics as carried
from worker.bus.events import BUS_ERRORS
from worker.core.metrics import MEASURES, Field
from worker.db import gauges
from worker.db.engine import DATABASE_ERRORS, transaction

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition() -> bytes:
    """All metrics now. What cannot be read (Redis or Postgres away) is left out, and `dreamery_up` says so."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Everything())
    return generate_latest(registry)


class _Everything(Collector):
    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("dreamery_up", "whether this source answered the scrape", labels=["source"])
        try:
            yield from _counted(carried.read())
            up.add_metric(["redis"], 1)
        except BUS_ERRORS:
            up.add_metric(["redis"], 0)
        try:
            with transaction() as tx:
                rows = gauges.read(tx)
            yield from _gauges(rows)
            up.add_metric(["database"], 1)
        except DATABASE_ERRORS:
            up.add_metric(["database"], 0)
        yield up


def _counted(sums: dict[Field, float]) -> Iterator[Metric]:
    for name, measure in MEASURES.items():
        mine = {(labels, part): value for (known, labels, part), value in sums.items() if known == name}
        if measure.buckets:
            yield _histogram(name, mine)
        else:
            counter = CounterMetricFamily(name, measure.help, labels=measure.labels)
            for (labels, _), value in sorted(mine.items()):
                counter.add_metric(labels, value)
            yield counter


def _histogram(name: str, parts: dict[tuple[tuple[str, ...], str], float]) -> Metric:
    measure = MEASURES[name]
    bounds = [*map(str, measure.buckets), "+Inf"]
    family = HistogramMetricFamily(name, measure.help, labels=measure.labels)
    for labels in sorted({labels for labels, _ in parts}):
        total, buckets = 0.0, []
        for index, bound in enumerate(bounds):
            total += parts.get((labels, str(index)), 0.0)
            buckets.append((bound, total))
        family.add_metric(labels, buckets, parts.get((labels, "sum"), 0.0))
    return family


def _gauges(rows: gauges.Gauges) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("dreamery_jobs", "open jobs", labels=["kind", "state"])
    oldest = GaugeMetricFamily("dreamery_queue_oldest_seconds", "age of the oldest queued job", labels=["kind"])
    for row in rows.open_jobs:
        jobs.add_metric([row.kind, row.state], row.n)
        if row.state == "queued":
            oldest.add_metric([row.kind], max(float(row.oldest), 0.0))
    accounts = GaugeMetricFamily("dreamery_accounts", "upstream accounts", labels=["region", "state", "pool"])
    credit = GaugeMetricFamily("dreamery_account_credits", "credits left, as last told", labels=["region", "pool"])
    money: dict[tuple[str, str], float] = {}
    for row in rows.accounts:
        pool = str(row.pool).lower()
        accounts.add_metric([row.region, row.state, pool], row.n)
        money[row.region, pool] = money.get((row.region, pool), 0.0) + float(row.credits)
    for labels, left in sorted(money.items()):
        credit.add_metric(labels, left)
    webhooks = GaugeMetricFamily("dreamery_webhooks_waiting", "webhook deliveries still to be made")
    webhooks.add_metric([], rows.webhooks)
    at = GaugeMetricFamily("dreamery_scrape_time_seconds", "when these rows were read")
    at.add_metric([], datetime.now(UTC).timestamp())
    yield from (jobs, oldest, accounts, credit, webhooks, at)
