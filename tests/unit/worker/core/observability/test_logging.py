"""A lost broker is logged as one line; all other crashes of a worker keep their traceback."""

import logging
import sys

import pytest

from worker.core.observability.logging import _ShortenConnectionErrors


def _record(message: str, cause: Exception | None) -> logging.LogRecord:
    try:
        try:
            if cause is not None:
                raise cause
        finally:
            raise AttributeError("hostname")
    except AttributeError:
        return logging.LogRecord("celery", logging.CRITICAL, "f", 1, f"{message}: %r", ("why",), sys.exc_info())


@pytest.mark.parametrize("message", ["Couldn't ack", "Message Error", "Unrecoverable error"])
def test_lost_broker_is_logged_as_one_warning(message: str) -> None:
    record = _record(message, ConnectionError("refused"))
    assert _ShortenConnectionErrors().filter(record)
    assert (record.levelname, record.exc_info, record.getMessage()) == ("WARNING", None, f"{message}: 'why'")


@pytest.mark.parametrize(
    ("message", "cause"), [("Unrecoverable error", None), ("Task raised unexpected", ConnectionError("refused"))]
)
def test_other_errors_keep_their_traceback(message: str, cause: Exception | None) -> None:
    record = _record(message, cause)
    assert _ShortenConnectionErrors().filter(record)
    assert (record.levelname, record.exc_info is None) == ("CRITICAL", False)
