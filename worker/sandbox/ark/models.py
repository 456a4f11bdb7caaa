"""The models that the Ark interface sells, with the fields that each accepts: upstream's own copy."""

from dataclasses import dataclass

_PRO = {"prompt", "image", "size", "watermark", "response_format", "output_format", "background", "layer_decomposition"}
_LITE = {
    *("prompt", "image", "size", "watermark", "response_format", "optimize_prompt_options", "stream"),
    *("sequential_image_generation", "sequential_image_generation_options"),
}
_VIDEO = {
    *("content", "resolution", "ratio", "duration", "watermark", "return_last_frame", "execution_expires_after"),
    *("callback_url", "safety_identifier"),
}
_NEW_VIDEO = _VIDEO | {"generate_audio", "tools", "priority"}
_OLD_VIDEO = _VIDEO | {"seed", "camera_fixed", "frames", "service_tier"}
_FAMILY = ("480p", "720p", "1080p", "4k")


@dataclass(frozen=True)
class ImageModel:
    fields: frozenset[str]
    least: int = 921_600
    most: int = 4_624_220
    references: int = 10
    classes: tuple[str, ...] = ("1K", "1.5K", "2K")


@dataclass(frozen=True)
class VideoModel:
    fields: frozenset[str]
    seconds: tuple[int, int]
    resolutions: tuple[str, ...]
    # Of images, videos and sounds as references.
    references: tuple[int, int, int] = (9, 3, 3)
    audio_alone: bool = False
    last_frame: bool = True
    default_seconds: int = 5  # -1 = the model chooses


_LITE_MODEL = {"least": 3_686_400, "most": 16_777_216, "references": 14}
IMAGES: dict[str, ImageModel] = {
    "seedream-5-5-261028": ImageModel(frozenset(_PRO | {"safety_identifier"})),
    "seedream-5-0-pro-260628": ImageModel(frozenset(_PRO | {"optimize_prompt_options"})),
    "seedream-5-0-flash-260915": ImageModel(frozenset(_PRO | {"optimize_prompt_options", "seed"})),
    "seedream-5-0-260128": ImageModel(
        frozenset(_LITE | {"output_format", "tools"}), classes=("2K", "3K", "4K"), **_LITE_MODEL
    ),
    "seedream-4-5-251128": ImageModel(frozenset(_LITE), classes=("2K", "4K"), **_LITE_MODEL),
    "seedream-4-0-250828": ImageModel(
        frozenset(_LITE), least=921_600, most=16_777_216, references=14, classes=("1K", "2K", "4K")
    ),
}
VIDEOS: dict[str, VideoModel] = {
    "seedance-2-5-260628": VideoModel(
        frozenset(_NEW_VIDEO | {"output_format", "draft", "omni_reference_task_type"}),
        (4, 30),
        ("480p", "720p", "1080p"),
        references=(30, 10, 10),
        audio_alone=True,
        default_seconds=-1,
    ),
    "seedance-2-0-260128": VideoModel(frozenset(_NEW_VIDEO), (4, 15), _FAMILY),
    "seedance-2-0-fast-260128": VideoModel(frozenset(_NEW_VIDEO), (4, 15), _FAMILY[:2]),
    "seedance-2-0-mini-260615": VideoModel(frozenset(_NEW_VIDEO), (4, 15), _FAMILY[:2]),
    "seedance-1-0-pro-250528": VideoModel(frozenset(_OLD_VIDEO), (2, 12), _FAMILY[:3], references=(0, 0, 0)),
    "seedance-1-0-pro-fast-251015": VideoModel(
        frozenset(_OLD_VIDEO), (2, 12), _FAMILY[:3], references=(0, 0, 0), last_frame=False
    ),
}
_PREFIXES = ("doubao-", "dreamina-", "dola-", "")
# No longer sold in China.
_ABROAD_ONLY = ("seedream-5-0-260128", "seedream-4", "seedance-1-0-pro")
RATIOS = ("16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "adaptive")
# Width and height of videos in the order of the ratios.
_FRAMES = {
    "480p": ((864, 496), (752, 560), (640, 640), (560, 752), (496, 864), (992, 432)),
    "720p": ((1280, 720), (1112, 834), (960, 960), (834, 1112), (720, 1280), (1470, 630)),
    "1080p": ((1920, 1080), (1664, 1248), (1440, 1440), (1248, 1664), (1080, 1920), (2206, 946)),
    "4k": ((3840, 2160), (3326, 2494), (2880, 2880), (2494, 3326), (2160, 3840), (4398, 1886)),
}
_NEW_480P = ((854, 480), (752, 560), (640, 640), (560, 752), (480, 854), (992, 432))


def base_name(model: str) -> str:
    """Return the name of a model without the prefix of its region."""
    return next(model.removeprefix(prefix) for prefix in _PREFIXES if model.startswith(prefix))


def is_sold(model: str) -> bool:
    """Whether the model exists under this name: Chinese names begin with `doubao-`."""
    name = base_name(model)
    return not (model.startswith("doubao-") and name.startswith(_ABROAD_ONLY))


def is_sold_in(model: str, region: str) -> bool:
    """Whether a region (`cn`, `intl`, or "" for any) knows the model by this name."""
    return not region or (region == "cn") == model.startswith("doubao-")


def frame(model: str, resolution: str, ratio: str) -> tuple[int, int]:
    """Return width and height of a video. A ratio that the model chooses is 16:9."""
    is_new = resolution == "480p" and base_name(model).startswith("seedance-2-5")
    frames = _NEW_480P if is_new else _FRAMES[resolution]
    return frames[0] if ratio == "adaptive" else frames[RATIOS.index(ratio)]


def public_names() -> list[str]:
    """Return the ids of all models, as a list of models shows them."""
    return [f"dola-{name}" for name in IMAGES] + [f"dreamina-{name}" for name in VIDEOS]
