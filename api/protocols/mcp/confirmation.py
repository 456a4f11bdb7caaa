"""Ask the user of a client for consent (elicitation), in the way of the protocol version that the client speaks."""

from typing import Any

from mcp.server import ServerRequestContext
from mcp.types import (
    CallToolRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
)
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

_KEY = "confirm_cost"
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "confirm": {"type": "boolean", "title": "Generate", "description": "true = generate it for this cost"}
    },
    "required": ["confirm"],
}


class InputNeededError(Exception):
    """The call ends here, and the client repeats it with the answer of its user."""

    def __init__(self, result: InputRequiredResult) -> None:
        super().__init__("the user is asked")
        self.result = result


class ClientConfirmation:
    """The user behind one tool call."""

    def __init__(self, context: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> None:
        self._context, self._params = context, params

    async def ask(self, message: str, cost: float | None) -> bool | None:
        """Return the answer of the user; None = this client cannot ask.

        In the versions without sessions the call ends with InputNeededError. It is repeated with the answer and the
        cost that was shown, and the user is asked again if it has risen since.
        """
        capabilities = self._context.session.client_capabilities
        can_ask = capabilities is not None and capabilities.elicitation is not None
        if self._context.protocol_version in MODERN_PROTOCOL_VERSIONS:
            given = (self._params.input_responses or {}).get(_KEY)
            if isinstance(given, ElicitResult) and _covers(self._params.request_state, cost):
                return _is_yes(given)
            if not can_ask:
                return None
            request = ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=_SCHEMA))
            state = "unknown" if cost is None else f"{cost:.6f}"
            raise InputNeededError(InputRequiredResult(input_requests={_KEY: request}, request_state=state))
        if not can_ask or not self._context.session.can_send_request:
            return None
        answer = await self._context.session.elicit_form(message, _SCHEMA, related_request_id=self._context.request_id)
        return _is_yes(answer)


def _is_yes(answer: ElicitResult) -> bool:
    return answer.action == "accept" and (answer.content or {}).get("confirm") is True


def _covers(state: str | None, cost: float | None) -> bool:
    """Whether the user has seen this cost. The client could change it, but it may also agree without asking."""
    if state is None or cost is None:
        return state == "unknown" and cost is None
    try:
        return float(state) + 1e-6 >= cost
    except ValueError:
        return False
