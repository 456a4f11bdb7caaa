"""The registry: one instance of each provider, its data file, and what each promises to have."""

import inspect
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest

from worker.core.catalog.provider_data import all_providers
from worker.providers.base import Capabilities, Provider
from worker.providers.registry import PROVIDERS, close_providers, get_provider, required


def methods_of(protocol: type) -> list[str]:
    return [name for name, value in vars(protocol).items() if not name.startswith("_") and callable(value)]


def test_each_provider_has_a_data_file_and_each_data_file_a_provider() -> None:
    assert set(PROVIDERS) == set(all_providers())


@pytest.mark.parametrize("name", PROVIDERS)
def test_provider_has_the_core_and_the_capabilities_that_it_names(name: str) -> None:
    provider = PROVIDERS[name]()
    for method in methods_of(Provider):
        assert callable(getattr(provider, method)), method
    for field, hint in get_type_hints(Capabilities).items():
        offered = getattr(provider.capabilities, field)
        protocols = [one for one in get_args(hint) if inspect.isclass(one) and one is not type(None)]
        for method in methods_of(protocols[0]) if offered is not None and protocols else ():
            assert callable(getattr(offered, method)), f"{field}: {method}"


def test_threads_share_one_instance_until_it_is_closed() -> None:
    account = SimpleNamespace(provider=next(iter(PROVIDERS)))
    first = get_provider(account)
    assert get_provider(account) is first
    close_providers()
    assert get_provider(account) is not first


def test_unknown_provider_and_missing_capability_are_errors() -> None:
    with pytest.raises(KeyError):
        get_provider(SimpleNamespace(provider="nobody"))
    with pytest.raises(LookupError, match="does not offer that"):
        required(None)
