"""The catalog: all models, sizes, counts, and the split of a request into jobs."""

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.catalog.models import get_catalog
from worker.core.catalog.upstream_models import ModelListing, may_offer
from worker.core.errors import DreameryError
from worker.providers.dreamina.wire_models import wire_video

_NAMES = [
    "jimeng-4.0",
    "jimeng-image-4.0",
    "jimeng-4.1",
    "jimeng-4.5",
    "jimeng-4.6",
    "jimeng-image-4.7",
    "jimeng-5.0",
    "jimeng-image-5.0-lite",
    "jimeng-3.1",
    "jimeng-3.0",
    "jimeng-2.1",
    "jimeng-2.0-pro",
    "jimeng-2.0",
    "jimeng-1.4",
    "jimeng-xl-pro",
    "jimeng-nano-banana",
    "nanobanana",
    "jimeng-nano-banana-pro",
    "nanobananapro",
]


@pytest.mark.parametrize("name", _NAMES)
def test_all_public_ids_are_known(name: str) -> None:
    assert name in {n for m in get_catalog().image_models for n in (m.id, *m.aliases)}


def test_every_resolution_has_all_eight_ratios() -> None:
    catalog = get_catalog()
    for model in catalog.image_models:
        for resolution in model.resolutions:
            assert set(model.sizes[resolution]) == set(catalog.ratios)


def test_cn_key_of_model_3_1_differs() -> None:
    model = get_catalog().image_model("jimeng-3.1")
    assert "fangzhou" in model.upstream_key("cn")
    assert "fangzhou" not in model.upstream_key("us")


def test_unknown_image_model_error_names_the_model_list() -> None:
    with pytest.raises(DreameryError, match="GET /v1/models") as caught:
        get_catalog().image_model("dall-e-9")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@given(n=st.integers(1, 64), name=st.sampled_from(["jimeng-4.0", "jimeng-5.0-pro", "jimeng-3.0"]))
def test_split_into_jobs_gives_the_exact_count(n: int, name: str) -> None:
    model = get_catalog().image_model(name)
    counts = model.split_into_jobs(n)
    assert sum(counts) == n
    assert all(1 <= count <= model.max_per_job for count in counts)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (2048, 2048, (2048, 2048)),
        (1024, 1024, (1328, 1328)),
        (1792, 1024, (1664, 936)),
        (2560, 1440, (2560, 1440)),
        (5404, 3040, (5404, 3040)),
        (512, 512, (1328, 1328)),
    ],
)
def test_requested_size_maps_to_the_nearest_size(width: int, height: int, expected: tuple[int, int]) -> None:
    catalog = get_catalog()
    size = catalog.nearest_size(catalog.image_model("jimeng-4.0"), width, height)
    assert (size.width, size.height) == expected


# --- videos (protocol sections 7.3, 7.4, 10.2) ---

_VIDEOS = [
    ("jimeng-video-3.0", "dreamina_ic_generate_video_model_vgfm_3.0"),
    ("jimeng-video-3.0-pro", "dreamina_ic_generate_video_model_vgfm_3.0_pro"),
    ("jimeng-video-3.0-fast", "dreamina_ic_generate_video_model_vgfm_3.0_fast"),
    ("jimeng-video-s2.0-pro", "dreamina_ic_generate_video_model_vgfm1.0"),
    ("jimeng-video-2.0-pro", "dreamina_ic_generate_video_model_vgfm1.0"),
    ("jimeng-video-2.0", "dreamina_ic_generate_video_model_vgfm_lite"),
    ("jimeng-video-s2.0", "dreamina_ic_generate_video_model_vgfm_lite"),
    ("jimeng-video-3.5-pro", "dreamina_ic_generate_video_model_vgfm_3.5_pro"),
    ("jimeng-video-seedance-1.5-pro", "dreamina_ic_generate_video_model_vgfm_3.5_pro"),
    ("jimeng-video-sora2", "dreamina_sora2_generate_video"),
    ("jimeng-video-veo3.1", "dreamina_veo3.1_generate_video"),
    ("jimeng-video-veo3", "dreamina_veo3_generate_video"),
    ("jimeng-video-seedance-2.0", "dreamina_seedance_40_pro"),
    ("seedance-2.0", "dreamina_seedance_40_pro"),
    ("jimeng-video-seedance-2.0-fast", "dreamina_seedance_40"),
    ("jimeng-video-seedance-2.0-fast-vip", "dreamina_seedance_40_vision"),
    ("jimeng-video-seedance-2.0-pro", "dreamina_seedance_40_pro_vision"),
    ("jimeng-video-seedance-2.0-mini", "dreamina_seedance_40_mini"),
    ("seedance-2.0-lite", "seedance_2_0_lite"),
    ("jimeng-video-seedance-2.5", "dreamina_seedance_45_pro"),
    ("jimeng-video-seedance-2.5-draft", "dreamina_seedance_45_pro_draft"),
]


@pytest.mark.parametrize(("name", "key"), _VIDEOS)
def test_all_video_models_are_known(name: str, key: str) -> None:
    assert get_catalog().video_model(name).key == key


def test_model_names_of_a_provider_are_unique_across_images_and_videos() -> None:
    catalog = get_catalog()
    models = [*catalog.image_models, *catalog.video_models]
    for provider in {model.provider for model in models}:
        names = [n for m in models for n in (m.id, *m.aliases) if m.provider == provider]
        assert len(names) == len(set(names))
    assert len({model.id for model in models}) == len(models)
    assert all(m.durations and m.resolutions and m.ratios for m in catalog.video_models)


@pytest.mark.parametrize(
    ("name", "seconds", "resolution", "omni", "benefit"),
    [
        ("jimeng-video-3.0", 5, "720p", False, "basic_video_operation_vgfm_v_three"),
        ("jimeng-video-3.0-fast", 5, "1080p", False, "basic_video_operation_vgfm_v_three_1080"),
        ("jimeng-video-seedance-2.0", 5, "720p", False, "dreamina_video_seedance_20_pro"),
        ("jimeng-video-seedance-2.0", 5, "720p", True, "dreamina_video_seedance_20_video_add"),
        ("jimeng-video-seedance-2.0-pro", 5, "4k", False, "seedance_20_pro_4k_output"),
        ("jimeng-video-seedance-2.0-mini", 4, "720p", False, "seedance_20_mini_720p_output_5s"),
        ("jimeng-video-seedance-2.0-mini", 6, "720p", False, "seedance_20_mini_720p_output_8s"),
        ("jimeng-video-seedance-2.0-mini", 12, "720p", False, "seedance_20_mini_720p_output"),
    ],
)
def test_benefit_type_of_a_video(name: str, seconds: int, resolution: str, *, omni: bool, benefit: str) -> None:
    model = get_catalog().video_model(name)
    found = wire_video(model).benefit_for(seconds=seconds, resolution=resolution, omni=omni, listed={})
    assert found == benefit


def test_find_video_models_by_capability() -> None:
    catalog = get_catalog()
    assert "jimeng-video-3.0" in catalog.find_video_models(end_frame=True)
    assert "jimeng-video-3.0-fast" not in catalog.find_video_models(end_frame=True)
    assert catalog.find_video_models(seconds=12, region="us", end_frame=True, provider="dreamina") == [
        "jimeng-video-3.5-pro",
        "jimeng-video-seedance-2.0-mini",
    ]
    assert catalog.find_video_models(resolution="4k", provider="dreamina") == ["jimeng-video-seedance-2.0-pro"]
    assert all(catalog.video_model(name).omni for name in catalog.find_video_models(omni=True))


def test_unknown_video_model_error_names_an_example() -> None:
    with pytest.raises(DreameryError, match=r"jimeng-video-3\.0") as caught:
        get_catalog().video_model("sora-9")
    assert caught.value.code == "model_not_found"
    assert get_catalog().knows_video("seedance-2.0")
    assert not get_catalog().knows_video("jimeng-4.0")


@pytest.mark.parametrize(
    ("name", "maximum"),
    [("jimeng-4.0", 10), ("jimeng-aesthetic-8.2", 20), ("jimeng-3.1", 0), ("jimeng-2.1", 0), ("jimeng-3.0", 10)],
)
def test_maximum_number_of_reference_images(name: str, maximum: int) -> None:
    assert get_catalog().image_model(name).references == maximum


@pytest.mark.parametrize(
    ("ratio", "resolution", "size"),
    [
        ("16:9", "480p", (854, 480)),
        ("4:3", "480p", (640, 480)),
        ("16:9", "720p", (1280, 720)),
        ("9:16", "720p", (720, 1280)),
        ("3:4", "1080p", (1080, 1440)),
        ("1:1", "1080p", (1080, 1080)),
        ("21:9", "720p", (1680, 720)),
        ("16:9", "4k", (3840, 2160)),
    ],
)
def test_video_sizes(ratio: str, resolution: str, size: tuple[int, int]) -> None:
    assert get_catalog().video_size(ratio, resolution) == size


def test_every_video_resolution_has_a_size() -> None:
    catalog = get_catalog()
    for model in catalog.video_models:
        for resolution in model.resolutions:
            assert catalog.nearest_resolution(model, *model.frame("16:9", resolution)) == resolution


# --- names built into tools ---


@pytest.mark.parametrize(
    "name",
    [
        "gpt-image-2-2026-04-21",
        "gpt-image-1-2025-04-23",
        "gpt-image-2-mini",
        "GPT-Image-1",
        "chatgpt-image-2",
        "dall-e-3-hd",
        "imagen-4.0-ultra-generate-001",
        "google/imagen-4",
        "flux-1.1-pro",
        "FLUX.1-schnell",
        "black-forest-labs/flux-2-pro",
        "stable-diffusion-3.5-large",
    ],
)
def test_image_names_built_into_tools_mean_the_default_model(name: str) -> None:
    catalog = get_catalog()
    assert catalog.image_model(name).id == catalog.default_image_model
    assert catalog.is_built_in_name(name)
    assert catalog.is_matched_by_pattern(name)


@pytest.mark.parametrize("name", ["sora-2-2025-12-08", "sora-2-pro-2025-10-06", "SORA-2-pro", "openai/sora-2"])
def test_video_names_built_into_tools_mean_the_default_model(name: str) -> None:
    catalog = get_catalog()
    assert catalog.video_model(name).id == catalog.default_video_model
    assert catalog.is_built_in_name(name)


@pytest.mark.parametrize("name", ["gpt-4o", "flux", "sora-9", "imagen", "my-flux-1", "gpt-image-1:2k", "jimeng-flux-1"])
def test_pattern_matches_the_whole_name_without_a_suffix(name: str) -> None:
    catalog = get_catalog()
    assert not catalog.knows_image(name)
    assert not catalog.knows_video(name)


def test_own_names_need_no_remark() -> None:
    catalog = get_catalog()
    assert catalog.is_built_in_name("gpt-image-1")
    for name in ("jimeng-4.0", "jimeng-image-4.0", "dreamina-gpt-image-2", "jimeng-video-sora2"):
        assert not catalog.is_built_in_name(name)
    for name in ("gpt-image-1", "sora-2", "jimeng-4.0", None):
        assert not catalog.is_matched_by_pattern(name)


def test_model_of_the_other_kind_is_named_with_its_call() -> None:
    for name in ("jimeng-video-3.0", "sora-2", "sora-2-2025-12-08"):
        with pytest.raises(DreameryError, match=r"generates videos: use /v1/videos"):
            get_catalog().image_model(name)
    for name in ("jimeng-4.0", "dall-e-3", "flux-pro"):
        with pytest.raises(DreameryError, match=r"generates images: use /v1/images/generations"):
            get_catalog().video_model(name)


# --- regions where sources disagree ---


def listing(region: str, *keys: str, kind: str = "videos") -> ModelListing:
    return ModelListing(account_id=uuid4(), region=region, models={kind: [{"key": key} for key in keys]})


@pytest.mark.parametrize(("name", "region"), [
    ("jimeng-video-3.0-pro", "us"), ("jimeng-video-3.0-fast", "us"), ("jimeng-video-s2.0-pro", "us"),
    ("jimeng-video-2.0", "us"), ("jimeng-video-sora2", "cn"), ("jimeng-video-veo3", "cn"),
])  # fmt: skip
def test_own_list_decides_where_sources_disagree(name: str, region: str) -> None:
    model = get_catalog().video_model(name)
    assert not model.is_available_in(region)
    assert may_offer(model, region, None), "without a list it is tried"
    assert may_offer(model, region, listing(region, model.key))
    assert may_offer(model, region, listing(region, "another", kind="images")), "no list of videos"
    assert not may_offer(model, region, listing(region, "another"))


def test_nano_banana_is_tried_in_china() -> None:
    model = get_catalog().image_model("jimeng-nano-banana")
    assert may_offer(model, "cn", None)
    assert not may_offer(model, "cn", listing("cn", "another", kind="images"))


def test_list_adds_to_the_catalog_and_takes_nothing_away() -> None:
    seedance, plain = get_catalog().video_model("jimeng-video-seedance-2.0"), get_catalog().video_model(None)
    assert not may_offer(seedance, "us", None)
    assert not may_offer(seedance, "us", listing("us", "another"))
    assert may_offer(seedance, "us", listing("us", seedance.key))
    assert may_offer(plain, "us", listing("us", "another"))
