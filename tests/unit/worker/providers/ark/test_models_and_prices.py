"""The tables of Ark's models: sizes, limits, and what is sold where; prompts and recovery keys."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from worker.core import catalog_overrides
from worker.core.catalog.models import Catalog, get_catalog
from worker.core.catalog.prompts.mentions import name_inputs
from worker.core.catalog.prompts.vendor_flags import remove_vendor_flags
from worker.core.errors import DreameryError
from worker.providers.ark.models import built_in_models, models_of
from worker.providers.ark.recovery_keys import AttemptKeys, SentVideo, echoes_keys, find_matches, keys_of
from worker.providers.ark.responses import Task, TaskStatus


def test_models_that_are_sold() -> None:
    models = built_in_models()
    china = {model.id for model in models.sold_in("cn")}
    world = {model.id for model in models.sold_in("intl")}
    assert china == {
        *("seedream-5.5", "seedream-5.0-pro", "seedream-5.0-flash"),
        *("seedance-2.5", "seedance-2.0", "seedance-2.0-fast", "seedance-2.0-mini"),
    }
    assert world - china == {
        *("seedream-5.0-lite", "seedream-4.5", "seedream-4.0", "seedance-1.0-pro", "seedance-1.0-pro-fast"),
    }
    for name in ("seedance-1.5-pro", "doubao-seedance-1-5-pro-251215"):
        with pytest.raises(DreameryError, match=r"'seedance-1\.5-pro' is not sold any more\. Use 'seedance-2\.0-mini'"):
            get_catalog().video_model(name)
    assert {"seedance-1.5-pro", "seedance-1.0-lite", "seedream-3.0", "seededit-3.0"}.isdisjoint(models.videos)


def test_models_are_found_by_the_names_of_the_vendor() -> None:
    models = built_in_models()
    for name in ("doubao-seedance-2-5-260628", "dreamina-seedance-2-5-260628", "seedance-2.5"):
        found = models.find_video(name)
        assert found is not None
        assert found.id == "seedance-2.5"
    assert models.find_image("dola-seedream-5-5-261028") is models.images["seedream-5.5"]
    assert models.find_image("seedance-2.5") is None


@pytest.mark.parametrize(
    ("model", "resolution", "ratio", "size"),
    [
        ("seedream-5.0-pro", "1k", "16:9", (1424, 800)),
        ("seedream-5.5", "1.5k", "21:9", (2352, 1008)),
        ("seedream-5.0-flash", "2k", "4:3", (2368, 1776)),
        ("seedream-5.0-lite", "2k", "16:9", (2848, 1600)),
        ("seedream-5.0-lite", "3k", "1:1", (3072, 3072)),
        ("seedream-4.5", "4k", "9:16", (3040, 5504)),
        ("seedream-4.0", "1k", "16:9", (1280, 720)),
    ],
)
def test_sizes_of_images(model: str, resolution: str, ratio: str, size: tuple[int, int]) -> None:
    found = built_in_models().images[model]
    assert found.sizes[resolution][ratio] == size
    assert found.accepts_size(*size)


def test_free_sizes() -> None:
    models = built_in_models()
    pro, lite = models.images["seedream-5.0-pro"], models.images["seedream-5.0-lite"]
    assert pro.accepts_size(1280, 720)
    assert not pro.accepts_size(960, 640)
    assert not lite.accepts_size(1024, 1024)
    assert lite.nearest_size(1024, 1024) == (2048, 2048)
    assert pro.nearest_size(500, 250) == (1424, 800)
    assert not pro.accepts_size(10000, 100)


@pytest.mark.parametrize(
    ("model", "resolution", "ratio", "frame"),
    [
        ("seedance-2.5", "480p", "16:9", (854, 480)),
        ("seedance-2.0", "480p", "16:9", (864, 496)),
        ("seedance-2.0-mini", "720p", "21:9", (1470, 630)),
        ("seedance-2.0", "4k", "9:16", (2160, 3840)),
        ("seedance-2.5", "1080p", "21:9", (2206, 946)),
    ],
)
def test_frames_of_videos(model: str, resolution: str, ratio: str, frame: tuple[int, int]) -> None:
    assert built_in_models().videos[model].frames[resolution][ratio] == frame


def test_numbers_of_inputs() -> None:
    models = built_in_models()
    new, family = models.videos["seedance-2.5"].references, models.videos["seedance-2.0"].references
    assert (new.images, new.videos, new.audios, new.total, new.audio_alone) == (30, 10, 10, 50, True)
    assert (family.images, family.videos, family.audios, family.video_seconds) == (9, 3, 3, 15)
    assert (models.images["seedream-5.0-pro"].references, models.images["seedream-4.5"].references) == (10, 14)


def test_changes_of_the_operator(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        """
[[image]]
id = "seedream-5.5"
ends = { cn = 2026-11-30 }
[[video]]
id = "seedance-2.0"
prices = [{ currency = "USD", resolutions = ["480p", "720p"], plain = 5.0 }]
limits = { inflight = 3 }
seed = "documented"
"""
    )
    models = models_of(Catalog(catalog_overrides.load(path, catalog_overrides.shipped_data())))
    assert models.images["seedream-5.5"].sold_in == {"intl"}
    changed = models.videos["seedance-2.0"]
    assert [(price.plain, price.clip) for price in changed.prices] == [(5.0, None)]
    assert (changed.limits["inflight"], changed.limits["inflight_4k"], changed.seed) == (3, 1, "documented")
    assert built_in_models().images["seedream-5.5"].sold_in == {"cn", "intl"}


# ---- prompts

FLAGS = built_in_models().videos["seedance-2.0"].prompt_flags


@pytest.mark.parametrize(
    ("prompt", "left", "flags"),
    [
        ("a boat --rs 1080p --wm true", "a boat", ["--rs 1080p", "--wm true"]),
        ("a boat --dur 10 at sea", "a boat at sea", ["--dur 10"]),
        ("--ratio 16:9 a boat", "a boat", ["--ratio 16:9"]),
        ("a boat --SEED=7", "a boat", ["--SEED=7"]),
        ("a boat --cf", "a boat", ["--cf"]),
        ("a boat --watermark --fps 24", "a boat", ["--watermark", "--fps 24"]),
        ("a well--wm thing", "a well--wm thing", []),
        ("a --rsvp card", "a --rsvp card", []),
        ("stop -- fps", "stop -- fps", []),
    ],
)
def test_flags_of_the_vendor_are_removed(prompt: str, left: str, flags: list[str]) -> None:
    assert remove_vendor_flags(prompt, FLAGS) == (left, flags)


def test_flags_in_a_hostile_prompt_take_no_time() -> None:
    assert len(remove_vendor_flags("--rs " * 50_000, FLAGS)[1]) == 50_000
    assert remove_vendor_flags("--" * 100_000 + " " * 100_000, FLAGS)[1] == []


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("seedance-2.0", "Image 1 and Image 2 dance to Audio 1 in Video 1, not @image3"),
        ("seedance-2.5", "@Image 1 and @Image 2 dance to @Audio 1 in @Video 1, not @image3"),
    ],
)
def test_inputs_are_named_as_the_model_reads_them(model: str, named: str) -> None:
    prompt = "@image1 and @image_file_2 dance to @audio_file_1 in @video1, not @image3"
    counts = {"image": 2, "video": 1, "audio": 1}
    assert name_inputs(prompt, built_in_models().videos[model].mention, counts) == named


# ---- lost answers

USER = "6f1ed002ab5595859014ebf0951522d9c0ffee00"
KEYS = AttemptKeys(USER, "k3Jx9QmT2vLz8RbN4wYd", 151337)
SENT = SentVideo(KEYS, "m", 1000.0, "720p", "16:9", 5)


def task(name: str, **values: Any) -> Task:
    known: dict[str, Any] = {"created_at": 1001.0, "resolution": "720p", "ratio": "16:9", "seconds": 5}
    return Task(name, "m", TaskStatus.QUEUED, **(known | values))


def test_keys_differ_and_fit() -> None:
    drawn = [keys_of(str(uuid4()), USER) for _ in range(200)]
    assert len({keys.token for keys in drawn}) == 200
    assert len({keys.expires_after for keys in drawn}) > 150
    assert all(len(keys.safety_identifier) == 61 and 107_265 <= keys.expires_after <= 172_800 for keys in drawn)


def test_keys_of_a_submit_are_always_the_same() -> None:
    key = str(uuid4())
    assert keys_of(key, USER) == keys_of(key, USER)
    assert keys_of(key).token == keys_of(key, USER).token


def test_task_is_found_by_its_token() -> None:
    ours = task("b", safety_identifier=KEYS.safety_identifier, expires_after=1)
    others = task("a", safety_identifier=f"{USER}.{'a' * 20}", expires_after=151337)
    assert find_matches(SENT, [others, ours], owned=()) == [ours]
    assert find_matches(SENT, [ours], owned={"b"}) == []


def test_task_is_found_by_its_second_key() -> None:
    ours = task("b", expires_after=151337)
    assert find_matches(SENT, [ours], owned=()) == [ours]


@pytest.mark.parametrize(
    "values",
    [
        {"expires_after": 151338},
        {"created_at": 994.0},
        {"created_at": 1091.0},
        {"created_at": None},
        {"resolution": "480p"},
        {"ratio": "1:1"},
        {"seconds": 6},
    ],
)
def test_task_that_differs_is_not_ours(values: dict[str, Any]) -> None:
    assert find_matches(SENT, [task("b", **({"expires_after": 151337} | values))], owned=()) == []


def test_more_than_one_match_is_in_the_order_of_creation() -> None:
    twins = [
        task(name, safety_identifier=KEYS.safety_identifier, created_at=at) for name, at in (("b", 5.0), ("a", 3.0))
    ]
    assert [one.id for one in find_matches(SENT, twins, owned=())] == ["a", "b"]


def test_account_proves_that_it_shows_both_keys() -> None:
    shown = task("b", safety_identifier=KEYS.safety_identifier, expires_after=151337)
    assert echoes_keys(KEYS, shown)
    assert not echoes_keys(KEYS, task("b", safety_identifier=KEYS.safety_identifier))
    assert not echoes_keys(KEYS, task("b", expires_after=151337))
