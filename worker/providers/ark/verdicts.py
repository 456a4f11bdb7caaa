"""What the engine does about an error that Ark has named: which account, model or customer rests, and for how long."""

import re
import time
from datetime import UTC, datetime

from worker.core.errors import Reaction
from worker.providers.ark.error_codes import Action, Rule
from worker.providers.ark.responses import ApiError
from worker.providers.refusals import RefusedError, Scope, Verdict

_PAUSES = (5.0, 20.0, 60.0)
_UNTIL = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)[ T](?P<clock>\d\d:\d\d:\d\d)(?:\.\d{1,9})?\s{0,2}(?P<zone>[+-]\d\d:?\d\d)?"
)
_LONGEST_REST = 40 * 86_400.0
_REAL_PERSON = (
    "Upstream refused an input because it may show a real person. Use material that the asset library of the account "
    "has authorised."
)


def refusal(error: ApiError, rule: Rule, *, status: int, secret: str) -> RefusedError:
    """Return the refusal of a call. `secret` stays out of its texts."""
    detail = f"HTTP {status} {error.code} {error.message}"[:500].replace(secret, "***")
    message = _text_for_caller(error, secret) if rule.action is Action.FIX else None
    return RefusedError(
        rule.error or "upstream_error", verdict_of(error, rule), message, detail=detail, name=error.code
    )


def verdict_of(error: ApiError, rule: Rule) -> Verdict:
    """Return how the engine reacts."""
    match rule.action:
        case Action.AGAIN:
            return Verdict(Reaction.RETRY_LATER, pauses=_PAUSES[: rule.tries])
        case Action.WAIT_PAIR:
            ours = rule.fault == "us"
            scope = Scope.GROUP_PAIR if ours else Scope.PAIR
            return Verdict(Reaction.OTHER_ACCOUNT, scope, rule.wait, grows=True, counts=not ours, slower=rule.slower)
        case Action.WAIT_ACCOUNT:
            return Verdict(Reaction.OTHER_ACCOUNT, Scope.GROUP, _seconds_until(error.message) or rule.wait)
        case Action.CLOSE_PAIR:
            return Verdict(Reaction.OTHER_ACCOUNT, Scope.PAIR, float("inf"), warns=True)
        case Action.STOP_ACCOUNT:
            # A key may be wrong alone; debts and a bad standing are those of the customer.
            scope = Scope.ACCOUNT if rule.state == "needs_login" else Scope.GROUP
            return Verdict(
                Reaction.OTHER_ACCOUNT, scope, rule.recheck, stops=rule.state, checks_after=rule.recheck, warns=True
            )
        case _:
            return Verdict(Reaction.GIVE_UP, warns=rule.fault == "us")


def _seconds_until(text: str) -> float:
    """Return the seconds until the time that a text names; 0 = it names none."""
    found = _UNTIL.search(text)
    if found is None:
        return 0.0
    try:
        moment = datetime.fromisoformat(f"{found['day']}T{found['clock']}{found['zone'] or ''}")
    except ValueError:
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(moment.timestamp() - time.time(), 1.0), _LONGEST_REST)


def _text_for_caller(error: ApiError, secret: str) -> str:
    """Return upstream's own words without its request id: it says which part of the request is wrong."""
    if error.code.endswith("PrivacyInformation"):
        return _REAL_PERSON
    text = error.message.partition("Request id:")[0].strip().replace(secret, "***")
    return f"Upstream refused the request ({error.code}): {text}"[:400]
