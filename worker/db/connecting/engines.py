"""Engines for the URL of the settings: what each connection needs to notice that its server is gone."""

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.pool import NullPool

from worker.db.connecting.connection import Connector, parse_options

# The kernel ends a connection whose peer is gone: after this time without an acknowledgement, or when idle after the
# probes. The URL may set other values, for example `?tcp_user_timeout=60000`.
_DEFAULTS = {
    "connect_timeout": "3",
    "tcp_user_timeout": "8000",  # milliseconds
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    # A server that is read-only after a failover is refused at once, and the next host of the URL is tried.
    "target_session_attrs": "read-write",
}
# Several hosts are tried one after the other; libpq's shortest time is 2 s.
_CONNECT_SECONDS_OF_SEVERAL = "2"
_NO_LIMITS = {"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0"}
_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "us": 0.000001, "": 0.001}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d|)")


def connection_arguments(url: URL, application_name: str) -> dict[str, Any]:
    """Return the parameters of libpq for connections to this URL, which has the last word on all but the name."""
    arguments: dict[str, Any] = {name: value for name, value in _DEFAULTS.items() if name not in url.query}
    hosts = url.query.get("host", ())
    if "connect_timeout" in arguments and not isinstance(hosts, str) and len(hosts) > 1:
        arguments["connect_timeout"] = _CONNECT_SECONDS_OF_SEVERAL
    options = url.query.get("options", ())
    if not isinstance(options, str):
        arguments["options"] = " ".join(options)
    return arguments | {"application_name": application_name}


def answer_limit(url: URL, session: Mapping[str, str], margin: float) -> float | None:
    """Return the seconds after which no answer can come any more: the server's own limit and a margin; None = none."""
    options = url.query.get("options", ())
    given = parse_options(options if isinstance(options, str) else " ".join(options))
    limit = _DURATION.fullmatch((dict(session) | given).get("statement_timeout", "0").strip())
    seconds = float(limit[1]) * _UNITS[limit[2]] if limit else 0.0
    return seconds + margin if seconds else None


def command_engine(
    url: str, *, application_name: str = "dreamery", local: Mapping[str, str] | None = None, limits_of_url: bool = True
) -> Engine:
    """Return an engine for a command: one connection at a time, and statements may take as long as they need.

    `local` are settings of each of its transactions. `limits_of_url` = a time limit in the `options` of the URL counts.
    """
    parsed = make_url(url)
    engine = create_engine(parsed, poolclass=NullPool, connect_args=connection_arguments(parsed, application_name))
    connector = Connector(_NO_LIMITS, local or {}, session_wins=not limits_of_url)
    event.listen(engine, "do_connect", lambda _dialect, _record, _args, parameters: connector.open(parameters))
    return engine
