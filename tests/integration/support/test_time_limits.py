"""Tests that hang fail within the limit of their tier."""

import pytest

from tests.support.time_limits import time_limit


@pytest.mark.parametrize(
    ("path", "fixtures", "seconds"),
    [
        ("tests/unit/api/jobs/test_routes.py", [], 60),
        ("tests/integration/worker/tasks/test_save.py", ["engine"], 120),
        ("tests/integration/api/jobs/test_jobs.py", ["client", "api_platform"], 180),
        ("tests/e2e/test_up.py", [], None),
        ("tests/browser/test_console.py", ["console_platform"], None),
    ],
)
def test_limit_depends_on_tier_and_platform(path: str, fixtures: list[str], seconds: int | None) -> None:
    assert time_limit(path, fixtures) == seconds


def test_limit_applies_to_this_test(request: pytest.FixtureRequest) -> None:
    marker = request.node.get_closest_marker("timeout")
    assert marker is not None
    assert marker.args == (120,)


@pytest.mark.timeout(90)
def test_own_limit_of_a_test_is_kept(request: pytest.FixtureRequest) -> None:
    assert [marker.args for marker in request.node.iter_markers("timeout")] == [(90,)]
