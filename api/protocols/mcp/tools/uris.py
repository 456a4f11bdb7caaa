"""Names of resources: `dreamery://models`, `dreamery://jobs/JOB_ID` and `dreamery://jobs/JOB_ID/files/NUMBER`."""

import re
from dataclasses import dataclass

MODELS = "dreamery://models"
_JOB = re.compile(r"dreamery://jobs/(?P<job>[A-Za-z0-9_]{1,80})(?:/files/(?P<number>[0-9]{1,3}))?/?")


@dataclass(frozen=True, slots=True)
class JobName:
    """A job."""

    job_id: str


@dataclass(frozen=True, slots=True)
class FileName:
    """A result of a job; the first has the number 1."""

    job_id: str
    number: int


def parse_uri(uri: str) -> JobName | FileName | None:
    """Return what a URI names; None for any other text."""
    match = _JOB.fullmatch(uri)
    if match is None:
        return None
    return FileName(match["job"], int(match["number"])) if match["number"] else JobName(match["job"])
