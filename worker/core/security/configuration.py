"""What each role checks about its settings before it starts: URLs that cannot work, and misspelled names."""

import sys

from worker.core.security.connection_urls import find_url_problems
from worker.core.security.setting_names import find_misspelled
from worker.core.settings import Settings


def require_usable(settings: Settings, *, database: bool = True) -> None:
    """Warn about misspelled names. Raises SystemExit with one line per URL that cannot work.

    `database` = whether the role uses it.
    """
    warn_about_names()
    problems = find_url_problems(settings, required=True)
    if problems := [text for text in problems if database or not text.startswith("DREAMERY_DATABASE_URL")]:
        raise SystemExit("\n".join(f"Error: {text}" for text in problems))


def warn_about_names() -> None:
    """Print one line for each misspelled setting: the log is not configured yet."""
    for text in find_misspelled():
        sys.stderr.write(f"Warning: {text}\n")
