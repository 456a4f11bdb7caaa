"""Asks for video tasks, finds those whose create call was not answered, and cancels queued ones.

One list covers up to a hundred tasks. Lists are allowed once a second for all keys of a customer, so each waits for
its turn (`ArkClient`). Tasks that a list leaves out are asked for one by one.
"""

import asyncio
import re
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from worker.core.errors import DreameryError
from worker.core.observability.logging import get_logger
from worker.core.polling import SparsePolling
from worker.core.settings import get_settings
from worker.providers.ark.client import CREATE_SECONDS, MOST_IDS, ArkClient
from worker.providers.ark.models import model_id
from worker.providers.ark.recovery_keys import SentVideo, echoes_keys, find_matches, keys_of, was_sent_then
from worker.providers.ark.responses import Task, TaskStatus
from worker.providers.ark.task_records import record_of, unasked
from worker.providers.base import Account, Found, LookupResult, OpenOrder, Record, RecordState
from worker.providers.poll_rules import PollRules

log = get_logger("ark")

# Lists once a second; a lost task is looked for after these seconds; an id that is unknown three times is gone.
POLLING = PollRules(
    sparse=SparsePolling(),
    list_seconds=1.05,
    look_up_after=(10.0, 30.0, 90.0, 300.0),
    absent_seconds=8.0,
    absent_code="result_unavailable",
)
# Single tasks may be asked for twenty times a second.
_GET_PAUSE_SECONDS = 0.06
# A task of this age must be in a list, else the lists of its account prove nothing.
_LISTED_SECONDS = 300.0
_MOST_PAGES = 100
_SHARED_SECONDS = 3.0
_ADAPTIVE = "adaptive"
_NAME = re.compile(r"HTTP \d{3} ([\w.]+)")


def refusal_name(error: DreameryError) -> str:
    """Return upstream's own code of a refusal; "" = it named none."""
    found = _NAME.match(error.detail or "")
    return found.group(1) if found else ""


def is_flex(order: OpenOrder) -> bool:
    """Whether the order is in the slow lane, which has lists of its own."""
    return (order.order.get("options") or {}).get("service_tier") == "flex"


@dataclass(frozen=True, slots=True)
class _Listed:
    """All tasks of a model, as of a moment of the monotonic clock. `complete` = none can be missing."""

    at: float
    tasks: list[Task]
    complete: bool


class ArkTasks:
    """The open video tasks of all accounts."""

    def __init__(self, client: ArkClient) -> None:
        self._client = client
        self._recent: dict[tuple[str, str, bool], _Listed] = {}

    async def fetch_records(self, account: Account, orders: list[OpenOrder]) -> dict[str, Record]:
        """Return the records of these orders by submit key; upstream does not know those that are absent."""
        known = [order for order in orders if order.upstream_id]
        listed: dict[str, Task] = {}
        for group in _lists(account, known):
            listed |= {task.id: task for task in await self._list(account, group)}
        records, missing = dict[str, Record](), list[OpenOrder]()
        for order in known:
            task = listed.get(order.upstream_id or "")
            if task is None:
                missing.append(order)
            else:
                echoes = echoes_keys(keys_of(order.submit_key), task)
                records[order.submit_key] = record_of(order, task, echoes=echoes)
        return records | await self._fetch_one_by_one(account, missing)

    async def _list(self, account: Account, orders: list[OpenOrder]) -> list[Task]:
        """Return the tasks that one list shows. A key that may not list them gets none: they are asked for singly."""
        ids = [order.upstream_id or "" for order in orders]
        model = model_id(account, orders[0].model) if _needs_model(account) else None
        try:
            return await self._client.list_tasks(account, ids, flex=is_flex(orders[0]), model=model)
        except DreameryError as error:
            if refusal_name(error).startswith("AccessDenied"):
                return []
            raise

    async def fetch_single(self, account: Account, order: OpenOrder) -> Record | None:
        """Return the record of one order; None = upstream does not know it."""
        return (await self._fetch_one_by_one(account, [order])).get(order.submit_key)

    async def _fetch_one_by_one(self, account: Account, orders: list[OpenOrder]) -> dict[str, Record]:
        """Ask for one after the other. After an error nothing is known of the rest, which stays as it is."""
        records: dict[str, Record] = {}
        for number, order in enumerate(orders):
            if number:
                await asyncio.sleep(_GET_PAUSE_SECONDS)
            try:
                task = await self._client.get_task(account, order.upstream_id or "")
            except DreameryError as error:
                if refusal_name(error).startswith("NotFound"):
                    continue
                log.warning("tasks_not_asked", tasks=len(orders) - number, code=error.code, detail=error.detail)
                return records | {rest.submit_key: unasked(rest) for rest in orders[number:]}
            records[order.submit_key] = record_of(order, task, echoes=_lack_of_echo(task))
        return records

    # ---- lost answers

    def can_look_up(self, kind: str) -> bool:
        """Whether lists show such orders: they do not show images."""
        return kind == "video"

    async def look_up(self, account: Account, order: OpenOrder, *, owned: Collection[str] = ()) -> LookupResult:
        """Look through the tasks of the model, all pages. Nothing there proves nothing unless the account echoes."""
        if not self.can_look_up(order.kind):
            return LookupResult(Found.UNKNOWN)
        if (hinted := await self._by_hint(account, order, owned)) is not None:
            return hinted
        try:
            listed = await self._list_all(account, order)
        except DreameryError as error:
            if refusal_name(error).startswith("AccessDenied"):
                return LookupResult(Found.UNKNOWN)
            raise
        found = find_matches(_sent(account, order), listed.tasks, owned=owned)
        if found:
            first, *others = found
            return LookupResult(Found.FOUND, record_of(order, first), tuple(task.id for task in others))
        proves = listed.complete and account.facts.get("echo_proved") is True
        return LookupResult(Found.ABSENT if proves else Found.UNKNOWN)

    async def _by_hint(self, account: Account, order: OpenOrder, owned: Collection[str]) -> LookupResult | None:
        """Return the task that a callback named, if upstream says with our key that it is the one."""
        if not order.hint or order.hint in owned:
            return None
        sent = _sent(account, order)
        try:
            task = await self._client.get_task(account, order.hint)
        except DreameryError as error:
            if refusal_name(error):
                return None
            raise
        # The address of the callback belongs to this attempt alone, so a task that shows no keys may be it too.
        shows_keys = task.safety_identifier or task.expires_after is not None
        ours = find_matches(sent, [task], owned=owned) if shows_keys else [task] if was_sent_then(sent, task) else []
        return LookupResult(Found.FOUND, record_of(order, task)) if ours else None

    async def _list_all(self, account: Account, order: OpenOrder) -> "_Listed":
        """Return all tasks of the order's model and lane. Several lost orders share a list."""
        sent, flex = model_id(account, order.model), is_flex(order)
        name, now = (account.id, sent, flex), time.monotonic()
        self._recent = {key: one for key, one in self._recent.items() if now - one.at < _SHARED_SECONDS}
        if (known := self._recent.get(name)) is not None:
            return known
        tasks: dict[str, Task] = {}
        seen = total = 0
        for number in range(1, _MOST_PAGES + 1):
            page = await self._client.list_recent(account, sent, page=number, flex=flex)
            tasks |= {task.id: task for task in page.tasks}
            seen, total = seen + len(page.tasks), page.total
            if not page.tasks or seen >= total:
                break
        # No order is promised: a task that moved to an earlier page between two calls would be missing.
        listed = self._recent[name] = _Listed(now, list(tasks.values()), complete=len(tasks) >= total)
        return listed

    # ---- cancel

    async def cancel(self, account: Account, order: OpenOrder) -> bool:
        """Cancel a queued task. Return False if it runs or has ended: then it is finished and charged."""
        task = await self._client.get_task(account, order.upstream_id or "")
        if task.status is TaskStatus.CANCELLED:
            return True
        if record_of(order, task).state is not RecordState.QUEUED:
            return False  # a DELETE of an ended task removes it, and with it our proof
        try:
            await self._client.cancel_task(account, order.upstream_id or "")
        except DreameryError as error:
            if refusal_name(error):
                return False
            raise
        return True


def _lists(account: Account, orders: list[OpenOrder]) -> Iterator[list[OpenOrder]]:
    """Group orders that one list can show."""
    groups: dict[tuple[bool, str], list[OpenOrder]] = {}
    for order in orders:
        model = model_id(account, order.model) if _needs_model(account) else ""
        groups.setdefault((is_flex(order), model), []).append(order)
    for group in groups.values():
        for start in range(0, len(group), MOST_IDS):
            yield group[start : start + MOST_IDS]


def _sent(account: Account, order: OpenOrder) -> SentVideo:
    values = order.order
    mode = (values.get("options") or {}).get("mode")
    given = mode in {None, "text", "reference", "draft"}  # otherwise the inputs decide, or upstream does
    return SentVideo(
        keys_of(order.submit_key),
        model_id(account, order.model),
        order.claimed_at,
        str(values.get("resolution") or ""),
        str(values.get("ratio") or _ADAPTIVE) if given else _ADAPTIVE,
        int(values.get("seconds") or -1) if mode not in {"edit", "final"} else -1,
        # It is sent at the end of the lease at the latest.
        within=get_settings().lease_seconds + CREATE_SECONDS + 30.0,
    )


def _lack_of_echo(task: Task) -> bool | None:
    """Return False if a list should have shown the task for long, else None."""
    return False if task.created_at is not None and time.time() - task.created_at >= _LISTED_SECONDS else None


def _needs_model(account: Account) -> bool:
    """Whether the key may only list the tasks of one model at a time."""
    return account.facts.get("scope") == "custom"
