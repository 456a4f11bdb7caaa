"""Accepts a checked batch: its limits, jobs, lines and its state change are one transaction."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from api.auth.caller import Caller
from api.batches.validation import CheckedBatch, PlannedLine
from api.generation.acceptance import check_room, reject_while_draining
from api.generation.quotas import QuotaCheck
from worker.core.observability.job_context import current_origin
from worker.db.batches import batches, held_jobs
from worker.db.engine import Row, Transaction, transaction
from worker.db.jobs import inputs, state_machine
from worker.db.jobs.state_machine import NewGroup, NewJob
from worker.messaging import pubsub

# Jobs per statement: each statement has a few seconds.
_JOBS_PER_STATEMENT = 400
_PUBLISHED = 300


class LeaseLostError(Exception):
    """Another process works on the batch, or it was cancelled: nothing is written."""


def accept_batch(row: Row[Any], checked: CheckedBatch, caller: Caller, holder: UUID) -> None:
    """Write the jobs of all lines, held, and let the batch begin. Raises the error of a limit, or `LeaseLostError`.

    The limits of the caller are counted under the lock under which all its jobs are accepted, so they are exact.
    """
    lines = [_scheduled(one, row) for one in checked.planned]
    jobs = [job for one in lines for job in one.plan.jobs]
    with transaction() as tx:
        reject_while_draining(tx)
        quota_check = QuotaCheck(tx, caller, new_jobs=len(jobs), held=True)
        check_room(tx, caller, len(jobs))
        _write(tx, row.id, lines)
        quota_check.check_cost([job.id for job in jobs], requests=len(lines))
        if batches.mark_in_progress(tx, row.id, holder, lines=len(lines), price=checked.price or {}) is None:
            raise LeaseLostError
        # Feeds show them while they wait; a page has room for few of them.
        tx.on_commit(partial(pubsub.publish_accepted_jobs, [job.id for job in jobs[-_PUBLISHED:]]))


def _scheduled(one: PlannedLine, row: Row[Any]) -> PlannedLine:
    # In the order of the lines: jobs of one hold are released by their times. The clock is that of the database.
    turn = (row.not_before or row.created_at) + timedelta(microseconds=one.line.n)
    jobs = [replace(_held(job, row), not_before=turn) for job in one.plan.jobs]
    return PlannedLine(one.line, replace(one.plan, jobs=jobs))


def _held(job: NewJob, row: Row[Any]) -> NewJob:
    return replace(
        job,
        hold=held_jobs.batch_hold(row.id, job.kind),
        batch_id=row.id,
        lane=held_jobs.IDLE if row.idle else None,
        expires_at=row.expires_at,
    )


def _write(tx: Transaction, batch_id: UUID, lines: list[PlannedLine]) -> None:
    origin = current_origin()
    groups = [NewGroup(one.plan.jobs, origin) for one in lines]
    for start in range(0, len(groups), _JOBS_PER_STATEMENT):
        state_machine.accept_groups(tx, groups[start : start + _JOBS_PER_STATEMENT])
    for one in lines:
        if one.plan.inputs:
            inputs.add_inputs(tx, [job.id for job in one.plan.jobs], one.plan.inputs)
    rows = [
        {
            "n": one.line.n,
            "custom_id": one.line.custom_id,
            "url": one.line.url,
            "results": one.plan.n,
            "group_id": one.plan.jobs[0].id,
        }
        for one in lines
    ]
    for start in range(0, len(rows), _JOBS_PER_STATEMENT):
        batches.add_lines(tx, batch_id, rows[start : start + _JOBS_PER_STATEMENT])
