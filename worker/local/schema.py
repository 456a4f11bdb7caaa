"""The schema of a database as the command line sees it: upgrade it, name the newest revision."""

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import SQLAlchemyError

from worker.core.settings import Settings
from worker.local.processes import StartError
from worker.local.supervisor import ROOT


def _config() -> Config:
    return Config(ROOT / "alembic.ini")


def newest_revision() -> str:
    """The revision this code needs."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def knows_revision(revision: str) -> bool:
    """Whether this code has that revision among its migrations."""
    try:
        return ScriptDirectory.from_config(_config()).get_revision(revision) is not None
    except CommandError:
        return False


def upgrade_schema(url: str | None = None, revision: str = "head") -> str:
    """Upgrade the database of the settings, or that one; returns the newest revision."""
    config = _config()
    if url is not None:
        config.attributes["url"] = Settings.model_construct(database_url=url).sqlalchemy_url
    try:
        command.upgrade(config, revision)
    except (SQLAlchemyError, CommandError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StartError(f"The schema could not be upgraded: {reason}") from error
    return newest_revision()
