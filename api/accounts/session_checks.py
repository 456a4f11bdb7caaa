"""Checks of session ids. The API inserts rows and waits until a worker answers; it never calls upstream itself."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from api.auth.session_tokens import encrypt_session_token
from api.http.clients.address import network_of
from api.jobs.watcher import JobWatcher
from worker.core.errors import DreameryError
from worker.core.ids import new_id
from worker.core.security.encryption import lookup_hash
from worker.core.security.session_tokens import SessionToken
from worker.db.accounts import session_checks
from worker.db.engine import Transaction, transaction
from worker.messaging import celery_app

# Shorter than the lifetime of a check, so that a late answer is still read.
WAIT_SECONDS = 25.0
# A queue message may be lost; an answer takes a second or two.
_ENQUEUE_AGAIN_SECONDS = 6.0
# Limits of unanswered checks, so that one client cannot occupy all workers. Beyond the total, an owner may have a few.
MAX_OPEN_PER_OWNER = 200
MAX_OPEN = 2000
ALWAYS_OPEN_PER_OWNER = 5

Tokens = tuple[tuple[str, SessionToken], ...]
Result = dict[str, Any] | None


async def run_checks(request: Request, action: str, tokens: Tokens) -> list[Result]:
    """Return the worker's result for each token: `{live}`, `{points, received}` or `{error}`; None = timed out."""
    ids = [new_id() for _ in tokens]
    owner = f"address:{lookup_hash(network_of(request))[:32]}"
    insert = partial(_insert_checks, ids, action, tokens, owner=owner)
    results = await wait_for_results(request, ids, insert, owner=owner)
    return [results.get(check_id) for check_id in ids]


# The inserts of one owner run one after the other: those that wait for their turn hold no thread and no connection.
_turns: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()


def _turn_of(owner: str) -> asyncio.Lock:
    return _turns.setdefault((id(asyncio.get_running_loop()), owner), asyncio.Lock())


async def wait_for_results(
    request: Request, ids: list[UUID], insert: Callable[[], list[UUID]], *, owner: str
) -> dict[UUID, dict[str, Any]]:
    """Insert checks with `insert`, which returns the ids used, and return the results that arrive in time."""
    job_watcher: JobWatcher = request.app.state.job_watcher
    with job_watcher.watch_jobs(ids) as all_watches:
        async with _turn_of(owner):
            inserted = set(await run_in_threadpool(insert))
        watches = [watch for watch in all_watches if watch.job_id in inserted]
        until = time.monotonic() + WAIT_SECONDS
        while (left := until - time.monotonic()) > 0:
            if await job_watcher.wait_final(watches, min(left, _ENQUEUE_AGAIN_SECONDS)):
                break
            if job_watcher.stopping:
                raise DreameryError("overloaded", "This server is restarting. Try again.", retry_after=1)
            waiting = [watch.job_id for watch in watches if not watch.final]
            await run_in_threadpool(partial(enqueue_checks, waiting))
    return await run_in_threadpool(partial(_read_results, list(inserted)))


def has_capacity(tx: Transaction, owner: str, number: int) -> bool:
    """Return whether `number` more checks may be open."""
    own, total = session_checks.count_open(tx, owner)
    most = MAX_OPEN_PER_OWNER if total + number <= MAX_OPEN else ALWAYS_OPEN_PER_OWNER
    return own + number <= most


def ensure_capacity(tx: Transaction, owner: str, number: int) -> None:
    """Raise `queue_full` (429) when `number` more open checks would exceed a limit."""
    if not has_capacity(tx, owner, number):
        message = "Too many account checks are waiting for an answer. Try again in half a minute."
        raise DreameryError("queue_full", message, retry_after=30)


def _insert_checks(ids: list[UUID], action: str, tokens: Tokens, *, owner: str) -> list[UUID]:
    encrypted = {
        check_id: encrypt_session_token(digest, token) for check_id, (digest, token) in zip(ids, tokens, strict=True)
    }
    with transaction() as tx:
        ensure_capacity(tx, owner, len(ids))
        session_checks.create_checks(tx, owner=owner, what=action, tokens=encrypted)
        tx.on_commit(partial(enqueue_checks, ids))
    return ids


def enqueue_checks(ids: list[UUID]) -> None:
    """Enqueue tasks for these checks. Each continues with the other open checks of their owner."""
    for check_id in ids[: session_checks.MAX_RUNNING_PER_OWNER]:
        celery_app.enqueue_check(check_id)


def _read_results(ids: list[UUID]) -> dict[UUID, dict[str, Any]]:
    with transaction() as tx:
        return session_checks.results(tx, ids)
