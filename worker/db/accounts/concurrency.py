"""Concurrency slots: jobs an account may have in flight, by kind. They are counted in SQL, never stored."""

from typing import Any

from worker.core.catalog.models import get_catalog
from worker.core.settings import get_settings

# kind -> the column with the account's own limit (if any) and the default setting. A new kind is one line here; the
# jobs of each kind are counted separately.
SLOT_LIMITS: dict[str, tuple[str | None, str]] = {
    "image": ("max_images", "account_max_images"),
    "video": ("max_videos", "account_max_videos"),
    "chat": (None, "account_max_chats"),
}
# Kinds that the submit task claims. A separate task claims conversations.
SUBMIT_KINDS = ("image", "video")


def slot_limits() -> dict[str, int]:
    """Return the bind values of `free_slots`: the limits of accounts without an own limit."""
    return {f"most_{kind}": _setting(kind) for kind in SLOT_LIMITS}


def slots_of(row: Any) -> dict[str, int]:
    """Return the limits by kind of an account row (with `kind_rests` and `clock` = epoch seconds of the database)."""
    limits = {kind: (getattr(row, own) if own else None) or _setting(kind) for kind, (own, _) in SLOT_LIMITS.items()}
    return {kind: 0 if row.kind_rests.get(kind, 0.0) > float(row.clock) else most for kind, most in limits.items()}


def narrow_slots(provider: str) -> dict[str, int]:
    """Return the sizes of which a customer may have fewer jobs at work: `model resolution` -> how many."""
    return {
        f"{model.id} {resolution}": model.limits[f"inflight_{resolution}"]
        for model in get_catalog().video_models
        if model.provider == provider
        for resolution in model.resolutions
        if f"inflight_{resolution}" in model.limits
    }


def free_slots(account: str, kind: str) -> str:
    """SQL: free slots of an account (table alias) for a kind (expression); 0 or less = none, or kind in cooldown.

    Jobs of the other accounts of its limit group count too.
    """
    cases = " ".join(
        f"WHEN '{name}' THEN " + (f"coalesce({account}.{own}, :most_{name})" if own else f":most_{name}")
        for name, (own, _) in SLOT_LIMITS.items()
    )
    return f"""(CASE WHEN coalesce(({account}.kind_rests ->> {kind})::float8, 0) > extract(epoch FROM clock_timestamp())
        THEN 0 ELSE CASE {kind} {cases} ELSE 0 END - CASE WHEN {account}.limit_group IS NULL
            THEN (SELECT count(*) FROM jobs s WHERE s.account_id = {account}.id AND s.holds_slot AND s.kind = {kind})
            ELSE (SELECT count(*) FROM accounts g JOIN jobs s ON s.account_id = g.id AND s.holds_slot
                WHERE g.limit_group = {account}.limit_group AND s.kind = {kind}) END END)"""


def _setting(kind: str) -> int:
    return int(getattr(get_settings(), SLOT_LIMITS[kind][1]))
