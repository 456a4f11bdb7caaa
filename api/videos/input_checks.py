"""Checks of the files of a video request beyond each file itself, and what they decide about the video."""

from collections.abc import Sequence

from api.generation.media.reference_images import ReferenceImage
from api.generation.media.reference_media import ReferenceInput, ReferenceMedia
from api.videos.input_roles import Roles
from worker.core.catalog.models import VideoModel, nearest_ratio
from worker.core.errors import DreameryError

# Containers round durations up.
_TOLERANCE_MILLISECONDS = 500


def check_durations(model: VideoModel, references: Sequence[ReferenceInput], roles: Roles) -> None:
    """Check the total duration of videos and of audio sent as bytes; links are checked when they are fetched."""
    limits = {"video": model.references.video_seconds, "audio": model.references.audio_seconds}
    for media, maximum in limits.items():
        known = [
            (item.facts.milliseconds, entry)
            for item, (role, entry) in zip(references, roles.inputs, strict=True)
            if role == "reference" and entry.media == media and isinstance(item, ReferenceMedia) and item.facts
        ]
        total = sum(milliseconds for milliseconds, _ in known)
        if maximum and total > maximum * 1000 + _TOLERANCE_MILLISECONDS:
            seconds = f"{total / 1000:.1f}"
            message = f"The reference videos have {seconds} seconds in total; the maximum is {maximum}."
            if media == "audio":
                message = f"The audio references have {seconds} seconds in total; the maximum is {maximum}."
            raise DreameryError("invalid_value", message, param=known[-1][1].param)


def ratio_of_first_frame(model: VideoModel, references: Sequence[ReferenceInput], roles: Roles) -> str | None:
    """Return the ratio nearest to that of the first frame; None without one whose size is known."""
    for (role, _), item in zip(roles.inputs, references, strict=True):
        if role == "first_frame" and isinstance(item, ReferenceImage) and item.facts:
            return nearest_ratio(model.ratios, item.facts.width, item.facts.height)
    return None


def clip_seconds(references: Sequence[ReferenceInput], roles: Roles) -> list[float | None]:
    """Return the seconds of each reference video; None = not known yet, because it is a link."""
    return [
        round(item.facts.milliseconds / 1000, 3) if isinstance(item, ReferenceMedia) and item.facts else None
        for item, (role, entry) in zip(references, roles.inputs, strict=True)
        if role == "reference" and entry.media == "video"
    ]
