"""Image requests for models that are sold for money: every field is sent, decided here or refused before a job exists."""

from typing import Any

import pytest

from api.auth.caller import Caller
from api.generation.media.reference_images import ReferenceImage
from api.images.options import check_layered_picture
from api.images.planning import plan_image_jobs
from api.images.schemas import ImageGenerationRequest
from worker.core.catalog.models import get_catalog
from worker.core.errors import DreameryError
from worker.core.media.image import ImageInfo
from worker.core.settings import get_settings

PRO, FLASH, NEWEST, LITE = "seedream-5.0-pro", "seedream-5.0-flash", "seedream-5.5", "seedream-5.0-lite"
OLD = "seedream-4.0"
LINK = "https://example.org/a.png"


@pytest.fixture(autouse=True)
def _plain_settings(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DREAMERY_MASTER_KEY", "a key for tests only")
    for cached in (get_settings, get_catalog):
        cached.cache_clear()
    yield
    for cached in (get_settings, get_catalog):
        cached.cache_clear()


def jobs(model: str = PRO, **fields: Any) -> list[Any]:
    body = ImageGenerationRequest.model_validate({"prompt": "a boat", "model": model, **fields})
    return plan_image_jobs(body, Caller(owner="user:x"))[0]


def order(model: str = PRO, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = jobs(model, **fields)[0].params["order"]
    return found


def test_plain_order_says_only_what_upstream_takes() -> None:
    (job,) = jobs()
    assert (job.model, job.providers) == (PRO, ["ark"])
    assert job.params["order"] == {
        "prompt": "a boat", "width": 2048, "height": 2048, "ratio": "1:1", "resolution": "2k", "count": 1, "seed": -1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "fields", "size"),
    [
        # Exactly, where the model makes any size.
        (PRO, {"size": "1280x720"}, (1280, 720)),
        (PRO, {"width": 1000, "height": 1000}, (1000, 1000)),
        (LITE, {"size": "2048x2048"}, (2048, 2048)),
        (OLD, {"size": "4000x1000"}, (4000, 1000)),
        # The nearest of the table, where it does not.
        (PRO, {"size": "512x512"}, (1024, 1024)),
        (PRO, {"size": "4096x4096"}, (2048, 2048)),
        (LITE, {"size": "1024x1024"}, (2048, 2048)),
        (LITE, {"size": "1920x1080"}, (2848, 1600)),
        # Ratio and resolution by the table, never a bare class.
        (PRO, {"ratio": "16:9", "resolution": "1k"}, (1424, 800)),
        (NEWEST, {"ratio": "21:9", "resolution": "1.5k"}, (2352, 1008)),
        (LITE, {"ratio": "9:16", "resolution": "3k"}, (2304, 4096)),
        (OLD, {"aspect_ratio": "16:9", "resolution": "1k"}, (1280, 720)),
        (PRO, {"prompt": "a boat -ra 3:2 -re 1.5k"}, (1872, 1248)),
        # Quality, unless the resolution says more.
        (PRO, {"quality": "low"}, (1024, 1024)),
        (PRO, {"quality": "medium"}, (1536, 1536)),
        (PRO, {"quality": "high"}, (2048, 2048)),
        (LITE, {"quality": "medium"}, (3072, 3072)),
        (PRO, {"quality": "high", "resolution": "1k"}, (1024, 1024)),
    ],
)
def test_sizes(model: str, fields: dict[str, Any], size: tuple[int, int]) -> None:
    found = order(model, **fields)
    assert (found["width"], found["height"]) == size
    assert "size_class" not in found.get("options", {})


def test_automatic_size_leaves_the_ratio_to_the_model() -> None:
    assert order(size="auto", resolution="1k")["options"] == {"size_class": "1K"}
    assert order(ratio="auto")["options"] == {"size_class": "2K"}


@pytest.mark.parametrize(
    ("model", "fields", "options"),
    [
        (LITE, {"series": True, "n": 5}, {"series": True}),
        (LITE, {"web_search": True}, {"web_search": True}),
        (NEWEST, {"background": "transparent"}, {"background": "transparent", "output_format": "png"}),
        (NEWEST, {"background": "transparent", "output_format": "webp"}, {"background": "transparent", "output_format": "png"}),
        (PRO, {"background": "transparent", "image": LINK}, {"background": "transparent", "output_format": "png"}),
        (PRO, {"background": "opaque"}, {"background": "opaque"}),
        (PRO, {"layers": True, "image": LINK}, {"size_class": "2K", "layers": True}),
        (PRO, {"output_format": "png"}, {"output_format": "png"}),
        (OLD, {"optimize_prompt_options": {"mode": "fast"}}, {"optimize": "fast"}),
        # We make what upstream does not.
        (PRO, {"output_format": "webp"}, None),
        (OLD, {"output_format": "png"}, None),
        # Neutral values.
        (PRO, {"background": "auto", "series": False, "layers": False, "web_search": False, "seed": None}, None),
        (PRO, {"negative_prompt": ""}, None),
    ],
)  # fmt: skip
def test_options(model: str, fields: dict[str, Any], options: dict[str, Any] | None) -> None:
    assert order(model, **fields).get("options") == options


def test_series_is_one_job_and_several_images_are_several() -> None:
    (job,) = jobs(LITE, series=True, n=5)
    assert job.params["order"]["count"] == 5
    several = jobs(PRO, n=3)
    assert [job.params["order"]["count"] for job in several] == [1, 1, 1]
    assert all(job.params["n"] == 3 for job in several)


@pytest.mark.parametrize(
    ("model", "fields", "code", "param"),
    [
        (PRO, {"resolution": "4k"}, "invalid_value", "resolution"),
        (PRO, {"ratio": "5:4"}, "invalid_value", "ratio"),
        (PRO, {"size": "4000x200"}, "invalid_value", "size"),
        (PRO, {"negative_prompt": "people"}, "unsupported_parameter", "negative_prompt"),
        (PRO, {"sample_strength": 0.5}, "unsupported_parameter", "sample_strength"),
        (PRO, {"seed": 7}, "unsupported_parameter", "seed"),
        (FLASH, {"seed": 7}, "unsupported_parameter", "seed"),
        (PRO, {"mask": LINK}, "unsupported_parameter", "mask"),
        (PRO, {"series": True}, "unsupported_parameter", "series"),
        (PRO, {"web_search": True}, "unsupported_parameter", "web_search"),
        (LITE, {"layers": True, "image": LINK}, "unsupported_parameter", "layers"),
        (LITE, {"background": "transparent"}, "unsupported_parameter", "background"),
        (PRO, {"background": "transparent"}, "invalid_value", "background"),
        (PRO, {"background": "transparent", "images": [LINK, LINK]}, "invalid_value", "background"),
        (NEWEST, {"background": "transparent", "output_format": "jpeg"}, "invalid_value", "output_format"),
        (PRO, {"layers": True}, "invalid_value", "image"),
        (PRO, {"layers": True, "image": LINK, "n": 2}, "invalid_value", "n"),
        (PRO, {"layers": True, "image": LINK, "size": "1024x1024"}, "invalid_value", "size"),
        (PRO, {"optimize_prompt_options": {"mode": "slow"}}, "invalid_value", "optimize_prompt_options"),
        (LITE, {"series": True, "n": 16}, "invalid_value", "n"),
        (LITE, {"series": True, "n": 3, "images": [LINK] * 13}, "invalid_value", "n"),
    ],
)
def test_what_the_model_cannot_do_is_refused(model: str, fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(DreameryError) as caught:
        jobs(model, **fields)
    assert (caught.value.code, caught.value.param) == (code, param), caught.value.message
    assert caught.value.kind.status == 400


@pytest.mark.parametrize(
    ("side", "kind", "usable"), [(512, "png", True), (600, "jpeg", True), (511, "png", False), (600, "webp", False)]
)
def test_layers_need_a_picture_that_can_be_taken_apart(side: int, kind: str, usable: bool) -> None:
    body = ImageGenerationRequest.model_validate({"prompt": "x", "model": FLASH, "image": LINK, "layers": True})
    sent = [ReferenceImage(facts=ImageInfo(f"image/{kind}", side, 700))]
    if usable:
        check_layered_picture(body, body.media_inputs, sent)
        return
    with pytest.raises(DreameryError, match="at least 512") as caught:
        check_layered_picture(body, body.media_inputs, sent)
    assert (caught.value.code, caught.value.param) == ("invalid_image", "image")
    check_layered_picture(body.model_copy(update={"layers": False}), body.media_inputs, sent)


@pytest.mark.parametrize("field", ["series", "layers", "web_search"])
def test_fields_of_other_upstreams_are_refused_and_models_that_have_them_named(field: str) -> None:
    with pytest.raises(DreameryError, match=r"Models that have it: .*seedream") as caught:
        jobs("jimeng-4.0", **{field: True})
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", field)


def test_flags_of_the_vendor_leave_the_prompt_and_the_job_says_so() -> None:
    (job,) = jobs(PRO, prompt="a boat --rs 4K --wm true at sea")
    assert job.params["order"]["prompt"] == "a boat at sea"
    assert job.params["adjusted"] == {"prompt": "removed --rs 4K --wm true"}
    assert jobs("jimeng-4.0", prompt="a boat --rs 4K")[0].params["order"]["prompt"] == "a boat --rs 4K"


def test_images_are_named_as_the_model_reads_them() -> None:
    found = order(PRO, prompt="@image1 beside @image_file_2, not @image3", images=[LINK, LINK])
    assert found["prompt"] == "Image 1 beside Image 2, not @image3"


def test_seed_passes_where_the_operator_allows_it(monkeypatch, tmp_path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('[[image]]\nid = "seedream-5.0-flash"\nseed = "documented"\n')
    monkeypatch.setenv("DREAMERY_CATALOG_FILE", str(path))
    for cached in (get_settings, get_catalog):
        cached.cache_clear()
    assert order(FLASH, seed=7)["seed"] == 7
    assert order(FLASH)["seed"] == -1
