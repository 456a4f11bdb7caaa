"""Times in filters of the job list."""

import time
from datetime import UTC, datetime

import pytest

from api.jobs.routes import parse_time


@pytest.fixture(params=["UTC", "Asia/Shanghai", "America/Los_Angeles"])
def server_zone(request, monkeypatch):
    """The time zone of this process."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("server_zone")
@pytest.mark.parametrize(
    "text", ["2026-03-01T12:00:00", "2026-03-01T12:00:00Z", "1772366400", "2026-03-01T20:00+08:00"]
)
def test_time_without_zone_is_utc_whatever_the_zone_of_the_server(text):
    assert parse_time(text, "created_after") == datetime(2026, 3, 1, 12, tzinfo=UTC)
