"""How many jobs an account may have in flight, by kind: the one place. They are counted in SQL, never stored."""

from typing import Any

from worker.core.settings import get_settings

# kind -> the account's own limit, if it has such a column, and the setting behind it. A new kind is one line here; its
# jobs count apart from those of all others.
SLOT_LIMITS: dict[str, tuple[str | None, str]] = {
    "image": ("max_images", "account_max_images"),
    "video": ("max_videos", "account_max_videos"),
    "chat": (None, "account_max_chats"),
}
# What the submit step takes. Conversations are claimed by a step of their own.
SUBMIT_KINDS = ("image", "video")


def slot_limits() -> dict[str, int]:
    """The values that `free_slots` binds: what accounts without a limit of their own may have in flight."""
    return {f"most_{kind}": _setting(kind) for kind in SLOT_LIMITS}


def slots_of(row: Any) -> dict[str, int]:
    """The limits of a row of accounts (its own columns, `kind_rests`, and `clock` = epoch seconds of the database)."""
    limits = {kind: (getattr(row, own) if own else None) or _setting(kind) for kind, (own, _) in SLOT_LIMITS.items()}
    return {kind: 0 if row.kind_rests.get(kind, 0.0) > float(row.clock) else most for kind, most in limits.items()}


def free_slots(account: str, kind: str) -> str:
    """SQL: the free slots of an account (table alias) for a kind (expression); 0 or less = none, or that kind rests."""
    cases = " ".join(
        f"WHEN '{name}' THEN " + (f"coalesce({account}.{own}, :most_{name})" if own else f":most_{name}")
        for name, (own, _) in SLOT_LIMITS.items()
    )
    return f"""(CASE WHEN coalesce(({account}.kind_rests ->> {kind})::float8, 0) > extract(epoch FROM clock_timestamp())
        THEN 0 ELSE CASE {kind} {cases} ELSE 0 END - (SELECT count(*) FROM jobs s
            WHERE s.account_id = {account}.id AND s.holds_slot AND s.kind = {kind}) END)"""


def _setting(kind: str) -> int:
    return int(getattr(get_settings(), SLOT_LIMITS[kind][1]))
