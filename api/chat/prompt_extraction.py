"""Extracts the prompt of a chat: the text of the last user message; its images are the references.

A message without images that asks for a change uses an image of the newest answer that has any: the one it counts out
(`the second picture`), else the first. Older messages and system messages are ignored: image models have no memory, and
they would draw a system prompt that is written for a language model.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from api.chat.schemas import ChatMessage, ChatRequest, last_user_index, text_of, text_of_part
from worker.core.errors import DreameryError

_MARKDOWN_IMAGE = re.compile(r"!\[[^\[\]]{0,2000}\]\(\s*(https?://[^\s()<>\"]{1,8000})")
# Only the beginning of a long text is searched for a change request.
_MAX_SEARCHED = 1000
_CHANGE = re.compile(
    r"""^\W*(?:(?:please|now|then|ok|okay|and|but|also|next|great|nice|can|could|you|just|i|want|would|like|to)\W+){0,8}
        (?:edit|change|modify|adjust|replace|remove|delete|erase|add|crop|recolou?r|restyle|redraw|retouch|enhance
          |upscale|brighten|darken|animate|(?:turn|make|give|let|bring)\s+(?:it|this|that|them|him|her|the))\b
    | \b(?:this|that|same|last|previous|earlier|first|second|third|fourth)\s+(?:picture|image|photo|drawing|one)\b
    | ^\W*(?:请|帮我|麻烦|再|然后|现在|你|能)*
        (?:把|将|修改|改成|改为|换成|换个|去掉|去除|删除|删掉|加上|添加|增加|替换|调整|让[它他她]|给[它他她])
    | 这张|那张|上一张|上张|上图|原图|刚才的图|图中|图里|第[一二三四1-4]张|动起来""",
    re.IGNORECASE | re.VERBOSE,
)
_ORDINALS = (
    re.compile(r"\b(?:first|1st)\b|#1\b|第[一1]张|\b(?:picture|image|number) 1\b", re.IGNORECASE),
    re.compile(r"\b(?:second|2nd)\b|#2\b|第[二2]张|\b(?:picture|image|number) 2\b", re.IGNORECASE),
    re.compile(r"\b(?:third|3rd)\b|#3\b|第[三3]张|\b(?:picture|image|number) 3\b", re.IGNORECASE),
    re.compile(r"\b(?:fourth|4th)\b|#4\b|第[四4]张|\b(?:picture|image|number) 4\b", re.IGNORECASE),
)


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """The prompt, its images as sent, and the link of the earlier image that it asks to change."""

    text: str
    images: list[Any] = field(default_factory=list)
    source_image: str | None = None


def extract_prompt(body: ChatRequest) -> ChatPrompt:
    """Return the prompt of a chat. Raises the error of an invalid last user message."""
    index = last_user_index(body.messages)
    if index is None:
        message = "`messages` has no message of role `user`; the last of these is the prompt."
        raise DreameryError("missing_required_parameter", message, param="messages")
    prompt = body.messages[index]
    text, images = text_of(prompt).strip(), _read_images(prompt, f"messages.{index}.content")
    if not text:
        message = "The last user message has no text: describe what to generate."
        raise DreameryError("missing_required_parameter", message, param=f"messages.{index}.content")
    source_image = None if images else _find_earlier_image(body.messages[:index], text)
    return ChatPrompt(text=text, images=images, source_image=source_image)


def _read_images(message: ChatMessage, param: str) -> list[Any]:
    """Return the image parts. Raises `unsupported_parameter` for audio, file and video parts."""
    if message.content is None or isinstance(message.content, str):
        return []
    found: list[Any] = []
    for n, part in enumerate(message.content):
        if isinstance(part, str) or text_of_part(part) is not None:
            continue
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(part, dict) or (kind not in {"image_url", "input_image"} and "image_url" not in part):
            raise DreameryError("unsupported_parameter", _unsupported_part_message(kind), param=f"{param}.{n}")
        found.append(part)
    return found


def _unsupported_part_message(kind: object) -> str:
    name = repr(kind[:40]) if isinstance(kind, str) else "without a type"
    return (
        f"A message part {name} is not supported here: send `text` and `image_url` parts. For videos and audio as "
        "references use /v1/videos/generations."
    )


def _find_earlier_image(before: list[ChatMessage], text: str) -> str | None:
    beginning = text[:_MAX_SEARCHED]
    if not _CHANGE.search(beginning):
        return None
    for message in reversed(before):
        if message.role.lower() != "assistant":
            continue
        links = _MARKDOWN_IMAGE.findall(text_of(message))
        if links:
            index = next((n for n, pattern in enumerate(_ORDINALS) if pattern.search(beginning)), 0)
            return str(links[index if index < len(links) else 0])
    return None
