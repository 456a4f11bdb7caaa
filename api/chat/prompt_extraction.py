"""What a chat asks for: the last user message is the prompt, its pictures are the references.

When it has no picture and speaks of changing one, the picture of the newest answer that holds any is the reference: the
one it counts out (`the second picture`), else the first. Older messages and system messages are not read: models that
make pictures have no memory, and a system prompt written for a talking model would be drawn.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from api.chat.schemas import ChatMessage, ChatRequest, last_user, text_of, text_of_part
from worker.core.errors import DreameryError

_MARKDOWN_PICTURE = re.compile(r"!\[[^\[\]]{0,2000}\]\(\s*(https?://[^\s()<>\"]{1,8000})")
# Only the beginning of a long text is asked whether it speaks of a change.
_LOOKED_AT = 1000
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
_COUNTED = (
    re.compile(r"\b(?:first|1st)\b|#1\b|第[一1]张|\b(?:picture|image|number) 1\b", re.IGNORECASE),
    re.compile(r"\b(?:second|2nd)\b|#2\b|第[二2]张|\b(?:picture|image|number) 2\b", re.IGNORECASE),
    re.compile(r"\b(?:third|3rd)\b|#3\b|第[三3]张|\b(?:picture|image|number) 3\b", re.IGNORECASE),
    re.compile(r"\b(?:fourth|4th)\b|#4\b|第[四4]张|\b(?:picture|image|number) 4\b", re.IGNORECASE),
)


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """The prompt and its pictures as they were given; `earlier` = the link of an earlier answer that may serve."""

    text: str
    pictures: list[Any] = field(default_factory=list)
    earlier: str | None = None


def read_prompt(body: ChatRequest) -> ChatPrompt:
    """The prompt of a chat. Raises what is wrong with its last user message."""
    place = last_user(body.messages)
    if place is None:
        message = "`messages` has no message of role `user`; the last of these is the prompt."
        raise DreameryError("missing_required_parameter", message, param="messages")
    asked = body.messages[place]
    text, pictures = text_of(asked).strip(), _pictures(asked, f"messages.{place}.content")
    if not text:
        message = "The last user message has no text: say what to make."
        raise DreameryError("missing_required_parameter", message, param=f"messages.{place}.content")
    earlier = None if pictures else _earlier_picture(body.messages[:place], text)
    return ChatPrompt(text=text, pictures=pictures, earlier=earlier)


def _pictures(message: ChatMessage, param: str) -> list[Any]:
    """The picture parts. Parts that would be lost (sounds, files, videos) are refused."""
    if message.content is None or isinstance(message.content, str):
        return []
    found: list[Any] = []
    for n, part in enumerate(message.content):
        if isinstance(part, str) or text_of_part(part) is not None:
            continue
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(part, dict) or (kind not in {"image_url", "input_image"} and "image_url" not in part):
            raise DreameryError("unsupported_parameter", _part_refused(kind), param=f"{param}.{n}")
        found.append(part)
    return found


def _part_refused(kind: object) -> str:
    name = repr(kind[:40]) if isinstance(kind, str) else "without a type"
    return (
        f"A part {name} of a message cannot be used here: send `text` and `image_url` parts. Videos and sounds as "
        "references: /v1/videos/generations."
    )


def _earlier_picture(before: list[ChatMessage], text: str) -> str | None:
    beginning = text[:_LOOKED_AT]
    if not _CHANGE.search(beginning):
        return None
    for message in reversed(before):
        if message.role.lower() != "assistant":
            continue
        links = _MARKDOWN_PICTURE.findall(text_of(message))
        if links:
            counted = next((n for n, words in enumerate(_COUNTED) if words.search(beginning)), 0)
            return str(links[counted if counted < len(links) else 0])
    return None
