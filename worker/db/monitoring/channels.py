"""Channels of alerts: webhooks and mail. The address, the secret and the failures are those of a webhook endpoint."""

import json
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.db.engine import Transaction
from worker.db.webhooks import endpoints
from worker.db.webhooks.endpoints import NewEndpoint

# The owner of their endpoints. No caller has it.
OWNER = "alerts"
EVENTS = ["alert.firing", "alert.repeated", "alert.resolved"]

_COLUMNS = """c.id, c.kind, c.name, c.language, c.rules, c.mail, e.url, e.disabled_at, e.disabled_reason,
    e.failing_since, e.created_at"""
_FROM = "FROM alert_channels c JOIN webhook_endpoints e ON e.id = c.id"


@dataclass(frozen=True, slots=True)
class NewChannel:
    """A validated channel before it has a row; `secret` is encrypted for `endpoints.secret_context(id)`."""

    id: UUID
    kind: str
    name: str
    language: str
    rules: list[str] | None
    url: str
    mail: dict[str, Any] | None
    secret: str = field(repr=False)


def add_channel(tx: Transaction, new: NewChannel) -> Row[Any] | None:
    """Insert a channel and return its row; None if there are as many as possible (`endpoints.MAX_PER_OWNER`)."""
    endpoint = NewEndpoint(id=new.id, owner=OWNER, url=new.url, events=EVENTS, secret=new.secret, description=new.name)
    if endpoints.add_endpoint(tx, endpoint) is None:
        return None
    tx.run(
        text(
            """INSERT INTO alert_channels (id, kind, name, language, rules, mail)
               VALUES (:id, :kind, :name, :language, CAST(:rules AS text[]), CAST(:mail AS jsonb))"""
        ),
        {
            "id": new.id,
            "kind": new.kind,
            "name": new.name,
            "language": new.language,
            "rules": new.rules,
            "mail": None if new.mail is None else json.dumps(new.mail),
        },
    )
    return get_channel(tx, new.id)


def change_channel(tx: Transaction, new: NewChannel, *, keep_secret: bool, disabled: bool | None) -> Row[Any] | None:
    """Replace the values of a channel; None if it does not exist. `keep_secret` = its secret stays."""
    row = endpoints.change_endpoint(tx, new.id, OWNER, url=new.url, description=new.name)
    if row is None:
        return None
    if not keep_secret:
        endpoints.rotate_secret(tx, new.id, OWNER, secret=new.secret, keep_hours=0)
    tx.run(
        text(
            """UPDATE alert_channels SET name = :name, language = :language, rules = CAST(:rules AS text[]),
                   mail = CAST(:mail AS jsonb)
               WHERE id = :id"""
        ),
        {
            "id": new.id,
            "name": new.name,
            "language": new.language,
            "rules": new.rules,
            "mail": None if new.mail is None else json.dumps(new.mail),
        },
    )
    if disabled:
        endpoints.disable_endpoint(tx, new.id, reason="paused by an administrator")
    elif disabled is False:
        endpoints.enable_endpoint(tx, new.id, OWNER)
    return get_channel(tx, new.id)


def get_channel(tx: Transaction, channel_id: UUID) -> Row[Any] | None:
    """Return a channel with its last message; None if it does not exist."""
    return tx.first(text(f"SELECT {_COLUMNS}, {_LAST} {_FROM} {_LAST_FROM} WHERE c.id = :id"), {"id": channel_id})


def list_channels(tx: Transaction) -> list[Row[Any]]:
    """Return all channels with their last messages, oldest first."""
    return tx.all(text(f"SELECT {_COLUMNS}, {_LAST} {_FROM} {_LAST_FROM} ORDER BY e.created_at, c.id"))


_LAST = """l.event AS last_event, l.created_at AS last_at, l.delivered_at AS last_delivered_at,
    l.given_up_at AS last_given_up_at, l.last_error, l.attempts AS last_attempts"""
_LAST_FROM = """LEFT JOIN LATERAL (
    SELECT d.* FROM webhook_deliveries d WHERE d.endpoint_id = c.id ORDER BY d.created_at DESC, d.id DESC LIMIT 1) l
    ON true"""


def channels_for(tx: Transaction, rule: str) -> list[Row[Any]]:
    """Return the enabled channels for a rule. They cannot be deleted before the end of this transaction."""
    return tx.all(
        text(
            f"""SELECT {_COLUMNS} {_FROM} WHERE e.disabled_at IS NULL AND (c.rules IS NULL OR :rule = ANY(c.rules))
                ORDER BY c.id FOR KEY SHARE OF e"""
        ),
        {"rule": rule},
    )


def delete_channel(tx: Transaction, channel_id: UUID) -> bool:
    """Delete a channel with its messages; False if it does not exist."""
    return endpoints.remove_endpoint(tx, channel_id, OWNER)


def mail_of(tx: Transaction, channel_id: UUID) -> dict[str, Any] | None:
    """Return the mail server and the recipients of a channel; None = it is none of mail."""
    row = tx.first(text("SELECT mail FROM alert_channels WHERE id = :id"), {"id": channel_id})
    return None if row is None else row.mail
