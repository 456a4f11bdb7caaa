"""Returns the provider of an account: one instance of each per process, shared by its threads."""

import pkgutil
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from worker.core.settings import Settings, get_settings
from worker.providers.base import Provider
from worker.providers.poll_rules import PollRules

Capability = TypeVar("Capability")

# Name in `accounts.provider` -> the module of its `create(settings)`. Nothing else names these modules.
_MODULES = {
    "dreamina": "worker.providers.dreamina.client",
    "ark": "worker.providers.ark.provider",
}
_create_lock = threading.Lock()
_instances: dict[str, Provider] = {}


class OfProvider(Protocol):
    """An account, as a row or prepared for a call."""

    @property
    def provider(self) -> str:
        """The name of its provider."""


def get_provider(account: OfProvider) -> Provider:
    """Return the provider of an account. Raises KeyError if this version does not know it."""
    # Without the lock the first threads of a worker would create several instances, each with its own connections.
    with _create_lock:
        return PROVIDERS[account.provider]()


def poll_rules(account: OfProvider) -> PollRules:
    """Return how open orders of the account are asked for. That calls nothing outside."""
    return get_provider(account).capabilities.polling


def required(capability: Capability | None) -> Capability:
    """Return a capability that the caller knows is offered. Raises LookupError if it is not."""
    if capability is None:
        raise LookupError("the provider of this account does not offer that")
    return capability


def takers_of_files() -> frozenset[str]:
    """Return the providers without uploads: their upstreams take references within the order."""
    with _create_lock:
        return frozenset(name for name, get in PROVIDERS.items() if get().capabilities.uploads is None)


def close_providers() -> None:
    """Close the connections of all providers. Later calls create new ones with the settings of that time."""
    while _instances:
        _instances.popitem()[1].close()


def _shared(name: str, create: Callable[[Settings], Provider]) -> Callable[[], Provider]:
    def instance() -> Provider:
        if name not in _instances:
            _instances[name] = create(get_settings())
        return _instances[name]

    return instance


# Name -> the function that creates or returns it.
PROVIDERS: dict[str, Callable[[], Provider]] = {
    name: _shared(name, pkgutil.resolve_name(f"{module}:create")) for name, module in _MODULES.items()
}
