"""Submits jobs: claims them with slots of an account, orders each upstream once, and records the results.

A message means "serve this account", not "do one job". The claims of an account are made together, the orders wait side
by side on the event loop, and what came of them is written together. A claim commits the submit key before the call
that carries it, and a key is sent at most once (I4).
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import UUID

from worker.core.concurrency.event_loop import all_of, in_thread, in_transfer_thread, run, run_for, spawn
from worker.core.concurrency.group_commit import GroupCommit
from worker.core.concurrency.lanes import LONG_CALLS, Lane, acting_for, of_calls
from worker.core.concurrency.shutdown import BUSY_SECONDS, stopping
from worker.core.errors import DreameryError, Reaction
from worker.core.observability.faults import UnexpectedError
from worker.core.observability.job_context import job_context
from worker.core.observability.logging import get_logger
from worker.core.polling import OpenJob as JobInFlight
from worker.core.polling import first_look
from worker.core.settings import get_settings
from worker.db.accounts import health, limit_groups
from worker.db.accounts.accounts import AccountRow
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, Row, Transaction, retry_when_database_unavailable, transaction
from worker.db.jobs import durations, state_machine
from worker.db.jobs.claims import Claim, NeedsUploads
from worker.db.jobs.set_aside import SetAside
from worker.messaging import celery_app, pubsub
from worker.providers.base import Account, NotSentError, Submitted
from worker.providers.registry import get_provider, poll_rules
from worker.tasks.stages import handle_refusal
from worker.tasks.stages.account_session import decrypt_account, needs_look_up, prepare_account_async
from worker.tasks.stages.claim import ClaimOptions, claim_batch, claim_job, find_account
from worker.tasks.stages.fail_job import announce
from worker.tasks.stages.files import fetch_references
from worker.tasks.stages.lease_renewal import LeaseLostError
from worker.tasks.stages.orders import build_order, immediate_images, upload_references
from worker.tasks.stages.polling import charges
from worker.tasks.stages.polling.next_poll import schedule_looks

log = get_logger("submit")

# After this many jobs, other messages get their turn: the rest of the account gets a new message.
MAX_PER_MESSAGE = 200
# Of more jobs, a message names only the numbers.
_MAX_LINES = 3
# Longer waits for the pace of an account get a message of their own.
_MAX_PACE_WAIT_SECONDS = 0.3
_MAX_ACCOUNTS_PER_JOB = 8
_RECORD_PAUSE_SECONDS = 1.0

_WITH_UPLOADS, _WITHOUT_UPLOADS = ClaimOptions(), ClaimOptions(uploads_references=False)


def submit_batch(
    *, job_id: UUID | None = None, account_id: UUID | None = None, job_ids: list[UUID] | None = None
) -> str:
    """Submit the jobs of the account (or of the best accounts for the jobs) while it has slots, pace and waiting jobs.

    A job with missing references is left to `upload_and_submit` on another queue, because fetching and uploading may
    take minutes.
    """
    wanted = job_ids or ([job_id] if job_id else [])
    work = _serve_jobs(wanted) if wanted else serve(account_id) if account_id else None
    if work is None:
        return "nothing to submit"
    return run_for(work, otherwise="its orders continue in the background")


def upload_and_submit(*, account_id: UUID) -> str:
    """Fetch the references of the first jobs that the account may run, and submit one whose references are there."""
    return run_for(_bring(account_id), otherwise="its transfers continue in the background")


async def _bring(account_id: UUID) -> str:
    """Set aside jobs whose references are missing and fetch them; order the first one that has all of them."""
    started: list[asyncio.Task[str]] = []
    try:
        while not started or len(started) < MAX_PER_MESSAGE:
            batch = await in_thread(claim_batch, _WITH_UPLOADS, account_id, limit=1)
            started += [spawn(fetch_references.fetch(job)) for job in batch.set_aside]
            if batch.claims or not batch.set_aside:
                break
        if started or batch.claims:
            # The next jobs of the account need not wait for these transfers.
            celery_app.enqueue_submit(account_id=account_id)
        started += [spawn(_submit_claimed(claim, _Orders())) for claim in batch.claims]
    finally:
        lines = await all_of(started)
    return _summary(lines) if lines else "nothing to submit"


def submit(*, job_id: UUID | None = None, account_id: UUID | None = None) -> str:
    """Submit the first job that the given account (or the best account of the given job) may run."""
    while True:
        claim = claim_job(_WITH_UPLOADS, job_id=job_id, account_id=account_id)[0]
        if not isinstance(claim, SetAside):
            break
        line = run(fetch_references.fetch(claim))
        if not line.startswith("fetched"):
            return line
    if isinstance(claim, NeedsUploads):
        return f"{claim.id} waits for its references"
    if claim is None:
        return handle_refusal.fail_if_unschedulable(job_id) if job_id else "nothing to submit"
    return run(_submit_claimed(claim, _Orders()))


class _Orders:
    """The orders of one account in this process, with one decrypted account for all."""

    def __init__(self) -> None:
        self.users = 0  # messages that use this object
        self.serving: asyncio.Event | None = None  # set when the message that is claiming now has claimed all
        self.again = False  # another message came meanwhile
        self._prepared: tuple[AccountRow, Account] | None = None

    def prepare(self, row: AccountRow) -> Account:
        """Return the decrypted account. Raises SecretLockedError."""
        if self._prepared is None or self._prepared[0] is not row:
            self._prepared = (row, decrypt_account(row))
        return self._prepared[1]


# On the event loop only. Accounts without messages are removed.
_accounts: dict[UUID, _Orders] = {}


@contextmanager
def _orders_of(account_id: UUID) -> Iterator[_Orders]:
    orders = _accounts.setdefault(account_id, _Orders())
    orders.users += 1
    try:
        yield orders
    finally:
        orders.users -= 1
        if not orders.users:
            del _accounts[account_id]


async def _serve_jobs(job_ids: list[UUID]) -> str:
    """Serve the best account of each job that is still queued. No job waits for the order of another one."""
    served = await all_of([spawn(_serve_job(job_id)) for job_id in job_ids])
    return _summary([line for lines in served for line in lines])


async def _serve_job(job_id: UUID) -> list[str]:
    """Serve the best account for the job, then the next best if other jobs took its slots."""
    lines: list[str] = []
    served: set[UUID] = set()
    while len(served) < _MAX_ACCOUNTS_PER_JOB:
        account_id = await in_thread(find_account, job_id)
        if account_id is None or account_id in served:
            break
        served.add(account_id)
        lines.append(await serve(account_id, waits=True))
    return lines or [await in_thread(handle_refusal.fail_if_unschedulable, job_id)]


def _summary(lines: list[str]) -> str:
    """Return the lines, or for many jobs how many of them begin with which word."""
    if len(lines) <= _MAX_LINES:
        return "; ".join(dict.fromkeys(lines))
    return ", ".join(f"{count} {word}" for word, count in Counter(line.split()[0] for line in lines).items())


async def serve(account_id: UUID, *, waits: bool = False) -> str:
    """Claim and order jobs of the account. Of several messages at a time, one claims and the others leave it to it.

    `waits` = wait until that one has claimed all, because the caller looks for another account then.
    """
    with _orders_of(account_id) as orders:
        if orders.serving is not None:
            orders.again = True
            if waits:
                await orders.serving.wait()
            return "left to another message of the account"
        orders.serving = asyncio.Event()
        started: list[asyncio.Task[str]] = []
        try:
            line = await _claim_all(account_id, orders, started)
        finally:
            orders.serving.set()
            orders.serving = None
            # Also after an error, which ends no order in progress.
            lines = await all_of(started)
        return _summary(lines or [line])


async def _claim_all(account_id: UUID, orders: _Orders, started: "list[asyncio.Task[str]]") -> str:
    """Claim until nothing is left, and start an order for each claim. Return why nothing was claimed, if so."""
    while True:
        if stopping.requested:
            # Another worker takes the rest; what was claimed is ordered.
            celery_app.enqueue_submit(account_id=account_id)
            return "left to another worker"
        orders.again = False
        batch = await in_thread(claim_batch, _WITHOUT_UPLOADS, account_id)
        started += [spawn(_submit_claimed(claim, orders)) for claim in batch.claims]
        wait = batch.wait_seconds
        if batch.claims and len(started) >= MAX_PER_MESSAGE:
            celery_app.enqueue_submit(account_id=account_id)
            return "claimed enough"
        if wait is not None and wait > _MAX_PACE_WAIT_SECONDS:
            celery_app.enqueue_submit_later(account_id, seconds=wait)
            return "waits for the pace of its account"
        if wait is None and not orders.again:
            waiting = batch.needs_uploads
            return f"{waiting.id} waits for its references" if waiting is not None else "nothing to submit"
        if wait:
            await asyncio.sleep(wait)


async def _submit_claimed(claim: Claim, orders: _Orders) -> str:
    with job_context("submit", claim.id, claim.origin), acting_for(claim.owner, claim.account.id):
        sent = False
        try:
            account, uploaded = await _prepare_account(claim, orders), list[Row[Any]]()
            if claim.has_inputs:
                claim, uploaded = await upload_references.upload(claim, account)
            async with _lane_of(claim).turn():
                order = await _prepare(claim, account, uploaded)
                sent = True
                submitted = await order()
            if not await _record(claim, submitted):
                log.warning("submit_overtaken", has_results=submitted.record is not None)
        except ClaimTooOldError:
            return await in_thread(handle_refusal.requeue, claim, NotSentError(), delay=0.0, reason="claim too old")
        except LeaseLostError:
            # Does nothing if another task claimed the job; cancels the job if its cancellation was requested.
            return await in_thread(handle_refusal.requeue, claim, NotSentError(), delay=0.0, reason="claim lost")
        except DreameryError as error:
            return await _handle_refusal(claim, error)
        except DATABASE_UNAVAILABLE_ERRORS:
            raise  # nothing can be written now: the job is found when its lease ends
        except BaseException as error:  # noqa: BLE001
            fault = UnexpectedError(error, sent=sent)
            return await in_thread(handle_refusal.handle_fault, claim, fault)
        return f"submitted {claim.id} on {claim.account.label}"


async def _record(claim: Claim, submitted: Submitted) -> bool:
    """Record that upstream accepted the job. Results are nowhere else, so they wait for the database longer."""
    until = time.monotonic() + (BUSY_SECONDS if submitted.record is not None else 0.0)
    while True:
        try:
            return await _running.add((claim, submitted))
        except DATABASE_UNAVAILABLE_ERRORS:
            if time.monotonic() > until:
                raise
            log.warning("results_not_recorded")
            await asyncio.sleep(_RECORD_PAUSE_SECONDS)


async def _handle_refusal(claim: Claim, error: DreameryError) -> str:
    try:
        return await in_transfer_thread(handle_refusal.handle_refusal, claim, error)
    except DATABASE_UNAVAILABLE_ERRORS:
        raise
    except BaseException as unexpected:  # noqa: BLE001
        unclear = error.kind.reaction is Reaction.UNCLEAR and not isinstance(error, NotSentError)
        return await in_thread(handle_refusal.handle_fault, claim, UnexpectedError(unexpected, sent=unclear))


async def _prepare_account(claim: Claim, orders: _Orders) -> Account:
    return await prepare_account_async(claim.account) if needs_look_up(claim.account) else orders.prepare(claim.account)


async def _prepare(claim: Claim, account: Account, uploaded: list[Row[Any]]) -> Callable[[], Awaitable[Submitted]]:
    """Build the order. Return the one call that may cost credits. Raises ClaimTooOldError."""
    charges.check_limit(claim)
    provider = get_provider(account)
    if claim.kind == "video":
        video = await in_thread(build_order.build_video_order, claim, uploaded)
        _check_age(claim)
        return partial(provider.submit_video, account, video, submit_key=str(claim.submit_key))
    _check_age(claim)
    image = build_order.build_image_order(claim, uploaded)
    immediate = provider.capabilities.immediate_images
    if immediate is not None:
        return partial(immediate_images.make, claim, immediate, account, image)
    return partial(provider.submit_image, account, image, submit_key=str(claim.submit_key))


def _lane_of(claim: Claim) -> Lane:
    """Return the lane in which the call waits. Calls that take minutes have one of their own."""
    if claim.kind == "image" and get_provider(claim.account).capabilities.immediate_images is not None:
        return LONG_CALLS
    return of_calls(proxied=bool(claim.account.proxy))


class ClaimTooOldError(Exception):
    """The claim may run out before the answer to the order. Nothing was sent."""


def _check_age(claim: Claim) -> None:
    if time.monotonic() + get_settings().call_timeout_seconds > claim.expires_at:
        # It waited for its turn, or this process was paused (frozen container, swapping): another process may order
        # the job soon.
        raise ClaimTooOldError


@retry_when_database_unavailable
def _mark_running(items: list[tuple[Claim, Submitted]]) -> list[bool]:
    """Record accepted jobs of all accounts together. Return for each whether it was still ours."""
    accepted = [
        state_machine.Accepted(
            claim.id, claim.attempt, submitted.upstream_id, submitted.queue_position, submitted.forecast_seconds
        )
        for claim, submitted in items
    ]
    account_ids = sorted({claim.account.id for claim, _ in items})
    with pubsub.batch_job_changes(), transaction(plan_once=True) as tx:
        # Lock order: accounts before jobs, as in a claim.
        health.record_success(tx, account_ids)
        rested = {(claim.account.id, claim.model) for claim, _ in items if claim.model in claim.account.model_rests}
        limit_groups.end_model_rests(tx, rested)
        rows = state_machine.mark_running_many(tx, accepted, actor="submit")
        looks = _first_looks(tx, items)
        schedule_looks(tx, looks)
        for row in rows.values():
            announce(tx, row)
        made = [(claim, submitted.record) for claim, submitted in items if submitted.record and claim.id in rows]
        if made:
            immediate_images.finish(tx, made)
    return [claim.id in rows for claim, _ in items]


def _first_looks(tx: Transaction, items: list[tuple[Claim, Submitted]]) -> dict[UUID, float]:
    """Return in how many seconds each account should be looked at because of its new jobs."""
    looks: dict[UUID, float] = {}
    for claim, submitted in items:
        if submitted.record is not None:
            continue
        stats = durations.find_duration_stats(tx, claim.kind, claim.model, claim.params)
        sparse = poll_rules(claim.account).sparse
        in_flight = JobInFlight(0.0, stats.generation if stats else None, claim.kind)
        look = first_look(in_flight) if sparse is None else sparse.first_look(in_flight)
        looks[claim.account.id] = min(look, looks.get(claim.account.id, look))
    return looks


_running = GroupCommit("mark_running", _mark_running, away=DATABASE_UNAVAILABLE_ERRORS)
