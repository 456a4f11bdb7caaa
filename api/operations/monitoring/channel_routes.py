"""Channels of alerts (`/admin/v1/alerts/channels`): webhooks that are signed like all others, and mail."""

from functools import partial
from typing import Any, cast
from uuid import UUID

from fastapi import APIRouter, Request, Response

from api.auth.caller import Caller
from api.auth.dependencies import AdminDep, audit_actor
from api.http.errors import error_responses
from api.http.responses import json_response, unix_seconds
from api.operations.monitoring.schemas import (
    Channel,
    ChannelChange,
    ChannelCreate,
    ChannelList,
    ChannelWithSecret,
    DeletedChannel,
    MailServer,
    check_login,
)
from worker.core.errors import DreameryError
from worker.core.ids import new_id, parse_public_id, public_id
from worker.core.security.encryption import encrypt_secret, new_webhook_secret
from worker.core.webhook_policy import TEST_EVENT
from worker.db.engine import Row, Transaction, transaction
from worker.db.monitoring import alerts, channels
from worker.db.monitoring.channels import NewChannel
from worker.db.users import audit_log
from worker.db.webhooks.endpoints import secret_context
from worker.messaging import celery_app

router = APIRouter(prefix="/admin/v1/alerts/channels", tags=["admin"], responses=error_responses(401, 403))


def channel_object(row: Row[Any]) -> dict[str, Any]:
    """Return a channel without its secret."""
    status = "delivered" if row.last_delivered_at else "failed" if row.last_given_up_at else "pending"
    last = {
        "event": row.last_event,
        "status": status,
        "attempts": row.last_attempts,
        "error": row.last_error,
        "created_at": unix_seconds(row.last_at),
    }
    return {
        "id": public_id("whe", row.id),
        "object": "alert.channel",
        "kind": row.kind,
        "name": row.name,
        "language": row.language,
        "rules": row.rules,
        "url": row.url if row.kind == "webhook" else None,
        "mail": row.mail,
        "disabled": row.disabled_at is not None,
        "disabled_reason": row.disabled_reason,
        "failing_since": unix_seconds(row.failing_since),
        "last_message": last if row.last_event is not None else None,
        "created_at": unix_seconds(row.created_at),
    }


def _find(tx: Transaction, channel_id: str) -> Row[Any]:
    parsed = parse_public_id("whe", channel_id)
    row = None if parsed is None else channels.get_channel(tx, parsed)
    if row is None:
        raise DreameryError("alert_not_found", f"No alert channel {channel_id[:60]!r}.")
    return row


def _url(url: str | None, mail: MailServer | None) -> str:
    """Return where messages go. The schema has checked that one of both is given.

    The address of a mail channel is only for display and for its lane.
    """
    return cast("str", url) if mail is None else f"mailto:{','.join(mail.recipients)}"


def _rules(rules: list[Any] | None) -> list[str] | None:
    return None if rules is None else list(dict.fromkeys(rules))


@router.get("", summary="List the channels of alerts", responses={200: {"model": ChannelList}})
def list_channels(_admin: AdminDep) -> Response:
    """Lists the channels with the outcome of their last messages. Secrets and passwords are not shown."""
    with transaction() as tx:
        rows = channels.list_channels(tx)
    return json_response({"object": "list", "data": [channel_object(row) for row in rows], "has_more": False})


@router.post(
    "",
    summary="Create a channel of alerts",
    status_code=201,
    responses={201: {"model": ChannelWithSecret}, **error_responses(400)},
)
def create_channel(request: Request, body: ChannelCreate, admin: AdminDep) -> Response:
    """Creates a webhook, signed as in Standard Webhooks with the returned secret, or a mail channel. At most 20."""
    channel_id = new_id()
    signing = new_webhook_secret() if body.kind == "webhook" else None
    secret = signing or (body.password.get_secret_value() if body.password is not None else "")
    new = NewChannel(
        id=channel_id,
        kind=body.kind,
        name=body.name,
        language=body.language,
        rules=_rules(body.rules),
        url=_url(body.url, body.mail),
        mail=None if body.mail is None else body.mail.model_dump(),
        secret=encrypt_secret(secret, context=secret_context(channel_id)),
    )
    with transaction() as tx:
        row = channels.add_channel(tx, new)
        if row is None:
            raise DreameryError("alert_channel_limit")
        _record(tx, request, admin, "alert.channel.create", row)
    return json_response({**channel_object(row), "secret": signing}, status=201)


@router.patch(
    "/{channel_id}",
    summary="Change a channel of alerts",
    responses={200: {"model": Channel}, **error_responses(400, 404)},
)
def change_channel(request: Request, channel_id: str, body: ChannelChange, admin: AdminDep) -> Response:
    """Changes a channel. A changed mail server needs its password again, so that no other server learns it."""
    with transaction() as tx:
        row = _find(tx, channel_id)
        changed, keep = _changed(row, body)
        found = channels.change_channel(tx, changed, keep_secret=keep, disabled=body.disabled)
        if found is None:
            raise DreameryError("alert_not_found", f"No alert channel {channel_id[:60]!r}.")
        _record(tx, request, admin, "alert.channel.change", found)
    return json_response(channel_object(found))


def _changed(row: Row[Any], body: ChannelChange) -> tuple[NewChannel, bool]:
    """Return the channel with the changes, and whether its secret stays. Raises `invalid_value`."""
    of_mail = body.mail is not None or body.password is not None
    if (body.url is not None and row.kind != "webhook") or (of_mail and row.kind != "email"):
        raise DreameryError("invalid_value", "A webhook channel has `url`, a mail channel `mail` and `password`.")
    mail = MailServer.model_validate(row.mail) if body.mail is None and row.mail else body.mail
    keep = body.password is None and _may_keep_password(row, mail)
    password = "" if body.password is None else body.password.get_secret_value()
    if mail is not None:
        try:
            check_login(mail, has_password=bool(mail.username) if keep else bool(password))
        except ValueError as error:
            raise DreameryError("invalid_value", str(error), param="password") from None
    changed = NewChannel(
        id=row.id,
        kind=row.kind,
        name=body.name if body.name is not None else row.name,
        language=body.language or row.language,
        rules=_rules(body.rules) if "rules" in body.model_fields_set else row.rules,
        url=body.url or (row.url if mail is None else _url(None, mail)),
        mail=None if mail is None else mail.model_dump(),
        secret=encrypt_secret(password, context=secret_context(row.id)),
    )
    return changed, keep


def _may_keep_password(row: Row[Any], mail: MailServer | None) -> bool:
    if mail is None:
        return True
    same = ("host", "port", "username", "security")
    return all(getattr(mail, name) == row.mail[name] for name in same)


@router.delete(
    "/{channel_id}",
    summary="Delete a channel of alerts",
    responses={200: {"model": DeletedChannel}, **error_responses(404)},
)
def delete_channel(request: Request, channel_id: str, admin: AdminDep) -> Response:
    """Deletes the channel with its pending messages."""
    with transaction() as tx:
        row = _find(tx, channel_id)
        channels.delete_channel(tx, row.id)
        _record(tx, request, admin, "alert.channel.delete", row)
    return json_response({"id": channel_id, "object": "alert.channel", "deleted": True})


@router.post(
    "/{channel_id}/test",
    summary="Send a test to a channel of alerts",
    status_code=202,
    responses={202: {"model": Channel}, **error_responses(404)},
)
def send_test(channel_id: str, _admin: AdminDep) -> Response:
    """Sends a test message, once and also if the channel is disabled. `last_message` of the channel has the outcome."""
    with transaction() as tx:
        row = _find(tx, channel_id)
        message: UUID = alerts.add_message(tx, row, TEST_EVENT, None, [])
        tx.on_commit(partial(celery_app.enqueue_notify, message))
        found = _find(tx, channel_id)
    return json_response(channel_object(found), status=202)


def _record(tx: Transaction, request: Request, admin: Caller, action: str, row: Row[Any]) -> None:
    audit_log.record_action(
        tx, audit_actor(request, admin), action, public_id("whe", row.id), kind=row.kind, name=row.name
    )
