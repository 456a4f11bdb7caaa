"""Webhook retry schedule, pauses of slow receivers, and allowed URLs."""

from datetime import UTC, datetime

import pytest

from worker.core.settings import Settings
from worker.core.webhook_policy import (
    RETRY_DELAYS,
    TEST_EVENT,
    check_url,
    next_delay,
    pause_seconds,
    retry_after_seconds,
)

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
DONE = "job.completed"


def test_retry_schedule_follows_standard_webhooks():
    hours = [next_delay(n, event=DONE, status=500, random_fraction=0.5) for n in range(1, 10)]
    assert hours == [5, 300, 1800, 7200, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600]
    assert next_delay(10, event=DONE, status=500, random_fraction=0.5) is None
    assert 3 * 86_400 < sum(RETRY_DELAYS) < 4 * 86_400


@pytest.mark.parametrize("attempt", range(1, 10))
def test_jitter_is_ten_percent(attempt):
    low, high = (next_delay(attempt, event=DONE, status=None, random_fraction=fraction) for fraction in (0.0, 1.0))
    assert low == pytest.approx(RETRY_DELAYS[attempt - 1] * 0.9)
    assert high == pytest.approx(RETRY_DELAYS[attempt - 1] * 1.1)


def test_410_and_test_events_are_not_retried():
    assert next_delay(1, event=DONE, status=410, random_fraction=0.5) is None
    assert next_delay(1, event=TEST_EVENT, status=500, random_fraction=0.5) is None


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_retry_after_of_busy_receiver_is_bounded(status):
    def delay(retry_after):
        return next_delay(1, event=DONE, status=status, retry_after=retry_after, random_fraction=0.5)

    assert [delay(seconds) for seconds in (None, 0, 3, 90, 1e9)] == [5, 5, 5, 90, 3600]
    assert next_delay(4, event=DONE, status=status, retry_after=90, random_fraction=0.5) == 7200, (
        "Retry-After never shortens the schedule"
    )
    assert next_delay(1, event=DONE, status=500, retry_after=90, random_fraction=0.5) == 5, (
        "Retry-After counts only for busy receivers"
    )


@pytest.mark.parametrize(
    ("status", "seconds", "retry_after", "pause"),
    [
        (429, 0.1, None, 30), (503, 0.1, 120, 120), (502, 0.1, 1, 30), (504, 0.1, 1e9, 3600),
        (500, 0.1, 120, None), (500, 11, None, 30), (None, 20, None, 30), (None, 0.1, None, None), (404, 0.1, None, None),
    ],
)  # fmt: skip
def test_busy_or_slow_receiver_is_paused(status, seconds, retry_after, pause):
    assert pause_seconds(status=status, seconds=seconds, retry_after=retry_after) == pause


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120), (" 0 ", 0), ("9" * 400, 999_999_999), ("Tue, 24 Nov 2026 12:01:30 GMT", 90),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0), ("Tue, 24 Nov 2026 12:01:30", None), ("-5", None), ("1.5", None),
        ("soon", None), ("", None), (None, None), ("١٢", None),
    ],
)  # fmt: skip
def test_retry_after_accepts_seconds_and_dates(header, seconds):
    assert retry_after_seconds(header, NOW) == seconds


def settings(**changes) -> Settings:
    return Settings(_env_file=None, **{"env": "development", "fetch_allow": "", **changes})


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com", "https://example.com/hook?token=a#b", "https://example.com:8443/x", "http://example.com/x",
        "https://8.8.8.8/", "https://[2606:4700:4700::1111]/", "https://b\u00fccher.example/", "HTTPS://EXAMPLE.COM/",
    ],
)  # fmt: skip
def test_valid_url_is_accepted(url):
    check_url(url, settings())


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("", "https://"), ("example.com", "https://"), ("ftp://example.com", "https://"), ("https://", "host"),
        ("https:///x", "host"), ("javascript:alert(1)", "https://"), ("file:///etc/passwd", "https://"),
        ("https://a b/", "spaces"), ("https://a\\b/", "backslash"), ("https://a\r\nb/", "control"), ("https://a\x00", "contr"),
        ("https://me:pw@example.com/", "password"), ("https://me@example.com/", "user name"), ("https://@example.com/", "user"),
        ("https://example.com:99999/", "valid URL"), ("https://example.com:x/", "valid URL"), ("https://[::1/", "valid URL"),
        ("https://example.com/" + "x" * 2000, "2000"),
    ],
)  # fmt: skip
def test_invalid_url_is_refused(url, word):
    with pytest.raises(ValueError, match=word):
        check_url(url, settings())


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "LOCALHOST.", "a.localhost", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254",
        "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "[fd00::1]", "[fe80::1%25eth0]", "127.1", "2130706433", "0x7f000001",
        "0177.0.0.1", "224.0.0.1", "100.64.0.1",
    ],
)  # fmt: skip
def test_literal_private_address_is_refused_unless_allowed(host):
    with pytest.raises(ValueError, match="private address"):
        check_url(f"https://{host}/hook", settings())
    check_url(f"http://{host}:8080/hook", settings(fetch_allow=f"{host.strip('[]').lower()}:8080", env="production"))


def test_plain_http_is_allowed_in_development_and_for_allowed_hosts():
    with pytest.raises(ValueError, match="https://"):
        check_url("http://example.com/hook", settings(env="production"))
    check_url("http://hooks.internal/x", settings(env="production", fetch_allow="hooks.internal"))
    check_url("https://example.com/hook", settings(env="production"))
