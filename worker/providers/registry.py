"""Which provider serves a job; one instance per process, shared by its threads."""

from functools import lru_cache

from worker.core.settings import get_settings
from worker.providers.dreamina.client import DreaminaProvider
from worker.providers.provider import Provider


@lru_cache(maxsize=1)
def get_provider() -> Provider:
    """The provider of all current models."""
    return DreaminaProvider(get_settings())
