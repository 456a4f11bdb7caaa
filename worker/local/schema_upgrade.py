"""The database schema for commands: upgrade it, wait for it, and the latest revision.

A migration only adds what the previous version does not miss (expand now, contract one version later). So code runs on
its own schema and on later ones: processes can be upgraded one at a time, and rolled back.
"""

import threading
from functools import lru_cache

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from worker.core.settings import Settings, get_settings
from worker.local.process_commands import ROOT
from worker.local.processes import StartError

_POLL_SECONDS = 1.0


def _config() -> Config:
    return Config(ROOT / "alembic.ini")


@lru_cache(maxsize=1)
def newest_revision() -> str:
    """Return the latest revision of this code."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


@lru_cache(maxsize=1)
def _known_revisions() -> frozenset[str]:
    return frozenset(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def is_compatible(revision: str) -> bool:
    """Return whether this code runs on that revision: its own, or a later one that it does not know."""
    return revision == newest_revision() or is_newer(revision)


def is_newer(revision: str) -> bool:
    """Return whether a newer version of Dreamery has migrated the database."""
    return bool(revision) and revision not in _known_revisions()


def _current_revision(url: str) -> str:
    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 5})
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision() or ""
    finally:
        engine.dispose()


def upgrade_schema(url: str | None = None, revision: str = "head") -> str:
    """Upgrade the database at `url` (default: the settings) and return its revision, which can be a newer one."""
    config = _config()
    settings = get_settings() if url is None else Settings.model_construct(database_url=url)
    config.attributes["url"] = settings.sqlalchemy_url
    try:
        current = _current_revision(settings.sqlalchemy_url)
        if is_newer(current):
            return current
        command.upgrade(config, revision)
    except (SQLAlchemyError, CommandError) as error:
        raise StartError(f"The schema could not be upgraded: {_first_line(error)}") from error
    return newest_revision()


def wait_for_schema(seconds: float) -> str:
    """Wait until another process has upgraded the schema and return its revision. Raises StartError after `seconds`."""
    pause, current, reason = threading.Event(), "", ""
    for _ in range(max(int(seconds / _POLL_SECONDS), 1)):
        try:
            current = _current_revision(get_settings().sqlalchemy_url)
        except SQLAlchemyError as error:
            reason = f" ({_first_line(error)})"
        if is_compatible(current):
            return current
        pause.wait(_POLL_SECONDS)
    raise StartError(f"The schema is at {current or 'nothing'}{reason}, not {newest_revision()}: run dreamery migrate.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    print(f"The schema is at {upgrade_schema()}.")  # noqa: T201 - `dreamery up` runs it with its output in a log
