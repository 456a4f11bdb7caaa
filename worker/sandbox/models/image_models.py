"""Upstream's image models: the sites that offer them, and the sizes of their images."""

import math
from dataclasses import dataclass

EVERYWHERE = frozenset({"cn", "us", "asia"})
INTERNATIONAL = frozenset({"us", "asia"})


@dataclass(frozen=True)
class ImageModel:
    key: str
    name: str
    sites: frozenset[str] = EVERYWHERE
    max_count: int = 8
    # 3.x and older ignore gen_count and always make four.
    always_four: bool = False
    # Maximum number of reference images; 0 = text only.
    references: int = 10
    # The listed resolutions. Others are accepted too, like upstream does.
    resolutions: tuple[str, ...] = ("2k", "4k")
    # Makes a series of different images from one prompt.
    series: bool = False


def _legacy_model(key: str, name: str, sites: frozenset[str] = EVERYWHERE, *, references: int = 0) -> ImageModel:
    return ImageModel(key, name, sites, always_four=True, references=references, resolutions=("1k",))


_CHINA = frozenset({"cn"})
_US = frozenset({"us"})
_NANO = ("1k", "2k", "4k")
_ALL = (
    ImageModel("high_aes_general_v40", "Image 4.0", series=True),
    ImageModel("high_aes_general_v41", "Image 4.1", series=True),
    ImageModel("high_aes_general_v40l", "Image 4.5", series=True),
    ImageModel("high_aes_general_v42", "Image 4.6"),
    ImageModel("high_aes_general_v43", "Image 4.7", frozenset({"cn", "asia"})),
    ImageModel("high_aes_general_v50", "Image 5.0 Lite"),
    ImageModel("high_aes_general_v50p_large", "Image 5.0 Pro", max_count=4, resolutions=("1.5k", "2k", "4k")),
    ImageModel("high_aes_general_v50_flash", "Image 5.0 Flash", _CHINA, max_count=4, resolutions=("1.5k", "2k")),
    ImageModel(
        "jm_image_model_yc_mj82", "Aesthetic V8.2", _CHINA, always_four=True, references=20, resolutions=("1k", "2k")
    ),
    _legacy_model("high_aes_general_v30l_art:general_v3.0_18b", "Image 3.1", INTERNATIONAL),
    _legacy_model("high_aes_general_v30l_art_fangzhou:general_v3.0_18b", "Image 3.1", _CHINA),
    _legacy_model("high_aes_general_v30l:general_v3.0_18b", "Image 3.0", references=10),
    _legacy_model("high_aes_general_v21_L:general_v2.1_L", "Image 2.1"),
    _legacy_model("high_aes_general_v20_L:general_v2.0_L", "Image 2.0 Pro"),
    _legacy_model("high_aes_general_v20:general_v2.0", "Image 2.0"),
    _legacy_model("high_aes_v14_dreamina:general_v1.4", "Image 1.4", INTERNATIONAL),
    _legacy_model("high_aes_general_v14:general_v1.4", "Image 1.4", _CHINA),
    _legacy_model("text2img_xl_sft", "Image XL Pro"),
    ImageModel("external_model_gemini_flash_image_v25", "Nano Banana", INTERNATIONAL, resolutions=("1k",)),
    ImageModel("dreamina_image_lib_1", "Nano Banana Pro", INTERNATIONAL, resolutions=_NANO),
    ImageModel("gemini_3_image_pro", "Nano Banana Pro", _US, resolutions=_NANO),
    ImageModel("dreamina_lib_img_20260423", "Nano Banana Pro", frozenset({"asia"}), resolutions=_NANO),
    ImageModel("gpt_image_2", "GPT Image 2", _US),
    ImageModel("dreamina_gpt_image_2_5_flare", "GPT Image 2.5 Flare", _US),
    ImageModel("dreamina_gpt_image_2_5_sunburst", "GPT Image 2.5 Sunburst", _US),
)
IMAGE_MODELS = {model.key: model for model in _ALL}

PRICES = {"1k": 1, "1.5k": 1, "2k": 2, "4k": 4}

# Range of pixels of each resolution. Clients use several families of sizes (1328 and 1024, 5120 and 5404), so a size
# contradicts its resolution only when its area belongs to another one.
_AREAS = {
    "1k": (400_000, 2_000_000),
    "1.5k": (1_900_000, 3_000_000),
    "2k": (3_000_000, 6_000_000),
    "4k": (12_000_000, 18_000_000),
}
SIZES = {
    "1k": ((1328, 1328), (1104, 1472), (1664, 936), (1472, 1104), (936, 1664), (1056, 1584), (1584, 1056), (2016, 864)),
    "1.5k": (
        (1536, 1536),
        (1296, 1728),
        (1920, 1080),
        (1728, 1296),
        (1080, 1920),
        (1248, 1872),
        (1872, 1248),
        (2268, 972),
    ),
    "2k": (
        (2048, 2048),
        (1728, 2304),
        (2560, 1440),
        (2304, 1728),
        (1440, 2560),
        (1664, 2496),
        (2496, 1664),
        (3024, 1296),
    ),
    "4k": (
        (4096, 4096),
        (3520, 4693),
        (5404, 3040),
        (4693, 3520),
        (3040, 5404),
        (3328, 4992),
        (4992, 3328),
        (6197, 2656),
    ),
}


# Longest side of a square of each resolution, to find the resolution of a size that comes without one.
_LONGEST_SIDES = {"1k": 1024, "2k": 2048, "4k": 4096}
_SHORTEST_FREE_SIDE = 64


def free_size(width: int, height: int, ratio: int | None) -> tuple[int, int, str]:
    """Return width, height and resolution of a submit without `resolution_type`.

    The size stays as it is if upstream can make it. The resolution, which decides the price, is the nearest by the
    longest side.
    """
    longest, shortest = max(width, height), min(width, height)
    resolution = min(_LONGEST_SIDES, key=lambda name: abs(math.log(max(longest, 1) / _LONGEST_SIDES[name])))
    possible = shortest >= _SHORTEST_FREE_SIDE and longest <= 8 * shortest and width * height <= _AREAS["4k"][1]
    return (width, height, resolution) if possible else (*SIZES[resolution][(ratio or 1) - 1], resolution)


def image_size(resolution: str, width: int, height: int, ratio: int | None) -> tuple[int, int]:
    """Return the size that upstream makes: the resolution overrides a width and height that contradict it."""
    low, high = _AREAS[resolution]
    if low <= width * height <= high and max(width, height) <= 8 * min(width, height):
        return width, height
    return SIZES[resolution][(ratio or 1) - 1]
