"""From planned jobs to accepted ones: one transaction, and the nudge. Repeats join the jobs of their first request."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from api.deps import Caller
from api.pictures import drop_pictures
from worker.bus import queue
from worker.core.catalog import get_catalog
from worker.core.errors import DreameryError
from worker.core.settings import get_settings
from worker.db import accounts, inputs, jobs, reports, requests
from worker.db.engine import Transaction, retry_when_database_away, transaction
from worker.db.inputs import NewInput
from worker.db.jobs import NewJob


@dataclass(frozen=True, slots=True)
class Planned:
    """A checked request: its jobs, how many results its answer holds, their inputs, and what tells it from others."""

    jobs: list[NewJob]
    n: int
    fingerprint: str
    inputs: list[NewInput] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a request stands for: its jobs, how many results its answer holds, and whether it was known before."""

    job_ids: list[UUID]
    n: int
    replayed: bool = False


def fingerprint(path: str, fields: dict[str, Any], marks: list[Any]) -> str:
    """What tells two requests apart: the path and the parsed body, with files and pictures as the jobs show them."""
    text = json.dumps([path, fields, marks], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


async def accept(planned: Planned, *, caller: Caller, key: str | None) -> Accepted:
    """Write the jobs and nudge the workers; with a known Idempotency-Key, the jobs of the first request."""
    return await run_in_threadpool(partial(_accept, planned, caller=caller, key=key))


def _accept(planned: Planned, *, caller: Caller, key: str | None) -> Accepted:
    """One transaction, repeated when Postgres went away: a commit whose answer was lost is found by its ids."""
    tries, group_id = 0, planned.jobs[0].id
    new = Accepted(job_ids=[job.id for job in planned.jobs], n=planned.n)

    @retry_when_database_away
    def attempt() -> Accepted:
        nonlocal tries
        tries += 1
        with transaction() as tx:
            if tries > 1 and reports.group_members(tx, group_id):
                for job in planned.jobs:
                    tx.on_commit(partial(queue.nudge_submit, job_id=job.id))
                return new
            if key and (known := _known_request(tx, group_id, owner=caller.owner, key=key, print_=planned.fingerprint)):
                return Accepted(job_ids=known, n=planned.n, replayed=True)
            _insert(tx, planned, caller)
        return new

    try:
        accepted = attempt()
    except DreameryError:
        # A refusal of ours wrote nothing. After any other failure the rows may be there, so the bytes must stay.
        drop_pictures(planned.inputs)
        raise
    if accepted.replayed:
        drop_pictures(planned.inputs)
    return accepted


def _known_request(tx: Transaction, group_id: UUID, *, owner: str, key: str, print_: str) -> list[UUID]:
    """The jobs this key stands for already; none = it now stands for the new group."""
    if requests.remember_request(tx, owner=owner, key=key, group_id=group_id, fingerprint=print_):
        return []
    earlier = requests.remembered_request(tx, owner=owner, key=key)
    if earlier is None or earlier.fingerprint != print_:
        message = "This Idempotency-Key was used with another request. Use a new key."
        raise DreameryError("idempotency_key_reuse", message)
    return reports.group_members(tx, earlier.group_id)


def _insert(tx: Transaction, planned: Planned, caller: Caller) -> None:
    if reports.open_job_count(tx, caller.owner) + len(planned.jobs) > get_settings().open_jobs_per_caller:
        raise DreameryError("queue_full", retry_after=30)
    account_ids = caller.account_ids(tx)
    if not account_ids and accounts.pool_is_empty(tx):
        raise DreameryError("no_account_available", retry_after=60)
    # Chosen here, not planned before: session ids get their rows only with an accepted job.
    placed = [replace(job, account_ids=_fitting(job, caller, account_ids)) for job in planned.jobs]
    jobs.accept(tx, placed)
    inputs.add_inputs(tx, [job.id for job in placed], planned.inputs)
    for job in placed:
        tx.on_commit(partial(_nudge, job.id, job.kind, job.account_ids))


def _fitting(job: NewJob, caller: Caller, account_ids: list[UUID]) -> list[UUID]:
    """The caller's accounts that may run the job. One that has not the model would refuse it for good.

    A plan may name some (the accounts that upstream lists the model for); else the regions decide, where they differ.
    """
    if job.account_ids:
        return [a for a in account_ids if a in job.account_ids] if account_ids else job.account_ids
    catalog = get_catalog()
    if job.kind == "image" and catalog.knows_image(job.model):
        offered_in = catalog.image_model(job.model).offered_in
    elif job.kind == "video" and catalog.knows_video(job.model):
        offered_in = catalog.video_model(job.model).offered_in
    else:
        return account_ids
    pairs = zip(account_ids, caller.tokens, strict=True) if account_ids else ()
    return [a for a, (_, token) in pairs if offered_in(token.region)] or account_ids


def _nudge(job_id: UUID, kind: str, account_ids: list[UUID]) -> None:
    if kind == "chat":
        # Each conversation takes a thread of its own, so each gets its message.
        queue.nudge_converse(job_id=job_id)
        return
    # With one account there is nothing to choose, so the worker need not look for the best.
    if len(account_ids) == 1:
        queue.nudge_submit_soon(account_ids[0])
    else:
        queue.nudge_submit(job_id=job_id)
