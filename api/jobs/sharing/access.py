"""Who may use albums: users with the scopes for it, and only the albums that they see."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends

from api.auth.caller import Caller
from api.auth.dependencies import CallerDep
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id
from worker.db.albums import albums
from worker.db.engine import Transaction


async def require_changes(caller: CallerDep) -> Caller:
    """A caller who may change albums and share: results of all keys of the user are visible there, so both scopes."""
    caller.require_scope("generate")
    caller.require_scope("read")
    return caller


ChangeDep = Annotated[Caller, Depends(require_changes)]


def user_of(caller: Caller) -> UUID:
    """Return the user of a caller. Raises `forbidden` for session ids, which belong to no user."""
    if caller.user_id is None:
        raise DreameryError("forbidden", "Albums and share links belong to users. Send an API key of a user.")
    return caller.user_id


def album_not_found(album_id: str) -> DreameryError:
    """The error for an album that does not exist or that the caller does not see."""
    return DreameryError("album_not_found", f"No album {album_id[:60]!r}.")


def parse_album_id(album_id: str) -> UUID:
    """Return the id of an album. Raises album_not_found."""
    found = parse_public_id("album", album_id)
    if found is None:
        raise album_not_found(album_id)
    return found


def parse_ids(prefix: str, ids: list[str], param: str) -> list[UUID]:
    """Return the ids of a list without duplicates, in order. Raises `invalid_value`."""
    found: dict[UUID, None] = {}
    for n, one in enumerate(ids):
        parsed = parse_public_id(prefix, one)
        if parsed is None:
            message = f"`{param}.{n}` must be an id such as `{prefix}_...`."
            raise DreameryError("invalid_value", message, param=f"{param}.{n}")
        found[parsed] = None
    return list(found)


def lock_for_change(tx: Transaction, caller: Caller, album_id: str, *, roles: tuple[str, ...]) -> tuple[UUID, str]:
    """Lock an album and return its id and the caller's role. Raises album_not_found, or forbidden for other roles."""
    parsed = parse_album_id(album_id)
    role = albums.lock_album(tx, parsed, caller.user_id)
    if role is None:
        raise album_not_found(album_id)
    if role not in roles:
        message = f"You are a {role} of this album. It can be changed by its {' or '.join(roles)}."
        raise DreameryError("forbidden", message)
    return parsed, role
