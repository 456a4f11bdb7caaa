"""Misspelled names of settings: found in the environment, in `.env` and among the secret files, with the nearest name.

An unknown name has no effect, so the setting that it should be keeps its default without a word.
"""

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from dotenv import dotenv_values

from worker.core.catalog.provider_data import all_constants
from worker.core.settings import FORMER_NAMES, SECRETS_DIR, Settings

PREFIX = "DREAMERY_"
# Names that are read elsewhere: by commands, the compose file and the examples of the documents.
_OTHERS = frozenset({"DREAMERY_API_KEY", "DREAMERY_BIND", "DREAMERY_KEY", "DREAMERY_PORT", "DREAMERY_URL",
                     "DREAMERY_WEBHOOK_SECRET"})  # fmt: skip
# Kubernetes adds these for a service named `dreamery...`.
_SERVICE_LINK = re.compile(r".*_SERVICE_(HOST|PORT)(_\w+)?|.*_PORT_\d+_(TCP|UDP)(_\w+)?")
_SIMILAR = 0.6
# A name without our prefix must be closer: other programs have settings, too.
_SIMILAR_PREFIX = 0.9


def find_misspelled(dotenv: Path = Path(".env")) -> list[str]:
    """Return one sentence for each name that looks like a setting and is none."""
    secrets = [file.name for file in SECRETS_DIR.glob("*")] if SECRETS_DIR.is_dir() else []
    in_file = dotenv_values(dotenv) if dotenv.is_file() else {}
    found: dict[str, Iterable[str]] = {
        "the environment": os.environ,  # noqa: TID251 - names only
        f"{dotenv}": in_file,
        f"{SECRETS_DIR}": secrets,
    }
    return [text for place, names in found.items() for text in _misspelled(names, place)]


def _misspelled(names: Iterable[str], place: str) -> list[str]:
    found = []
    for name in sorted(names):
        upper = name.upper()
        if upper in _known_names() or _SERVICE_LINK.fullmatch(upper):
            continue
        if upper.startswith(PREFIX):
            near = _nearest(upper, _SIMILAR)
            rest = f"did you mean {near}?" if near else "`dreamery doctor --settings` lists all."
            found.append(f"{name} in {place} is not a setting and has no effect: {rest}")
        elif near := _nearest(upper, _SIMILAR_PREFIX):
            found.append(f"{name} in {place} is not a setting and has no effect: did you mean {near}?")
    return found


def _nearest(name: str, similar: float) -> str:
    """Return the setting with the most similar name. Beside an equal prefix, every name would look similar."""
    names = {name.upper() for name in [*Settings.model_fields, *(one.setting for one in all_constants())]}
    if name.startswith(PREFIX):
        name = name.removeprefix(PREFIX)
        return next((PREFIX + near for near in get_close_matches(name, names, n=1, cutoff=similar)), "")
    return next(iter(get_close_matches(name, [PREFIX + field for field in names], n=1, cutoff=similar)), "")


def _known_names() -> frozenset[str]:
    constants = [name for one in all_constants() for name in (one.setting, one.former)]
    return _OTHERS | {f"{PREFIX}{name.upper()}" for name in [*Settings.model_fields, *FORMER_NAMES, *constants]}
