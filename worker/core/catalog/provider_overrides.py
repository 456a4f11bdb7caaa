"""Hosts and constants of providers in the operator's catalog file: `[hosts.REGION]` and `[wire]`.

At the top of the file they belong to the first provider; `[providers.NAME.hosts.REGION]` and `[providers.NAME.wire]` to
any. The provider's data names the fields and their forms (`provider_data`). See docs/models.md.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from worker.core.catalog.provider_data import (
    HostFields,
    ProviderData,
    all_constants,
    all_providers,
    first_provider,
)

TABLES = ("hosts", "wire", "providers")
# Makes the error for a place in the file and a reason.
MakeError = Callable[[str, str], ValueError]
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?")
_AUTHORITY = re.compile(r"[a-z0-9.-]+(:[0-9]{1,5})?")
_SERVICE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FORMS = {"text": re.compile(r"[ -~]{1,300}"), "version": re.compile(r"[0-9A-Za-z._-]{1,32}")}
_PAIR_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# Valid cookie value (RFC 6265); it is encoded in a query.
_PAIR_VALUE = re.compile(r"[!#-+\--:<-\[\]-~]{0,2000}")


def check(content: Mapping[str, Any], make_error: MakeError) -> None:
    """Check the tables of the operator's file. Raises what `make_error` returns."""
    for provider, prefix, tables in _sections(content, make_error):
        for name, table in tables.items():
            if name not in {"hosts", "wire"}:
                raise make_error(f"{prefix}{name}", "is unknown; allowed are hosts, wire")
            if not isinstance(table, dict):
                raise make_error(f"{prefix}{name}", f"must be a table, written [{prefix}{name}]")
        _check_hosts(provider.hosts, tables.get("hosts", {}), prefix, make_error)
        _check_constants(provider, tables.get("wire", {}), prefix, make_error)


def check_given(given: Mapping[str, str]) -> None:
    """Check constants from the environment. Raises ValueError."""
    known = {constant.setting: constant for constant in all_constants()}
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"{name} is not a constant of a provider; there are {', '.join(known)}")
        if not _matches(_FORMS[known[name].form], value):
            raise ValueError(f"DREAMERY_{name.upper()} must be a text such as {known[name].default!r}; got {value!r}")


@lru_cache(maxsize=32)
def hosts(path: Path | None, provider: str, region: str) -> dict[str, Any]:
    """Return the host fields of a region from the operator's file."""
    return dict(_tables_of(path, provider).get("hosts", {}).get(region, {}))


def constants(path: Path | None, given: Mapping[str, str], provider: str) -> dict[str, str]:
    """Return the constants of a provider by name: from the operator's file, else the environment (`given`), else the
    default.
    """
    changed = _tables_of(path, provider).get("wire", {})
    return {
        constant.name: changed.get(constant.name) or given.get(constant.setting) or constant.default
        for constant in all_providers()[provider].constants
    }


def _tables_of(path: Path | None, provider: str) -> dict[str, Any]:
    if path is None:
        return {}
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    found = [tables for one, _, tables in _sections(content, _unexpected) if one.name == provider]
    return {
        "hosts": {region: table for tables in found for region, table in tables.get("hosts", {}).items()},
        "wire": {name: value for tables in found for name, value in tables.get("wire", {}).items()},
    }


def _unexpected(where: str, reason: str) -> ValueError:
    return ValueError(f"{where}: {reason}")


def _sections(content: Mapping[str, Any], make_error: MakeError) -> Iterator[tuple[ProviderData, str, dict[str, Any]]]:
    """Yield provider, prefix of its tables, and the tables: first those at the top of the file."""
    known = all_providers()
    yield known[first_provider()], "", {name: content[name] for name in ("hosts", "wire") if name in content}
    named = content.get("providers", {})
    if not isinstance(named, dict):
        raise make_error("providers", "must be a table, written [providers.NAME.wire]")
    for name, tables in named.items():
        if name not in known:
            raise make_error(f"providers.{name}", f"unknown provider; allowed are {', '.join(known)}")
        if not isinstance(tables, dict):
            raise make_error(f"providers.{name}", f"must be a table, written [providers.{name}.wire]")
        yield known[name], f"providers.{name}.", tables


def _check_hosts(fields: HostFields, tables: dict[str, Any], prefix: str, make_error: MakeError) -> None:
    for region, table in tables.items():
        where = f"{prefix}hosts.{region}"
        if region not in fields.regions:
            raise make_error(where, f"unknown region; allowed are {', '.join(fields.regions)}")
        if not isinstance(table, dict):
            raise make_error(where, f"must be a table, written [{where}]")
        for name, value in table.items():
            field = f"{where}, field {name!r}"
            if name not in fields.names:
                raise make_error(field, f"is unknown; allowed are {', '.join(fields.names)}")
            if region in fields.reported and name in fields.origins:
                raise make_error(field, "cannot be set, because upstream reports the hosts of these sessions")
            if reason := _host_problem(fields, name, value):
                raise make_error(field, reason)


def _host_problem(fields: HostFields, name: str, value: Any) -> str:
    """Return why the value does not have the form of its field; "" = it has."""
    example = fields.examples
    if name in fields.origins and not _matches(_ORIGIN, value):
        return f"must be an origin such as {example['origin']!r}; got {value!r}"
    if name in fields.authorities and not _matches(_AUTHORITY, value):
        return f"must be a host such as {example['authority']!r}; got {value!r}"
    if name in fields.services and not _matches(_SERVICE, value):
        return f"must be a service id such as {example['service']!r}; got {value!r}"
    if name in fields.numbers and not _is_number(value):
        return f"must be a number such as {example['number']}; got {value!r}"
    return _pairs_problem(fields, value) if name in fields.pairs else ""


def _pairs_problem(fields: HostFields, value: Any) -> str:
    if not isinstance(value, dict):
        return 'must be a table, such as { "name" = "value" }'
    for key, text in value.items():
        if not _PAIR_NAME.fullmatch(key) or key.lower() in fields.reserved:
            return f"{key!r} cannot be set here"
        # The value may be a secret, so the message does not repeat it.
        if not _matches(_PAIR_VALUE, text):
            return f"the value of {key!r} must be a string without spaces, quotes or semicolons"
    return ""


def _check_constants(provider: ProviderData, table: dict[str, Any], prefix: str, make_error: MakeError) -> None:
    known = {constant.name: constant for constant in provider.constants}
    for name, value in table.items():
        field = f"{prefix}wire, field {name!r}"
        if name not in known:
            raise make_error(field, f"is unknown; allowed are {', '.join(known)}")
        if not _matches(_FORMS[known[name].form], value):
            raise make_error(field, f"must be a string such as {known[name].default!r}; got {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
