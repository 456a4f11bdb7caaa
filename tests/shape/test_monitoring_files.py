"""Alert rules, dashboard and handbook agree with each other and with `/metrics`, and pass their own checkers."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from api.operations.metrics import GAUGES
from tests.support.promtool import promtool
from worker.core.observability.metrics import METRICS

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dreamery.json").read_text())
ALERTS = [
    rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
# Series of Prometheus itself and of the process it scrapes.
STANDARD_SERIES = {"up", "ALERTS", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"}
TARGET = {"job", "instance", "pod"}


def known_series() -> dict[str, set[str]]:
    """Return every series that `/metrics` can show, with its labels."""
    found = {name: set(labels) for name, (_, labels) in GAUGES.items()}
    for name, measure in METRICS.items():
        parts = {"_bucket": {"le"}, "_sum": set(), "_count": set()} if measure.buckets else {"_total": set()}
        found |= {f"{name}{part}": {*measure.labels, *more} for part, more in parts.items()}
    return found


def queries() -> Iterator[tuple[str, str]]:
    """Yield every PromQL expression of rules and dashboard with the name of its rule or panel."""
    for rule in ALERTS:
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")
    for note in DASHBOARD["annotations"]["list"]:
        yield note["name"], note["expr"]


def parts_of(expression: Any) -> Iterator[Any]:
    """Yield the expression and all its parts."""
    yield expression
    for name in ("lhs", "rhs", "expr", "param", "args", "vector_selector"):
        inner = getattr(expression, name, None)
        for part in inner if isinstance(inner, list) else [inner]:
            if part is not None and type(part).__module__ == type(expression).__module__:
                yield from parts_of(part)


@pytest.mark.parametrize(("place", "expression"), list(queries()))
def test_queries_use_existing_series_and_labels(place: str, expression: str) -> None:
    parts = list(parts_of(promql_parser.parse(expression)))
    selectors = [part for part in parts if isinstance(part, promql_parser.VectorSelector)]
    assert selectors
    known, labels = known_series(), set(TARGET)
    for selector in selectors:
        assert selector.name in known or selector.name in STANDARD_SERIES, selector.name
        if selector.name in known:
            labels |= known[selector.name]
            matched = {matcher.name for matcher in selector.matchers.matchers}
            assert matched <= known[selector.name] | TARGET, (selector.name, matched)
    for grouped in parts:
        modifier = getattr(grouped, "modifier", None)
        names = (
            set(getattr(modifier, "labels", None) or []) if isinstance(grouped, promql_parser.AggregateExpr) else set()
        )
        assert names <= labels, (place, names)


def test_query_check_detects_unknown_series_and_labels() -> None:
    with pytest.raises(AssertionError):
        test_queries_use_existing_series_and_labels("x", "sum(rate(dreamery_gone_total[5m]))")
    with pytest.raises(AssertionError):
        test_queries_use_existing_series_and_labels("x", 'dreamery_jobs{colour="red"}')
    with pytest.raises(AssertionError):
        test_queries_use_existing_series_and_labels("x", "sum by (colour) (dreamery_jobs)")


def test_sums_count_each_value_once() -> None:
    """Every API process reports the same numbers, so a sum needs `max without (instance, pod)` inside."""
    for place, expression in queries():
        for part in parts_of(promql_parser.parse(expression)):
            if isinstance(part, promql_parser.AggregateExpr) and str(part.op) == "sum":
                inner = str(part.expr.prettify())
                assert re.match(r"max without|sum without|rate\(process", inner.replace("\n", "")), (place, inner)


def test_every_metric_is_used() -> None:
    used = {
        part.name
        for _, expression in queries()
        for part in parts_of(promql_parser.parse(expression))
        if isinstance(part, promql_parser.VectorSelector)
    }
    unseen = {name for name in [*METRICS, *GAUGES] if not any(series.startswith(name) for series in used)}
    assert unseen == {"dreamery_scrape_time_seconds"}


def run_promtool(*arguments: str) -> None:
    done = subprocess.run(
        [promtool(), *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(600)  # promtool may have to be downloaded first
def test_promtool_accepts_rules_and_configuration() -> None:
    run_promtool("check", "rules", "alerts.yml")
    run_promtool("check", "config", "--syntax-only", "prometheus.yml")
    run_promtool("test", "rules", "alerts_test.yml")


def test_rule_tests_cover_every_alert_firing_and_silent() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    names = {rule["alert"] for rule in ALERTS}
    quiet = {check["alertname"] for check in tests[0]["alert_rule_test"] if not check["exp_alerts"]}
    loud = {check["alertname"] for test in tests[1:] for check in test["alert_rule_test"] if check["exp_alerts"]}
    assert quiet == loud == names


def test_every_alert_has_a_runbook_section() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    anchors = {
        re.sub(r"[^\w\- ]", "", line[4:]).strip().lower() for line in text.splitlines() if line.startswith("### ")
    }
    for rule in ALERTS:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["alert"].lower() in anchors


def test_dashboard_survives_grafanas_model() -> None:
    """Grafana's classes drop fields that they do not know."""
    plugins.register_default_plugins()
    again = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(DASHBOARD)))
    assert list(lost(DASHBOARD, again)) == []


def lost(given: Any, got: Any, path: str = "") -> Iterator[str]:
    if isinstance(given, dict):
        for name, value in given.items():
            yield from lost(value, got[name], f"{path}/{name}") if name in got else [f"{path}/{name}"]
    elif isinstance(given, list):
        assert len(given) == len(got), path
        for n, (one, other) in enumerate(zip(given, got, strict=True)):
            yield from lost(one, other, f"{path}/{n}")
    elif given != got:
        yield path


def test_panels_have_unique_ids_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["title"]
        place = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not mine & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        cells |= mine


def test_metrics_table_is_complete() -> None:
    text = (ROOT / "docs" / "observability.md").read_text()
    rows = dict(re.findall(r"^\| `(dreamery_\w+)` \| \w+ \| (.*?) \|", text, re.MULTILINE))
    wanted = {
        **{name + ("" if measure.buckets else "_total"): measure.labels for name, measure in METRICS.items()},
        **{name: labels for name, (_, labels) in GAUGES.items()},
    }
    assert {name: re.findall(r"`(\w+)`", labels) for name, labels in rows.items()} == {
        name: list(labels) for name, labels in wanted.items()
    }
