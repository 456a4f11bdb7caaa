"""The table of media fields: the names under which clients send images, frames, clips, audio and masks.

All creating calls use it, for JSON and forms, so a name that one call reads is read, or rejected, by every other. A
value that plainly is a file, under a name that is not in the table, is an error; nothing is left out silently.

Names are compared in snake case, without a number (`image_file_1`, `image[0]`), without a plural, and without words for
the way of sending (`image_url`, `image_base64`, `image_list`), so `image` covers all of these.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any, Literal

from api.generation.media.values import (
    InputEntry,
    carries_media,
    detect_media,
    find_value,
    flatten_field,
    is_empty_part,
)
from api.http.bodies.field_names import snake_case
from api.http.bodies.file_types import Media
from api.http.body_parsing import Upload
from worker.core.errors import DreameryError

Call = Literal["images", "videos", "chat"]
# Key of the collected entries in the fields of a request.
COLLECTED = "media_inputs"

# Role -> names. Sources: OpenAI (image, input_reference, mask), Ark (content), Jimeng (binary_data_base64, image_urls),
# Kling (image_tail), MiniMax (first_frame_image, subject_reference), Runway (promptImage), Luma (keyframes), Veo
# (lastFrame, referenceImages), Wan (img_url, first_frame_url), OpenRouter (frame_images, input_references), fal and
# Replicate (start_image, end_image, tail_image, image_input), Stable Diffusion (init_images), and gateways of the
# new-api family.
FIELDS: dict[str, tuple[str, ...]] = {
    # Its role follows from the number of images: reference, first frame, or first and last frame.
    "image": (
        *("image", "img", "picture", "photo", "pic", "image_file", "input_image", "image_input", "input_reference"),
        *("init_image", "source_image", "base_image", "original_image", "origin_image", "prompt_image", "image_prompt"),
        *("user_image", "uploaded_image", "frame_image", "base64_image", "binary", "img2img"),
    ),
    "reference": (
        *("reference_image", "ref_image", "image_reference", "image_ref", "reference_img", "ref_img", "reference"),
        *("ref", "subject_reference", "subject_image"),
    ),
    "first_frame": (
        *("first_frame", "first_frame_image", "first_image", "start_frame", "start_frame_image", "start_image"),
        *("starting_frame", "starting_image", "initial_frame", "initial_image", "begin_frame", "begin_image"),
        *("head_frame", "head_image", "image_head", "image_start", "frame0", "frame_start", "first"),
    ),
    "end_frame": (
        *("last_frame", "last_frame_image", "last_image", "end_frame", "end_frame_image", "end_image"),
        *("ending_frame", "ending_image", "final_frame", "final_image", "tail_frame", "tail_image", "image_tail"),
        *("image_end", "frame1", "frame_end", "last", "tail"),
    ),
    "video": (
        *("video", "clip", "reference_video", "ref_video", "video_reference", "input_video", "video_input"),
        *("source_video", "base_video", "init_video", "video_file"),
    ),
    "audio": (
        *("audio", "reference_audio", "ref_audio", "audio_reference", "input_audio", "audio_input", "audio_file"),
        *("source_audio", "sound", "music"),
    ),
    # Its type follows from its content.
    "file": (
        *("file", "input_file", "upload", "uploaded_file", "attachment", "media", "media_file", "asset", "material"),
        *("blob", "resource"),
    ),
    "mask": ("mask", "mask_image", "image_mask", "mask_img", "inpaint_mask", "inpainting_mask", "edit_mask"),
}
# Names with another common meaning: read only when the value plainly is a file.
_AMBIGUOUS = frozenset(
    {
        *("reference", "ref", "first", "last", "tail", "clip", "sound", "music", "media", "asset", "material"),
        *("resource", "blob", "binary", "upload", "attachment", "img2img", "image_prompt", "subject_reference"),
        *("pic", "photo"),
    }
)
# Objects whose keys are names of this table.
_CONTAINERS = frozenset({"keyframe", "frame", "key_frame"})
# A role in an entry: `{"url": "...", "role": "last_frame"}` (Ark, Runway, OpenRouter, Veo).
_ROLE_KEYS = ("role", "position", "frame_type", "frame", "usage", "reference_type")
_ROLES = {
    **dict.fromkeys(("first", "first_frame", "start", "start_frame", "begin", "head"), "first_frame"),
    **dict.fromkeys(("last", "last_frame", "end", "end_frame", "tail", "final"), "end_frame"),
    **dict.fromkeys(("reference", "reference_image", "ref", "ref_image", "subject", "asset"), "reference"),
    **dict.fromkeys(("mask", "reference_mask"), "mask"),
}
_PART_TYPES: tuple[tuple[str, Media], ...] = (("image", "image"), ("video", "video"), ("audio", "audio"))
_TEXT_TYPES = frozenset({"text", "input_text", "output_text"})

_MAX_NAME_CHARS = 80
_ROLE_OF = {name: role for role, names in FIELDS.items() for name in names}
_NUMBER = re.compile(r"_?\[?([0-9]{1,2})\]?$")
_TRANSPORT = re.compile(
    r"_(?:urls?|uris?|links?|paths?|base64s?|base_64|b64s?|data|bytes|bin|list|array|json|src|files?|inputs?)$"
)
# Addresses that a service calls or shows, not files.
_NO_MEDIA = re.compile(
    r"(?:^|_)(?:callback|webhook|hook|notify|notification|metadata|referr?er|origin|headers?|tools?|functions?|redirect"
    r"|website|site|homepage)(?:_|$)"
)
_ABLE = {
    "images": "Send reference images as `image` or `images`",
    "videos": (
        "Send one or two images (first and last frame) as `image` or `images`, or name them: `first_frame`, "
        "`last_frame`, `reference_images`; clips and audio as `videos` and `audios`"
    ),
    "chat": "Send files as parts of the last user message (`image_url`), or as `image` or `images` of the body",
}


def find_role(name: str) -> str | None:
    """Return the role of a field: a key of `FIELDS`; None for a field that is not about media."""
    return _ROLE_OF.get(_base_name(name))


def _base_name(name: str) -> str:
    if len(name) > _MAX_NAME_CHARS:
        return name
    base = snake_case(name)
    while base not in _ROLE_OF and base not in _CONTAINERS:
        shorter = _TRANSPORT.sub("", base)
        if shorter == base:
            shorter = _NUMBER.sub("", base)
        if shorter == base and base.endswith("s"):
            shorter = base[:-1]
        if shorter == base:
            break
        base = shorter
    return base


def collect_media(fields: dict[str, Any], call: Call, known: Collection[str]) -> dict[str, Any]:
    """Return the fields with all media as a list of `InputEntry` under `COLLECTED`.

    `known` = names that the schema reads. Raises `unsupported_parameter` for media that this call cannot use.
    """
    rest: dict[str, Any] = {}
    entries: list[InputEntry] = []
    for name, value in fields.items():
        if name == "content" and isinstance(value, list):
            texts, found = _read_content(name, value)
            entries += found
            if texts and not fields.get("prompt"):
                rest["prompt"] = "\n".join(texts)
        elif (role := find_role(name)) is not None and _is_read(name, value):
            entries += _entries(name, value, role)
        elif _base_name(name) in _CONTAINERS and isinstance(value, dict):
            entries += [one for key, inner in value.items() for one in _entries_of_key(f"{name}.{key}", key, inner)]
        elif name not in known and is_unread_media(name, value):
            raise unread_media(name, call)
        elif name != COLLECTED:
            rest[name] = value
    for entry in entries:
        _check_role(entry, call)
    # Numbered fields after the others, by their number, as prompts count them.
    entries.sort(key=lambda entry: entry.number or 0)
    return {**rest, COLLECTED: entries}


def split_media(fields: dict[str, Any], known: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the other fields of a chat or message and its media fields. Raises for media that nothing reads."""
    rest, media = {}, {}
    for name, value in fields.items():
        if name in known:
            rest[name] = value
        elif find_role(name) is not None and value not in (None, "", []) and carries_media(value):
            media[name] = value
        elif is_unread_media(name, value):
            raise unread_media(name, "chat")
    return rest, media


def read_field(name: str, value: Any) -> list[InputEntry]:
    """Return the inputs in one media field."""
    return _entries(name, value, find_role(name) or "image")


def is_unread_media(name: str, value: Any) -> bool:
    """Return whether a field that nothing reads plainly carries a file."""
    return _NO_MEDIA.search(snake_case(name[:_MAX_NAME_CHARS])) is None and carries_media(value)


def unread_media(name: str, call: Call) -> DreameryError:
    """Return the error of a field with media that nothing reads."""
    message = f"`{name[:60]}` carries a file, but no field has this name, so it would be left out. {_ABLE[call]}."
    return DreameryError("unsupported_parameter", message, param=name[:60])


def _is_read(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value and _base_name(name) not in _AMBIGUOUS  # `"audio": false` asks for nothing
    return _base_name(name) not in _AMBIGUOUS or carries_media(value)


def _entries_of_key(param: str, key: str, value: Any) -> list[InputEntry]:
    role = find_role(key)
    return _entries(param, value, role or "image")


def _entries(name: str, value: Any, role: str) -> list[InputEntry]:
    if role == "mask" and (not value or (isinstance(value, Upload) and not value.size)):
        return []
    return [replace(make_entry(param, one, role), number=_number_of(name)) for param, one in flatten_field(name, value)]


def _number_of(name: str) -> int | None:
    """Return the number of `image_file_2` or `image2`, but not that of `image_base64`."""
    snake = snake_case(name[:_MAX_NAME_CHARS])
    match = None if _TRANSPORT.search(snake) else _NUMBER.search(snake)
    return int(match[1]) or None if match else None


def make_entry(param: str, value: Any, role: str) -> InputEntry:
    """Return the entry of one value; a role in the value itself counts more than that of its field."""
    if isinstance(value, dict):
        role = next(
            (_ROLES[word] for key in _ROLE_KEYS if (word := _word(value.get(key))) in _ROLES and role != "mask"), role
        )
    if role == "file":
        media = detect_media(value) or "image"
        return InputEntry(param, value, media, role=media)
    media = role if role in {"video", "audio"} else "image"  # type: ignore[assignment]
    if role in {"image", "reference"} and isinstance(value, dict | Upload):
        # `reference_images` and content parts may hold a clip, and a form part any file.
        media = detect_media(value) or "image"
        role = role if media == "image" else media
    return InputEntry(param, value, media, role=role)


def _word(value: Any) -> str:
    return snake_case(value) if isinstance(value, str) else ""


def _read_content(name: str, parts: list[Any]) -> tuple[list[str], list[InputEntry]]:
    """Return the texts and the inputs of Ark's `content`, a list of typed parts. Raises for other parts."""
    texts, entries = [], []
    for n, part in enumerate(parts):
        text = part if isinstance(part, str) else text_of_content_part(part)
        if text is not None:
            texts.append(text)
            continue
        entry = read_content_part(f"{name}.{n}", part)
        if entry is None:
            message = f"`{name}.{n}` is none of the parts that are supported: texts, images, videos and audio."
            raise DreameryError("unsupported_parameter", message, param=f"{name}.{n}")
        entries.append(entry)
    return texts, entries


def text_of_content_part(part: Any) -> str | None:
    """Return the text of a text part; None for other parts."""
    if not isinstance(part, dict) or (part.get("type") not in _TEXT_TYPES and set(part) != {"text"}):
        return None
    return part["text"] if isinstance(part.get("text"), str) else ""


def read_content_part(param: str, part: Any) -> InputEntry | None:
    """Return the input in a content part (OpenAI, Ark, Anthropic, Gemini, LangChain, AI SDK); None for other parts."""
    if not isinstance(part, dict) or find_value(part) is None:
        return None
    kind = _word(part.get("type"))
    media = next((media for word, media in _PART_TYPES if word in kind), None) or detect_media(part)
    if media is None and not any(True for _ in _file_keys(part, kind)):
        return None
    entry = make_entry(param, part, "image")
    media = media or entry.media
    return replace(entry, media=media, role=entry.role if media == "image" else media)


def _file_keys(part: dict[str, Any], kind: str) -> Iterator[str]:
    yield from (key for key in part if snake_case(str(key)) in {"file", "image", "image_url", "file_id"})
    if kind in {"file", "input_file"}:
        yield kind


def _check_role(entry: InputEntry, call: Call) -> None:
    if entry.role == "mask":
        message = f"No model supports `{entry.param}`: describe in `prompt` what to change and where."
        raise DreameryError("unsupported_parameter", message, param=entry.param)
    if call == "images" and entry.role in {"first_frame", "end_frame", "video", "audio"}:
        what = {"video": "a video", "audio": "audio"}.get(entry.role, "a frame of a video")
        message = f"`{entry.param}` is {what}, which image models do not accept. {_ABLE[call]}, or use /v1/videos."
        raise DreameryError("unsupported_parameter", message, param=entry.param)


def reject_unread_media(fields: dict[str, Any], known: Collection[str], message: str) -> None:
    """Raise `unsupported_parameter` for media in a call that takes none."""
    for name, value in fields.items():
        if name not in known and not is_empty_part(value) and (find_role(name) or is_unread_media(name, value)):
            if value in (None, "", [], False):
                continue
            raise DreameryError("unsupported_parameter", f"`{name[:60]}`: {message}", param=name[:60])
