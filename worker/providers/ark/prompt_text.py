"""Prepares prompts: takes out the vendor's flags, and names inputs the way a model reads them."""

import re
from collections.abc import Mapping

from worker.providers.ark.models import VideoModel

# The older way of giving parameters, which upstream still reads: a text could change size, price or watermark.
_FLAG = re.compile(
    r"(?<!\S)--(?:resolution|ratio|duration|framespersecond|seed|camerafixed|watermark|rs|rt|dur|fps|cf|wm)"
    r"(?:[ \t]*=[ \t]*|[ \t]+)?(?:(?<=[ \t=])(?!--)\S{1,40})?(?!\S)",
    re.IGNORECASE,
)
_MENTION = re.compile(r"@(?P<kind>image|video|audio)(?:_file)?_?(?P<n>\d{1,3})(?!\w)", re.IGNORECASE)
_KINDS = {"image": "Image", "video": "Video", "audio": "Audio"}


def remove_flags(prompt: str) -> tuple[str, list[str]]:
    """Return the prompt without the vendor's flags, and the flags that were in it."""
    removed = [found.group(0).strip() for found in _FLAG.finditer(prompt)]
    if not removed:
        return prompt, []
    return re.sub(r"[ \t]{2,}", " ", _FLAG.sub("", prompt)).strip(), removed


def name_of_input(model: VideoModel, kind: str, number: int) -> str:
    """Return how a prompt names the input of this kind with this number, which counts from 1."""
    return model.mention.format(kind=_KINDS[kind], n=number)


def name_inputs(prompt: str, model: VideoModel, counts: Mapping[str, int]) -> str:
    """Return the prompt with `@image1`, `@video_file_2` and such as the model reads them.

    `counts` = inputs by kind; a mention of an input that is not there stays as it is.
    """

    def replace(found: re.Match[str]) -> str:
        kind, number = found["kind"].lower(), int(found["n"])
        if not 1 <= number <= counts.get(kind, 0):
            return found.group(0)
        return name_of_input(model, kind, number)

    return _MENTION.sub(replace, prompt)
