"""Plans a chat with the agent: its messages in upstream's form and its job."""

from collections.abc import Sequence
from typing import Any

from api.auth.caller import Caller
from api.chat.conversations.turns import PlannedTurn
from api.chat.schemas import ChatMessage, ChatRequest, text_of_part
from api.generation.acceptance import GenerationPlan, fingerprint
from api.generation.models.agent import AGENT, require_agent
from api.generation.request_checks import check_prompt
from worker.core.catalog.upstream_models import UpstreamModels
from worker.core.errors import DreameryError
from worker.db.jobs.state_machine import NewJob

_SYSTEM_ROLES = frozenset({"system", "developer"})
# Sent in place of an empty conversation: front ends that send one test the connection.
_EMPTY_MESSAGE = "Hello"


def plan_conversation(
    path: str, body: ChatRequest, caller: Caller, offer: UpstreamModels, turn: PlannedTurn | None = None
) -> GenerationPlan:
    """Return the plan of a chat with the agent; with a turn, of what came before it too.

    Raises the error of an invalid message.

    Raises `model_not_found` if no account of the caller has an agent.
    """
    caller.require_model(AGENT)
    provider = require_agent(offer)
    messages, omitted = build_messages(body.messages)
    requested_model = body.model or AGENT
    fields = {
        "model": requested_model,
        "messages": messages,
        # Not what came before: the answer of a first try is not another request.
        **({} if body.conversation is None else {"conversation": body.conversation.model_dump()}),
        "user": body.user,
        "metadata": body.metadata,
        "webhook": body.webhook,
    }
    if turn is not None:
        messages, omitted = build_messages(turn.with_messages_before(body).messages)
    job = NewJob(
        owner=caller.owner,
        kind="chat",
        model=AGENT,
        params={
            "order": {"messages": messages},
            "n": 0,
            "flags": {},
            "asked_model": requested_model,
            "images": [],
            **({"left_out": omitted} if omitted else {}),
        },
        account_ids=[],
        providers=[provider.name],
        user_id=caller.user_id,
        api_key_id=caller.api_key_id,
        webhook_url=body.webhook or None,
        metadata={**(body.metadata or {}), **({"user": body.user} if body.user else {})},
    )
    plan = GenerationPlan(jobs=[job], n=0, fingerprint=fingerprint(path, fields, []))
    return plan if turn is None else turn.attach(plan, caller)


def build_messages(messages: Sequence[ChatMessage]) -> tuple[list[dict[str, str]], int]:
    """Return the messages to send and the number of omitted parts that are not text.

    System texts are placed before the first user message, separated by an empty line. Empty messages are dropped.
    Results of the client's tools become user messages, because upstream knows only user and assistant.
    """
    system: list[str] = []
    sent: list[dict[str, str]] = []
    omitted = 0
    for number, message in enumerate(messages):
        text, others = _read_content(message.content)
        omitted += others
        if not text.strip():
            continue
        check_prompt(text, f"messages.{number}.content")
        role = message.role.strip().lower()
        if role in _SYSTEM_ROLES:
            system.append(text)
        elif role in {"user", "assistant", "tool", "function"}:
            sent.append({"role": "assistant" if role == "assistant" else "user", "text": text})
        else:
            raise DreameryError("invalid_value", _invalid_role_message(message.role), param=f"messages.{number}.role")
    return _with_system(sent, "\n".join(system)), omitted


def _invalid_role_message(role: str) -> str:
    return f"`role` must be system, developer, user, assistant or tool; got {role[:20]!r}."


def _with_system(messages: list[dict[str, str]], system: str) -> list[dict[str, str]]:
    first = next((turn for turn in messages if turn["role"] == "user"), None)
    if first is None:
        # Upstream answers user messages only.
        first = {"role": "user", "text": "" if system else _EMPTY_MESSAGE}
        messages.append(first)
    if system:
        first["text"] = f"{system}\n\n{first['text']}" if first["text"] else system
    return messages


def _read_content(content: str | list[Any] | None) -> tuple[str, int]:
    """Return the text of a message and the number of its parts that are not text."""
    if not isinstance(content, list):
        return content or "", 0
    texts = [part if isinstance(part, str) else text_of_part(part) for part in content]
    return "\n".join(text for text in texts if text), sum(text is None for text in texts)
