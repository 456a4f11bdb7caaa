"""What a check of `dreamery doctor` found."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `hint` tells how to fix it if `ok` is false."""

    check: str
    ok: bool
    detail: str
    hint: str = ""


def first_line(error: BaseException) -> str:
    """Return the first line of the error's text, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
