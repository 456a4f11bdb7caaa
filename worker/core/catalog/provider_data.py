"""What the platform knows of each provider beside its models: one file per provider in `providers/`, named after it.

Code below `worker/providers` has the wire; everything else reads these files and names no provider. The tables:

- `title`; `first = true` for the provider of accounts and tables that name none; `regions` of its accounts.
- `[credentials]`: their `kind`, `session` or `key`, and how they name a region (see `Credentials`).
- `[limits]`: limits of a new account (`max_images`, `max_videos`, `submits_per_minute`), else those of the settings.
- `[currencies]`: region -> currency in which its accounts pay. Without an entry they have credits of upstream's own.
- `[day_zones]`: region -> time zone of the day in which its limits and daily credits count. Without an entry UTC.
- `[hosts]`: fields of `[hosts.REGION]` in the operator's file, by form, with an example of each form.
- `[agent]`: its assistant in the model list, if it has one.
- `[constants.NAME]`: text that calls contain and that upstream changes now and then.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "providers"
DEFAULT_DAY_ZONE = "UTC"


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant of a provider's wire. `former`: the setting's name in earlier versions, "" = none."""

    provider: str
    name: str
    default: str
    description: str
    form: str = "version"
    former: str = ""

    @property
    def setting(self) -> str:
        """The name of its setting, in lower case and without prefix."""
        return f"{self.provider}_{self.name}"


@dataclass(frozen=True, slots=True)
class HostFields:
    """Fields of `[hosts.REGION]` in the operator's file, by form. `reported`: regions whose origins upstream names."""

    regions: tuple[str, ...] = ()
    reported: frozenset[str] = frozenset()
    origins: tuple[str, ...] = ()
    authorities: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    reserved: frozenset[str] = frozenset()
    examples: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """All fields."""
        return (*self.origins, *self.authorities, *self.services, *self.numbers, *self.pairs)


@dataclass(frozen=True, slots=True)
class CredentialSite:
    """A web site where people find a credential of their account."""

    title: str
    address: str
    region: str  # of the credentials that are found there
    cookie: str | None = None  # whose value is the credential; None = the site shows a key


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials of a provider: notations of regions, and how many refusals in a row mean that one is useless."""

    kind: str = "key"  # session, key
    prefixes: frozenset[str] = frozenset()  # regions that a session id may name in front
    looked_up: frozenset[str] = frozenset()  # regions whose hosts must be looked up
    login_refusals: int = 1
    block_refusals: int = 1
    bases: Mapping[str, str] = field(default_factory=dict)  # region -> the address by which people name it
    sites: tuple[CredentialSite, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentData:
    """The assistant of an upstream, as the model list shows it. `where`: places that have it."""

    name: str
    tip: str
    key: str
    where: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProviderData:
    """The file of one provider. `tables` is all of it."""

    name: str
    title: str
    first: bool
    regions: tuple[str, ...]
    credentials: Credentials
    currencies: Mapping[str, str]
    day_zones: Mapping[str, str]
    hosts: HostFields
    constants: tuple[Constant, ...]
    tables: Mapping[str, Any]
    agent: AgentData | None = None

    @property
    def has_sessions(self) -> bool:
        """Whether its credentials are sessions of a web site, which expire; otherwise they are keys."""
        return self.credentials.kind == "session"

    @property
    def region_prefixes(self) -> frozenset[str]:
        """The regions that a credential may name in front."""
        return self.credentials.prefixes

    def currency_of(self, region: str) -> str | None:
        """Return the currency in which accounts of a region pay; None = credits of upstream's own."""
        return self.currencies.get(region)

    def day_zone_of(self, region: str) -> str:
        """Return the time zone of the day in which limits of accounts of a region count."""
        return self.day_zones.get(region, DEFAULT_DAY_ZONE)


@lru_cache(maxsize=1)
def all_providers() -> dict[str, ProviderData]:
    """Return the providers by name: the first one, then by name.

    In this order they are asked for a name that several have, unless the operator's file has a route for it.
    """
    found = [_read(path) for path in sorted(_FOLDER.glob("*.toml"))]
    return {one.name: one for one in sorted(found, key=lambda one: not one.first)}


def first_provider() -> str:
    """Return the name of the provider of accounts that name none."""
    return next(iter(all_providers()))


def shipped_model(kind: str) -> str:
    """Return the model of a kind (`image`, `video`) that is the default without an operator's file, for examples."""
    return str(all_providers()[first_provider()].tables[f"default_{kind}_model"])


def all_regions() -> tuple[str, ...]:
    """Return the regions of all providers, without repeats."""
    return tuple(dict.fromkeys(region for one in all_providers().values() for region in one.regions))


def check_default_region(region: str) -> str:
    """Return the region if accounts of the first provider may have it. Raises ValueError."""
    regions = all_providers()[first_provider()].regions
    if region not in regions:
        raise ValueError(f"must be one of {', '.join(regions)}")
    return region


def all_constants() -> tuple[Constant, ...]:
    """Return the constants of all providers."""
    return tuple(constant for one in all_providers().values() for constant in one.constants)


def constants_in(variables: Mapping[str, str | None]) -> dict[str, str]:
    """Return the constants that the environment sets, by name of the setting; the present name wins over the former.

    `variables` has names in lower case, with prefix.
    """
    found: dict[str, str] = {}
    for constant in all_constants():
        for name in (constant.setting, constant.former.lower()):
            value = variables.get(f"dreamery_{name}") if name else None
            if value is not None:
                found.setdefault(constant.setting, value)
    return found


def _read(path: Path) -> ProviderData:
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return ProviderData(
        name=path.stem,
        title=tables["title"],
        first=tables.get("first", False),
        regions=tuple(tables["regions"]),
        credentials=_credentials(tables.get("credentials", {})),
        currencies=tables.get("currencies", {}),
        day_zones=tables.get("day_zones", {}),
        hosts=_host_fields(tables.get("hosts", {})),
        constants=tuple(
            Constant(provider=path.stem, name=name, **fields) for name, fields in tables.get("constants", {}).items()
        ),
        tables=tables,
        agent=AgentData(**{**tables["agent"], "where": tuple(tables["agent"]["where"])}) if "agent" in tables else None,
    )


def _credentials(table: Mapping[str, Any]) -> Credentials:
    return Credentials(
        kind=table.get("kind", "key"),
        prefixes=frozenset(table.get("prefixes", ())),
        looked_up=frozenset(table.get("looked_up", ())),
        login_refusals=table.get("login_refusals", 1),
        block_refusals=table.get("block_refusals", 1),
        bases=table.get("bases", {}),
        sites=tuple(CredentialSite(**site) for site in table.get("sites", ())),
    )


def _host_fields(table: Mapping[str, Any]) -> HostFields:
    def names(key: str) -> tuple[str, ...]:
        return tuple(table.get(key, ()))

    return HostFields(
        regions=names("regions"),
        reported=frozenset(names("reported")),
        origins=names("origins"),
        authorities=names("authorities"),
        services=names("services"),
        numbers=names("numbers"),
        pairs=names("pairs"),
        reserved=frozenset(names("reserved")),
        examples=table.get("examples", {}),
    )
