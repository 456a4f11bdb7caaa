"""Questions about session ids: written as rows, answered by a worker, waited for here. The API never asks upstream."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from api.auth.session_tokens import encrypt_session_token
from api.jobs.watcher import JobWatcher
from worker.core.errors import DreameryError
from worker.core.ids import new_id
from worker.core.security.encryption import lookup_hash
from worker.core.security.session_tokens import SessionToken
from worker.db.accounts import session_checks
from worker.db.engine import Transaction, transaction
from worker.messaging import celery_app

# Less than a question stays open, so that an answer on its way is not missed.
WAIT_SECONDS = 25.0
# A nudge may be lost; an answer takes a second or two.
_ENQUEUE_AGAIN_SECONDS = 6.0
# Unanswered questions: from one address, and from all. Beyond, an address could keep the workers busy for nothing.
OPEN_PER_ADDRESS = 200
OPEN_IN_ALL = 2000

Tokens = tuple[tuple[str, SessionToken], ...]
Result = dict[str, Any] | None


async def run_checks(request: Request, what: str, tokens: Tokens) -> list[Result]:
    """What a worker found out about each token: `{live}`, `{points, received}` or `{error}`; None = too late."""
    ids = [new_id() for _ in tokens]
    address = request.client.host if request.client else ""
    owner = f"address:{lookup_hash(address)[:32]}"
    found = await wait_for_results(request, ids, partial(_insert_checks, ids, what, tokens, owner=owner))
    return [found.get(check_id) for check_id in ids]


async def wait_for_results(request: Request, ids: list[UUID], write: Callable[[], list[UUID]]) -> dict[UUID, dict[str, Any]]:
    """Write questions under some of these ids (`write` tells which) and wait; the answers that came in time."""
    job_watcher: JobWatcher = request.app.state.job_watcher
    with job_watcher.watch_jobs(ids) as every:
        asked = set(await run_in_threadpool(write))
        watches = [watch for watch in every if watch.job_id in asked]
        until = time.monotonic() + WAIT_SECONDS
        while (left := until - time.monotonic()) > 0:
            if await job_watcher.wait_final(watches, min(left, _ENQUEUE_AGAIN_SECONDS)):
                break
            if job_watcher.stopping:
                raise DreameryError("overloaded", "This server restarts. Ask again.", retry_after=1)
            waiting = [watch.job_id for watch in watches if not watch.final]
            await run_in_threadpool(partial(enqueue_checks, waiting))
    return await run_in_threadpool(partial(_read_results, list(asked)))


def ensure_capacity(tx: Transaction, owner: str, number: int) -> None:
    """Raises `queue_full` (429) when so many more questions would be too many."""
    own, everybody = session_checks.count_open(tx, owner)
    if own + number > OPEN_PER_ADDRESS or everybody + number > OPEN_IN_ALL:
        message = "Too many account checks are waiting for an answer. Try again in half a minute."
        raise DreameryError("queue_full", message, retry_after=30)


def _insert_checks(ids: list[UUID], what: str, tokens: Tokens, *, owner: str) -> list[UUID]:
    questions = {check_id: encrypt_session_token(digest, token) for check_id, (digest, token) in zip(ids, tokens, strict=True)}
    with transaction() as tx:
        ensure_capacity(tx, owner, len(ids))
        session_checks.run_checks(tx, owner=owner, what=what, tokens=questions)
        tx.on_commit(partial(enqueue_checks, ids))
    return ids


def enqueue_checks(ids: list[UUID]) -> None:
    """Workers should look at these questions."""
    for check_id in ids:
        celery_app.enqueue_check(check_id)


def _read_results(ids: list[UUID]) -> dict[UUID, dict[str, Any]]:
    with transaction() as tx:
        return session_checks.results(tx, ids)
