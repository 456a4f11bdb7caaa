"""The database schema for commands: upgrade it, wait for it, and the latest revision.

A migration only adds what the previous version does not miss (expand now, contract one version later). So code runs on
its own schema and on later ones: processes can be upgraded one at a time, and rolled back.
"""

import re
import sys
import threading
from collections.abc import Iterable
from functools import lru_cache

from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError

from worker.core.settings import Settings, get_settings
from worker.db.connecting.engines import command_engine
from worker.db.platform.startup import explain
from worker.local.process_commands import ROOT
from worker.local.processes import StartError

_POLL_SECONDS = 1.0
_REVISION = re.compile(r"^(revision|down_revision)\b.*?= *(?:['\"](\w+)['\"]|None) *$", re.MULTILINE)


@lru_cache(maxsize=1)
def _revisions() -> dict[str, str]:
    """Return the previous revision of each revision of this code; "" = the first one.

    Read as text: Alembic and the migrations take 9 MB, and the API asks for the newest revision.
    """
    found = {}
    for file in (ROOT / "migrations" / "versions").glob("*.py"):
        values = dict(_REVISION.findall(file.read_text("utf-8")))
        found[values["revision"]] = values["down_revision"]
    return found


@lru_cache(maxsize=1)
def newest_revision() -> str:
    """Return the latest revision of this code."""
    (newest,) = set(_revisions()) - set(_revisions().values())
    return newest


def is_compatible(revision: str) -> bool:
    """Return whether this code runs on that revision: its own, or a later one that it does not know."""
    return revision == newest_revision() or is_newer(revision)


def is_newer(revision: str) -> bool:
    """Return whether a newer version of Dreamery has migrated the database."""
    return bool(revision) and revision not in _revisions()


def unknown_tables(names: Iterable[str]) -> list[str]:
    """Return the tables that no migration mentions: they belong to another application."""
    texts = " ".join(file.read_text("utf-8") for file in (ROOT / "migrations" / "versions").glob("*.py"))
    words = set(re.findall(r"\w+", texts)) | {"alembic_version"}
    return sorted(name for name in names if name not in words)


def _current_revision(url: str) -> str:
    engine = command_engine(url)
    try:
        with engine.connect() as connection:
            table = connection.execute(text("SELECT to_regclass('alembic_version')")).scalar()
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "" if table else ""
    finally:
        engine.dispose()


def upgrade_schema(url: str | None = None, revision: str = "head") -> str:
    """Upgrade the database at `url` (default: the settings) and return its revision, which can be a newer one."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config(ROOT / "alembic.ini")
    settings = get_settings() if url is None else Settings.model_construct(database_url=url)
    config.attributes["url"] = settings.sqlalchemy_url
    try:
        current = _current_revision(settings.sqlalchemy_url)
        if is_newer(current):
            return current
        command.upgrade(config, revision)
    except (SQLAlchemyError, CommandError) as error:
        raise StartError(f"The schema could not be upgraded: {explain(error)}") from error
    return newest_revision()


def wait_for_schema(seconds: float) -> str:
    """Wait until another process has upgraded the schema and return its revision. Raises StartError after `seconds`."""
    pause, current, reason = threading.Event(), "", ""
    for _ in range(max(int(seconds / _POLL_SECONDS), 1)):
        try:
            current = _current_revision(get_settings().sqlalchemy_url)
        except SQLAlchemyError as error:
            reason = f" ({explain(error)})"
        if is_compatible(current):
            return current
        pause.wait(_POLL_SECONDS)
    raise StartError(f"The schema is at {current or 'nothing'}{reason}, not {newest_revision()}: run dreamery migrate.")


def create_database() -> None:
    """Create the database of the settings on its server if it does not exist."""
    url = make_url(get_settings().sqlalchemy_url)
    maintenance = url.set(database="postgres").render_as_string(hide_password=False)
    engine = command_engine(maintenance)
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            known = text("SELECT 1 FROM pg_database WHERE datname = :name")
            if connection.execute(known, {"name": url.database}).first() is None:
                quoted = engine.dialect.identifier_preparer.quote_identifier(str(url.database))
                connection.execute(text(f"CREATE DATABASE {quoted}"))
    finally:
        engine.dispose()


if __name__ == "__main__":
    if "--create-database" in sys.argv:
        create_database()
    print(f"The schema is at {upgrade_schema()}.")  # noqa: T201 - `dreamery up` runs it with its output in a log
