"""SQL of the shares in which background work takes accounts: one per user, one for the platform, one per proxy of
session ids without an owner.

Work of one share waits for third parties that its owner chose, such as a proxy. It must not delay the other shares.
"""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

NOTHING_TAKEN: Mapping[str, int] = MappingProxyType({})


def share_of(account: str) -> str:
    """SQL: the name of the share of an account."""
    return f"""CASE WHEN {account}.pool THEN 'platform' WHEN {account}.user_id IS NOT NULL
        THEN CAST({account}.user_id AS text) ELSE coalesce('proxy:' || {account}.proxy_place, 'session ids') END"""


def is_free(account: str) -> str:
    """SQL: whether the share of an account is not among the busy ones."""
    return f"NOT (({share_of(account)}) = ANY(CAST(:busy AS text[])))"


def turn_of(account: str) -> str:
    """SQL: how many accounts of its share were taken before; the lowest comes first."""
    return f"coalesce(CAST(CAST(:taken AS jsonb) ->> ({share_of(account)}) AS integer), 0)"


def share_values(busy: Sequence[str], taken: Mapping[str, int]) -> dict[str, Any]:
    """Return the values of the statements above."""
    return {"busy": list(busy), "taken": json.dumps(dict(taken))}
