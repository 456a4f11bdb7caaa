"""What `dreamery doctor` asks about the database server and the way to it."""

from dataclasses import dataclass

from sqlalchemy import Connection, make_url, text

from worker.core.settings import get_settings
from worker.db.connecting.connection import BoundedConnection
from worker.db.connecting.engines import answer_limit, command_engine
from worker.db.connecting.reasons import READ_ONLY

# The share of the server's connections that is left must not be smaller.
_FREE_SHARE = 0.1
_TRIES = 3


@dataclass(frozen=True, slots=True)
class ServerFinding:
    """The result of one question. `hint` tells how to fix it if `ok` is false."""

    ok: bool
    detail: str
    hint: str = ""


def run() -> list[ServerFinding]:
    """Ask the server of the settings. Raises its errors."""
    engine = command_engine(get_settings().sqlalchemy_url, application_name="dreamery-doctor")
    try:
        with engine.connect() as connection:
            found = [_limits(), _writes(connection), _free_connections(connection), _encryption(connection)]
        with (
            engine.connect().execution_options(isolation_level="AUTOCOMMIT") as first,
            engine.connect() as second,
        ):
            return [*found, _pooler(first, second)]
    finally:
        engine.dispose()


def _limits() -> ServerFinding:
    query = make_url(get_settings().sqlalchemy_url).query
    for name in ("tcp_user_timeout", "keepalives", "connect_timeout"):
        if query.get(name) == "0":
            hint = f"Remove {name}=0 from DREAMERY_DATABASE_URL: processes would wait for a server that is gone."
            return ServerFinding(ok=False, detail=f"{name} is off", hint=hint)
    if answer_limit(make_url(get_settings().sqlalchemy_url), {"statement_timeout": "1"}, 0.0) is None:
        hint = "Remove statement_timeout=0 from the options of DREAMERY_DATABASE_URL."
        return ServerFinding(ok=False, detail="nothing limits how long a statement may take", hint=hint)
    return ServerFinding(ok=True, detail="every wait for it is limited")


def _writes(connection: Connection) -> ServerFinding:
    read_only = connection.scalar(text("SELECT current_setting('transaction_read_only')")) == "on"
    hint = "Name all servers in DREAMERY_DATABASE_URL with target_session_attrs=read-write, or promote this one."
    return ServerFinding(ok=not read_only, detail=READ_ONLY if read_only else "can be written to", hint=hint)


def _free_connections(connection: Connection) -> ServerFinding:
    used, most = connection.execute(
        text("SELECT (SELECT count(*) FROM pg_stat_activity), current_setting('max_connections')::int")
    ).one()
    hint = (
        "Raise max_connections, lower DREAMERY_DB_POOL_SIZE, or put PgBouncer in transaction mode in front: each "
        "process takes up to DREAMERY_DB_POOL_SIZE + 8."
    )
    return ServerFinding(ok=used < most * (1 - _FREE_SHARE), detail=f"{used} of {most} connections in use", hint=hint)


def _encryption(connection: Connection) -> ServerFinding:
    driver = connection.connection.driver_connection
    encrypted = isinstance(driver, BoundedConnection) and driver.pgconn.ssl_in_use
    mode = make_url(get_settings().sqlalchemy_url).query.get("sslmode")
    verified = mode in {"verify-ca", "verify-full"}
    if not encrypted:
        return ServerFinding(ok=True, detail="the connection is not encrypted (sslmode=verify-full for other machines)")
    checked = "its certificate is checked" if verified else "its certificate is not checked (sslmode=verify-full does)"
    return ServerFinding(ok=True, detail=f"the connection is encrypted, {checked}")


def _pooler(first: Connection, second: Connection) -> ServerFinding:
    driver = first.connection.driver_connection
    if not isinstance(driver, BoundedConnection) or not driver.through_pooler:
        return ServerFinding(ok=True, detail="connected directly, without a pooler")
    mode = "transaction" if _share_sessions(first, second) else "session"
    return ServerFinding(ok=True, detail=f"connected through a pooler (PgBouncer or similar) in {mode} mode")


def _share_sessions(one: Connection, other: Connection) -> bool:
    """Whether a session of the server belongs to a client for one transaction only: then two clients share it."""
    ask = text("SELECT pg_backend_pid()")
    ours, theirs = set(), set()
    for _ in range(_TRIES):
        ours.add(one.scalar(ask))
        for _ in range(_TRIES):  # a pooler may take its sessions in turn
            theirs.add(other.scalar(ask))
            other.rollback()
    return len(ours) > 1 or bool(ours & theirs)
