"""The picture models upstream knows, where each is on offer, and how big its pictures become."""

from dataclasses import dataclass

EVERYWHERE = frozenset({"cn", "us", "asia"})
ABROAD = frozenset({"us", "asia"})


@dataclass(frozen=True)
class Model:
    key: str
    name: str
    places: frozenset[str] = EVERYWHERE
    most: int = 8
    # 3.x and older ignore gen_count: they always make four.
    always_four: bool = False
    # Pictures it takes as references; 0 = it makes pictures from text only.
    references: int = 10
    # The sizes it lists. More are accepted, as upstream does.
    resolutions: tuple[str, ...] = ("2k", "4k")
    # Makes several different pictures of a prompt that asks for a series.
    series: bool = False


def _old(key: str, name: str, places: frozenset[str] = EVERYWHERE, *, references: int = 0) -> Model:
    return Model(key, name, places, always_four=True, references=references, resolutions=("1k",))


_CHINA = frozenset({"cn"})
_US = frozenset({"us"})
_NANO = ("1k", "2k", "4k")
_ALL = (
    Model("high_aes_general_v40", "Image 4.0", series=True),
    Model("high_aes_general_v41", "Image 4.1", series=True),
    Model("high_aes_general_v40l", "Image 4.5", series=True),
    Model("high_aes_general_v42", "Image 4.6"),
    Model("high_aes_general_v43", "Image 4.7", frozenset({"cn", "asia"})),
    Model("high_aes_general_v50", "Image 5.0 Lite"),
    Model("high_aes_general_v50p_large", "Image 5.0 Pro", most=4, resolutions=("1.5k", "2k", "4k")),
    Model("high_aes_general_v50_flash", "Image 5.0 Flash", _CHINA, most=4, resolutions=("1.5k", "2k")),
    Model(
        "jm_image_model_yc_mj82", "Aesthetic V8.2", _CHINA, always_four=True, references=20, resolutions=("1k", "2k")
    ),
    _old("high_aes_general_v30l_art:general_v3.0_18b", "Image 3.1", ABROAD),
    _old("high_aes_general_v30l_art_fangzhou:general_v3.0_18b", "Image 3.1", _CHINA),
    _old("high_aes_general_v30l:general_v3.0_18b", "Image 3.0", references=10),
    _old("high_aes_general_v21_L:general_v2.1_L", "Image 2.1"),
    _old("high_aes_general_v20_L:general_v2.0_L", "Image 2.0 Pro"),
    _old("high_aes_general_v20:general_v2.0", "Image 2.0"),
    _old("high_aes_v14_dreamina:general_v1.4", "Image 1.4", ABROAD),
    _old("high_aes_general_v14:general_v1.4", "Image 1.4", _CHINA),
    _old("text2img_xl_sft", "Image XL Pro"),
    Model("external_model_gemini_flash_image_v25", "Nano Banana", ABROAD, resolutions=("1k",)),
    Model("dreamina_image_lib_1", "Nano Banana Pro", ABROAD, resolutions=_NANO),
    Model("gemini_3_image_pro", "Nano Banana Pro", _US, resolutions=_NANO),
    Model("dreamina_lib_img_20260423", "Nano Banana Pro", frozenset({"asia"}), resolutions=_NANO),
    Model("gpt_image_2", "GPT Image 2", _US),
    Model("dreamina_gpt_image_2_5_flare", "GPT Image 2.5 Flare", _US),
    Model("dreamina_gpt_image_2_5_sunburst", "GPT Image 2.5 Sunburst", _US),
)
MODELS = {model.key: model for model in _ALL}

PRICES = {"1k": 1, "1.5k": 1, "2k": 2, "4k": 4}

# Pixels a bucket may hold. Clients use several families of sizes for one bucket (1328 and 1024, 5120 and 5404),
# so a size is only "contradicting" when its area belongs to another bucket.
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


def picture_size(resolution: str, width: int, height: int, ratio: int | None) -> tuple[int, int]:
    """The size upstream really makes: the bucket wins over a width and height that contradict it."""
    low, high = _AREAS[resolution]
    if low <= width * height <= high and max(width, height) <= 8 * min(width, height):
        return width, height
    return SIZES[resolution][(ratio or 1) - 1]
