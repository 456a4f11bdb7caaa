"""The tables of the official API, as its notes give them, against the data: sizes, frames, limits of models."""

import pytest

from worker.core.catalog.models import get_catalog

RATIOS = ["1:1", "4:3", "3:4", "16:9", "9:16", "3:2", "2:3", "21:9"]
FIVE = ["seedream-5.0-pro", "seedream-5.0-flash", "seedream-5.5"]
# Models, resolution, and a size for each ratio.
SIZES = [
    (FIVE, "1k", "1024x1024 1152x864 864x1152 1424x800 800x1424 1248x832 832x1248 1568x672"),
    (FIVE, "1.5k", "1536x1536 1792x1344 1344x1792 2048x1152 1152x2048 1872x1248 1248x1872 2352x1008"),
    (FIVE, "2k", "2048x2048 2368x1776 1776x2368 2816x1584 1584x2816 2496x1664 1664x2496 3136x1344"),
    (
        ["seedream-5.0-lite", "seedream-4.5", "seedream-4.0"],
        "2k",
        "2048x2048 2304x1728 1728x2304 2848x1600 1600x2848 2496x1664 1664x2496 3136x1344",
    ),
    (["seedream-5.0-lite"], "3k", "3072x3072 3456x2592 2592x3456 4096x2304 2304x4096 3744x2496 2496x3744 4704x2016"),
    (
        ["seedream-5.0-lite", "seedream-4.5", "seedream-4.0"],
        "4k",
        "4096x4096 4704x3520 3520x4704 5504x3040 3040x5504 4992x3328 3328x4992 6240x2656",
    ),
]
VIDEO_RATIOS = ["16:9", "4:3", "1:1", "3:4", "9:16", "21:9"]
TWO = ["seedance-2.0", "seedance-2.0-fast", "seedance-2.0-mini"]
FRAMES = [
    (["seedance-2.5"], "480p", "854x480 752x560 640x640 560x752 480x854 992x432"),
    (["seedance-2.5", *TWO, "seedance-1.0-pro"], "720p", "1280x720 1112x834 960x960 834x1112 720x1280 1470x630"),
    (["seedance-2.0"], "4k", "3840x2160 3326x2494 2880x2880 2494x3326 2160x3840 4398x1886"),
]
# Model, seconds, resolutions, references (images, videos, audios), modes.
VIDEOS = [
    ("seedance-2.5", (4, 30), {"480p", "720p", "1080p"}, (30, 10, 10), {"edit", "extend", "draft", "final"}),
    ("seedance-2.0", (4, 15), {"480p", "720p", "1080p", "4k"}, (9, 3, 3), set()),
    ("seedance-2.0-fast", (4, 15), {"480p", "720p"}, (9, 3, 3), set()),
    ("seedance-2.0-mini", (4, 15), {"480p", "720p"}, (9, 3, 3), set()),
    ("seedance-1.0-pro", (2, 12), {"480p", "720p", "1080p"}, (0, 0, 0), set()),
]


def pixels(text: str) -> list[tuple[int, int]]:
    return [(int(wide), int(high)) for wide, _, high in (size.partition("x") for size in text.split())]


@pytest.mark.parametrize(("models", "resolution", "sizes"), SIZES)
def test_sizes_of_images(models: list[str], resolution: str, sizes: str) -> None:
    for name in models:
        model = get_catalog().find_image(name)
        assert model is not None
        assert resolution in model.resolutions
        assert [model.sizes[resolution][ratio] for ratio in RATIOS] == pixels(sizes)
        assert all(model.accepts_size(*size) for size in pixels(sizes)), "its own sizes are ones that it makes"


def test_resolutions_and_free_sizes() -> None:
    found = {one.id: one for one in get_catalog().image_models}
    for name in FIVE:
        assert (found[name].resolutions, found[name].free_area) == (("1k", "1.5k", "2k"), (921_600, 4_624_220))
    assert {found[name].free_area for name in ("seedream-5.0-lite", "seedream-4.5")} == {(3_686_400, 16_777_216)}
    assert found["seedream-4.0"].free_area == (921_600, 16_777_216)
    assert [found[name].max_set for name in (*FIVE, "seedream-5.0-lite", "seedream-4.5", "seedream-4.0")] == [
        *[0, 0, 0], *[15, 15, 15],
    ]  # fmt: skip
    assert [found[name].max_layers for name in FIVE] == [16, 16, 99]


@pytest.mark.parametrize(("models", "resolution", "frames"), FRAMES)
def test_frames_of_videos(models: list[str], resolution: str, frames: str) -> None:
    for name in models:
        model = get_catalog().find_video(name)
        assert model is not None
        assert [model.frame(ratio, resolution) for ratio in VIDEO_RATIOS] == pixels(frames)
        assert model.frame("adaptive", resolution) == model.frame("16:9", resolution)


@pytest.mark.parametrize(("name", "seconds", "resolutions", "references", "modes"), VIDEOS)
def test_limits_of_videos(
    name: str, seconds: tuple[int, int], resolutions: set[str], references: tuple[int, int, int], modes: set[str]
) -> None:
    model = get_catalog().find_video(name)
    assert model is not None
    assert (model.min_seconds, model.max_seconds, set(model.resolutions)) == (*seconds, resolutions)
    assert (model.references.images, model.references.videos, model.references.audios) == references
    assert model.modes - {"text", "first", "first_last", "reference"} == modes
    assert (model.default_seconds, model.resolutions[0], model.ratios[0]) == (5, "720p", "16:9")
    assert model.flex == name.startswith("seedance-1.0")
    assert {"watermark", "execution_expires_after", "callback_url", "safety_identifier"} <= model.fields


def test_end_dates_and_places() -> None:
    catalog = get_catalog()
    gone = {"seedream-5.0-lite", "seedream-4.5", "seedream-4.0", "seedance-1.0-pro"}
    models = [*catalog.image_models, *catalog.video_models]
    ended = {one.id for one in models if one.ends}
    assert ended == gone
    for one in models:
        if one.id in gone:
            assert (one.is_available_in("cn"), one.is_available_in("intl"), one.is_available_in("sandbox")) == (
                *(False, True), True,
            )  # fmt: skip
    flash = catalog.find_image("seedream-5.0-flash")
    assert flash is not None
    assert [flash.upstream_key(region) for region in ("cn", "intl")] == [
        "doubao-seedream-5-0-flash-260915", "dola-seedream-5-0-flash-260915",
    ]  # fmt: skip
