"""The filters of a list of jobs as SQL, and the search for words in prompts.

Only the conditions of the given filters are in the statement, so that each combination gets its own query plan.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from worker.core.ids import first_id_at
from worker.core.job_state import in_group
from worker.db.engine import Transaction

# A job's id is the clock of the process that accepted it, `created_at` that of the database. They differ by less.
_CLOCKS_DIFFER = timedelta(hours=1)
# Prompts are copied in the order of ids, once no job with an older id can appear any more. The search reads the younger
# jobs themselves.
_COPIED_AFTER = timedelta(minutes=10)
# A word in so many of the newest prompts, or in more prompts than this, is common: it is found without the index.
_NEWEST, _COMMON = 500, 10
_MOST_FOUND = 5000
_LAST_COPIED = "(SELECT job_id FROM prompts ORDER BY job_id DESC LIMIT 1)"


@dataclass(frozen=True, slots=True)
class JobFilter:
    """The filters of a list of jobs; None = no filter."""

    states: list[str] | None = None
    kinds: list[str] | None = None
    models: list[str] | None = None
    prompt: str | None = None  # text that the prompt must contain
    favourite: bool | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    ids: list[UUID] | None = None
    group_id: UUID | None = None  # the first job of the request
    metadata: dict[str, str] | None = None  # pairs that must all match
    user_id: UUID | None = None
    account_id: UUID | None = None  # the account of its last attempt
    batch_id: UUID | None = None
    charge_doubt: bool = False  # only jobs that may have been charged more than is known


def filter_conditions(tx: Transaction, filters: JobFilter) -> tuple[list[str], dict[str, Any]]:
    """Return the SQL conditions of the filters on a row of `jobs`, and their values."""
    parts: list[tuple[Any, str, dict[str, Any]]] = [
        (filters.states, "state = ANY(CAST(:states AS text[]))", {"states": filters.states}),
        (filters.kinds, "kind = ANY(CAST(:kinds AS text[]))", {"kinds": filters.kinds}),
        (filters.models, "model = ANY(CAST(:models AS text[]))", {"models": filters.models}),
        (filters.ids, "id = ANY(CAST(:ids AS uuid[]))", {"ids": filters.ids}),
        (filters.group_id, in_group(":group_id"), {"group_id": filters.group_id}),
        (filters.batch_id, "batch_id = :batch_id", {"batch_id": filters.batch_id}),
        (filters.user_id, "user_id = :of_user", {"of_user": filters.user_id}),
        (filters.account_id, "account_id = :account_id", {"account_id": filters.account_id}),
        # Without a bind value, because only then the partial index applies.
        (filters.charge_doubt or None, "charge_doubt IS NOT NULL", {}),
        (filters.favourite, "favourite" if filters.favourite else "NOT favourite", {}),
    ]
    if filters.created_after is not None:
        bounds = {"since": filters.created_after, "first_id": first_id_at(filters.created_after - _CLOCKS_DIFFER)}
        parts.append((True, "created_at >= :since AND id >= :first_id", bounds))
    if filters.created_before is not None:
        bounds = {"until": filters.created_before, "last_id": first_id_at(filters.created_before + _CLOCKS_DIFFER)}
        parts.append((True, "created_at < :until AND id < :last_id", bounds))
    if filters.metadata:
        _plan_for_values(tx)
        pairs = {"pairs": json.dumps(filters.metadata)}
        # The second condition is that of the index.
        parts.append((True, "metadata @> CAST(:pairs AS jsonb) AND metadata <> '{}'", pairs))
    if filters.prompt is not None:
        parts.append((True, *_prompt_condition(tx, filters.prompt)))
    used = [(condition, values) for given, condition, values in parts if given is not None]
    return [condition for condition, _ in used], {name: value for _, values in used for name, value in values.items()}


def _plan_for_values(tx: Transaction) -> None:
    """Plan the following statements for their values: whether an index pays depends on how rare a word or pair is."""
    tx.run(text("SET LOCAL plan_cache_mode = force_custom_plan"))


def _prompt_condition(tx: Transaction, words: str) -> tuple[str, dict[str, Any]]:
    values: dict[str, Any] = {"prompt": words}
    contains = "strpos(lower(params -> 'order' ->> 'prompt'), lower(:prompt)) > 0"
    _plan_for_values(tx)
    copied = tx.first(
        text(
            f"""SELECT prompt_grams(:prompt) <> '{{}}' AS has_grams, {_LAST_COPIED} AS last,
                (SELECT count(*) FROM (SELECT prompt FROM prompts ORDER BY job_id DESC LIMIT :newest) p
                 WHERE strpos(lower(prompt), lower(:prompt)) > 0) AS matches"""
        ),
        {**values, "newest": _NEWEST},
    )
    if copied is None or copied.last is None or not copied.has_grams or copied.matches >= _COMMON:
        return contains, values
    # Otherwise the planner may prefer to read all prompts and make the grams of each.
    tx.run(text("SET LOCAL enable_seqscan = off"))
    found = tx.all(
        text(
            """/* search_prompts */
            SELECT job_id FROM prompts
            WHERE prompt_grams(prompt) @> prompt_grams(:prompt) AND strpos(lower(prompt), lower(:prompt)) > 0
            LIMIT :most"""
        ),
        {**values, "most": _MOST_FOUND + 1},
    )
    tx.run(text("SET LOCAL enable_seqscan TO DEFAULT"))
    if len(found) > _MOST_FOUND:
        return contains, values
    values |= {"found": [row.job_id for row in found], "copied_until": copied.last}
    return f"(id = ANY(CAST(:found AS uuid[])) OR id > :copied_until) AND {contains}", values


_COPY = text(
    f"""/* copy_prompts */
    INSERT INTO prompts (job_id, prompt)
    SELECT id, coalesce(params -> 'order' ->> 'prompt', '') FROM jobs
    WHERE id > coalesce({_LAST_COPIED}, '00000000-0000-0000-0000-000000000000') AND id < :before
    ORDER BY id LIMIT :limit
    ON CONFLICT DO NOTHING RETURNING job_id"""
)


def copy_prompts(tx: Transaction, *, now: datetime, limit: int) -> int:
    """Copy the next prompts for the search, oldest job first; return how many."""
    return len(tx.all(_COPY, {"before": first_id_at(now - _COPIED_AFTER), "limit": limit}))
