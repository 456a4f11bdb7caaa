"""What every process checks before its first job: the database answers, has a schema, and belongs to its master key."""

import math
import threading
import time

from worker.core.observability.logging import get_logger
from worker.core.security.encryption import SecretUnreadableError
from worker.db.connecting.reasons import first_line, known_reason, reason_for_operators
from worker.db.engine import DATABASE_ERRORS, DATABASE_UNAVAILABLE_ERRORS
from worker.db.platform import root_key

log = get_logger("startup")

# While the database is away: the time between attempts, and between lines of the log.
_PAUSE_SECONDS = 1.0
_LOG_SECONDS = 15.0
_ERRORS: tuple[type[Exception], ...] = (SecretUnreadableError, *DATABASE_ERRORS)
# libpq gives no SQLSTATE for a connection that the server refused, only the text.
_REFUSED_TEXTS = {
    "password authentication failed": "Postgres refuses its user or password",
    "no password supplied": "Postgres requires a password, and it contains none",
    "no pg_hba.conf entry": "Postgres does not allow its user, host or encryption (pg_hba.conf)",
    'role "': "Postgres has no such user",
    'database "': "Postgres has no such database",
    "no such user": "PgBouncer has no such user",
    "no such database": "PgBouncer has no such database",
    "statement pooling mode": "PgBouncer is in statement mode, which has no transactions; set pool_mode = transaction",
    "unsupported startup parameter": "PgBouncer refuses one of its parameters",
    "certificate verify failed": "the certificate of the server is not of the authority in sslrootcert",
    "signature failure": "the certificate of the server is not of the authority in sslrootcert",
    "root certificate file": "the file of sslrootcert is missing or unreadable",
    "does not match host name": "the certificate of the server is for another host name",
    "does not support SSL": "it requires TLS, and the server has none",
    "certificate file": "the file of sslcert is missing or unreadable",
    "private key file": "the file of sslkey is missing or readable by others",
    "requires a valid client certificate": "the server requires a client certificate (sslcert, sslkey)",
    "invalid connection option": "a parameter after the ? does not exist",
    "invalid sslmode value": "its sslmode does not exist (verify-full checks certificate and host name)",
    "invalid target_session_attrs value": "its target_session_attrs does not exist (read-write is usual)",
    "invalid integer value": "a parameter after the ? must be a number",
}
_NEEDS_MISSING = ('role "', 'database "')


def require_root_key() -> None:
    """Load the root key; wait as long as the database does not answer. Raises SystemExit with one sentence."""
    pause, logged_at = threading.Event(), -math.inf
    while True:
        try:
            root_key.try_to_load_root_key()
        except _ERRORS as error:
            reason = refusal_reason(error)
            if reason is not None:
                raise SystemExit(f"Error: {reason}") from None
            if not isinstance(error, DATABASE_UNAVAILABLE_ERRORS):
                raise
            if time.monotonic() - logged_at > _LOG_SECONDS:
                logged_at = time.monotonic()
                log.warning("waiting_for_database", reason=reason_for_operators(error))
            pause.wait(_PAUSE_SECONDS)
        else:
            return


def refusal_reason(error: Exception) -> str | None:
    """Return why a process cannot start after this error, with the setting and the remedy; None = waiting may help."""
    if isinstance(error, SecretUnreadableError):
        return str(error)
    text = str(error)
    if 'relation "keyring" does not exist' in text:
        return "The database of DREAMERY_DATABASE_URL has no tables of Dreamery: run `dreamery migrate` first."
    for part, meaning in _REFUSED_TEXTS.items():
        if part in text and (part not in _NEEDS_MISSING or "does not exist" in text):
            return f"DREAMERY_DATABASE_URL is wrong: {meaning}. Correct it ({first_line(error)})."
    return None


def explain(error: Exception) -> str:
    """Return the true reason of a failed command, as a sentence for the terminal."""
    return known_reason(error) or refusal_reason(error) or first_line(error)
