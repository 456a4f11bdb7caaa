"""Learns from normal jobs whether an upstream's lists show the keys that were sent. Only then they prove an absence."""

import time
from collections.abc import Mapping
from typing import Any

from worker.core.concurrency.event_loop import in_thread
from worker.core.observability.logging import get_logger
from worker.db.accounts import lost_answers
from worker.db.accounts.accounts import AccountRow
from worker.db.engine import retry_when_database_unavailable, transaction
from worker.providers.base import Record

log = get_logger("poll")

# A list that did not show a job proves nothing for so long.
_DISTRUST_SECONDS = 7 * 86_400.0


async def learn(account: AccountRow, records: Mapping[str, Record]) -> None:
    """Store what these records show, if it is new."""
    shown = {record.echoes for record in records.values()} - {None}
    if not shown:
        return
    facts = _news(account.facts, proved=False not in shown)
    if facts:
        await in_thread(_store, account, facts)


def _news(known: Mapping[str, Any], *, proved: bool) -> dict[str, Any]:
    if not proved:
        return {"echo_proved": False, "echo_failed_at": round(time.time())}
    if known.get("echo_proved") is True:
        return {}
    failed_at = known.get("echo_failed_at", 0.0)
    return {"echo_proved": True} if failed_at + _DISTRUST_SECONDS < time.time() else {}


@retry_when_database_unavailable
def _store(account: AccountRow, facts: dict[str, Any]) -> None:
    log.info("echo_learned", account=account.label, proved=facts["echo_proved"])
    with transaction() as tx:
        lost_answers.learn(tx, account.id, facts)
