"""What schemathesis checks of Dreamery beside its own rules: every failure is the error object, and no status is a 5xx."""

import itertools
import json
import os
from typing import Any

import schemathesis

# What a route may answer though it is a 5xx: a busy machine is not always ready.
MAY_BE = {("/readyz", 503)}
KEYS = {"message", "type", "param", "code"}
KNOWN: dict[str, list[str]] = json.loads(os.environ["KNOWN_IDS"])
# All that the API takes for true.
_TRUE = {"true", "1", "1.0", "on", "yes", "y", "t"}
_turn = itertools.count()


@schemathesis.hook
def before_call(_ctx: Any, case: Any, _kwargs: Any) -> None:
    """Name something real in two calls of three, but never to delete it. A long poll waits a second at most.

    Events are followed of jobs that have ended only, or each stream would be waited for. The platform is not told to
    drain: it would answer 503 to whoever makes something.
    """
    if isinstance(case.body, dict) and str(case.body.get("draining")).lower() in _TRUE:
        case.body["draining"] = False
    turn = next(_turn)
    for name in case.path_parameters or {}:
        if name in KNOWN and case.method.upper() != "DELETE" and (turn % 3 or case.path.endswith("/events")):
            case.path_parameters[name] = KNOWN[name][turn % len(KNOWN[name])]
    query = case.query if isinstance(case.query, dict) else {}
    if str(query.get("wait")).replace(".", "", 1).isdigit() and 1 < float(query["wait"]) <= 300:
        query["wait"] = 1


@schemathesis.check
def error_object(_ctx: Any, response: Any, case: Any) -> None:
    """Every answer that is no success carries `{"error": {...}}` with exactly the four keys, and a request id."""
    expected = response.status_code < 500 or (case.path, response.status_code) in MAY_BE
    assert expected, f"{response.status_code}: {response.text[:500]}"
    headers = {name.lower(): value for name, value in response.headers.items()}
    assert headers.get("x-request-id"), "no x-request-id"
    if response.status_code < 400 or response.request.method == "HEAD":
        return
    body = json.loads(response.text)
    assert set(body) == {"error"}, body
    error = body["error"]
    assert set(error) == KEYS, error
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert error["param"] is None or isinstance(error["param"], str)
    assert error["code"] is None or isinstance(error["code"], str)
