"""How the main account of a key behaves, scripted by words in the key.

Words that count wherever they stand: `dead`, `overdue`, `closed`, `endpoints`, `custom`, `noecho`. Words between dashes
or dots: `blocked`, `unpaid`, `denied`, `personal`, `burst`, `full`, `trial`, `quota`, `spent`, `limited`, `lag`.
"""

import re

from starlette.requests import Request

from worker.sandbox.ark.refusals import RefusedError

# A new task is missing from lists for so long, with `lag` in the key.
LAG_SECONDS = 3.0
_SPLIT = re.compile(r"[-.:_]")
# Word -> code and text of every call with the key.
_REFUSED_CALLS = {
    "blocked": ("InvalidAccountStatus", "The account is not in a normal state."),
    "unpaid": ("OperationDenied.ServiceOverdue", "The service is overdue."),
    "limited": ("AccountRateLimitExceeded", "The account sends too many requests."),
}
# Word -> code and text of the calls that create something.
_REFUSED_CREATES = {
    "denied": ("AccessDenied", "The key has no access to this model."),
    "trial": ("QuotaExceeded", "The free trial of this model is used up."),
    "quota": ("QuotaExceeded", "The quota of the plan is used up; it resets at 2026-12-31 00:00:00."),
    "spent": ("SetLimitExceeded", "The account has reached the limit that it set, and the model is paused."),
}


def words_of(key: str) -> frozenset[str]:
    """Return the words between the dashes and dots of a key."""
    return frozenset(_SPLIT.split(key.lower()))


def read_key(request: Request) -> str:
    """Return the key of a call. Raises RefusedError for one that upstream does not accept."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key or "dead" in key:
        raise RefusedError("AuthenticationError", "The API key does not exist or is not valid.")
    if "overdue" in key:
        raise RefusedError("AccountOverdueError", "The account has an overdue balance.")
    _refuse(key, _REFUSED_CALLS)
    return key


def check_model(key: str, model: str) -> None:
    """Raise RefusedError if the key may not create anything with the model."""
    if "closed" in key:
        raise RefusedError("ModelNotOpen", f"The account has not activated the model {model}.", param="model")
    if "endpoints" in key and not model.startswith("ep-"):
        raise RefusedError("InvalidEndpointOrModel.ModelIDAccessDisabled", "endpoints only", param="model")
    _refuse(key, _REFUSED_CREATES)


def _refuse(key: str, refusals: dict[str, tuple[str, str]]) -> None:
    for word in words_of(key) & refusals.keys():
        code, text = refusals[word]
        raise RefusedError(code, text)
