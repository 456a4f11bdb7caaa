"""Additional schemathesis checks for Dreamery: every error is an error object, and no status is a 5xx."""

import itertools
import json
import os
from typing import Any

import schemathesis

# Allowed 5xx responses: a busy machine is not always ready.
ALLOWED_5XX = {("/readyz", 503)}
KEYS = {"message", "type", "param", "code"}
KNOWN: dict[str, list[str]] = json.loads(os.environ["KNOWN_IDS"])
# All values that the API accepts as true.
_TRUE = {"true", "1", "1.0", "on", "yes", "y", "t"}
_call_count = itertools.count()
_EVERY_CASE = os.environ["EVERY_CASE"] == "1"
_sent: set[tuple[Any, ...]] = set()


@schemathesis.hook
def filter_case(_ctx: Any, case: Any) -> bool:
    """Keep one boundary case of each kind per operation and field, unless every case is asked for.

    Without this, a field of a body gets up to seven wrong types and as many valid values, and an operation gets all
    methods that it does not have.
    """
    data = case.meta.phase.data
    scenario = getattr(data, "scenario", None)
    if _EVERY_CASE or scenario is None:
        return True
    kind = (case.path, case.operation.method, case.meta.generation.mode, scenario)
    if str(getattr(scenario, "value", scenario)) != "unspecified_http_method":
        kind += (data.parameter_location, data.parameter, data.description.partition(":")[0].partition(" -> ")[0])
    is_new = kind not in _sent
    _sent.add(kind)
    return is_new


@schemathesis.hook
def before_call(_ctx: Any, case: Any, _kwargs: Any) -> None:
    """Use an existing id in two of three calls, but never to delete it. Long polls wait at most one second.

    Event streams always use a finished job, because others would not end. Draining is never enabled: generation
    requests would get 503.
    """
    if isinstance(case.body, dict) and str(case.body.get("draining")).lower() in _TRUE:
        case.body["draining"] = False
    count = next(_call_count)
    for name in case.path_parameters or {}:
        if name in KNOWN and case.method.upper() != "DELETE" and (count % 3 or case.path.endswith("/events")):
            case.path_parameters[name] = KNOWN[name][count % len(KNOWN[name])]
    query = case.query if isinstance(case.query, dict) else {}
    if str(query.get("wait")).replace(".", "", 1).isdigit() and 1 < float(query["wait"]) <= 300:
        query["wait"] = 1


@schemathesis.check
def error_object(_ctx: Any, response: Any, case: Any) -> None:
    """Every error response contains `{"error": {...}}` with exactly the four keys, and every response has a request id."""
    expected = response.status_code < 500 or (case.path, response.status_code) in ALLOWED_5XX
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
