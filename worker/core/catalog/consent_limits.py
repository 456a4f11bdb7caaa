"""Costs above which a user has to agree before an agent spends them, as text: `100 credits, 1 USD, 7 CNY`."""

import re
from typing import Annotated

from pydantic import AfterValidator

from worker.core.catalog.money import CURRENCIES

_UNITS = ("", "credits", *(one.lower() for one in CURRENCIES))
_LIMIT = re.compile(rf"(?P<amount>[0-9]{{1,9}}(?:\.[0-9]{{1,6}})?)\s*(?P<unit>{'|'.join(_UNITS)})", re.IGNORECASE)
_MOST_CHARS = 200


def read_consent_limits(text: str) -> dict[str, float]:
    """Return the limits by unit in lower case; the unit "" is for all that have none of their own.

    Empty texts and `none` set no limit. Raises ValueError for another form.
    """
    limits: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text[: _MOST_CHARS + 1].split(","))):
        match = _LIMIT.fullmatch(part)
        if len(text) > _MOST_CHARS or (match is None and part.lower() != "none"):
            raise ValueError(f"must be amounts such as `100 credits, 1 USD`, or `none`; got {part[:40]!r}")
        if match is not None:
            limits[match["unit"].lower()] = float(match["amount"])
    return limits


def _check(text: str) -> str:
    read_consent_limits(text)
    return text


# A setting with such limits: an invalid text stops the process at its start.
ConsentLimits = Annotated[str, AfterValidator(_check)]
