"""The schema of a database as the command line sees it: upgrade it, name the newest revision."""

from functools import lru_cache

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import SQLAlchemyError

from worker.local.processes import StartError
from worker.local.supervisor import ROOT


def _config() -> Config:
    return Config(ROOT / "alembic.ini")


def newest_revision() -> str:
    """The revision this code needs."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


@lru_cache(maxsize=1)
def _older_revisions() -> frozenset[str]:
    """Every revision that this code knows and is past."""
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    return frozenset(known - {newest_revision()})


def suffices(revision: str) -> bool:
    """Whether this code runs on a database of that revision: its own, or a later one that it has never heard of.

    Migrations only add what the version before them does not miss, so that old processes work on while new ones start.
    """
    return revision not in _older_revisions()


def upgrade_schema() -> str:
    """Upgrade the database of the settings; returns the revision it is at."""
    try:
        command.upgrade(_config(), "head")
    except (SQLAlchemyError, CommandError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StartError(f"The schema could not be upgraded: {reason}") from error
    return newest_revision()
