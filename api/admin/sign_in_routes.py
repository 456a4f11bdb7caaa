"""Admin routes for the sign-in of users: invitations and sessions (`/admin/v1/users/{user}/sign-in`)."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response

from api.admin.routes import find_user
from api.admin.schemas import InvitationCreate, NewInvitation
from api.auth.dependencies import AdminDep, audit_actor
from api.console.access_routes import end_sessions, methods_object
from api.console.schemas import SignInMethods
from api.console.sessions import NO_STORE
from api.http.errors import error_responses
from api.http.responses import base_url, json_response
from worker.core.ids import public_id
from worker.db.engine import transaction
from worker.db.users import audit_log, sign_in
from worker.messaging import pubsub

router = APIRouter(prefix="/admin/v1/users/{user}", tags=["admin"], responses=error_responses(400, 401, 403, 404))

_METHODS: dict[int | str, dict[str, Any]] = {200: {"model": SignInMethods, "description": "How the user can sign in."}}
DEFAULT_INVITATION = InvitationCreate()


@router.post("/invitations", summary="Invite a user", status_code=201, responses={201: {"model": NewInvitation}})
def invite(
    request: Request, user: str, admin: AdminDep, body: Annotated[InvitationCreate, Body()] = DEFAULT_INVITATION
) -> Response:
    """Returns a link that signs the user in once. It is shown only here; a new one replaces it."""
    with transaction() as tx:
        row = find_user(tx, user)
        invitation_id, token = sign_in.invite(tx, row.id, created_by=admin.name, hours=body.hours)
        target = public_id("user", row.id)
        audit_log.record_action(tx, audit_actor(request, admin), "user.invite", target, name=row.name, hours=body.hours)
        found = sign_in.find_invitation(tx, token)
    answer: dict[str, Any] = {
        "id": public_id("invitation", invitation_id),
        "object": "invitation.created",
        "user": row.name,
        # Behind `#`, so that no server and no log of a proxy sees it.
        "url": f"{base_url(request)}/console/invitation#{token}",
        "expires_at": int(found.expires_at.timestamp()) if found is not None else None,
    }
    return json_response(answer, status=201, headers=NO_STORE)


@router.get("/sign-in", summary="Get a user's ways to sign in", responses=_METHODS)
def get_methods(user: str, admin: AdminDep) -> Response:
    """Returns whether the user has a password or an open invitation, and where it is signed in."""
    del admin
    with transaction() as tx:
        return json_response(methods_object(tx, find_user(tx, user).id), headers=NO_STORE)


@router.delete("/invitations", summary="Withdraw a user's invitation", responses=_METHODS)
def withdraw(request: Request, user: str, admin: AdminDep) -> Response:
    """Withdraws the open invitation, if there is one."""
    with transaction() as tx:
        row = find_user(tx, user)
        if sign_in.withdraw_invitations(tx, row.id):
            target = public_id("user", row.id)
            audit_log.record_action(tx, audit_actor(request, admin), "user.withdraw_invitation", target, name=row.name)
        return json_response(methods_object(tx, row.id), headers=NO_STORE)


@router.delete("/password", summary="Remove a user's password", responses=_METHODS)
def remove_password(request: Request, user: str, admin: AdminDep) -> Response:
    """Removes the password and ends all sessions of the user, who needs an invitation, a key or single sign-on then."""
    with transaction() as tx:
        row = find_user(tx, user)
        sign_in.set_password(tx, row.id, None)
        end_sessions(tx, row.id, None)
        target = public_id("user", row.id)
        audit_log.record_action(tx, audit_actor(request, admin), "user.remove_password", target, name=row.name)
        return json_response(methods_object(tx, row.id), headers=NO_STORE)


@router.delete("/sessions", summary="End all sessions of a user", responses=_METHODS)
def end_all(request: Request, user: str, admin: AdminDep) -> Response:
    """Signs all browsers of the user out."""
    return _end(request, user, admin, None)


@router.delete("/sessions/{session_id}", summary="End a session of a user", responses=_METHODS)
def end_one(request: Request, user: str, session_id: str, admin: AdminDep) -> Response:
    """Signs one browser of the user out."""
    return _end(request, user, admin, session_id)


def _end(request: Request, user: str, admin: AdminDep, session_id: str | None) -> Response:
    with transaction() as tx:
        row = find_user(tx, user)
        end_sessions(tx, row.id, session_id)
        tx.on_commit(pubsub.publish_permissions_change)
        target = public_id("user", row.id)
        audit_log.record_action(tx, audit_actor(request, admin), "console.end_session", target, name=row.name)
        return json_response(methods_object(tx, row.id), headers=NO_STORE)
