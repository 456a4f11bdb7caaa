"""Which provider's accounts answer chats with the agent: the one whose data has an assistant."""

from worker.core.catalog.provider_data import ProviderData, all_providers
from worker.core.catalog.upstream_models import UpstreamModels
from worker.core.errors import DreameryError

AGENT = "agent"


def agent_of(offer: UpstreamModels) -> ProviderData | None:
    """Return the provider whose assistant the caller's accounts offer; None = none of them does."""
    known = all_providers()
    return next((known[name] for name in offer.providers if known[name].agent is not None), None)


def require_agent(offer: UpstreamModels) -> ProviderData:
    """Return the provider of the assistant. Raises `model_not_found` if no account of the caller has one."""
    found = agent_of(offer)
    if found is None:
        names = " or ".join(offer.providers)
        message = f"Accounts of {names} have no agent. Use an image or video model, or other accounts."
        raise DreameryError("model_not_found", message, param="model")
    return found
