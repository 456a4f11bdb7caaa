"""One tool call: who calls, how progress is reported, and what the tools know about the client."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from api.protocols.mcp.gateways.protocol import Gateway


@dataclass(frozen=True, slots=True)
class ToolSettings:
    """`confirm_above`: costs that need the consent of the user, as in the setting. `longest_wait`: seconds."""

    confirm_above: str
    longest_wait: float


class Confirmation(Protocol):
    """Asks the user of the client."""

    async def ask(self, message: str, cost: float | None) -> bool | None:
        """Return the answer of the user; None = this client cannot ask. May end the call to continue it later."""


@dataclass(slots=True)
class Call:
    """What a tool works with. `report(percent, message)` sends a progress notification, if the client wants them."""

    gateway: Gateway
    settings: ToolSettings
    report: Callable[[float, str], Awaitable[None]]
    confirmation: Confirmation
    has_links: bool = True  # whether the protocol version of the client has resource links


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tool returns: structured content, the same in words, and previews as (bytes, MIME type)."""

    structured: dict[str, Any]
    text: str
    links: list[dict[str, Any]] = field(default_factory=list)
    previews: list[tuple[bytes, str]] = field(default_factory=list)
    failed: bool = False
