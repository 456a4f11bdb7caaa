"""queued -> submitting: claims the next jobs of an account, many in one statement. A single claim is a batch of one.

The account's row stays locked from the count of its slots to the commit, so its limits hold at any moment (I5). The
submit keys are chosen by the caller before the transaction: a commit whose answer was lost is found by its keys.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, text

from worker.core.observability.job_context import Origin
from worker.core.settings import get_settings
from worker.db.accounts import accounts, limit_groups
from worker.db.accounts.concurrency import SUBMIT_KINDS
from worker.db.credits import money
from worker.db.engine import Transaction
from worker.db.jobs import set_aside
from worker.db.jobs.set_aside import SetAside
from worker.db.scheduling import account_scoring, job_selection, selection_log

# The most claims of one statement.
MAX_CLAIMS = 50
# With a fast pace, the claims of this many seconds are made together; with a slow one, each alone.
_SLICE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that only the claiming task may submit now."""

    id: UUID
    attempt: int
    kind: str
    model: str
    params: dict[str, Any]
    submit_key: UUID
    account: accounts.AccountRow
    attempts_left: bool
    event_seq: int
    group_id: UUID
    owner: str
    origin: Origin | None
    expires_at: float  # `time.monotonic()` at which the lease expires
    has_inputs: bool = True  # False: it certainly has no references


@dataclass(frozen=True, slots=True)
class NeedsUploads:
    """The next job of an account has references that the account lacks: the upload queue takes it."""

    id: UUID


@dataclass(frozen=True, slots=True)
class Yielded:
    """Another account that could take the job now has a clearly better score; the job stays queued."""

    id: UUID
    account_id: UUID
    kind: str


@dataclass(frozen=True, slots=True)
class ClaimBatch:
    """The jobs claimed for an account, and why there are not more."""

    claims: list[Claim] = field(default_factory=list)
    needs_uploads: NeedsUploads | None = None
    # Jobs whose references must be fetched and inspected before a claim. The caller does that now.
    set_aside: list[SetAside] = field(default_factory=list)
    yielded: Yielded | None = None
    # Seconds until the pace of the account allows more claims, if it has more jobs to claim.
    wait_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """What a task claims.

    `keys` = submit keys of the claims, and so the most of them. `wait_for_lock` = wait for another claim on the account
    to end; otherwise the account then counts as not ready. Without `can_upload`, a job that needs uploads is not
    claimed; with it, one whose references are not stored yet is set aside. With `may_yield`, a job is left to an
    account with a better score, unless this account already has some of its references. `takers_of_files` = providers
    whose upstream takes references within the order.
    """

    keys: Sequence[UUID] = field(default_factory=lambda: [uuid4()])
    kinds: tuple[str, ...] = SUBMIT_KINDS
    actor: str = "submit"
    can_upload: bool = True
    may_yield: bool = False
    wait_for_lock: bool = True
    takers_of_files: frozenset[str] = frozenset()


# The jobs were locked in this transaction by `job_selection.select_jobs`, the account by `accounts.lock_ready`.
_CLAIM = text(
    """/* claim */
    WITH input AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(CAST(:claims AS jsonb)) AS c(id uuid, submit_key uuid, note jsonb)),
    upd AS (
        UPDATE jobs SET state = 'submitting', account_id = :account_id, holds_slot = true, attempt = attempt + 1,
            submit_key = input.submit_key, event_seq = event_seq + 1, absent_since = NULL, result_refs = NULL,
            due_at = clock_timestamp() + make_interval(secs => :lost_after)
        FROM input WHERE jobs.id = input.id AND jobs.state = 'queued'
        RETURNING jobs.id, attempt, kind, model, params, event_seq, group_id, owner, origin, place, jobs.submit_key,
            note, attempt < max_attempts AS attempts_left),
    ev AS (
        INSERT INTO job_events (job_id, seq, from_state, to_state, actor, note)
        SELECT id, event_seq, 'queued', 'submitting', :actor, note FROM upd),
    reached AS (SELECT kind, max(place) AS place FROM upd GROUP BY kind),
    pace AS (
        UPDATE accounts SET last_submit_at = clock_timestamp(),
            next_submit_at = clock_timestamp() + make_interval(secs => :pause),
            poll_due_at = least(poll_due_at, clock_timestamp() + make_interval(secs => :lease)),
            used = (SELECT count(*) FROM upd) + used * power(0.5,
                coalesce(extract(epoch FROM clock_timestamp() - last_submit_at), 0) / CAST(:half_life AS float8)),
            turns = turns || (SELECT jsonb_object_agg(r.kind, jsonb_build_object(
                'place', greatest(r.place, (turns #>> ARRAY[r.kind, 'place'])::float8),
                'at', extract(epoch FROM clock_timestamp()))) FROM reached r)
        WHERE accounts.id = :account_id AND EXISTS (SELECT 1 FROM upd))
    SELECT id, attempt, kind, model, params, event_seq, group_id, owner, origin, attempts_left, submit_key FROM upd"""
)


def most_claims(submits_per_minute: float) -> int:
    """Return how many jobs an account may claim together: those of a quarter of a second of its pace."""
    return max(min(int(submits_per_minute / 60 * _SLICE_SECONDS), MAX_CLAIMS), 1)


def pause_after(claims: int, submits_per_minute: float) -> float:
    """Return the seconds to the next claims, so that no minute has more submits than the pace allows."""
    batches = int(submits_per_minute / claims)
    return 60 / batches if batches else 60 * claims / submits_per_minute


def claim_batch(tx: Transaction, account_id: UUID, request: ClaimRequest) -> ClaimBatch:
    """queued -> submitting: the next jobs for this account, as far as its slots and its pace allow."""
    started = time.monotonic()
    account = accounts.lock_ready(tx, account_id, waits=request.wait_for_lock)
    if account is None:
        return ClaimBatch()
    if account.pace_seconds > 0:
        return ClaimBatch(wait_seconds=account.pace_seconds)
    # Of a daily cap only "below it" is known here, so each claim is checked alone.
    most = 1 if account.capped else most_claims(account.submits_per_minute)
    limit = min(most, len(request.keys))
    selected = job_selection.select_jobs(
        tx,
        account,
        request.kinds,
        can_upload=request.can_upload,
        limit=limit,
        takes_files=account.provider in request.takers_of_files,
    )
    aside = [job.id for job in selected.jobs if job.is_unprepared]
    ready = [job for job in selected.jobs if not job.is_unprepared]
    plan = _plan(tx, ready, account, may_yield=request.may_yield)
    claims = _claim(tx, plan, account, request, started) if plan.jobs else []
    waiting = selected.needs_uploads
    is_last = selected.complete and plan.yielded is None
    return ClaimBatch(
        claims=claims,
        needs_uploads=NeedsUploads(waiting.id) if waiting is not None and plan.yielded is None else None,
        set_aside=set_aside.set_aside(tx, aside) if aside else [],
        yielded=plan.yielded,
        # Jobs that come later send a message of their own.
        wait_seconds=pause_after(len(claims), account.submits_per_minute) if claims and not is_last else None,
    )


def claim_next(
    tx: Transaction, *, account_id: UUID, kinds: tuple[str, ...] = SUBMIT_KINDS, actor: str = "submit"
) -> Claim | None:
    """Claim one job; None if there is none for the account."""
    claims = claim_batch(tx, account_id, ClaimRequest(kinds=kinds, actor=actor)).claims
    return claims[0] if claims else None


@dataclass(slots=True)
class _Plan:
    """The jobs to claim, with the scores of the accounts that could take each (empty = no other account)."""

    jobs: list[tuple[job_selection.Selection, dict[UUID, account_scoring.Score]]] = field(default_factory=list)
    yielded: Yielded | None = None


def _plan(
    tx: Transaction, jobs: list[job_selection.Selection], account: accounts.AccountRow, *, may_yield: bool
) -> _Plan:
    """Take the jobs in order, up to the first one for which another account is clearly better."""
    plan = _Plan()
    groups: dict[tuple[Any, ...], dict[UUID, account_scoring.Facts]] = {}
    for job in jobs:
        if job.single_account:
            plan.jobs.append((job, {}))
            continue
        candidates = groups.get(job.group)
        if candidates is None:
            candidates = groups[job.group] = account_scoring.find_candidates(tx, job.id)
        scores = account_scoring.rank(candidates)
        better = account_scoring.find_better_account(account.id, scores)
        if may_yield and not job.has_uploads and better is not None:
            plan.yielded = Yielded(job.id, better, job.kind)
            break
        plan.jobs.append((job, scores))
        if account.id in candidates:
            candidates[account.id] = account_scoring.after_claim(candidates[account.id])
    return plan


def _claim(
    tx: Transaction, plan: _Plan, account: accounts.AccountRow, request: ClaimRequest, started: float
) -> list[Claim]:
    settings, own = get_settings(), {"own": True} if account.user_id else {}
    has_inputs = {job.id: job.has_inputs for job, _ in plan.jobs}
    claims = []
    for (job, scores), key in zip(plan.jobs, request.keys, strict=False):
        score = {"score": scores[account.id].as_dict()} if account.id in scores else {}
        claims.append({"id": str(job.id), "submit_key": str(key), "note": {"account": account.label, **score, **own}})
    rows = tx.all(
        _CLAIM,
        {
            "claims": json.dumps(claims),
            "account_id": account.id,
            "lease": settings.lease_seconds,
            "lost_after": settings.lease_seconds + settings.unclear_grace_seconds,
            "pause": pause_after(len(claims), account.submits_per_minute),
            "half_life": account_scoring.HALF_LIFE_SECONDS,
            "actor": request.actor,
        },
    )
    if rows and (others := [other for other in account.members if other != account.id]):
        limit_groups.share_pace(tx, others, seconds=pause_after(len(claims), account.submits_per_minute))
    money.keep_rates(tx, account, rows)
    _record_passed_over(tx, rows, plan, account.id)
    order = {job.id: n for n, (job, _) in enumerate(plan.jobs)}
    return [
        replace(_claimed(row, account, started + settings.lease_seconds), has_inputs=has_inputs[row.id])
        for row in sorted(rows, key=lambda row: order[row.id])
    ]


def _record_passed_over(tx: Transaction, rows: list[Row[Any]], plan: _Plan, account_id: UUID) -> None:
    """Record it once for the jobs of a group: the same accounts were passed over for all of them."""
    seqs = {row.id: row.event_seq for row in rows}
    groups: dict[tuple[Any, ...], tuple[dict[UUID, account_scoring.Score], dict[UUID, int]]] = {}
    for job, scores in plan.jobs:
        if job.id in seqs and not job.single_account:
            groups.setdefault(job.group, (scores, {}))[1][job.id] = seqs[job.id]
    for scores, events in groups.values():
        selection_log.record_passed_over(tx, events, account_id, scores)


def _claimed(row: Row[Any], account: accounts.AccountRow, expires_at: float) -> Claim:
    return Claim(**row._mapping, account=account, expires_at=expires_at)  # noqa: SLF001


_FIND = text(
    """SELECT id, attempt, kind, model, params, event_seq, group_id, owner, origin, submit_key, account_id,
           attempt < max_attempts AS attempts_left
       FROM jobs WHERE submit_key = ANY(:keys) AND state = 'submitting' ORDER BY id"""
)


def find_claims(tx: Transaction, keys: Sequence[UUID], *, started: float) -> list[Claim]:
    """Return the claims of an earlier transaction with these keys, whose commit succeeded but was not answered.

    `started` = `time.monotonic()` before that transaction, from which their leases count.
    """
    claims, found = [], dict[UUID, accounts.AccountRow | None]()
    for row in tx.all(_FIND, {"keys": list(keys)}):
        if row.account_id not in found:
            found[row.account_id] = accounts.get_account(tx, row.account_id)
        account = found[row.account_id]
        if account is not None:
            values = {name: value for name, value in row._mapping.items() if name != "account_id"}  # noqa: SLF001
            claims.append(Claim(**values, account=account, expires_at=started + get_settings().lease_seconds))
    return claims
