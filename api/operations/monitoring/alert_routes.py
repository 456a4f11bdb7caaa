"""Alerts (`/admin/v1/alerts`): what fires now and what did, and the rules. docs/observability.md describes them."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import AdminDep, audit_actor
from api.http.errors import error_responses, is_chinese
from api.http.fields import After, after_id
from api.http.responses import json_response
from api.operations.monitoring.schemas import (
    Alert,
    AlertChange,
    AlertList,
    AlertRule,
    AlertRuleChange,
    AlertRuleList,
    AlertStatus,
)
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id
from worker.core.messages.alert_texts import alert_line
from worker.core.observability.alert_rules import RULES, RuleName, RuleSettings
from worker.db.engine import Row, Transaction, transaction
from worker.db.monitoring import alerts
from worker.db.users import audit_log

router = APIRouter(prefix="/admin/v1/alerts", tags=["admin"], responses=error_responses(401, 403))


def _shown(row: Row[Any]) -> dict[str, Any]:
    alert = alerts.alert_object(row)
    return {**alert, "text": alert_line(alert, "zh" if is_chinese() else "en") if row.rule in RULES else ""}


def _rule_objects(tx: Transaction) -> list[dict[str, Any]]:
    firing = {row.rule: row.n for row in alerts.count_firing(tx)}
    return [_rule_object(rule, firing.get(rule.name, 0)) for rule in alerts.list_rules(tx).values()]


def _rule_object(settings: RuleSettings, firing: int) -> dict[str, Any]:
    rule = RULES[settings.name]
    return {
        "object": "alert.rule",
        "name": settings.name,
        "enabled": settings.enabled,
        "threshold": settings.threshold,
        "unit": rule.unit,
        "fires": rule.fires,
        "least": rule.least,
        "most": rule.most,
        "default_threshold": rule.threshold,
        "repeat_hours": settings.repeat_hours,
        "muted_until": None if settings.muted_until is None else int(settings.muted_until),
        "firing": firing,
    }


@router.get("", summary="List alerts", responses={200: {"model": AlertList}, **error_responses(400)})
def list_alerts(
    _admin: AdminDep,
    status: Annotated[AlertStatus | None, Query(description="only these")] = None,
    rule: Annotated[RuleName | None, Query(description="only of this rule")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: After = None,
) -> Response:
    """Lists alerts, the newest first. Those that ended are kept for 90 days."""
    with transaction() as tx:
        found = alerts.list_alerts(tx, status=status, rule=rule, after=after_id("alert", after), limit=limit)
    if found is None:
        raise DreameryError("invalid_value", "`after` names no alert.", param="after")
    data = [_shown(row) for row in found[0]]
    return json_response({"object": "list", "data": data, "has_more": found[1]})


@router.get("/rules", summary="List the rules of alerts", responses={200: {"model": AlertRuleList}})
def list_rules(_admin: AdminDep) -> Response:
    """Lists all rules with their thresholds. They are evaluated once a minute."""
    with transaction() as tx:
        data = _rule_objects(tx)
    return json_response({"object": "list", "data": data, "has_more": False})


@router.patch(
    "/rules/{name}",
    summary="Change a rule of alerts",
    responses={200: {"model": AlertRule}, **error_responses(400, 404)},
)
def change_rule(request: Request, name: str, change: AlertRuleChange, admin: AdminDep) -> Response:
    """Changes the threshold, turns the rule off or on, or mutes its messages for a time."""
    if name not in RULES:
        raise DreameryError("alert_not_found", f"No rule {name[:60]!r}; `GET /admin/v1/alerts/rules` lists them.")
    given = change.model_dump(exclude_unset=True)
    values = {field: value for field, value in given.items() if value is not None or field == "muted_until"}
    rule = RULES[name]
    if "threshold" in values and not rule.least <= values["threshold"] <= rule.most:
        message = f"`threshold` of this rule must be between {rule.least:g} and {rule.most:g} {rule.unit}."
        raise DreameryError("invalid_value", message, param="threshold")
    with transaction() as tx:
        alerts.lock(tx)
        changed = replace(alerts.list_rules(tx)[name], **values)
        alerts.change_rule(tx, changed)
        audit_log.record_action(tx, audit_actor(request, admin), "alert.rule", name, **values)
        found = next(item for item in _rule_objects(tx) if item["name"] == name)
    return json_response(found)


@router.patch(
    "/{alert_id}",
    summary="Mute an alert",
    responses={200: {"model": Alert}, **error_responses(400, 404)},
)
def mute_alert(request: Request, alert_id: str, change: AlertChange, admin: AdminDep) -> Response:
    """Sends no messages about this alert until the given time. It resolves as before."""
    parsed = parse_public_id("alert", alert_id)
    with transaction() as tx:
        row = None if parsed is None else alerts.mute(tx, parsed, change.muted_until)
        if row is not None:
            actor = audit_actor(request, admin)
            audit_log.record_action(tx, actor, "alert.mute", alert_id, muted_until=change.muted_until)
    if row is None:
        raise DreameryError("alert_not_found", f"No alert {alert_id[:60]!r}.")
    return json_response(_shown(row))
