"""Notices: what an administrator announces to everybody, and maintenance. The console shows them on every page."""

import time
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from api.auth.dependencies import AdminDep, CallerDep, audit_actor
from api.http.errors import error_responses
from api.http.fields import Text, example
from api.http.responses import json_response
from worker.db.engine import Transaction, transaction
from worker.db.platform import state as platform_state
from worker.db.users import audit_log

router = APIRouter(responses=error_responses(401, 403))

_NAME = "announcement"


class AnnouncementUpdate(BaseModel):
    """What to announce."""

    model_config = example(text="A new model is available on Monday.", level="info", until=None)

    text: Text = Field(min_length=1, max_length=500)
    level: Literal["info", "warning"] = "info"
    until: int | None = Field(None, ge=0, le=4_000_000_000, description="unix seconds: its end; null = until removed")


class Announcement(AnnouncementUpdate):
    """What is announced."""


class Maintenance(BaseModel):
    """The platform accepts no new jobs; open jobs are finished."""

    reason: str


class Notices(BaseModel):
    """What everybody should know now."""

    model_config = example(
        object="notices",
        announcement={"text": "A new model is available on Monday.", "level": "info", "until": None},
        maintenance=None,
    )

    object: Literal["notices"]
    announcement: Announcement | None
    maintenance: Maintenance | None = Field(description="null = the platform accepts jobs")


def _notices(tx: Transaction) -> dict[str, Any]:
    stored, reason = platform_state.read(tx, _NAME), platform_state.get_drain_reason(tx)
    if stored is not None and stored["until"] is not None and stored["until"] <= time.time():
        stored = None
    return {
        "object": "notices",
        "announcement": stored and {name: stored[name] for name in Announcement.model_fields},
        "maintenance": None if reason is None else {"reason": reason},
    }


@router.get(
    "/v1/notices", tags=["operations"], summary="Get announcement and maintenance", responses={200: {"model": Notices}}
)
def get_notices(_caller: CallerDep) -> Response:
    """Returns what an administrator has announced, and whether the platform is under maintenance."""
    with transaction() as tx:
        return json_response(_notices(tx))


@router.put(
    "/admin/v1/announcement",
    tags=["admin"],
    summary="Announce something to everybody",
    responses={200: {"model": Notices}, **error_responses(400)},
)
def set_announcement(request: Request, update: AnnouncementUpdate, admin: AdminDep) -> Response:
    """Replaces the announcement. The console shows it to every user until it ends, is removed or is closed there."""
    with transaction() as tx:
        platform_state.write(tx, _NAME, update.model_dump())
        actor = audit_actor(request, admin)
        audit_log.record_action(tx, actor, "platform.announce", "platform", **update.model_dump())
        return json_response(_notices(tx))


@router.delete(
    "/admin/v1/announcement", tags=["admin"], summary="Remove the announcement", responses={200: {"model": Notices}}
)
def remove_announcement(request: Request, admin: AdminDep) -> Response:
    """Removes the announcement, if there is one."""
    with transaction() as tx:
        platform_state.delete(tx, _NAME)
        audit_log.record_action(tx, audit_actor(request, admin), "platform.announce", "platform", text=None)
        return json_response(_notices(tx))
