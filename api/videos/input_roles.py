"""Assigns roles to the inputs of a video request: first and last frame, or references that the prompt names (omni).

Roles follow from the fields, their number and the references in the prompt; inputs are not read here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from api.generation.media.values import InputEntry
from api.http.bodies.file_types import Media
from api.videos.schemas import VideoGenerationRequest
from worker.core.catalog.models import VideoModel, get_catalog
from worker.core.errors import DreameryError

# Text that can only name an input. Such a reference without its input is an error.
_EXPLICIT_REFERENCE = re.compile(
    r"(?<![0-9A-Za-z_.])@((?:image|video|audio)(?:_file)?_?[0-9]{1,3}|[0-9]{1,2})(?![0-9A-Za-z_])", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Roles:
    """Inputs with their roles in row order, and for an omni job the prompt split at its references."""

    inputs: list[tuple[str, InputEntry]] = field(default_factory=list)
    parts: list[dict[str, Any]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def assign_roles(body: VideoGenerationRequest, model: VideoModel, prompt: str) -> Roles:
    """Return the role of each input. Raises an error for roles that the model does not support, naming models that do.

    With an omni model, videos, audio, more than two images, `function_mode` or a reference in the prompt make an omni
    job. Otherwise one image is the first frame, and two are the first and the last frame.
    """
    of_role: dict[str, list[InputEntry]] = {}
    for entry in body.media_inputs:
        of_role.setdefault(entry.role, []).append(entry)
    named = of_role.get("reference", [])
    images = [entry for entry in body.media_inputs if entry.role in {"image", "reference"}]
    media_entries = [*of_role.get("video", []), *of_role.get("audio", [])]
    first = _frame(of_role.get("first_frame", []), "first_frame_image")
    end = _frame(of_role.get("end_frame", []), "end_frame_image")
    if media_entries and not model.omni:
        raise _not_omni(model, media_entries[0].param, "accepts no reference videos or audio")
    wants_omni = body.function_mode == "omni_reference" or body.task_type in {"reference", "edit", "extend"}
    wants_omni = wants_omni or bool(body.draft and images)
    if wants_omni and not model.omni:
        raise _not_omni(model, "function_mode", "accepts no references")
    if named and body.function_mode != "first_last_frames":
        if not model.omni:
            why = "accepts no references; its images are frames (`first_frame`, `last_frame`)"
            raise _not_omni(model, named[0].param, why)
        wants_omni = True
    entries = [*images, *media_entries]
    references = _PromptReferences(entries)
    if model.omni and body.function_mode != "first_last_frames":
        wants_omni = wants_omni or len(images) > 2 or bool(images and references.found_in(prompt))
    if media_entries or wants_omni:
        return _omni(entries, references, prompt, model, frames=[entry for entry in (first, end) if entry])
    return _frames(images, first, end, model)


def _frame(entries: list[InputEntry], name: str) -> InputEntry | None:
    if len(entries) > 1:
        message = f"`{name}` is one image; got {len(entries)}. Send one."
        raise DreameryError("invalid_value", message, param=entries[1].param)
    return entries[0] if entries else None


def _frames(images: list[InputEntry], first: InputEntry | None, end: InputEntry | None, model: VideoModel) -> Roles:
    if len(images) > 2:
        message = f"accepts a first and a last frame; got {len(images)} images"
        raise _not_omni(model, images[0].param, message)
    if images and first:
        message = f"`{images[0].param}` is the first frame already. Send either it or `first_frame_image`."
        raise DreameryError("invalid_value", message, param="first_frame_image")
    if len(images) == 2 and end:
        message = f"Two images are the first and the last frame already. Leave `{end.param}` out, or send one image."
        raise DreameryError("invalid_value", message, param=end.param)
    first = first or (images[0] if images else None)
    end = end or (images[1] if len(images) == 2 else None)
    if end and not first:
        message = f"`{end.param}` needs a first frame too: send `first_frame_image`."
        raise DreameryError("missing_required_parameter", message, param="first_frame_image")
    if first and not model.first_frame:
        able = ", ".join(get_catalog().find_video_models(provider=model.provider, first_frame=True))
        message = f"Model {model.id!r} accepts no first frame. Models that do: {able}."
        raise DreameryError("unsupported_parameter", message, param=first.param)
    if end and not model.end_frame:
        able = ", ".join(get_catalog().find_video_models(end_frame=True, provider=model.provider))
        message = f"Model {model.id!r} accepts no last frame. Models that do: {able}."
        raise DreameryError("unsupported_parameter", message, param=end.param)
    roles = (("first_frame", first), ("end_frame", end))
    inputs = [(role, entry) for role, entry in roles if entry]
    return Roles(inputs=inputs, names=[entry.name for _, entry in inputs])


def _omni(
    entries: list[InputEntry],
    references: "_PromptReferences",
    prompt: str,
    model: VideoModel,
    *,
    frames: list[InputEntry],
) -> Roles:
    if frames:
        message = (
            f"`{frames[0].param}` cannot be combined with references. Send it as one of `images` and name it in the "
            "prompt, for example `@image1 is the first frame`."
        )
        raise DreameryError("invalid_value", message, param=frames[0].param)
    if not entries:
        message = "`omni_reference` needs at least one reference image, video or audio."
        raise DreameryError("missing_required_parameter", message, param="images")
    _check_numbers(entries, model)
    return Roles(
        inputs=[("reference", entry) for entry in entries],
        parts=references.split(prompt),
        names=[entry.name or references.default_name(n) for n, entry in enumerate(entries)],
    )


def _check_numbers(entries: list[InputEntry], model: VideoModel) -> None:
    most = model.references
    limits: dict[Media, int] = {"image": most.images, "video": most.videos, "audio": most.audios}
    for media, limit in limits.items():
        of_kind = [entry for entry in entries if entry.media == media]
        if len(of_kind) > limit:
            message = f"A video accepts at most {limit} {media} references; got {len(of_kind)}."
            raise DreameryError("invalid_value", message, param=of_kind[limit].param)
    if most.total and len(entries) > most.total:
        message = f"A video accepts at most {most.total} references; got {len(entries)}."
        raise DreameryError("invalid_value", message, param=entries[most.total].param)
    if not most.audio_alone and all(entry.media == "audio" for entry in entries):
        message = f"Model {model.id!r} takes audio only together with an image or a video. Send one too."
        raise DreameryError("invalid_value", message, param=entries[0].param)


class _PromptReferences:
    """The names of each input in a prompt: type and number, number alone, or its own name."""

    def __init__(self, entries: list[InputEntry]) -> None:
        self._indexes: dict[str, int] = {}
        self._default_names: list[str] = []
        counts: dict[Media, int] = {"image": 0, "video": 0, "audio": 0}
        for n, entry in enumerate(entries):
            counts[entry.media] += 1
            number = entry.number or counts[entry.media]
            self._default_names.append(f"{entry.media}_file_{number}")
            for form in ("{}_file_{}", "{}{}", "{}_{}"):
                self._indexes.setdefault(form.format(entry.media, number), n)
            self._indexes.setdefault(str(n + 1), n)
        # After all other names: a file named `image2.png` must not replace the second image.
        for n, entry in enumerate(entries):
            if entry.name:
                self._indexes.setdefault(entry.name, n)
                # Prompts often omit the extension.
                self._indexes.setdefault(entry.name.rpartition(".")[0] or entry.name, n)
        # Longest first, otherwise `@cat 2.png` would be read as `@cat`.
        names = sorted(self._indexes, key=len, reverse=True)
        # Letters of other scripts, for example Chinese, may follow directly.
        self._pattern = re.compile(
            rf"(?<![0-9A-Za-z_.])@({'|'.join(map(re.escape, names))})(?![0-9A-Za-z_])" if names else r"(?!)",
            re.IGNORECASE,
        )

    def default_name(self, n: int) -> str:
        """Return the name of an input without its own name."""
        return self._default_names[n]

    def found_in(self, prompt: str) -> bool:
        """Return whether the prompt names an input."""
        return self._pattern.search(prompt) is not None

    def split(self, prompt: str) -> list[dict[str, Any]]:
        """Return the prompt as text and references in reading order; without a reference it stays one text."""
        return list(self._pieces(prompt))

    def _pieces(self, prompt: str) -> Iterator[dict[str, Any]]:
        end = 0
        for match in self._pattern.finditer(prompt):
            if text := self._checked(prompt[end : match.start()]):
                yield {"text": text}
            yield {"material": self._index(match[1])}
            end = match.end()
        if rest := self._checked(prompt[end:]):
            yield {"text": rest}

    def _index(self, name: str) -> int:
        """Return the index of an input, with the case rules of the pattern, which differ from `str.lower`."""
        return next(n for known, n in self._indexes.items() if re.fullmatch(re.escape(known), name, re.IGNORECASE))

    def _checked(self, text: str) -> str:
        unknown = _EXPLICIT_REFERENCE.search(text)
        if unknown:
            known = ", ".join(f"@{name}" for name in self._default_names)
            message = f"The prompt refers to `{unknown[0]}`, but there is no such input. Inputs: {known}."
            raise DreameryError("invalid_value", message, param="prompt")
        return text


def _not_omni(model: VideoModel, param: str, why: str) -> DreameryError:
    able = ", ".join(get_catalog().find_video_models(omni=True, provider=model.provider))
    message = f"Model {model.id!r} {why}. Models that accept reference images, videos and audio: {able}."
    return DreameryError("unsupported_parameter", message, param=param)
