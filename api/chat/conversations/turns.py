"""A request in a conversation that the platform keeps: what came before it, and the turn that it becomes.

Reading what came before and accepting the jobs are two transactions. The second one checks that no other request was
faster. A repeated request joins the jobs of the first before that check, so a busy conversation does not refuse it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.chat.completion import file_markdown
from api.chat.schemas import ChatMessage, ChatRequest, ConversationChoice, text_of
from api.generation.acceptance import AcceptedRequest, GenerationPlan
from api.generation.models.agent import AGENT
from worker.core.errors import DreameryError
from worker.core.ids import new_id, parse_public_id, public_id
from worker.db.chats import threads
from worker.db.chats.threads import MAX_TURNS, NewTurn, Turn
from worker.db.engine import Transaction, transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import JobView

PREFIX = "conv"
NEW = "new"


def parse_conversation_id(conversation_id: str) -> UUID:
    """Parse the id of a conversation. Raises `conversation_not_found`."""
    parsed = parse_public_id(PREFIX, conversation_id)
    if parsed is None:
        raise conversation_not_found(conversation_id)
    return parsed


def conversation_not_found(conversation_id: str) -> DreameryError:
    """The error for an unknown conversation; also for one of another user."""
    return DreameryError("conversation_not_found", f"No conversation {conversation_id[:60]!r}.")


@dataclass(frozen=True, slots=True)
class PlannedTurn:
    """A valid turn: what came before it as messages, and its row as far as it is known before its jobs."""

    thread_id: UUID
    number: int  # its place in the conversation
    messages: list[dict[str, str]]  # role, text
    before: list[ChatMessage]
    title: str | None = None  # of a new conversation
    replaces: tuple[UUID, ...] = ()
    continues: bool = False
    is_busy: bool = False  # the newest turn is being answered

    def attach(self, plan: GenerationPlan, caller: Caller) -> GenerationPlan:
        """Return the plan with this turn, which is written together with the jobs."""
        name = public_id(PREFIX, self.thread_id)
        jobs = [replace(job, params={**job.params, "conversation": name}) for job in plan.jobs]
        write = partial(self._write, caller=caller, job_id=plan.jobs[0].id)
        return replace(plan, jobs=jobs, extra_write=write)

    def _write(self, tx: Transaction, *, caller: Caller, job_id: UUID) -> None:
        """Raises `conversation_busy`."""
        if self.title is not None:
            threads.add_thread(tx, self.thread_id, owner=caller.owner, user_id=caller.user_id, title=self.title)
        turn = NewTurn(self.thread_id, job_id, self.number, self.messages, self.replaces, continues=self.continues)
        if self.is_busy or not threads.add_turn(tx, turn):
            raise DreameryError("conversation_busy", param="conversation")

    def with_messages_before(self, body: ChatRequest) -> ChatRequest:
        """Return the request with the whole conversation as its messages."""
        return body.model_copy(update={"messages": [*self.before, *body.messages]})


async def plan_turn(body: ChatRequest, caller: Caller, base: str) -> PlannedTurn | None:
    """Return the turn that a request becomes; None for a request without a conversation. `base`: of links to results.

    Raises `forbidden` without the right to read, `conversation_not_found`, or `invalid_value`.
    """
    choice = body.conversation
    if choice is None:
        return None
    caller.require_scope("read")
    messages = [_as_row(message) for message in body.messages]
    if choice.id == NEW:
        if choice.replaces or choice.continues:
            raise _invalid("A new conversation has no turn to replace or to continue.")
        title = next((row["text"] for row in messages if row["role"] == "user" and row["text"].strip()), "")
        return PlannedTurn(new_id(), 1, messages, [], title=threads.title_of(title))
    return await run_in_threadpool(_plan_next, choice, messages, caller, base, for_agent=body.model == AGENT)


def _as_row(message: ChatMessage) -> dict[str, str]:
    return {"role": message.role.strip().lower(), "text": text_of(message)}


def _plan_next(
    choice: ConversationChoice, messages: list[dict[str, str]], caller: Caller, base: str, *, for_agent: bool
) -> PlannedTurn:
    thread_id = parse_conversation_id(choice.id)
    with transaction() as tx:
        if threads.find_thread(tx, thread_id, caller.owner) is None:
            raise conversation_not_found(choice.id)
        turns, last = threads.turns_of(tx, thread_id), threads.last_number(tx, thread_id)
        if last >= MAX_TURNS:
            raise _invalid(f"This conversation has {MAX_TURNS} messages, which is the most. Begin a new one.")
        kept, replaced = _without_replaced(turns, choice)
        # Image and video models find earlier pictures by their links. The agent reads text only, so it gets no links.
        views = [] if for_agent else queries.group_views(tx, threads.result_ids(tx, kept))
    before = [message for turn in kept for message in _messages_of(turn, results_of(turn, views), base)]
    return PlannedTurn(
        thread_id,
        last + 1,
        messages,
        before,
        replaces=tuple(turn.job_id for turn in replaced),
        continues=choice.continues is not None,
        is_busy=bool(turns) and turns[-1].is_answering,
    )


def _without_replaced(turns: list[Turn], choice: ConversationChoice) -> tuple[list[Turn], list[Turn]]:
    """Return the turns that stay and those that are replaced: one, and what continued its answer."""
    if choice.replaces and choice.continues:
        raise _invalid("`replaces` and `continues` exclude each other. Send one of them.")
    if choice.continues:
        newest = turns[-1] if turns else None
        if newest is None or newest.job_id != parse_public_id("job", choice.continues):
            raise _invalid("Only the newest turn of a conversation can be continued.", ".continues")
        if not newest.is_cut_off:
            raise _invalid("The answer of this turn was not cut off.", ".continues")
    if not choice.replaces:
        return turns, []
    job_id = parse_public_id("job", choice.replaces)
    named = next((n for n, turn in enumerate(turns) if turn.job_id == job_id), None)
    if named is None or not all(turn.continues for turn in turns[named + 1 :]):
        raise _invalid("Only the newest turn of a conversation can be replaced.", ".replaces")
    return turns[:named], turns[named:]


def results_of(turn: Turn, views: Iterable[JobView]) -> list[JobView]:
    """Return those of the jobs that have the results of a turn."""
    key = "parent_id" if turn.kind == "chat" else "group_id"
    return [view for view in views if getattr(view.job, key) == turn.job_id]


def _messages_of(turn: Turn, results: list[JobView], base: str) -> list[ChatMessage]:
    """Return the messages of a turn and its answer, with links to its results."""
    found = [ChatMessage(role=row["role"], content=row["text"]) for row in turn.messages if row["text"].strip()]
    answer = turn.said + "".join(file_markdown(item, base) for view in results for item in view.files)
    return [*found, ChatMessage(role="assistant", content=answer)] if answer.strip() else found


def _invalid(message: str, field: str = "") -> DreameryError:
    return DreameryError("invalid_value", message, param=f"conversation{field}")


async def set_conversation_header(request: Request, turn: PlannedTurn | None, accepted: AcceptedRequest) -> None:
    """Send `X-Conversation-Id` with the answer. A repeat names the conversation of the first request."""
    if turn is None:
        return
    thread_id = turn.thread_id
    if accepted.replayed:
        found = await run_in_threadpool(_thread_of, accepted.job_ids[0])
        if found is None:
            return
        thread_id = found
    request.state.conversation_id = public_id(PREFIX, thread_id)


def _thread_of(job_id: UUID) -> UUID | None:
    with transaction() as tx:
        return threads.threads_of_jobs(tx, [job_id]).get(job_id)
