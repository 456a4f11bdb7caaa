"""The benchmark itself: its stand-in serves a real platform, and a row has every figure."""

from pathlib import Path

import pytest

from tests.bench.engine.measure import Pauses, measure
from tests.bench.engine.run import start_stand_in
from tests.bench.engine.scenarios import Limits, Scenario
from tests.bench.engine.targets import Dreamery
from tests.support.platform import ROOT
from worker.local.processes import ProcessSupervisor, free_port

_LIMITED = Scenario("limited", 4, 8, 0.3, accounts=2, spread=0.1, limits=Limits(slots=2, per_minute=600))
_VIDEOS = Scenario("videos", 2, 4, 0.2, kind="video")


@pytest.mark.parametrize("scenario", [_LIMITED, _VIDEOS], ids=lambda scenario: scenario.name)
def test_a_row_has_every_figure(tmp_path: Path, scenario: Scenario) -> None:
    tmp_path.chmod(0o755)
    supervisor = ProcessSupervisor()
    try:
        stand_in = start_stand_in(supervisor, tmp_path, port=free_port(), size=256, latency=0.0)
        target = Dreamery("this", ROOT, supervisor, tmp_path, stand_in, workers=1)
        with target.started(scenario) as running:
            row = measure(running, scenario, stand_in=stand_in, pauses=Pauses(start=0.0, idle=1.0, settle=0.5))
    finally:
        supervisor.close()
    assert (row.jobs, row.failed, row.violations) == (scenario.jobs, 0, [])
    assert row.delay is not None
    assert 0 < row.delay[0] <= row.delay[1] < row.latency[1]
    assert row.calls_per_job is not None
    assert row.calls_per_job > 1  # each job has a submit, and shares polls
    assert {"api", "worker", "postgres", "redis", "supervisor"} <= row.cpu_by_process.keys()
    assert {"api", "worker", "postgres", "redis", "supervisor"} <= row.pss_by_process.keys()
    assert row.per_job is not None
    assert row.pss_busy_mb is not None
    assert row.pss_busy_mb > 50
