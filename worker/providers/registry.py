"""Returns the provider of an account: one instance of each per process, shared by its threads."""

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol, TypeVar

from worker.core.settings import get_settings
from worker.providers.base import Provider
from worker.providers.dreamina.client import DreaminaProvider

Capability = TypeVar("Capability")

_create_lock = threading.Lock()


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


def required(capability: Capability | None) -> Capability:
    """Return a capability that the caller knows is offered. Raises LookupError if it is not."""
    if capability is None:
        raise LookupError("the provider of this account does not offer that")
    return capability


@lru_cache(maxsize=1)
def _dreamina() -> DreaminaProvider:
    return DreaminaProvider(get_settings())


# Name -> the function that creates or returns it. `accounts.provider` has the names.
PROVIDERS: dict[str, Callable[[], Provider]] = {"dreamina": _dreamina}
