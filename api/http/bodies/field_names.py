"""The table of field names: the name that the schemas use, and every other spelling that clients send for it.

Names are compared in snake case, so `aspectRatio`, `aspect-ratio` and `AspectRatio` need no row of their own; that also
holds for fields without a row. Media fields (images, frames, clips) are in `api/generation/media/fields.py`.
"""

import re

# Name in the schemas -> other spellings. Sources: Gemini and Imagen (aspectRatio, imageSize, sampleCount,
# numberOfImages, durationSeconds), Azure (n_seconds, n_variants), fal and Replicate (num_images, num_outputs,
# image_size), SiliconFlow (image_size, batch_size), Kling (model_name), OpenRouter (image_config), and gateways of the
# new-api family.
SPELLINGS: dict[str, tuple[str, ...]] = {
    "model": ("model_name", "model_id"),
    "prompt": ("text_prompt",),
    "negative_prompt": ("negative", "neg_prompt"),
    "size": ("image_size", "video_size", "output_size", "target_size", "frame_size", "dimensions", "image_dimensions"),
    "width": ("image_width", "video_width", "output_width"),
    "height": ("image_height", "video_height", "output_height"),
    "ratio": ("aspect_ratio", "image_ratio", "image_aspect_ratio", "video_ratio", "video_aspect_ratio"),
    "resolution": ("image_resolution", "video_resolution", "output_resolution", "resolution_type"),
    "n": (
        *("num_images", "number_of_images", "image_count", "num_outputs", "num_samples", "sample_count", "batch_size"),
        *("candidate_count", "num_videos", "number_of_videos", "video_count", "n_variants"),
    ),
    "seed": ("random_seed", "noise_seed"),
    "duration": ("duration_seconds", "video_duration", "video_length", "length_seconds", "duration_in_seconds"),
    "seconds": ("n_seconds", "video_seconds"),
    "fps": ("frames_per_second", "frame_rate", "framerate", "video_fps"),
    "output_format": ("image_format", "output_mime_type", "mime_type"),
    "output_compression": ("compression_quality",),
    "webhook": ("webhook_url",),
}

# Objects in a body whose fields count as fields of the body, also one in another.
CONTAINERS = frozenset(
    {
        *("extra_body", "extra_fields", "extra_params", "extra", "google", "openai", "provider_options"),
        *("image_config", "image_generation_config", "video_config", "video_generation_config", "generation_config"),
        *("generation_params", "parameters", "params", "options", "config", "settings", "input"),
    }
)

# Values that mean `as the model or the input decides`.
AUTOMATIC = frozenset({"auto", "default", "original"})
# The same, and with a reference image: its ratio.
FOLLOWS_INPUT = frozenset({"adaptive", "match_input_image", "match_input", "follow_input", "keep_ratio"})

# What a size may be, for error messages.
SIZE_FORMS = "`WIDTHxHEIGHT` such as `1280x720`, a ratio such as `16:9`, a resolution such as `2K` or `720p`, or `auto`"

# Words for a ratio: general ones, and the presets of fal.
RATIO_WORDS = {
    **dict.fromkeys(("square", "square_hd"), "1:1"),
    **dict.fromkeys(("landscape", "horizontal", "widescreen", "landscape_16_9"), "16:9"),
    **dict.fromkeys(("portrait", "vertical", "portrait_16_9", "portrait_9_16"), "9:16"),
    "landscape_4_3": "4:3",
    **dict.fromkeys(("portrait_4_3", "portrait_3_4"), "3:4"),
    "landscape_3_2": "3:2",
    **dict.fromkeys(("portrait_3_2", "portrait_2_3"), "2:3"),
}

# Values of a field that have another word for the same -> ours.
VALUE_WORDS: dict[str, dict[str, str]] = {
    "response_format": {"base64": "b64_json", "b64": "b64_json"},
    "output_format": {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/webp": "webp"},
}

# Values of a seed that mean `random`.
RANDOM_SEEDS = frozenset({"-1", "-1.0", "random", "auto"})

CANONICAL = {spelling: name for name, spellings in SPELLINGS.items() for spelling in (name, *spellings)}
# Fields whose empty text counts as absent.
OPTIONAL = frozenset(SPELLINGS) - {"prompt"}

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SEPARATOR = re.compile(r"[-\s]+")


def snake_case(name: str) -> str:
    """Return `aspectRatio`, `aspect-ratio` or `AspectRatio` as `aspect_ratio`."""
    return _SEPARATOR.sub("_", _HUMP.sub("_", name.strip())).lower()
