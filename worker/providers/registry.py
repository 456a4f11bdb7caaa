"""Which provider serves a job; one instance per process, shared by its threads."""

import threading
from functools import lru_cache

from worker.core.settings import get_settings
from worker.providers.base import Provider
from worker.providers.dreamina.client import DreaminaProvider

_making = threading.Lock()


def get_provider() -> Provider:
    """The provider of all current models."""
    # The cache alone lets the first threads of a worker make one each, with connections of their own.
    with _making:
        return _dreamina()


@lru_cache(maxsize=1)
def _dreamina() -> DreaminaProvider:
    return DreaminaProvider(get_settings())
