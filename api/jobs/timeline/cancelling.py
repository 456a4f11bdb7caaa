"""Who asked for the cancellation of a job: what its events keep of it, and how the timeline says it.

Only administrators see each other's names. The owner of the job reads "by an administrator".
"""

from typing import Any

from api.auth.caller import Caller
from worker.db.users.audit_log import Actor

OWNER: dict[str, Any] = {"by": "owner"}
BATCH: dict[str, Any] = {"by": "batch"}
# The remark of an event that records the request for a job that upstream has.
REMARK = "cancel_requested"

_UNKNOWN = ("Cancelled on request", "已按要求取消")
_OWNER = ("Cancelled by its owner", "由任务所有者取消")
_YOU = ("Cancelled by you", "由您取消")
_BATCH = ("Cancelled with its batch", "随所属批次取消")
_ADMINISTRATOR = ("Cancelled by an administrator", "由管理员取消")
_REQUESTED = (" as soon as upstream allows it.", "，待上游允许后生效。")
_ENDED = (".", "。")


def administrator(actor: Actor) -> dict[str, Any]:
    """What an event keeps of an administrator."""
    return {"by": "administrator", "name": actor.name, "user": actor.user_id.hex if actor.user_id else None}


def cancel_texts(note: dict[str, Any], reader: Caller, *, is_owner: bool, requested: bool) -> tuple[str, str]:
    """Return who cancelled the job in English and Chinese. `requested` = upstream has it, so it is only asked for."""
    english, chinese = _words(note, reader, is_owner=is_owner)
    end, end_zh = _REQUESTED if requested else _ENDED
    if requested:
        english = english.replace("Cancelled", "To be cancelled", 1)
    return english + end, chinese + end_zh


def _words(note: dict[str, Any], reader: Caller, *, is_owner: bool) -> tuple[str, str]:
    by = note.get("by")
    if by == "owner":
        return _YOU if is_owner else _OWNER
    if by == "batch":
        return _BATCH
    if by != "administrator":
        return _UNKNOWN
    if reader.user_id is not None and note.get("user") == reader.user_id.hex:
        return _YOU
    if reader.role != "admin":
        return _ADMINISTRATOR
    return f"Cancelled by {note['name']}, an administrator", f"由管理员 {note['name']} 取消"
