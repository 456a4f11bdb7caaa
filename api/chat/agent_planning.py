"""A chat with the agent: the messages as upstream takes them (protocol section 9.1), and the job they stand for."""

from collections.abc import Sequence
from typing import Any

from api.auth.dependencies import Caller
from api.chat.schemas import ChatMessage, ChatRequest, text_of_part
from api.generation.acceptance import Planned, fingerprint
from api.generation.request_checks import AGENT, check_prompt
from worker.core.errors import DreameryError
from worker.db.jobs.state_machine import NewJob

_SYSTEM = frozenset({"system", "developer"})
# What is said when nothing is: the front ends that do so want a sign of life.
_NOTHING = "Hello"


def plan_conversation(path: str, body: ChatRequest, caller: Caller) -> Planned:
    """The plan of a chat with the agent. Raises what is wrong with its messages."""
    caller.need_model(AGENT)
    turns, left_out = read_turns(body.messages)
    asked = body.model or AGENT
    fields = {"model": asked, "messages": turns, "user": body.user, "metadata": body.metadata, "webhook": body.webhook}
    job = NewJob(
        owner=caller.owner,
        kind="chat",
        model=AGENT,
        params={
            "order": {"messages": turns},
            "n": 0,
            "flags": {},
            "asked_model": asked,
            "images": [],
            **({"left_out": left_out} if left_out else {}),
        },
        account_ids=[],
        user_id=caller.user_id,
        api_key_id=caller.api_key_id,
        webhook_url=body.webhook or None,
        metadata={**(body.metadata or {}), **({"user": body.user} if body.user else {})},
    )
    return Planned(jobs=[job], n=0, fingerprint=fingerprint(path, fields, []))


def read_turns(messages: Sequence[ChatMessage]) -> tuple[list[dict[str, str]], int]:
    """The turns to send, and how many parts that are no text were left out.

    System texts go in front of the first user message with an empty line between; empty messages are dropped. Results
    of a client's own tools are told as the user's, for upstream knows no third side.
    """
    system: list[str] = []
    turns: list[dict[str, str]] = []
    left_out = 0
    for number, message in enumerate(messages):
        said, others = _text_of(message.content)
        left_out += others
        if not said.strip():
            continue
        check_prompt(said, f"messages.{number}.content")
        role = message.role.strip().lower()
        if role in _SYSTEM:
            system.append(said)
        elif role in {"user", "assistant", "tool", "function"}:
            turns.append({"role": "assistant" if role == "assistant" else "user", "text": said})
        else:
            raise DreameryError("invalid_value", _wrong_role(message.role), param=f"messages.{number}.role")
    return _with_system(turns, "\n".join(system)), left_out


def _wrong_role(role: str) -> str:
    return f"`role` must be system, developer, user, assistant or tool; got {role[:20]!r}."


def _with_system(turns: list[dict[str, str]], system: str) -> list[dict[str, str]]:
    first = next((turn for turn in turns if turn["role"] == "user"), None)
    if first is None:
        # Upstream answers a user; an assistant's words alone are no question.
        first = {"role": "user", "text": "" if system else _NOTHING}
        turns.append(first)
    if system:
        first["text"] = f"{system}\n\n{first['text']}" if first["text"] else system
    return turns


def _text_of(content: str | list[Any] | None) -> tuple[str, int]:
    """The text of a message, and how many of its parts hold none."""
    if not isinstance(content, list):
        return content or "", 0
    texts = [part if isinstance(part, str) else text_of_part(part) for part in content]
    return "\n".join(text for text in texts if text), sum(text is None for text in texts)
