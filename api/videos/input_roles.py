"""What the inputs of a video request are for: first and last frame, or materials that the prompt refers to (omni).

Told by their fields, their number and the marks in the prompt; nothing is read here. Protocol sections 7.1 and 7.2.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from api.generation.reference_images import flat_entries
from api.generation.reference_media import Entry, Media
from api.videos.schemas import VideoGenerationRequest
from worker.core.catalog.models import VideoModel, get_catalog
from worker.core.errors import DreameryError

MOST: dict[Media, int] = {"image": 9, "video": 3, "audio": 3}
# Of all reference videos together, and what containers round up.
MOST_MILLISECONDS, ROUNDED_UP = 15_000, 500
_PICTURE_FIELDS = ("image", "images", "image_url", "file_paths", "input_reference")
_CLIP_FIELDS: dict[Media, tuple[str, ...]] = {
    "video": ("video", "videos", "video_url"),
    "audio": ("audio", "audios", "audio_url"),
}
_END_FIELDS = ("end_frame_image", "last_frame_image", "end_image")
# A mark that can mean nothing but an input; whoever writes one and sends no such input made a mistake.
_SURE = re.compile(
    r"(?<![0-9A-Za-z_.])@((?:image|video|audio)(?:_file)?_?[0-9]{1,3}|[0-9]{1,2})(?![0-9A-Za-z_])", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Roles:
    """The inputs in the order of their rows with the role of each, and for an omni job the prompt cut at its marks."""

    inputs: list[tuple[str, Entry]] = field(default_factory=list)
    parts: list[dict[str, Any]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def roles_of(body: VideoGenerationRequest, model: VideoModel, prompt: str) -> Roles:
    """What each input is for. Raises what the model cannot do, naming those that can.

    For a model that takes materials: videos, sounds, more than two pictures, `function_mode` or a mark in the prompt
    make an omni job; else one picture is the first frame, two are the first and the last.
    """
    pictures = _entries(body, "image", _PICTURE_FIELDS)
    clips = [entry for media, fields in _CLIP_FIELDS.items() for entry in _entries(body, media, fields)]
    first, end = _frame(body, ("first_frame_image",)), _frame(body, _END_FIELDS)
    if clips and not model.omni:
        raise _not_omni(model, clips[0].param, "takes no videos or sounds to refer to")
    wants_omni = body.function_mode == "omni_reference"
    if wants_omni and not model.omni:
        raise _not_omni(model, "function_mode", "takes no materials that the prompt refers to")
    entries = [*pictures, *clips]
    marks = _Marks(entries)
    if model.omni and body.function_mode != "first_last_frames":
        wants_omni = wants_omni or len(pictures) > 2 or bool(pictures and marks.found_in(prompt))
    if clips or wants_omni:
        return _omni(entries, marks, prompt, frames=[entry for entry in (first, end) if entry])
    return _frames(pictures, first, end, model)


def _entries(body: VideoGenerationRequest, media: Media, fields: tuple[str, ...]) -> list[Entry]:
    found = []
    for name in fields:
        value = getattr(body, name)
        if name == "input_reference" and isinstance(value, dict):
            # Forms spell a list of links inside it as `input_reference[image_url]`, once or several times.
            inner = value.get("image_url")
            value = [{"image_url": one} for one in inner] if isinstance(inner, list) else value
        found += [Entry(param, one, media) for param, one in flat_entries(name, value)]
    for name, value in sorted(body.numbered.items()):
        if name.startswith(f"{media}_"):
            found += [Entry(param, one, media, number=int(name[-1])) for param, one in flat_entries(name, value)]
    return found


def _frame(body: VideoGenerationRequest, fields: tuple[str, ...]) -> Entry | None:
    given = [Entry(param, one) for name in fields for param, one in flat_entries(name, getattr(body, name))]
    if len(given) > 1:
        message = f"`{fields[0]}` is one picture; got {len(given)}. Send one."
        raise DreameryError("invalid_value", message, param=given[1].param)
    return given[0] if given else None


def _frames(pictures: list[Entry], first: Entry | None, end: Entry | None, model: VideoModel) -> Roles:
    if len(pictures) > 2:
        message = f"has room for a first and a last frame; got {len(pictures)} pictures"
        raise _not_omni(model, pictures[0].param, message)
    if pictures and first:
        message = f"`{pictures[0].param}` is the first frame already. Send it or `first_frame_image`."
        raise DreameryError("invalid_value", message, param="first_frame_image")
    if len(pictures) == 2 and end:
        message = (
            f"Two pictures are the first and the last frame already. Leave `{end.param}` out, or send one picture."
        )
        raise DreameryError("invalid_value", message, param=end.param)
    first = first or (pictures[0] if pictures else None)
    end = end or (pictures[1] if len(pictures) == 2 else None)
    if end and not first:
        message = f"`{end.param}` needs a first frame too: send `first_frame_image`."
        raise DreameryError("missing_required_parameter", message, param="first_frame_image")
    if first and not model.first_frame:
        able = ", ".join(other.id for other in get_catalog().video_models if other.first_frame)
        message = f"Model {model.id!r} makes no videos from pictures. Models that do: {able}."
        raise DreameryError("unsupported_parameter", message, param=first.param)
    if end and not model.end_frame:
        able = ", ".join(get_catalog().videos_that_can(end_frame=True))
        message = f"Model {model.id!r} takes no last frame. Models that do: {able}."
        raise DreameryError("unsupported_parameter", message, param=end.param)
    roles = (("first_frame", first), ("end_frame", end))
    inputs = [(role, entry) for role, entry in roles if entry]
    return Roles(inputs=inputs, names=[entry.name for _, entry in inputs])


def _omni(entries: list[Entry], marks: "_Marks", prompt: str, *, frames: list[Entry]) -> Roles:
    if frames:
        message = (
            f"`{frames[0].param}` cannot go together with references. Send it as one of `images` and name it in the "
            "prompt, for example `@image1 is the first frame`."
        )
        raise DreameryError("invalid_value", message, param=frames[0].param)
    if not entries:
        message = "`omni_reference` needs at least one picture, video or sound to refer to."
        raise DreameryError("missing_required_parameter", message, param="images")
    for media, most in MOST.items():
        of_kind = [entry for entry in entries if entry.media == media]
        if len(of_kind) > most:
            message = f"A video refers to at most {most} {media} inputs; got {len(of_kind)}."
            raise DreameryError("invalid_value", message, param=of_kind[most].param)
    return Roles(
        inputs=[("reference", entry) for entry in entries],
        parts=marks.cut(prompt),
        names=[entry.name or marks.fallback(n) for n, entry in enumerate(entries)],
    )


class _Marks:
    """The ways in which a prompt may name each input: by kind and number, by number alone, by its own name."""

    def __init__(self, entries: list[Entry]) -> None:
        self._meant: dict[str, int] = {}
        self._fallback: list[str] = []
        counts: dict[Media, int] = {"image": 0, "video": 0, "audio": 0}
        for n, entry in enumerate(entries):
            counts[entry.media] += 1
            number = entry.number or counts[entry.media]
            self._fallback.append(f"{entry.media}_file_{number}")
            for form in ("{}_file_{}", "{}{}", "{}_{}"):
                self._meant.setdefault(form.format(entry.media, number), n)
            self._meant.setdefault(str(n + 1), n)
        # After all others: a file called `image2.png` may not take the place of the second picture.
        for n, entry in enumerate(entries):
            if entry.name:
                self._meant.setdefault(entry.name, n)
                # People leave the ending out.
                self._meant.setdefault(entry.name.rpartition(".")[0] or entry.name, n)
        # Longest first, or `@cat 2.png` would be read as `@cat`.
        names = sorted(self._meant, key=len, reverse=True)
        # Letters of other scripts may follow directly, as in Chinese.
        self._pattern = re.compile(
            rf"(?<![0-9A-Za-z_.])@({'|'.join(map(re.escape, names))})(?![0-9A-Za-z_])" if names else r"(?!)",
            re.IGNORECASE,
        )

    def fallback(self, n: int) -> str:
        """What an input without a name is called."""
        return self._fallback[n]

    def found_in(self, prompt: str) -> bool:
        """Whether the prompt names an input."""
        return self._pattern.search(prompt) is not None

    def cut(self, prompt: str) -> list[dict[str, Any]]:
        """The prompt in reading order: text and references. Without a mark it stays one text, as it was written."""
        return list(self._pieces(prompt))

    def _pieces(self, prompt: str) -> Iterator[dict[str, Any]]:
        end = 0
        for match in self._pattern.finditer(prompt):
            if between := self._checked(prompt[end : match.start()]):
                yield {"text": between}
            yield {"material": self._index(match[1])}
            end = match.end()
        if rest := self._checked(prompt[end:]):
            yield {"text": rest}

    def _index(self, name: str) -> int:
        """As the pattern compares letters, which is not quite how lower case does."""
        return next(n for known, n in self._meant.items() if re.fullmatch(re.escape(known), name, re.IGNORECASE))

    def _checked(self, text: str) -> str:
        stray = _SURE.search(text)
        if stray:
            known = ", ".join(f"@{name}" for name in self._fallback)
            message = f"The prompt says `{stray[0]}`, but there is no such input. There are: {known}."
            raise DreameryError("invalid_value", message, param="prompt")
        return text


def _not_omni(model: VideoModel, param: str, why: str) -> DreameryError:
    able = ", ".join(get_catalog().videos_that_can(omni=True))
    message = f"Model {model.id!r} {why}. Models that take pictures, videos and sounds to refer to: {able}."
    return DreameryError("unsupported_parameter", message, param=param)
