"""Decides whether a chat message changes earlier pictures, and which; a caller may decide it instead."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from api.chat.follow_ups.classifier import classify
from api.chat.follow_ups.ordinals import named_pictures
from api.chat.follow_ups.pictures import PictureMessage, find_picture_messages, short_link, texts_before
from api.chat.schemas import ChatMessage
from worker.core.errors import DreameryError

# The last picture, a new one, or the number of a picture.
EditChoice = Literal["last", "none"] | int

EDIT_FIELD, EDIT_HEADER = "dreamery_edit", "X-Dreamery-Edit"
_REQUESTED = "the caller requested it"
_CHOICES: dict[str, EditChoice] = {"last": "last", "true": "last", "none": "none", "false": "none"}
_NUMBER = re.compile(r"[1-9][0-9]{0,2}")


@dataclass(frozen=True, slots=True)
class FollowUp:
    """What a message of a chat with earlier pictures does: change pictures (`links`, by number), or make a new one."""

    is_edit: bool
    reason: str
    numbers: tuple[int, ...] = ()
    place: str | None = None
    links: tuple[str, ...] = ()
    requested: bool = False

    def as_params(self) -> dict[str, Any]:
        """Return the follow-up as the job shows it in `input.follow_up`."""
        return {
            "decision": "edit" if self.is_edit else "new",
            "image": self.numbers[0] if self.numbers else None,
            **({"images": list(self.numbers)} if len(self.numbers) > 1 else {}),
            "of": self.place,
            "reason": self.reason,
        }

    def note(self) -> str:
        """Return the decision in words, with the links of the pictures."""
        links = ", ".join(map(short_link, self.links))
        return f"{describe_follow_up(self.as_params())}{': ' + links if links else ''}"

    def as_new(self, reason: str) -> "FollowUp":
        """Return the decision for a new picture instead."""
        return replace(self, is_edit=False, reason=reason, numbers=(), place=None, links=())


def describe_follow_up(params: dict[str, Any]) -> str:
    """Return a follow-up in words: `Changing picture 2 of the last answer (...)` or `A new picture (...)`."""
    if params["decision"] == "new":
        what = "A new picture"
    elif numbers := params.get("images") or ([params["image"]] if params["image"] else []):
        counted = " and ".join(map(str, numbers))
        what = f"Changing picture{'s' if len(numbers) > 1 else ''} {counted} of {params['of']}"
    else:
        what = f"Changing the pictures of {params['of']}"
    return f"{what} ({params['reason']})"


def parse_edit_choice(header: str | None, field: object, *, agent: bool = False) -> EditChoice | None:
    """Return the caller's choice in header or field; None = decide from the message.

    Raises `invalid_value` for other values and when header and field differ, `unsupported_parameter` for the agent.
    """
    in_field = None if field is None else _choice(field, EDIT_FIELD, EDIT_FIELD)
    in_header = None if header is None else _choice(header, f"header {EDIT_HEADER}", EDIT_HEADER)
    if in_field is not None and in_header is not None and in_field != in_header:
        message = f"`{EDIT_FIELD}` and the header `{EDIT_HEADER}` differ. Send one of them."
        raise DreameryError("invalid_value", message, param=EDIT_FIELD)
    choice = in_header if in_field is None else in_field
    if agent and choice is not None:
        message = f"The agent decides itself which picture it changes: leave out `{EDIT_FIELD}` and `{EDIT_HEADER}`."
        raise DreameryError("unsupported_parameter", message, param=EDIT_FIELD)
    return choice


def _choice(value: object, name: str, param: str) -> EditChoice:
    text = str(value).strip().lower()
    if text in _CHOICES:
        return _CHOICES[text]
    if _NUMBER.fullmatch(text):
        return int(text)
    message = f"`{name}` must be true or `last`, false or `none`, or the number of a picture; got {text[:20]!r}."
    raise DreameryError("invalid_value", message, param=param)


def decide_follow_up(
    before: Sequence[ChatMessage], text: str, *, has_pictures: bool, choice: EditChoice | None
) -> FollowUp | None:
    """Return what a message does; None in a chat without earlier pictures. `has_pictures` = the message has its own.

    Raises `invalid_value` when the caller or the message names a picture that does not exist.
    """
    messages = find_picture_messages(before)
    if not messages:
        if isinstance(choice, int) or (choice == "last" and not has_pictures):
            message = f"`{EDIT_FIELD}` asks to change an earlier picture, but no earlier message has one."
            raise DreameryError("invalid_value", message, param=EDIT_FIELD)
        return None
    if choice == "none":
        return FollowUp(is_edit=False, reason=_REQUESTED, requested=True)
    earlier = texts_before(before)
    if choice is not None:
        numbers = (choice,) if isinstance(choice, int) else _numbers_in(text, earlier, messages)
        return _edit(messages, before, numbers, _REQUESTED, requested=True)
    if has_pictures:
        return FollowUp(is_edit=True, reason="the message has pictures of its own", place="this message")
    verdict = classify(text, earlier)
    if not verdict.is_edit:
        return FollowUp(is_edit=False, reason=verdict.reason)
    return _edit(messages, before, _numbers_in(text, earlier, messages), verdict.reason)


def _numbers_in(text: str, earlier: list[str], messages: list[PictureMessage]) -> tuple[int, ...]:
    """Return the numbers that a text names. Numbers that may count something else are dropped when too large."""
    newest, total = len(messages[-1].links), sum(len(message.links) for message in messages)
    named = named_pictures(text, earlier)
    numbers = [one.number if one.number > 0 else newest for one in named if not (one.loose and one.number > total)]
    return tuple(dict.fromkeys(numbers)) or (1,)


def _edit(
    messages: list[PictureMessage],
    before: Sequence[ChatMessage],
    numbers: tuple[int, ...],
    reason: str,
    *,
    requested: bool = False,
) -> FollowUp:
    """Return the change of numbered pictures: of the newest message with pictures, else counted in the whole chat."""
    newest = messages[-1]
    links, place = newest.links, _place(newest, before)
    if max(numbers) > len(links):
        links, place = tuple(link for message in messages for link in message.links), "this chat"
    if max(numbers) > len(links):
        param = EDIT_FIELD if requested else "messages"
        message = (
            f"There is no picture {max(numbers)}: {_place(newest, before)} has {len(newest.links)}, and the whole chat "
            f"has {len(links)}. To ask for a new picture, describe it, or send `{EDIT_FIELD}`: false."
        )
        raise DreameryError("invalid_value", message, param=param)
    chosen = tuple(links[number - 1] for number in numbers)
    return FollowUp(is_edit=True, reason=reason, numbers=numbers, place=place, links=chosen, requested=requested)


def _place(message: PictureMessage, before: Sequence[ChatMessage]) -> str:
    if message.role == "user":
        return "your earlier message"
    later = before[message.index + 1 :]
    return "an earlier answer" if any(one.role.strip().lower() == "assistant" for one in later) else "the last answer"
