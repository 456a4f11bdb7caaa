"""How long an account rests after a refusal that is about the account, not the job. Used by submit and poll."""

from datetime import UTC, datetime, timedelta, timezone

# Codes that are not here (no right to a model, consent) say nothing about the account's other jobs, so they never put
# it to rest. An expired login is checked by the next job after its rest: being refused costs nothing.
REST_SECONDS = {
    "rate_limit_exceeded": 15.0,
    "proxy_unreachable": 10.0,
    "upstream_session_expired": 300.0,
    "insufficient_quota": 600.0,
    "upstream_risk_control": 7200.0,
}
# No room for more jobs of a kind: that kind rests alone. Pictures end within seconds, videos take minutes.
FULL_SECONDS = {"image": 5.0, "video": 30.0, "chat": 5.0}
# These end with the day where the account lives; upstream's clock may be a little behind ours.
_UNTIL_TOMORROW = frozenset({"daily_limit_reached", "account_limited"})
_CHINA = timezone(timedelta(hours=8))
_CLOCK_SLACK = timedelta(minutes=5)


def rest_seconds(code: str, region: str, now: datetime) -> float:
    """How long an account of that region rests after this refusal; 0 = not at all."""
    if code not in _UNTIL_TOMORROW:
        return REST_SECONDS.get(code, 0.0)
    here = now.astimezone(_CHINA if region == "cn" else UTC)
    midnight = here.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return (midnight + _CLOCK_SLACK - here).total_seconds()
