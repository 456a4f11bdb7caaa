"""The schema of a database as the command line sees it: upgrade it, wait for it, name the newest revision.

Migrations only add what the version before them does not miss (expand, and contract a version later), so code runs on
its own schema and on later ones: that is what lets versions be replaced one process at a time, and be put back.
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

_LOOK_EVERY_SECONDS = 1.0


def _config() -> Config:
    return Config(ROOT / "alembic.ini")


@lru_cache(maxsize=1)
def newest_revision() -> str:
    """The revision this code needs."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


@lru_cache(maxsize=1)
def _known_revisions() -> frozenset[str]:
    return frozenset(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def suffices(revision: str) -> bool:
    """Whether this code runs on a database of that revision: its own, or a later one that it has never heard of."""
    return revision == newest_revision() or is_later(revision)


def is_later(revision: str) -> bool:
    """Whether a newer version than this one has migrated the database."""
    return bool(revision) and revision not in _known_revisions()


def _present_revision(url: str) -> str:
    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 5})
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision() or ""
    finally:
        engine.dispose()


def upgrade_schema(url: str | None = None, revision: str = "head") -> str:
    """Upgrade the database of the settings, or that one; returns the revision it is at, perhaps later than we know."""
    config = _config()
    settings = get_settings() if url is None else Settings.model_construct(database_url=url)
    config.attributes["url"] = settings.sqlalchemy_url
    try:
        present = _present_revision(settings.sqlalchemy_url)
        if is_later(present):
            return present
        command.upgrade(config, revision)
    except (SQLAlchemyError, CommandError) as error:
        raise StartError(f"The schema could not be upgraded: {_first_line(error)}") from error
    return newest_revision()


def wait_for_schema(seconds: float) -> str:
    """Wait until somebody else has upgraded it; returns the revision it is at. Raises StartError when time is up."""
    pause, present, reason = threading.Event(), "", ""
    for _ in range(max(int(seconds / _LOOK_EVERY_SECONDS), 1)):
        try:
            present = _present_revision(get_settings().sqlalchemy_url)
        except SQLAlchemyError as error:
            reason = f" ({_first_line(error)})"
        if suffices(present):
            return present
        pause.wait(_LOOK_EVERY_SECONDS)
    raise StartError(f"The schema is at {present or 'nothing'}{reason}, not {newest_revision()}: run dreamery migrate.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    print(f"The schema is at {upgrade_schema()}.")  # noqa: T201 - `dreamery up` runs it with its output in a log
