"""Hold one conversation with the agent: claim it, send it once, pass its words on, adopt the jobs it starts.

Each piece of text is published at once and committed now and then, so that a waiter who missed one reads the row. From
the row that is written just before the call, nothing sends the conversation again: it cannot be asked for by key, and
what it started upstream may have been paid. Before that, and when upstream refuses it before the first word, the error
table says what to do, as for any submit.
"""

import time
from contextlib import closing
from functools import partial
from uuid import UUID

from worker.core.errors import DreameryError, Reaction
from worker.core.observability.job_context import about_job
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.core.shutdown import stopping
from worker.core.watchdog import watchdog
from worker.db.accounts import accounts, health
from worker.db.credits import balances
from worker.db.engine import Transaction, retry_when_database_away, transaction
from worker.db.jobs import conversations, state_machine
from worker.messaging import celery_app, pubsub
from worker.providers.base import (
    Account,
    AgentEvent,
    Conversation,
    Ended,
    JobStarted,
    Listening,
    NotSentError,
    Said,
    ToolCalled,
    Turn,
)
from worker.providers.registry import get_provider
from worker.tasks.stages import claim as claiming
from worker.tasks.stages import handle_refusal
from worker.tasks.stages.account_session import located
from worker.tasks.stages.claim import How
from worker.tasks.stages.conversation_heartbeat import pulse

log = get_logger("converse")

_TALKS = How(kinds=("chat",), actor="converse")
# The text so far is committed at most this often, and at every call of a tool.
COMMIT_SECONDS = 1.0
# Credits told less than this ago are believed.
_CREDITS_BELIEVED_SECONDS = 600.0
# Beyond the deadlines of the jobs it started, which all end by themselves.
_COLLECT_SLACK_SECONDS = 600.0
# A conversation that would be killed with its process is ended by itself so long before, with what was said.
_STOP_MARGIN_SECONDS = 2.0


def converse(*, job_id: UUID | None = None, account_id: UUID | None = None) -> str:
    """Hold the first conversation that the given account (or the best account of the given job) may hold."""
    claim, nudged = claiming.claim(_TALKS, job_id=job_id, account_id=account_id)
    if not isinstance(claim, state_machine.Claim):
        return handle_refusal.give_up_if_hopeless(job_id) if job_id else "nothing to say"
    with about_job("converse", claim.id, claim.origin):
        return _converse_claimed(claim, nudged)


def _converse_claimed(claim: state_machine.Claim, nudged: UUID | None) -> str:
    try:
        account = located(claim.account)
        _take_daily_credits(claim, account)
        watchdog.renew()
        if not _begin(claim):
            return handle_refusal.requeue(claim, NotSentError(), delay=0.0, reason="claim lost")
        talk = _Talk(claim)
        with pulse.holding(claim.id, claim.attempt):
            line = talk.hold(account)
    except DreameryError as error:
        return handle_refusal.refused(claim, error)
    # One message, one conversation: the account's next one may be taken by another thread.
    celery_app.nudge_converse(account_id=nudged)
    return line


def _take_daily_credits(claim: state_machine.Claim, account: Account) -> None:
    """Protocol section 9.3: without credits the agent talks but draws nothing. What goes wrong here is only logged."""
    if get_settings().daily_receive == "off":
        return
    with transaction() as tx:
        known = balances.known_credits(tx, claim.account.id, within=_CREDITS_BELIEVED_SECONDS)
    if not known:
        handle_refusal.refill(claim, account)


@retry_when_database_away
def _begin(claim: state_machine.Claim) -> bool:
    with transaction() as tx:
        return conversations.begin(tx, job_id=claim.id, attempt=claim.attempt)


def _end_before_the_process() -> None:
    if stopping.asked_before(get_settings().stop_seconds - _STOP_MARGIN_SECONDS):
        raise DreameryError("stream_broken", detail="its worker was stopped")


class _StoppedError(Exception):
    """The job is no longer this step's, or nobody wants it any more. The message is the step's line."""


class _Talk:
    """One open stream and what has come of it."""

    def __init__(self, claim: state_machine.Claim) -> None:
        self._claim = claim
        self._said = ""
        self._running = False
        self._calls: dict[str, ToolCalled] = {}
        self._jobs = 0
        self._committed_at = 0.0

    def hold(self, account: Account) -> str:
        """Listen to the end. Raises what upstream refuses the conversation with before its first word."""
        claim = self._claim
        turns = tuple(Turn(turn["role"], turn["text"]) for turn in claim.params["order"]["messages"])
        heard = get_provider().converse(account, Conversation(turns), conversation_id=str(claim.submit_key))
        complete = False
        try:
            with closing(heard):
                for event in heard:
                    watchdog.renew()
                    _end_before_the_process()
                    complete = self._take(event)
        except _StoppedError as stopped:
            return str(stopped)
        except DreameryError as error:
            if not self._running:
                raise
            return self._break_off(error)
        return self._finish("stop" if complete else "length")

    def _take(self, event: AgentEvent) -> bool:
        """Carry one event on; whether it was the mark of a good end."""
        if isinstance(event, Listening):
            if self._running and time.monotonic() - self._committed_at >= COMMIT_SECONDS:
                self._commit()
            return False
        if not self._running:
            self._open()
        if isinstance(event, Said):
            pubsub.publish_words(self._claim.id, len(self._said), event.text)
            self._said += event.text
        elif isinstance(event, ToolCalled):
            self._calls[event.id] = event
            self._commit()
        elif isinstance(event, JobStarted):
            self._jobs += 1
            self._commit(event)
        return isinstance(event, Ended) and event.complete

    @retry_when_database_away
    def _open(self) -> None:
        settings = get_settings()
        with transaction() as tx:
            health.worked(tx, self._claim.account.id)
            row = state_machine.mark_running(
                tx,
                job_id=self._claim.id,
                attempt=self._claim.attempt,
                upstream_id=str(self._claim.submit_key),
                actor="converse",
                deadline=settings.talk_seconds + settings.talk_lease_seconds,
            )
            if row is not None:
                tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
            elif self._note(tx) is None:  # not this step's; else an earlier try of this was committed
                raise _StoppedError(f"conversation {self._claim.id} was taken over")
        self._running = True

    @retry_when_database_away
    def _commit(self, started: JobStarted | None = None) -> None:
        """Commit the text so far, and the job that was started; raises when there is no point in going on."""
        with transaction() as tx:
            if started is not None:
                # Before anything else: whatever becomes of the conversation, this was paid for.
                self._adopt(tx, started)
            wish = self._note(tx)
            if wish:
                row = state_machine.mark_cancelled(
                    tx, job_id=self._claim.id, attempt=self._claim.attempt, actor="converse"
                )
                if row is not None:
                    tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
        self._committed_at = time.monotonic()
        if wish is not False:
            raise _StoppedError(f"conversation {self._claim.id} {'cancelled' if wish else 'was taken over'}")

    def _note(self, tx: Transaction, finish: str | None = None) -> bool | None:
        return conversations.note_said(
            tx,
            job_id=self._claim.id,
            attempt=self._claim.attempt,
            said=self._said,
            calls=max(len(self._calls), self._jobs),
            finish=finish,
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
        tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
        if accounts.poll_soon(tx, row.account_id):
            tx.on_commit(partial(celery_app.nudge_poll, row.account_id))

    @retry_when_database_away
    def _finish(self, finish: str) -> str:
        claim, settings = self._claim, get_settings()
        wait = settings.video_deadline_seconds + settings.save_deadline_seconds + _COLLECT_SLACK_SECONDS
        with transaction() as tx:
            if self._note(tx, finish) is None:
                return f"conversation {claim.id} was taken over"
            row = state_machine.mark_collecting(
                tx, job_id=claim.id, attempt=claim.attempt, deadline=wait, said=len(self._said)
            )
            row = state_machine.mark_answered(tx, job_id=claim.id, actor="converse") or row
            if row is not None:
                tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
        return f"conversation {claim.id} on {claim.account.label}: {len(self._said)} characters, {self._jobs} jobs"

    @retry_when_database_away
    def _break_off(self, error: DreameryError) -> str:
        """The stream broke, or upstream refused to go on: the text so far and the jobs stay."""
        claim = self._claim
        told = error
        if error.kind.reaction is Reaction.UNCLEAR:
            told = DreameryError("stream_broken", detail=error.detail)
        rest = handle_refusal.rest_before_next(claim, error)
        with transaction() as tx:
            self._note(tx)
            if rest:
                health.rest(tx, claim.account.id, seconds=rest, code=error.code)
            row = state_machine.mark_failed(
                tx,
                job_id=claim.id,
                attempt=claim.attempt,
                code=told.code,
                message=told.message,
                actor="converse",
                detail=told.detail,
                from_states=("running",),
            )
            if row is not None:
                tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
        log.warning("conversation_broke", job_id=str(claim.id), code=told.code, detail=told.detail)
        return f"failed {claim.id}: {told.code}"


def _params(kind: str, call: ToolCalled | None, asked_model: str) -> dict[str, object]:
    """What is known of a job that the agent ordered by itself: its words, and what it told its tool."""
    order: dict[str, object] = {"prompt": call.prompt if call else "", "ratio": call.ratio if call else ""}
    if kind == "image":
        order |= {"width": 0, "height": 0, "resolution": "", "count": None}
    else:
        order |= {"resolution": "", "seconds": 0, "parts": []}
    return {"order": order, "n": 1, "flags": {}, "asked_model": asked_model, "images": []}
