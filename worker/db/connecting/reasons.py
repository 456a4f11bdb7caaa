"""Why the database refuses or does not answer, in words. libpq has no codes for most of it, only texts."""

READ_ONLY = (
    "The database is read-only: the server is a standby, or default_transaction_read_only is on. Connect to the "
    "primary."
)
NO_CONNECTION_FREE = (
    "Postgres has no free connection (max_connections, or a limit of the role or database). Stop something that uses "
    "it, or raise the limit."
)
STARTING_OR_STOPPING = "The database server is starting or stopping."
NO_ANSWER = "The database does not respond."
DISK_FULL = "The disk of the database is full."
_NO_POOLED_CONNECTION = (
    "PgBouncer gave no connection in time (pool_size, max_db_connections, max_client_conn, query_wait_timeout). "
    "Raise its limits, or start fewer processes."
)
# The states of a session that the server has ended, or that can only fail: reading may still work, writing does not.
LOST_STATES = frozenset({"25006", "25P03", "25P04", "57P01", "57P02", "57P03", "57P04", "57P05"})

_WORDS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("session is read-only", "read-only transaction", "server is in hot standby mode"), READ_ONLY),
    (("No space left on device", "could not extend file"), DISK_FULL),
    (("too many clients", "connection slots", "too many connections"), NO_CONNECTION_FREE),
    (("query_wait_timeout", "no more connections allowed"), _NO_POOLED_CONNECTION),
    (
        ("starting up", "shutting down", "in recovery mode", "terminating connection due to administrator command"),
        STARTING_OR_STOPPING,
    ),
    (("no answer from the server", "timeout expired", "connection timed out"), NO_ANSWER),
)


def known_reason(error: BaseException) -> str | None:
    """Return the reason in words without any address, fit for callers; None = another one."""
    text = str(error)
    if getattr(getattr(error, "orig", error), "sqlstate", None) == "25006":
        return READ_ONLY
    return next((words for parts, words in _WORDS if any(part in text for part in parts)), None)


def reason_for_operators(error: BaseException) -> str:
    """Return the reason in words, or the driver's own line."""
    known = known_reason(error)
    return f"{known} ({first_line(error)})" if known == NO_ANSWER else known or first_line(error)


def reason_for_callers(error: BaseException) -> str:
    """Return the reason without any address or name of the operator's network."""
    return known_reason(error) or NO_ANSWER


def first_line(error: BaseException) -> str:
    """Return the first line of the message, without the driver's class in front of it."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.partition(") ")[2] if line.startswith("(psycopg.") else line
