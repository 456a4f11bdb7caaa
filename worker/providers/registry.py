"""Returns the provider: one instance per process, shared by its threads."""

import threading
from functools import lru_cache

from worker.core.settings import get_settings
from worker.providers.base import Provider
from worker.providers.dreamina.client import DreaminaProvider

_create_lock = threading.Lock()


def get_provider() -> Provider:
    """Return the provider of all current models."""
    # Without the lock the first threads of a worker would create several instances, each with its own connections.
    with _create_lock:
        return _dreamina()


@lru_cache(maxsize=1)
def _dreamina() -> DreaminaProvider:
    return DreaminaProvider(get_settings())
