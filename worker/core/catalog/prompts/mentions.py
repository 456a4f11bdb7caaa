"""Inputs that a prompt names: `@image1`, `@video_file_2`, as the model reads them."""

import re
from collections.abc import Mapping

_MENTION = re.compile(
    r"(?<![0-9A-Za-z_.])@(?P<kind>image|video|audio)(?:_file)?_?(?P<n>\d{1,3})(?![0-9A-Za-z_])", re.IGNORECASE
)
_KINDS = {"image": "Image", "video": "Video", "audio": "Audio"}


def name_of_input(mark: str, kind: str, number: int) -> str:
    """Return how a prompt names the input of this kind with this number, which counts from 1."""
    return mark.format(kind=_KINDS[kind], n=number)


def name_inputs(prompt: str, mark: str, counts: Mapping[str, int]) -> str:
    """Return the prompt with inputs named by `mark`, which has {kind} and {n}. `counts` = inputs by kind.

    A mention of an input that is not there stays as it is.
    """

    def replace(found: re.Match[str]) -> str:
        kind, number = found["kind"].lower(), int(found["n"])
        known = 1 <= number <= counts.get(kind, 0)
        return name_of_input(mark, kind, number) if known else found[0]

    return _MENTION.sub(replace, prompt)
