"""Finds pictures in the messages of a chat, in every form in which front ends send them back.

Forms: content parts, the field `images` that our answers have, Markdown, `<img>`, data URLs, and plain links that end
like a picture or lead to a result of this server. Videos are no pictures: their links are left out.
"""

import bisect
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from api.chat.schemas import ChatMessage, text_of, text_of_part
from api.generation.media.fields import read_field
from api.generation.media.values import detect_media, find_value, is_link

_DATA_URL = r"data:image/[\w.+-]{1,40};base64,[A-Za-z0-9+/=_%-]++"
_ADDRESS = r"https?://(?:[^\s()<>\"']|\([^\s()<>\"']*+\))++"
_MARKUP = re.compile(
    rf"""!\[(?:[^\[\]]|\[[^\[\]]*+\]){{0,2000}}+\]\(\s*+<?(?P<markdown>{_DATA_URL}|{_ADDRESS})[^()\n]{{0,300}}+\)
    | <img\b(?:[^<>"']|"(?!data:|https?:)[^"<>]*+"|'(?!data:|https?:)[^'<>]*+'){{0,2000}}?
        \bsrc\s*=\s*["']?(?P<tag>{_DATA_URL}|{_ADDRESS})["']?[^<>]{{0,2000}}+>
    | (?P<data>{_DATA_URL})
    | (?P<link>{_ADDRESS})""",
    re.IGNORECASE | re.VERBOSE,
)
_VIDEO = re.compile(
    rf"""<(?:video|source)\b[^<>]{{0,2000}}?\bsrc\s*=\s*["']?(?P<tag>{_ADDRESS})
    | (?<!!)\[video\.\w{{1,5}}\]\((?P<link>{_ADDRESS})""",
    re.IGNORECASE | re.VERBOSE,
)
_PICTURE_LINK = re.compile(
    r"[^?#]+\.(?:png|jpe?g|webp|gif|bmp|avif|heic|tiff?)(?:[?#].*)?|https?://[^/]+/v1/files/file_\w+/content(?:\?.*)?",
    re.IGNORECASE,
)
# No quotation contains its opening mark: many of them without a closing one would be read again for each.
QUOTED = re.compile(
    r"\"[^\"\n]{0,400}+\"|“[^“”\n]{0,400}+”|「[^「」\n]{0,400}+」|『[^『』\n]{0,400}+』|«[^«»\n]{0,400}+»"
)
_PUNCTUATION = ".,;:!?。，；：！？、"
# Of longer messages before the prompt only the beginning is searched.
_MAX_SEARCHED = 200_000
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{64,}+[=\s]*")


@dataclass(frozen=True, slots=True)
class PictureMessage:
    """A message with pictures: its role, its index in the chat, and the links or data URLs in their order."""

    role: str
    index: int
    links: tuple[str, ...]


def find_picture_messages(messages: Sequence[ChatMessage]) -> list[PictureMessage]:
    """Return the messages that have pictures, oldest first."""
    found = []
    for index, message in enumerate(messages):
        role = message.role.strip().lower()
        links = [] if role in {"system", "developer"} else _links_of_message(message)
        if links:
            found.append(PictureMessage(role=role, index=index, links=tuple(links)))
    return found


def _links_of_message(message: ChatMessage) -> list[str]:
    parts = message.content if isinstance(message.content, list) else []
    entries = [entry.value for name, value in message.media_fields.items() for entry in read_field(name, value)]
    attached = [link for part in [*parts, *images_of(message), *entries] if (link := link_of_part(part))]
    _, written = split_text(text_of(message)[:_MAX_SEARCHED])
    return list(dict.fromkeys([*attached, *written]))


def images_of(message: ChatMessage) -> list[Any]:
    """Return the entries of the field `images` of a message."""
    return message.images if isinstance(message.images, list) else []


def link_of_part(part: Any) -> str | None:
    """Return the link or data URL of a content part or of an entry of a media field; None for anything but pictures."""
    if text_of_part(part) is not None or detect_media(part) in {"video", "audio"}:
        return None
    value = find_value(part)
    if not isinstance(value, str):
        return None
    if is_link(value) or value[:11].lower() == "data:image/":
        return value
    return f"data:image/png;base64,{value}" if _BASE64.fullmatch(value) else None


def split_text(text: str) -> tuple[str, list[str]]:
    """Return a text without its pictures, and their links. Plain links in quotation marks are text to draw."""
    videos = {match["tag"] or match["link"] for match in _VIDEO.finditer(text)}
    quoted = [match.span() for match in QUOTED.finditer(text)]
    starts = [start for start, _ in quoted]
    links: list[str] = []
    kept, end = [], 0
    for match in _MARKUP.finditer(text):
        link = html.unescape(match["markdown"] or match["tag"] or match["data"] or match["link"])
        stop = match.end()
        if match["link"]:
            before = bisect.bisect_left(starts, match.start()) - 1
            is_quoted = before >= 0 and match.start() < quoted[before][1]
            plain = link.rstrip(_PUNCTUATION)
            if is_quoted or link in videos or not _PICTURE_LINK.fullmatch(plain):
                continue
            stop -= len(link) - len(plain)
            link = plain
        links.append(link)
        kept.append(text[end : match.start()])
        end = stop
    kept.append(text[end:])
    return "".join(kept), list(dict.fromkeys(links))


def short_link(link: str) -> str:
    """Return a link as it is shown to people: a data URL without its data."""
    return link if not link.startswith("data:") else f"{link.partition(',')[0][:60]},..."


def texts_before(messages: Sequence[ChatMessage], limit: int = 12) -> list[str]:
    """Return the newest texts of the user, which say what the earlier pictures show, newest first."""
    written = (text_of(message) for message in reversed(messages) if message.role.strip().lower() == "user")
    texts = (split_text(text[:_MAX_SEARCHED])[0].strip()[:2000] for text in written)
    return list(islice(filter(None, texts), limit))
