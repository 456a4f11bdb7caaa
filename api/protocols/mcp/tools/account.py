"""Tools about what a key may use: models and the balance."""

from datetime import UTC, datetime
from typing import Any

from api.protocols.mcp.gateways.protocol import Json, RefusedError, call_json
from api.protocols.mcp.tools.call import Call, Outcome
from api.protocols.mcp.tools.inputs import Balance, ListModels

_CURRENCIES = ("credits", "usd", "cny")
_MOST_ACCOUNTS = 100


async def list_models(call: Call, arguments: ListModels) -> Outcome:
    """List the models that the key may use."""
    listed = (await call_json(call.gateway, "GET", "/v1/models"))["data"]
    chosen = [one for one in listed if one["alias_of"] is None and arguments.kind in {None, one["kind"]}]
    models = [_model_fields(one) for one in chosen]
    return Outcome(structured={"models": models}, text="\n".join(map(_describe, models)) or "There are no such models.")


def _model_fields(model: Json) -> dict[str, Any]:
    return {
        "id": model["id"],
        "kind": model["kind"],
        "name": model["model_name"],
        "about": model["model_tip"],
        "resolutions": model["resolutions"],
        "ratios": model.get("ratios"),
        "counts": model["counts"],
        "durations": model.get("durations"),
        "reference_images": model["references"],
        "first_frame": bool(model.get("first_frame")),
        "last_frame": bool(model.get("end_frame")),
        "options": [field["name"] for field in model["fields"]],
    }


def _describe(model: dict[str, Any]) -> str:
    parts = [f"{model['id']}: {model['kind']}", *model["resolutions"]]
    if model["durations"]:
        parts.append(f"{min(model['durations'])} to {max(model['durations'])} s")
    if model["reference_images"]:
        parts.append(f"takes {model['reference_images']} pictures")
    return ", ".join(parts)


async def balance(call: Call, _arguments: Balance) -> Outcome:
    """Tell what the key may still spend."""
    report = await call_json(call.gateway, "GET", "/v1/usage")
    limits = [_limit_fields(one) for one in report["limits"]]
    accounts, note = await _read_accounts(call)
    total = report["total"]
    structured = {
        "limits": limits,
        "spent": {name: float(total[name]) for name in _CURRENCIES},
        "jobs": total["accepted"],
        "accounts": accounts,
        "note": note,
    }
    spent = ", ".join(f"{total[name]:g} {name}" for name in _CURRENCIES if total[name]) or "nothing"
    count = total["accepted"]
    lines = [f"Spent since {report['from']}: {spent} for {count} job{'s' if count != 1 else ''}."]
    lines += list(map(_describe_limit, limits)) or ["No limits are set."]
    lines += [f"Account {one['account']}: {one['credits']} credits" for one in accounts]
    return Outcome(structured=structured, text="\n".join([*lines, *([note] if note else [])]))


def _limit_fields(limit: Json) -> dict[str, Any]:
    return {
        "name": f"{limit['scope']}.{limit['name']}",
        "limit": limit["hard"] if limit["hard"] is not None else limit["soft"],
        **{name: limit[name] for name in ("used", "remaining", "resets_at")},
    }


def _describe_limit(limit: dict[str, Any]) -> str:
    resets_at = limit["resets_at"]
    reset = f", resets at {datetime.fromtimestamp(resets_at, UTC):%Y-%m-%d %H:%M} UTC" if resets_at else ""
    return f"{limit['name']}: {limit['remaining']} of {limit['limit']} left{reset}"


async def _read_accounts(call: Call) -> tuple[list[dict[str, Any]], str | None]:
    """Return the credits of the caller's accounts, and a remark if they cannot be read."""
    try:
        entries = await call_json(call.gateway, "POST", "/token/points")
    except RefusedError as refused:
        if refused.code != "invalid_value":
            return [], f"The credits cannot be read: {refused}"
    else:
        return [_session_fields(one) for one in entries[:_MOST_ACCOUNTS]], None
    # The caller has an API key and no session ids.
    try:
        page = await call_json(call.gateway, "GET", f"/v1/accounts?limit={_MOST_ACCOUNTS}")
    except RefusedError as refused:
        return [], f"Your accounts cannot be read: {refused}"
    return [_account_fields(one) for one in page["data"]], None


def _session_fields(entry: Json) -> dict[str, Any]:
    points, error = entry.get("points") or {}, entry.get("error") or {}
    return {
        "account": entry["token"],
        "credits": points.get("totalCredit"),
        "problem": (error.get("message") or error["code"]) if error else None,
    }


def _account_fields(account: Json) -> dict[str, Any]:
    return {
        "account": account["label"] or account["id"],
        "credits": account["credits"],
        "problem": account["state_code"],
    }
