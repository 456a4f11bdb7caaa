"""The figures of `make chaos` and the verdicts of `make soak`, from known data."""

import random
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from tests.chaos.loads import LOADS
from tests.chaos.measure import _longest_pause, _paid_twice
from tests.chaos.scenarios import SCENARIOS
from tests.soak.samples import judge, table

START = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = [str(UUID(int=n)) for n in range(9)]


def snapshot(*accepted: tuple[str, str], charges: list[str], rows: list[str]) -> Any:
    return SimpleNamespace(
        accepted=[{"prompt": prompt, "submit_id": key} for prompt, key in accepted],
        ledger={"charges": [{"submit_id": key} for key in charges]},
        jobs=[{"submit_key": UUID(key)} for key in rows],
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (snapshot(("a", KEYS[0]), ("b", KEYS[1]), charges=KEYS[:2], rows=KEYS[:2]), 0),
        (snapshot(("a", KEYS[0]), ("a", KEYS[1]), charges=KEYS[:2], rows=KEYS[:2]), 1),
        (snapshot(("a", KEYS[0]), charges=[KEYS[0], KEYS[0]], rows=KEYS[:1]), 1),
        (snapshot(("a", KEYS[0]), ("b", KEYS[1]), charges=KEYS[:2], rows=KEYS[:1]), 1),
    ],
)
def test_second_submit_second_charge_and_charge_without_row_count_as_paid_twice(found: Any, expected: int) -> None:
    assert _paid_twice(found) == expected


def test_longest_pause_counts_only_while_a_job_is_open() -> None:
    changes = [(0, None, "queued"), (2, "queued", "submitting"), (9, "submitting", "succeeded"), (60, None, "queued")]
    changes += [(61, "queued", "failed")]
    events = [{"at": START + timedelta(seconds=at), "from_state": old, "to_state": new} for at, old, new in changes]
    assert _longest_pause(SimpleNamespace(events=events)) == 7.0  # type: ignore[arg-type]


def test_table_has_five_scenarios_and_an_undisturbed_run_under_two_loads() -> None:
    assert len(LOADS) == 2
    assert [scenario.act is None for scenario in SCENARIOS] == [True, *[False] * 5]


def samples(value: Any) -> list[dict[str, float]]:
    return [{"at": 5.0 * n, "PSS MB worker": value(n)} for n in range(360)]


@pytest.mark.parametrize(
    ("value", "grows"),
    [
        (lambda _n: 120.0, False),
        (lambda n: 120 + n / 10, True),  # 24 MB in twenty minutes
        (lambda n: 120 - n / 10, False),
        (lambda n: 120 + n / 60, False),  # 4 MB: too little to count
        (lambda n: min(n, 100) + 100, False),  # the first third warms up
        (lambda n: 120 + random.Random(n).uniform(-20, 20), False),
        (lambda n: 120 + n / 8 + random.Random(n).uniform(-5, 5), True),
    ],
)
def test_verdict_is_about_the_last_two_thirds_and_the_noise(value: Any, grows: bool) -> None:
    [verdict] = judge(samples(value))
    assert verdict.grows is grows
    assert ("growing" if grows else "flat") in table([verdict], minutes=30)


def test_simulated_upstream_is_not_judged() -> None:
    [verdict] = judge([{"at": float(n), "PSS MB sandbox": 100.0 + n} for n in range(90)])
    assert not verdict.grows
    assert "not judged" in table([verdict], minutes=1.5)
