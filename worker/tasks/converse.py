"""Runs one agent conversation: claims it, sends it once, streams its text, and adopts the jobs that it starts.

Each piece of text is published at once and committed at intervals, so a waiting request that missed one reads the row.
Once the row is marked as sent, just before the call, the conversation is never sent again: it cannot be looked up by
key, and jobs that it started upstream may have been charged. Before that mark, and when upstream refuses the
conversation before its first text, the error table decides, as for any submit.
"""

import time
from contextlib import closing
from functools import partial
from uuid import UUID

from worker.core.concurrency import event_loop
from worker.core.concurrency.lanes import acting_for
from worker.core.concurrency.shutdown import stopping
from worker.core.concurrency.watchdog import watchdog
from worker.core.errors import DreameryError, Reaction
from worker.core.job_state import JobState
from worker.core.observability.faults import UnexpectedError
from worker.core.observability.job_context import job_context
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.db.accounts import health, polling
from worker.db.credits import balances
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, Transaction, retry_when_database_unavailable, transaction
from worker.db.jobs import conversations, state_machine
from worker.db.jobs.claims import Claim
from worker.messaging import celery_app, pubsub
from worker.messaging.conversation_permits import conversation_permits
from worker.providers.base import Account, NotSentError
from worker.providers.conversation import (
    AgentEvent,
    Conversation,
    ConversationMessage,
    JobStarted,
    KeepAlive,
    StreamEnded,
    TextDelta,
    ToolCalled,
)
from worker.providers.registry import get_provider, required
from worker.tasks.stages import handle_refusal
from worker.tasks.stages.account_session import prepare_account
from worker.tasks.stages.claim import ClaimOptions, claim_job
from worker.tasks.stages.conversation_heartbeat import heartbeat
from worker.tasks.stages.fail_job import announce, fail_job

log = get_logger("converse")

_CONVERSATIONS = ClaimOptions(kinds=("chat",), actor="converse")
# The text is committed at most this often, and at every tool call.
COMMIT_SECONDS = 1.0
# A balance younger than this is not read again.
_CREDITS_MAX_AGE_SECONDS = 600.0
# More than the agent needs for any request.
_RICH_CREDITS = 1000
_NO_CREDITS = "The agent made nothing: its upstream account does not have enough credits. Send the message again."
# Added to the deadlines of the jobs that the conversation started.
_COLLECT_SLACK_SECONDS = 600.0
# When the process stops, its conversations end this long before it is killed and keep their text.
_STOP_MARGIN_SECONDS = 2.0
# The next try of a conversation whose owner has enough of them open.
_TURN_SECONDS = 5.0


def converse(*, job_id: UUID | None = None, account_id: UUID | None = None) -> str:
    """Run the first conversation that the account (or the best account for the job) may run. Return a summary."""
    claim, account_id = claim_job(_CONVERSATIONS, job_id=job_id, account_id=account_id)
    if not isinstance(claim, Claim):
        return handle_refusal.fail_if_unschedulable(job_id) if job_id else "no conversation to run"
    with job_context("converse", claim.id, claim.origin), acting_for(claim.owner, claim.account.id):
        if claim.account.proxy is None or claim.account.pool:
            return _converse_claimed(claim, account_id)
        with conversation_permits().hold_proxied(claim.owner) as permitted:
            if permitted:
                return _converse_claimed(claim, account_id)
        # Its threads are for the conversations of others. It is tried again.
        return handle_refusal.requeue(claim, NotSentError(), delay=_TURN_SECONDS, reason="waits for its turn")


def _converse_claimed(claim: Claim, account_id: UUID | None) -> str:
    sent = False
    try:
        account = prepare_account(claim.account)
        _refill_credits(claim, account)
        watchdog.renew()
        if not _begin(claim):
            return handle_refusal.requeue(claim, NotSentError(), delay=0.0, reason="claim lost")
        sent = True
        stream = _ConversationStream(claim)
        with heartbeat.keep_lease(claim.id, claim.attempt):
            line = stream.run(account)
    except DreameryError as error:
        return handle_refusal.handle_refusal(claim, error)
    except DATABASE_UNAVAILABLE_ERRORS:
        raise  # nothing can be written now: the conversation is found when its lease ends
    except BaseException as error:  # noqa: BLE001
        return handle_refusal.handle_fault(claim, UnexpectedError(error, sent=sent))
    # One conversation per message, so that another thread may run the account's next one.
    celery_app.enqueue_converse(account_id=account_id)
    return line


def _refill_credits(claim: Claim, account: Account) -> None:
    """Claim daily credits if needed: without credits the agent only talks. Errors are logged."""
    if get_settings().daily_receive == "off":
        return
    with transaction() as tx:
        known = balances.recent_credits(tx, claim.account.id, within=_CREDITS_MAX_AGE_SECONDS)
    if not known:
        handle_refusal.refill_credits(claim, account)


@retry_when_database_unavailable
def _begin(claim: Claim) -> bool:
    with transaction() as tx:
        return conversations.begin_sending(tx, job_id=claim.id, attempt=claim.attempt)


def _may_lack_credits(claim: Claim) -> bool:
    """Whether the account may be too poor for what the agent was asked. Otherwise its words are talk about credits."""
    with transaction() as tx:
        left = balances.available_credits(tx, claim.account.id)
    return left is None or left < _RICH_CREDITS


def _check_stopping() -> None:
    if stopping.requested_for(get_settings().shutdown_grace_seconds - _STOP_MARGIN_SECONDS):
        raise DreameryError("stream_broken", detail="its worker was stopped")


class _StoppedError(Exception):
    """Another task took the job over, or it was cancelled. The message is the summary line of this task."""


class _ConversationStream:
    """One open conversation and what it has produced so far."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._text = ""
        self._running = False
        self._calls: dict[str, ToolCalled] = {}
        self._jobs = 0
        self._committed_at = 0.0

    def run(self, account: Account) -> str:
        """Read the stream to its end. Raises upstream's refusal if it comes before the first text."""
        claim = self._claim
        messages = tuple(ConversationMessage(item["role"], item["text"]) for item in claim.params["order"]["messages"])
        events = event_loop.iterate(
            required(get_provider(account).capabilities.agent).converse(
                account, Conversation(messages), conversation_id=str(claim.submit_key)
            )
        )
        ended = StreamEnded(complete=False)
        try:
            with closing(events):
                for event in events:
                    watchdog.renew()
                    _check_stopping()
                    self._handle(event)
                    ended = event if isinstance(event, StreamEnded) else ended
            if ended.lacks_credits and not self._jobs and _may_lack_credits(claim):
                # Nothing was made and nothing charged. Another try finds an account with credits.
                return self._break_off(DreameryError("insufficient_quota", _NO_CREDITS), finish="stop")
            return self._finish("stop" if ended.complete else "length")
        except _StoppedError as stopped:
            return str(stopped)
        except DATABASE_UNAVAILABLE_ERRORS:
            raise
        except BaseException as error:
            if not self._running:
                raise
            return self._break_off(error if isinstance(error, DreameryError) else UnexpectedError(error, sent=True))

    def _handle(self, event: AgentEvent) -> None:
        """Process one event."""
        if isinstance(event, KeepAlive):
            if self._running and time.monotonic() - self._committed_at >= COMMIT_SECONDS:
                self._commit()
            return
        if not self._running:
            self._mark_running()
        if isinstance(event, TextDelta):
            pubsub.publish_agent_text(self._claim.id, len(self._text), event.text)
            self._text += event.text
        elif isinstance(event, ToolCalled):
            self._calls[event.id] = event
            self._commit()
        elif isinstance(event, JobStarted):
            self._jobs += 1
            self._commit(event)

    @retry_when_database_unavailable
    def _mark_running(self) -> None:
        settings = get_settings()
        with transaction() as tx:
            health.record_success(tx, [self._claim.account.id])
            row = state_machine.mark_running(
                tx,
                job_id=self._claim.id,
                attempt=self._claim.attempt,
                upstream_id=str(self._claim.submit_key),
                actor="converse",
                deadline=settings.conversation_timeout_seconds + settings.conversation_lease_seconds,
            )
            if row is not None:
                announce(tx, row)
            elif self._note(tx) is None:  # taken over; otherwise an earlier try of this transaction was committed
                raise _StoppedError(f"conversation {self._claim.id} was taken over")
        self._running = True

    @retry_when_database_unavailable
    def _commit(self, started: JobStarted | None = None) -> None:
        """Commit the text and a started job. Raises _StoppedError if the job was cancelled or taken over."""
        with transaction() as tx:
            if started is not None:
                # First, because the job is charged whatever happens to the conversation.
                self._adopt(tx, started)
            cancelled = self._note(tx)
            if cancelled:
                row = state_machine.mark_cancelled(
                    tx, job_id=self._claim.id, attempt=self._claim.attempt, actor="converse"
                )
                if row is not None:
                    announce(tx, row)
        self._committed_at = time.monotonic()
        if cancelled is not False:
            raise _StoppedError(f"conversation {self._claim.id} {'cancelled' if cancelled else 'was taken over'}")

    def _note(self, tx: Transaction, finish: str | None = None) -> bool | None:
        return conversations.record_reply(
            tx,
            job_id=self._claim.id,
            attempt=self._claim.attempt,
            text_so_far=self._text,
            tool_calls=max(len(self._calls), self._jobs),
            finish_reason=finish,
        )

    def _adopt(self, tx: Transaction, started: JobStarted) -> None:
        call = self._calls.get(started.tool_call_id)
        row = state_machine.adopt_child(
            tx,
            parent_id=self._claim.id,
            kind=started.kind,
            submit_key=UUID(started.submit_key),
            upstream_id=started.upstream_id,
            params=_params(started.kind, call, self._claim.params["asked_model"]),
        )
        if row is None:
            return
        announce(tx, row)
        if polling.schedule_poll(tx, row.account_id):
            tx.on_commit(partial(celery_app.enqueue_poll, row.account_id))

    @retry_when_database_unavailable
    def _finish(self, finish: str) -> str:
        claim, settings = self._claim, get_settings()
        wait = settings.video_deadline_seconds + settings.save_deadline_seconds + _COLLECT_SLACK_SECONDS
        with transaction() as tx:
            if self._note(tx, finish) is None:
                return f"conversation {claim.id} was taken over"
            row = state_machine.mark_collecting(
                tx, job_id=claim.id, attempt=claim.attempt, deadline=wait, characters=len(self._text)
            )
            row = state_machine.mark_answered(tx, job_id=claim.id, actor="converse") or row
            if row is not None:
                announce(tx, row)
        return f"conversation {claim.id} on {claim.account.label}: {len(self._text)} characters, {self._jobs} jobs"

    @retry_when_database_unavailable
    def _break_off(self, error: DreameryError, *, finish: str | None = None) -> str:
        """End a broken or refused stream. Its text and its jobs are kept. `finish` of a text that is complete."""
        claim = self._claim
        failure = error
        if error.kind.reaction is Reaction.UNCLEAR or isinstance(error, UnexpectedError):
            failure = DreameryError("stream_broken", detail=error.detail)
        cooldown = handle_refusal.cooldown_after(claim, error)
        with transaction() as tx:
            if not isinstance(error, UnexpectedError):
                self._note(tx, finish)  # after a fault, the text of the last commit is what is kept
            if cooldown:
                health.cool_down(tx, claim.account.id, seconds=cooldown, code=error.code)
            fail_job(
                tx,
                job_id=claim.id,
                attempt=claim.attempt,
                code=failure.code,
                message=failure.message,
                actor="converse",
                detail=failure.detail,
                from_states=(JobState.RUNNING,),
            )
        log.warning("conversation_broke", job_id=str(claim.id), code=failure.code, detail=failure.detail)
        return f"failed {claim.id}: {failure.code}"


def _params(kind: str, call: ToolCalled | None, asked_model: str) -> dict[str, object]:
    """Return the params of a job that the agent ordered itself, as far as its tool call contains them."""
    order: dict[str, object] = {"prompt": call.prompt if call else "", "ratio": call.ratio if call else ""}
    if kind == "image":
        order |= {"width": 0, "height": 0, "resolution": "", "count": None}
    else:
        order |= {"resolution": "", "seconds": 0, "parts": []}
    return {"order": order, "n": 1, "flags": {}, "asked_model": asked_model, "images": []}
