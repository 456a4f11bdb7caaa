"""Removes the text that front ends add to a message: attached files, search results, reminders. They are data."""

import re
from collections.abc import Sequence

from worker.core.background_rules import Block

_MAX_BLOCKS = 50


def strip_blocks(text: str, blocks: Sequence[Block]) -> str:
    """Return a message without the blocks of front ends."""
    if "<" not in text and not any(block.start for block in blocks):
        return text
    lower = text.lower()
    # A wrapper may stand in another block, which is removed first.
    for block in sorted(blocks, key=lambda one: one.unwrap):
        if block.tag and f"<{block.tag.lower()}" not in lower:
            continue
        stripped = _strip_tag(text, block) if block.tag else _strip_between(text, block)
        if stripped != text:
            text, lower = stripped, stripped.lower()
    return text.strip()


def _strip_tag(text: str, block: Block) -> str:
    opening = re.compile(rf"<{re.escape(block.tag)}(?:\s[^<>]{{0,500}})?>", re.IGNORECASE)
    closing = re.compile(rf"</{re.escape(block.tag)}\s*>", re.IGNORECASE)
    for _ in range(_MAX_BLOCKS):
        begin = opening.search(text)
        end = closing.search(text, begin.end()) if begin else None
        if begin is None or end is None:
            break
        kept = text[begin.end() : end.start()] if block.unwrap else "\n"
        text = text[: begin.start()] + kept + text[end.end() :]
    return text


def _strip_between(text: str, block: Block) -> str:
    """Remove what stands from `start` to `end`; with `kept_after` only the text between it and `kept_before` stays."""
    begin = _find(text, block.start)
    if begin is None:
        return text
    if block.kept_after:
        kept = _find(text, block.kept_after, begin[1])
        until = _find(text, block.kept_before, kept[1]) if kept and block.kept_before else None
        return text[: begin[0]] + text[kept[1] : until[0] if until else len(text)] if kept else text
    end = _find(text, block.end, begin[1])
    return text[: begin[0]] + text[end[1] :] if end else text


def _find(text: str, wanted: str, start: int = 0) -> tuple[int, int] | None:
    """Return where a text stands, with any spaces or line breaks between its words."""
    pattern = re.compile(r"\s+".join(map(re.escape, wanted.split())), re.IGNORECASE)
    match = pattern.search(text, start)
    return match.span() if match else None
