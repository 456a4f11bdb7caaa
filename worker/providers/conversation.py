"""Conversations with the assistant of an upstream, and the events of its answer."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConversationMessage:
    """One message of a conversation."""

    role: str  # user, assistant
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """The messages that the agent answers, in order, the newest last."""

    messages: tuple[ConversationMessage, ...]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the agent's answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The agent requested a generation. Its job may follow as `JobStarted` with the same id."""

    id: str
    kind: str  # image or video, guessed from the call
    prompt: str = ""
    ratio: str = ""


@dataclass(frozen=True, slots=True)
class JobStarted:
    """Upstream started a job for the agent. Polls find it by `submit_key`, a UUID."""

    tool_call_id: str
    submit_key: str
    upstream_id: str
    kind: str  # image, video


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """The stream is alive, but the received bytes completed no event."""


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The answer is over. Not `complete` = the stream was closed without an end marker.

    `lacks_credits` = the agent started nothing and wrote that the account's credits do not suffice.
    """

    complete: bool
    lacks_credits: bool = False


AgentEvent = TextDelta | ToolCalled | JobStarted | KeepAlive | StreamEnded
