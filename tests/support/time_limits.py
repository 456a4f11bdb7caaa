"""Time limits of tests by tier: a test that hangs fails soon, and not after the limit of the longest tests.

Measured with four processes on two cores, the slowest test of these tiers takes 24 s, and a shared platform starts in
at most 20 s, which counts for the test that needs it first. All other tests have the limit in `pyproject.toml`.
"""

from collections.abc import Collection

from tests.support.shared_platforms import SHARED_PLATFORMS

_UNIT, _INTEGRATION = "tests/unit/", "tests/integration/"


def time_limit(path: str, fixtures: Collection[str]) -> int | None:
    """Return the seconds of a test with its fixtures; None = the limit in `pyproject.toml`."""
    if path.startswith(_UNIT):
        return 60
    if not path.startswith(_INTEGRATION):
        return None
    # Several times what the slowest test takes: a machine may be slow.
    return 180 if any(name in SHARED_PLATFORMS for name in fixtures) else 120
