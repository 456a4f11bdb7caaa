"""Several users on several accounts, some of them unusable: a small version of the benchmark scenario `many`."""

from pathlib import Path

import pytest

from tests.bench.many import SMALL, run_many, settings
from tests.support.platform import start_platform


def test_many_users_get_fair_shares_within_account_limits(tmp_path: Path) -> None:
    with start_platform(tmp_path, extra_env=settings(SMALL), sandbox_seconds=0.5) as platform:
        figures = run_many(platform, SMALL)
    assert figures.problems == []
    assert figures.jobs == SMALL.jobs + 1
    assert figures.ends["succeeded"] > 0.7 * SMALL.jobs
    # Claims that had started before may still be ahead.
    assert figures.newcomer_behind <= 4
    assert figures.shares_counted > 40
    assert figures.shares == {weight: pytest.approx(1, abs=0.25) for weight in ("1", "2", "3")}
