"""Traces and job origins: no effect when off, correct parents when on."""

import subprocess
import sys
from collections.abc import Iterator
from uuid import UUID

import pytest
import structlog

from tests.support.platform import ROOT, clean_env
from tests.support.servers.http_servers import running_app
from tests.support.servers.trace_receiver import Collector, attributes
from worker.core.errors import DreameryError
from worker.core.observability import job_context, tracing
from worker.core.observability.logging import _name_job, _name_trace
from worker.core.settings import get_settings

JOB = UUID(int=7)
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-aaaabbbbccccddddaaaabbbbccccdddd-00f067aa0ba902b7-01"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    trace_collector = Collector()
    with running_app(trace_collector) as url:
        monkeypatch.setenv("DREAMERY_OTEL_ENDPOINT", url)
        get_settings.cache_clear()
        tracing.configure("dreamery-test")
        yield trace_collector
        tracing.stop()
    get_settings.cache_clear()


def python(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=clean_env(**env), capture_output=True, text=True, check=False
    )


def test_tracer_and_exporter_are_not_imported_when_off() -> None:
    """Other parts of the SDK may be imported: redis-py imports its metrics if it is installed."""
    program = "import sys, worker.celery_tasks, api.app; from worker.core.observability import tracing; tracing.configure('x'); "
    program += "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk.trace', 'opentelemetry.exporter'))])"
    done = python(
        program, DREAMERY_REDIS_URL="redis://127.0.0.1:1/0", DREAMERY_DATABASE_URL="postgresql://127.0.0.1:1/x"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_span_is_a_shared_null_object_when_off() -> None:
    assert tracing.span("a", parent=PARENT) is tracing.span("b", links=[PARENT], colour="red")
    with tracing.span("a") as span:
        span.set(colour="red")
        span.rename("b")
        span.fail("c")
        assert tracing.traceparent() is None
        assert job_context.current_origin() == {}


def test_missing_library_stops_the_start() -> None:
    program = "import sys; sys.modules['opentelemetry.sdk'] = None; from worker.core.observability import tracing; tracing.configure('x')"
    done = python(program, DREAMERY_OTEL_ENDPOINT="http://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.strip().startswith("DREAMERY_OTEL_ENDPOINT is set, but OpenTelemetry is not installed.")


def test_spans_of_a_job_belong_to_the_trace_of_its_request(collector: Collector) -> None:
    with tracing.span("request", parent=PARENT, kind="server"):
        origin = job_context.current_origin()
    with job_context.job_context("save", JOB, origin, links=[OTHER]), tracing.span("store file", file__key="jobs/x"):
        pass
    tracing.stop()
    spans = {span.name: span for _, span in collector.trace(PARENT.split("-")[1])}
    assert set(spans) == {"request", "save", "store file"}
    assert spans["request"].parent_span_id.hex() == PARENT.split("-")[2]
    assert spans["save"].parent_span_id == spans["request"].span_id
    assert spans["store file"].parent_span_id == spans["save"].span_id
    assert [link.trace_id.hex() for link in spans["save"].links] == [OTHER.split("-")[1]]
    assert attributes(spans["save"]) == {"job.id": f"job_{JOB.hex}"}
    assert attributes(spans["store file"]) == {"file.key": "jobs/x"}


def test_span_of_one_job_joins_its_trace_and_span_of_many_has_its_own(collector: Collector) -> None:
    with job_context.jobs_context("one", [{"traceparent": PARENT}, None, {}]):
        pass
    with job_context.jobs_context("many", [{"traceparent": PARENT}, {"traceparent": OTHER}]):
        pass
    tracing.stop()
    spans = {span.name: span for _, span in collector.spans}
    assert spans["one"].trace_id.hex() == PARENT.split("-")[1]
    assert spans["many"].trace_id.hex() not in PARENT + OTHER
    assert [link.trace_id.hex() for link in spans["many"].links] == [PARENT.split("-")[1], OTHER.split("-")[1]]


@pytest.mark.parametrize("parent", ["", "nonsense", "00-0-0-01", "ff" * 300, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_invalid_parent_starts_a_new_trace(collector: Collector, parent: str) -> None:
    with tracing.span("request", parent=parent, links=[parent]):
        assert len(tracing.trace_id() or "") == 32
    tracing.stop()
    ((_, span),) = collector.spans
    assert (span.parent_span_id, list(span.links)) == (b"", [])


def test_exception_is_recorded_by_code_without_message(collector: Collector) -> None:
    with pytest.raises(DreameryError), tracing.span("call"):
        raise DreameryError("upstream_unreachable", "sessionid=secret")
    with pytest.raises(ValueError, match="secret"), tracing.span("other"):
        raise ValueError("secret")
    tracing.stop()
    spans = {span.name: span for _, span in collector.spans}
    assert spans["call"].status.message == "upstream_unreachable"
    assert spans["other"].status.message == "ValueError"
    assert "secret" not in str(collector.spans)


def test_log_lines_contain_job_request_and_trace(collector: Collector) -> None:
    structlog.contextvars.clear_contextvars()
    with job_context.job_context("save", JOB, {"request_id": "req_1", "traceparent": PARENT}):
        event = structlog.contextvars.merge_contextvars(None, "", {"event": "x"})
        event = _name_trace(None, "", event)
    assert event == {
        "event": "x", "job_id": f"job_{JOB.hex}", "request_id": "req_1", "trace_id": PARENT.split("-")[1]
    }  # fmt: skip
    assert structlog.contextvars.get_contextvars() == {}


@pytest.mark.parametrize("text", [str(JOB), JOB.hex, f"job_{JOB.hex}"])
def test_job_id_is_logged_in_public_form(text: str) -> None:
    assert _name_job(None, "", {"job_id": text}) == {"job_id": f"job_{JOB.hex}"}
    assert _name_job(None, "", {"job_id": ""}) == {"job_id": ""}
