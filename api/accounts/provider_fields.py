"""Fields of accounts that depend on their provider: region, names of models upstream, limit group, prices."""

from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from worker.core.catalog.models import get_catalog
from worker.core.catalog.price_lists import check_own_prices
from worker.core.catalog.provider_data import ProviderData, all_providers, first_provider
from worker.core.errors import DreameryError
from worker.core.settings import get_settings
from worker.db.accounts import management

_KEYS_ONLY = ("limit_group", "model_ids", "prices")


def provider_named(name: str | None) -> ProviderData:
    """Return the provider of this name, or the first one. Raises `invalid_value`."""
    known = all_providers()
    provider = known.get((name or first_provider()).strip().lower())
    if provider is None:
        raise DreameryError("invalid_value", f"`provider` must be one of {', '.join(known)}.", param="provider")
    return provider


def region_named(provider: ProviderData, name: str | None) -> tuple[str, list[str]]:
    """Return the region of accounts that name none, and warnings. `name` = a region or the address of one.

    "" = each account must name its own. Raises `invalid_value`.
    """
    if not name:
        return (get_settings().default_region if provider.name == first_provider() else ""), []
    text = name.strip().lower().rstrip("/")
    if text in provider.regions:
        return text, []
    if "://" in text:
        return _region_of_address(provider, text)
    message = f"`region` must be one of {', '.join(provider.regions)} for provider `{provider.name}`."
    raise DreameryError("invalid_value", message, param="region")


def _region_of_address(provider: ProviderData, address: str) -> tuple[str, list[str]]:
    bases = provider.credentials.bases
    host = urlsplit(address).hostname
    for region, base in bases.items():
        if address == base:
            return region, []
        if host == urlsplit(base).hostname:
            warning = (
                f"The address {address} is not {base}. Keys of subscription plans have another address, are billed "
                "differently and may be refused here."
            )
            return region, [warning]
    message = (
        f"`region` is not an address where this provider generates images and videos: {', '.join(bases.values())}."
    )
    raise DreameryError("invalid_value", message, param="region")


def columns_of(provider: ProviderData, fields: dict[str, Any], owner: UUID | None) -> dict[str, Any]:
    """Return the columns of the fields that are set. Raises `unsupported_parameter` or `invalid_value`."""
    given = {name: value for name, value in fields.items() if name in _KEYS_ONLY}
    if provider.has_sessions:
        if unfit := next((name for name, value in given.items() if value), None):
            message = f"Accounts of provider `{provider.name}` have no `{unfit}`."
            raise DreameryError("unsupported_parameter", message, param=unfit)
        return {}
    columns = dict(given)
    if "limit_group" in given:
        group = given["limit_group"]
        columns["limit_group"] = management.group_key(owner, group) if group else None
    if "model_ids" in given:
        columns["model_ids"] = _model_ids(provider, given["model_ids"] or {})
    if "prices" in given:
        columns["prices"] = given["prices"] or {}
        try:
            check_own_prices(columns["prices"])
        except ValueError as error:
            raise DreameryError("invalid_value", f"`prices` is invalid: {error}.", param="prices") from None
    return columns


def _model_ids(provider: ProviderData, model_ids: dict[str, str]) -> dict[str, str]:
    """Return the map with our names of the models; upstream's ids are accepted too."""
    names = model_names(provider)
    found: dict[str, str] = {}
    for name, upstream_id in model_ids.items():
        if name not in names:
            known = ", ".join(sorted(set(names.values())))
            message = f"`model_ids` names {name[:60]!r}, which is no model of this provider. It has: {known}."
            raise DreameryError("invalid_value", message, param="model_ids")
        found[names[name]] = upstream_id
    return found


def model_names(provider: ProviderData) -> dict[str, str]:
    """Return our name of each model of the provider by that name and by upstream's ids."""
    catalog = get_catalog()
    models = [model for model in (*catalog.image_models, *catalog.video_models) if model.provider == provider.name]
    return {name: model.id for model in models for name in (model.id, *model.keys)}
