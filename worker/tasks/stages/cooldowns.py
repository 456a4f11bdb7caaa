"""How long an account cools down after a refusal that concerns the account, not the job. Used by submit and poll."""

from datetime import datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from worker.core.catalog.provider_data import all_providers

# Other codes (no access to a model, missing consent) do not affect the account's other jobs, so they cause no cooldown.
# The next job after the cooldown tests an expired login again: a refusal costs nothing.
COOLDOWN_SECONDS = {
    "rate_limit_exceeded": 15.0,
    "proxy_unreachable": 10.0,
    "upstream_session_expired": 300.0,
    "insufficient_quota": 600.0,
    "upstream_risk_control": 7200.0,
}
# The concurrency limit is per kind, so only that kind cools down. Images finish in seconds, videos take minutes.
KIND_COOLDOWN_SECONDS = {"image": 5.0, "video": 30.0, "chat": 5.0}
# These limits end at midnight in the account's day zone; upstream's clock may be slightly behind ours.
_UNTIL_TOMORROW = frozenset({"daily_limit_reached", "account_limited"})
_CLOCK_SLACK = timedelta(minutes=5)


class InRegion(Protocol):
    """An account."""

    @property
    def provider(self) -> str:
        """The name of its provider."""

    @property
    def region(self) -> str:
        """One of the provider's regions."""


def cooldown_seconds(code: str, account: InRegion, now: datetime) -> float:
    """Return how many seconds an account cools down after this refusal; 0 = not at all."""
    if code not in _UNTIL_TOMORROW:
        return COOLDOWN_SECONDS.get(code, 0.0)
    zone = ZoneInfo(all_providers()[account.provider].day_zone_of(account.region))
    local_now = now.astimezone(zone)
    midnight = local_now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return (midnight + _CLOCK_SLACK - local_now).total_seconds()


# An account whose secrets a worker cannot decrypt, although its master key is the right one for the database.
LOCKED_SECONDS = 30.0
