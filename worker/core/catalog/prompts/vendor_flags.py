"""Flags in prompts that an upstream still reads: a text could change size, price or watermark behind our checks."""

import re
from collections.abc import Collection
from functools import lru_cache


def remove_vendor_flags(prompt: str, names: Collection[str]) -> tuple[str, list[str]]:
    """Return the prompt without flags of these names (`--rs 1080p`), and the flags that were in it."""
    if not names or "--" not in prompt:
        return prompt, []
    pattern = _pattern(tuple(sorted(names, key=len, reverse=True)))
    removed = [found[0].strip() for found in pattern.finditer(prompt)]
    if not removed:
        return prompt, []
    return re.sub(r"[ \t]{2,}", " ", pattern.sub("", prompt)).strip(), removed


@lru_cache(maxsize=8)
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(
        rf"(?<!\S)--(?:{'|'.join(map(re.escape, names))})"
        r"(?:[ \t]*=[ \t]*|[ \t]+)?(?:(?<=[ \t=])(?!--)\S{1,40})?(?!\S)",
        re.IGNORECASE,
    )
