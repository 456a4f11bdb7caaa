"""Time limits of tests by tier: a test that hangs fails soon, and not after the limit of the longest tests.

Measured with four processes on two cores, the slowest test of these tiers takes 24 s, and a shared platform starts in
at most 20 s, which counts for the test that needs it first. All other tests have the limit in `pyproject.toml`.
"""

from collections.abc import Collection

from tests.support.shared_platforms import SHARED_PLATFORMS

_QUICK = ("tests/unit/", "tests/integration/")


def time_limit(path: str, fixtures: Collection[str]) -> int | None:
    """Return the seconds of a test with its fixtures; None = the limit in `pyproject.toml`."""
    if not path.startswith(_QUICK):
        return None
    return 120 if any(name in SHARED_PLATFORMS for name in fixtures) else 60
