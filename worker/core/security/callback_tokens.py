"""Tokens in the addresses at which an upstream reports changes of a job: `/hooks/<provider>/<token>`.

A token is the submit key of the attempt, which is random and known to the upstream anyway. A report is a hint: it makes
the poll of the job's account due, and what it says is not believed.
"""

import re
from uuid import UUID

CALLBACK_PATH = "/hooks/"
_TOKEN = re.compile(r"[0-9a-f]{32}")


def callback_url(public_url: str, submit_key: str, *, provider: str) -> str | None:
    """Return the address for the reports of this attempt; None if the platform has no public address."""
    return f"{public_url.rstrip('/')}{CALLBACK_PATH}{provider}/{UUID(submit_key).hex}" if public_url else None


def submit_key_of(token: str) -> UUID | None:
    """Return the submit key of a token; None if it is none."""
    return UUID(token) if _TOKEN.fullmatch(token) else None
