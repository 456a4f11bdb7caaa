"""Rows of the benchmark: what counts as a violation, the processes, and the tables."""

import subprocess
import sys
from typing import Any

import pytest

from tests.bench.engine.counters import Counts
from tests.bench.engine.measure import Row, find_violations
from tests.bench.engine.processes import find_tree, read_usage
from tests.bench.engine.scenarios import Limits, Scenario, scenarios
from tests.bench.engine.tables import cost_table, speed_table

_LIMITED = Scenario("limited", 2, 4, 1.0, limits=Limits(slots=2, per_minute=3))


def _ledger(*times: float, most: int = 2, duplicates: int = 0, prompts: list[str] | None = None) -> dict[str, Any]:
    names = prompts or [f"p{n}" for n in range(len(times))]
    return {
        "totals": {"duplicate_submit_ids": duplicates},
        "accounts": {"a": {"max_images": most, "max_videos": 0}},
        "submits": [{"prompt": name, "account": "a", "at": at} for name, at in zip(names, times, strict=True)],
    }


def test_a_ledger_within_all_promises_has_no_violation() -> None:
    assert find_violations(_ledger(0, 20, 40, 61), _LIMITED, {"p0", "p1", "p2", "p3"}) == []


@pytest.mark.parametrize(
    ("ledger", "text"),
    [
        (_ledger(0, 20, most=3), "3 jobs in flight"),
        (_ledger(0, 10, 20, 30, 40), "5 submits in a minute"),
        (_ledger(0, 20, duplicates=1), "1 submit ids twice"),
        (_ledger(0, 20, prompts=["p0", "p0"]), "1 jobs paid twice"),
        (_ledger(0, 20, prompts=["p1", "p2"]), "1 successes without a submit"),
    ],
)
def test_broken_promises_are_found(ledger: dict[str, Any], text: str) -> None:
    assert any(text in found for found in find_violations(ledger, _LIMITED, {"p0"}))


def test_limits_count_only_where_a_scenario_has_them() -> None:
    free = Scenario("free", 500, 500, 1.0)
    assert find_violations(_ledger(*range(500), most=500), free, set()) == []


def test_every_request_of_every_run_has_a_prompt_of_its_own() -> None:
    chosen = scenarios(quick=False, long=True)
    prompts = [request.prompt for scenario in chosen for _ in range(2) for request in scenario.requests("k{n}")]
    assert len(set(prompts)) == len(prompts) == 2 * sum(scenario.jobs for scenario in chosen)
    assert len({scenario.name for scenario in chosen}) == len(chosen)


def test_accounts_take_turns() -> None:
    keys = [request.key for request in Scenario("s", 1, 4, 1.0, accounts=2).requests("bench{n}:sandbox")]
    assert keys == ["bench0:sandbox", "bench1:sandbox"] * 2


def test_usage_covers_children_and_those_that_have_ended() -> None:
    inner = "for n in range(8_000_000): pass"
    outer = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", "{inner}"], check=True)
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print("ready", flush=True)
input()
child.communicate(b"x")
"""
    with subprocess.Popen([sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        usage = read_usage(process.pid, memory=True)
        assert len(find_tree(process.pid)) == 2
        # The loop of the child that has ended takes longer than the start of an interpreter.
        assert usage.total_cpu_ms > 50
        assert usage.total_pss_mb > 5
        process.communicate(b"x\n")


def test_usage_of_a_process_that_has_ended_is_empty() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    assert read_usage(process.pid, memory=True).cpu_ms == {}


def test_the_idle_part_is_taken_off() -> None:
    used = Counts(110, 220, 330, 44) - Counts(1, 2, 3, 4).times(10)
    assert (used.commits, used.wal_kb, used.redis_commands, used.messages) == (100, 200, 300, 4)


def test_tables_have_a_row_per_measurement_and_servers_without_a_pid_no_cost() -> None:
    ours = Row("s1", "Dreamery", jobs=10, delay=(0.1, 0.2), latency=(1.0, 2.0), cpu_ms_per_job=5.0)
    ours.cpu_by_process, ours.pss_by_process = {"api": 3.0, "worker": 2.0, "redis": 0.0}, {"api": 80, "worker": 90}
    ours.per_job = ours.idle_per_second = {"commits": 2.0, "wal_kb": 3.0, "redis_commands": 4.0, "messages": 1.0}
    other = Row("s1", "other", jobs=10, failed=1, violations=["1 jobs paid twice"])
    speed, cost = speed_table([ours, other]).splitlines(), cost_table([ours, other]).splitlines()
    assert len(speed) == 4
    assert "| 0.10 / 0.20 " in speed[2]
    assert "| -    " in speed[3]
    assert "1 of 10" in speed[3]
    assert "1 jobs paid twice" in speed[3]
    assert len({line.count("|") for line in speed}) == len({line.count("|") for line in cost}) == 1
    assert len(cost) == 3
    assert "api 3.0, worker 2.0 " in cost[2]
    assert "worker 90, api 80" in cost[2]
    assert "| - / - / -  " in cost[2]
    assert {len(line) for line in speed} == {len(speed[0])}
