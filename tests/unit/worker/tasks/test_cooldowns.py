"""How long an account cools down after each refusal."""

from datetime import UTC, datetime

import pytest

from worker.core.errors import ERRORS, Fault
from worker.providers.base import Account
from worker.tasks.stages.cooldowns import COOLDOWN_SECONDS, cooldown_seconds

HOUR = 3600


def account_in(region: str, provider: str = "dreamina") -> Account:
    return Account(id="a", region=region, session="s", provider=provider)


@pytest.mark.parametrize("code", ["daily_limit_reached", "account_limited"])
@pytest.mark.parametrize(
    ("region", "now", "seconds"),
    [
        ("us", "2026-11-22T10:00:00Z", 14 * HOUR),
        ("auto", "2026-11-22T23:59:59Z", 1),
        ("cn", "2026-11-22T10:00:00Z", 6 * HOUR),
        ("cn", "2026-11-22T15:59:00Z", 60),
        ("cn", "2026-11-22T16:00:00Z", 24 * HOUR),
        ("sandbox", "2026-11-22T00:00:00Z", 24 * HOUR),
    ],
)
def test_daily_limit_ends_at_midnight_in_the_region_of_the_account(code, region, now, seconds):
    assert cooldown_seconds(code, account_in(region), datetime.fromisoformat(now)) == seconds + 300


def test_another_provider_has_its_own_days():
    now = datetime.fromisoformat("2026-11-22T15:59:00Z")
    assert cooldown_seconds("account_limited", account_in("cn", "ark"), now) == 8 * HOUR + 60 + 300


def test_other_refusals_have_their_own_cooldown():
    now, us = datetime.now(UTC), account_in("us")
    assert cooldown_seconds("upstream_risk_control", us, now) >= HOUR
    assert cooldown_seconds("rate_limit_exceeded", us, now) < 60
    assert cooldown_seconds("content_policy_violation", us, now) == 0
    assert cooldown_seconds("upstream_consent_required", us, now) == 0
    assert all(ERRORS[code].fault is Fault.ACCOUNT for code in COOLDOWN_SECONDS)
