"""How the URL of the database becomes the parameters of a connection, and errors become words."""

import psycopg
import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError

from worker.db.connecting.connection import parse_options
from worker.db.connecting.engines import answer_limit, connection_arguments
from worker.db.connecting.reasons import NO_ANSWER, READ_ONLY, reason_for_callers, reason_for_operators
from worker.db.platform.startup import refusal_reason

ONE = "postgresql+psycopg://u:p@a:5432/d"
TWO = "postgresql+psycopg://u:p@/d?host=a:5432&host=b:5433"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("", {}),
        ("-c work_mem=9MB", {"work_mem": "9MB"}),
        ("-cwork_mem=9MB -cgeqo=off", {"work_mem": "9MB", "geqo": "off"}),
        ("--work-mem=9MB --Geqo=off", {"work_mem": "9MB", "geqo": "off"}),
        ("-c a.b=one\\ word\\\\", {"a.b": "one word\\"}),
        ("-c work_mem=1MB -c work_mem=2MB", {"work_mem": "2MB"}),
        ("-c search_path=", {"search_path": ""}),
    ],
)
def test_options(options: str, found: dict[str, str]) -> None:
    assert parse_options(options) == found


def test_defaults_of_a_connection() -> None:
    arguments = connection_arguments(make_url(ONE), "dreamery")
    assert arguments["connect_timeout"] == "3"
    assert arguments["tcp_user_timeout"] == "8000"
    assert arguments["target_session_attrs"] == "read-write"
    assert arguments["application_name"] == "dreamery"
    assert connection_arguments(make_url(TWO), "dreamery")["connect_timeout"] == "2"


@pytest.mark.parametrize("name", ["connect_timeout", "tcp_user_timeout", "keepalives_idle", "target_session_attrs"])
def test_url_wins(name: str) -> None:
    assert name not in connection_arguments(make_url(f"{ONE}?{name}=9"), "dreamery")


def test_name_of_the_application_is_ours() -> None:
    """A restore looks for it."""
    assert connection_arguments(make_url(f"{ONE}?application_name=x"), "dreamery")["application_name"] == "dreamery"


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ("", 7.0),
        ("-c%20statement_timeout=20000", 21.0),
        ("-c%20statement_timeout=20s", 21.0),
        ("-c%20statement_timeout=2min", 121.0),
        ("-c%20statement_timeout=0", None),
        ("-c%20work_mem=9MB", 7.0),
    ],
)
def test_client_waits_a_little_longer_than_the_server(options: str, seconds: float | None) -> None:
    assert answer_limit(make_url(f"{ONE}?options={options}"), {"statement_timeout": "6000"}, 1.0) == seconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("connection timeout expired", NO_ANSWER),
        ("could not receive data from server: Connection timed out", NO_ANSWER),
        ("no answer from the server within 7 s", NO_ANSWER),
        ("connection failed: session is read-only", READ_ONLY),
        ("FATAL:  sorry, too many clients already", "Postgres has no free connection"),
        ("FATAL:  remaining connection slots are reserved for roles with SUPERUSER", "Postgres has no free connection"),
        ('FATAL:  too many connections for role "x"', "Postgres has no free connection"),
        ("FATAL:  the database system is starting up", "The database server is starting or stopping."),
        ("FATAL:  the database system is in recovery mode", "The database server is starting or stopping."),
        ("FATAL:  query_wait_timeout", "PgBouncer gave no connection in time"),
        ('connection to server at "10.1.2.3", port 5432 failed: Connection refused', NO_ANSWER),
    ],
)
def test_reasons(text: str, words: str) -> None:
    """Callers learn no address of the operator's network."""
    error = OperationalError("SELECT 1", {}, psycopg.OperationalError(text))
    assert reason_for_callers(error).startswith(words)
    assert "10.1.2.3" not in reason_for_callers(error)
    if "10.1.2.3" in text:
        assert reason_for_operators(error) == text


@pytest.mark.parametrize(
    "text",
    [
        "connection timeout expired",
        "FATAL:  sorry, too many clients already",
        "FATAL:  the database system is starting up",
        "connection failed: session is read-only",
        "SSL SYSCALL error: EOF detected",
        "failed to resolve host 'db': [Errno -2] Name or service not known",
    ],
)
def test_what_may_pass_is_waited_for(text: str) -> None:
    assert refusal_reason(psycopg.OperationalError(text)) is None


@pytest.mark.parametrize(
    "text",
    [
        "FATAL:  transaction blocks not allowed in statement pooling mode",
        "SSL error: certificate verify failed",
        'server certificate for "a" does not match host name "b"',
        'root certificate file "/x" does not exist',
        "server does not support SSL, but SSL was required",
        'invalid connection option "sslmod"',
        'invalid sslmode value: "on"',
        'invalid integer value "x" for connection option "tcp_user_timeout"',
    ],
)
def test_what_cannot_pass_is_refused(text: str) -> None:
    assert str(refusal_reason(psycopg.OperationalError(text))).startswith("DREAMERY_DATABASE_URL is wrong: ")
