"""Logging: structlog with static event names and fields; JSON when not on a terminal.

A processor hides the values of fields that may contain secrets, as a safety net: code must not log them anyway.
"""

import contextlib
import logging
import sys
from collections.abc import MutableMapping
from typing import Any
from uuid import UUID

import structlog

from worker.core.ids import public_id
from worker.core.observability import tracing
from worker.core.settings import Settings

_SECRET_FIELDS = frozenset({"authorization", "token", "tokens", "session", "session_id", "secret", "cookie", "key"})


def _blank_secrets(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for field in _SECRET_FIELDS & event.keys():
        event[field] = "[hidden]"
    return event


def _name_trace(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the trace id to every line within a span."""
    trace_id = tracing.trace_id()
    if trace_id is not None:
        event["trace_id"] = trace_id
    return event


def _name_job(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Log the public id of a job instead of the internal one."""
    job_id = event.get("job_id")
    if isinstance(job_id, str) and job_id:
        with contextlib.suppress(ValueError):
            event["job_id"] = public_id("job", UUID(job_id))
    return event


# First words of messages of kombu and Celery. The third stops a worker: reconnecting can fail on a closed channel.
_BROKER_AWAY = ("Couldn't ack", "Message Error", "Unrecoverable error")


def _lost_connection(error: BaseException | None) -> bool:
    """Return whether a connection error is among the causes. Compared by name: core does not import redis-py."""
    while error is not None and "ConnectionError" not in {kind.__name__ for kind in type(error).__mro__}:
        error = error.__cause__ or error.__context__
    return error is not None


class _ShortenConnectionErrors(logging.Filter):
    """Logs a lost Redis connection as one line without a traceback, because the tick enqueues lost messages again."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and str(record.msg).startswith(_BROKER_AWAY) and _lost_connection(record.exc_info[1]):
            record.msg, record.args = record.getMessage().splitlines()[0], None
            record.exc_info = record.exc_text = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


def configure_logging(settings: Settings) -> None:
    """Set up structlog and route the standard library's loggers through it. Once per process."""
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _name_job,
        _name_trace,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _blank_secrets,
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    level = getattr(logging, settings.log_level.upper())
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([] if console else [structlog.processors.format_exc_info]),
                renderer,
            ],
        )
    )
    handler.addFilter(_ShortenConnectionErrors())
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # These log one line per call, including full URLs.
    for name in ("httpx", "httpcore", "celery.worker.strategy", "celery.app.trace", "celery.beat", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger with this name."""
    return structlog.stdlib.get_logger(name)
