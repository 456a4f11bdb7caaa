"""The schema of a database as the command line sees it: upgrade it, name the newest revision."""

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


def upgrade_schema() -> str:
    """Upgrade the database of the settings; returns the revision it is at."""
    try:
        command.upgrade(_config(), "head")
    except (SQLAlchemyError, CommandError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StartError(f"The schema could not be upgraded: {reason}") from error
    return newest_revision()
