"""The words for a cooldown."""

from datetime import UTC, datetime, timedelta

from worker.core.messages.cooldown import cooldown_message

NOW = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)


def test_error_says_until_when_to_wait() -> None:
    message = cooldown_message("upstream_risk_control", NOW + timedelta(minutes=5), NOW)
    assert message.endswith("No account can take this job until 2026-12-01 12:05 UTC (in 5 minutes).")


def test_ended_session_does_not_ask_to_wait() -> None:
    message = cooldown_message("upstream_session_expired", NOW + timedelta(minutes=5), NOW)
    assert "Log in again" in message
    assert "until" not in message
