"""Extracts the prompt of a chat: the text of the last user message; its images are the references.

Earlier pictures are references too when the message changes one of them (`follow_ups`). Other earlier content and
system messages are ignored: image models have no memory, and they would draw a system prompt that is written for a
language model.
"""

from dataclasses import dataclass, field
from typing import Any

from api.chat.background.detection import MAX_MESSAGE_CHARS, strip_context
from api.chat.follow_ups.decision import EditChoice, FollowUp, decide_follow_up
from api.chat.follow_ups.pictures import images_of, link_of_part, split_text
from api.chat.schemas import ChatMessage, ChatRequest, last_user_index, text_of, text_of_part
from api.generation.media.fields import read_content_part, read_field
from api.http.bodies.embedded_files import has_reference
from worker.core.errors import DreameryError
from worker.core.settings import get_settings


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """The prompt, its images as sent, and what it does with the pictures of earlier messages."""

    text: str
    images: list[Any] = field(default_factory=list)
    follow_up: FollowUp | None = None


def extract_prompt(body: ChatRequest, edit_choice: EditChoice | None = None) -> ChatPrompt:
    """Return the prompt of a chat, without the text that front ends add. Raises the error of an invalid last message.

    `edit_choice` = the caller's choice of an earlier picture (`parse_edit_choice`).
    """
    index = last_user_index(body.messages)
    if index is None:
        message = "`messages` has no message of role `user`; the last of these is the prompt."
        raise DreameryError("missing_required_parameter", message, param="messages")
    prompt = body.messages[index]
    written = text_of(prompt).strip()
    _check_length(written, MAX_MESSAGE_CHARS)
    text, links = split_text(strip_context(written))
    text, images = text.strip(), _read_images(prompt, f"messages.{index}")
    # What follows searches the text for phrases.
    _check_length(text, get_settings().prompt_max_chars)
    if has_reference(text):
        message = "`prompt` contains a file as text. Send files in a field of their own."
        raise DreameryError("prompt_too_long", message, param="messages")
    attached = set(map(link_of_part, images))
    images += [{"image_url": link} for link in links if link not in attached]
    images = images or _pictures_without_text(body.messages[:index])
    if not text:
        message = "The last user message has no text: describe what to generate."
        raise DreameryError("missing_required_parameter", message, param=f"messages.{index}.content")
    before = body.messages[:index]
    follow_up = decide_follow_up(before, text, has_pictures=bool(images or body.media_fields), choice=edit_choice)
    return ChatPrompt(text=text, images=images, follow_up=follow_up)


def _check_length(text: str, limit: int) -> None:
    if len(text) > limit:
        message = f"`prompt` has {len(text)} characters; the maximum is {limit}. Shorten it."
        raise DreameryError("prompt_too_long", message, param="messages")


_IMAGE_PARTS = frozenset({"image", "image_url", "input_image"})


def _read_images(message: ChatMessage, param: str) -> list[Any]:
    """Return the media parts and the fields beside the content. Raises `unsupported_parameter` for other parts."""
    found = [_read_image(entry, f"{param}.images.{n}") for n, entry in enumerate(images_of(message))]
    for n, part in enumerate(message.content if isinstance(message.content, list) else []):
        if isinstance(part, str) or text_of_part(part) is not None:
            continue
        if read_content_part(f"{param}.content.{n}", part) is None:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind in _IMAGE_PARTS:
                text = "`messages` is not an image: send a link, a data URL or base64."
                raise DreameryError("invalid_image", text, param="messages")
            raise DreameryError("unsupported_parameter", _unsupported_part_message(kind), param=f"{param}.content.{n}")
        found.append(part)
    return found + [entry.value for name, value in message.media_fields.items() for entry in read_field(name, value)]


def _read_image(entry: Any, param: str) -> dict[str, str]:
    link = link_of_part(entry)
    if link is None:
        raise DreameryError(
            "invalid_image", f"`{param}` is not an image: send a link, a data URL or base64.", param=param
        )
    return {"image_url": link}


def _pictures_without_text(before: list[ChatMessage]) -> list[Any]:
    """Return the pictures of user messages directly before the prompt that have no text: they belong to it."""
    found: list[Any] = []
    for message in reversed(before):
        text, links = split_text(text_of(message))
        if message.role.strip().lower() != "user" or text.strip():
            break
        parts = [*(message.content if isinstance(message.content, list) else []), *images_of(message)]
        attached = [link for part in parts if (link := link_of_part(part))]
        found = [{"image_url": link} for link in dict.fromkeys([*attached, *links])] + found
    return found


def _unsupported_part_message(kind: object) -> str:
    name = repr(kind[:40]) if isinstance(kind, str) else "without a type"
    return (
        f"A message part {name} is not supported here: send `text`, `image_url`, `video_url` and `input_audio` parts."
    )
