"""Video requests for models that are sold for money: every field is sent, decided here or refused before a job exists."""

import asyncio
import io
from typing import Any

import pytest
from PIL import Image

from api.auth.caller import Caller
from api.http.body_parsing import Upload
from api.videos.planning import plan_videos_with
from api.videos.schemas import VideoGenerationRequest
from tests.support.media_files import make_video
from worker import storage
from worker.core.catalog.models import get_catalog
from worker.core.catalog.upstream_models import AccountGroup, UpstreamModels
from worker.core.errors import DreameryError
from worker.core.settings import get_settings

NEW, PRO, MINI, OLD, OLD_FAST = (
    "seedance-2.5", "seedance-2.0", "seedance-2.0-mini", "seedance-1.0-pro", "seedance-1.0-pro-fast",
)  # fmt: skip
PICTURE = "https://example.org/a.png"
CLIP = "https://example.org/dance.mp4"
SONG = "https://example.org/song.mp3"
OFFER = UpstreamModels(accounts=[AccountGroup("ark", "intl", "USD")])


@pytest.fixture(autouse=True)
def _plain_settings(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DREAMERY_PUBLIC_URL", "https://make.example.org")
    for cached in (get_settings, get_catalog, storage._store):
        cached.cache_clear()
    yield
    for cached in (get_settings, get_catalog, storage._store):
        cached.cache_clear()


def job(model: str = PRO, prompt: str = "waves", offer: UpstreamModels = OFFER, **fields: Any) -> Any:
    body = VideoGenerationRequest.model_validate({"prompt": prompt, "model": model, **fields})
    plan = asyncio.run(plan_videos_with("/v1/videos/generations", body, Caller(owner="user:x"), offer))
    (found,) = plan.jobs
    return found


def order(model: str = PRO, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = job(model, **fields).params["order"]
    return found


def picture(width: int, height: int) -> Upload:
    out = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(out, "PNG")
    return Upload(name="a.png", size=out.tell(), file=out)


def clip(seconds: int, side: int = 800) -> Upload:
    data = make_video("red", seconds=seconds, side=side)
    return Upload(name="a.mp4", size=len(data), file=io.BytesIO(data))


def test_plain_order_says_duration_resolution_and_ratio() -> None:
    found = job()
    assert (found.model, found.providers) == ("seedance-2.0", ["ark"])
    assert found.params["order"] == {
        "prompt": "waves", "ratio": "16:9", "resolution": "720p", "seconds": 5, "seed": -1, "fps": 24, "parts": [],
        "options": {"mode": "text", "generate_audio": True},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "fields", "expected"),
    [
        (PRO, {"size": "1920x1080"}, {"ratio": "16:9", "resolution": "1080p"}),
        (PRO, {"size": "1000x1000"}, {"ratio": "1:1", "resolution": "1080p"}),
        (NEW, {"size": "480x854"}, {"ratio": "9:16", "resolution": "480p"}),
        (MINI, {"size": "1920x1080"}, {"ratio": "16:9", "resolution": "720p"}),
        (PRO, {"size": "auto"}, {"ratio": "adaptive"}),
        (PRO, {"ratio": "adaptive"}, {"ratio": "adaptive"}),
        (PRO, {"ratio": "21:9", "resolution": "4k"}, {"ratio": "21:9", "resolution": "4k"}),
        (PRO, {"duration": 15}, {"seconds": 15}),
        (NEW, {"seconds": "30"}, {"seconds": 30}),
        (NEW, {"duration": -1}, {"seconds": -1}),
        (OLD, {"duration": 2}, {"seconds": 2}),
        (OLD, {"seed": 7}, {"seed": 7}),
        # Pictures: the picture decides unless a ratio is requested; some models leave no choice.
        (PRO, {"image": PICTURE}, {"ratio": "adaptive"}),
        (PRO, {"image": PICTURE, "ratio": "1:1"}, {"ratio": "1:1"}),
        (NEW, {"image": PICTURE, "ratio": "1:1"}, {"ratio": "adaptive"}),
        (NEW, {"reference_images": [PICTURE], "ratio": "1:1"}, {"ratio": "1:1"}),
        (NEW, {"draft": True}, {"resolution": "480p"}),
        (NEW, {"videos": [CLIP], "task_type": "edit"}, {"seconds": -1, "ratio": "adaptive"}),
        (NEW, {"videos": [CLIP], "task_type": "extend", "duration": 8}, {"seconds": 8, "ratio": "adaptive"}),
    ],
)
def test_shape(model: str, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    found = order(model, **fields)
    assert {name: found[name] for name in expected} == expected


def test_seconds_that_the_model_lacks_are_refused_in_calls_of_openai_too() -> None:
    body = VideoGenerationRequest.model_validate({"prompt": "waves", "model": PRO, "seconds": "16"})
    with pytest.raises(DreameryError, match="`seconds` must be one of") as caught:
        asyncio.run(plan_videos_with("/v1/videos", body, Caller(owner="user:x"), OFFER))
    assert (caught.value.code, caught.value.param) == ("invalid_value", "seconds")


def test_ratio_of_the_first_frame_where_a_model_has_no_adaptive_one() -> None:
    assert order(OLD, image=picture(300, 400))["ratio"] == "3:4"
    assert order(OLD, image=picture(300, 400), ratio="16:9")["ratio"] == "16:9"


@pytest.mark.parametrize(
    ("model", "fields", "options"),
    [
        (PRO, {"image": PICTURE}, {"mode": "first", "generate_audio": True}),
        (PRO, {"images": [PICTURE, PICTURE]}, {"mode": "first_last", "generate_audio": True}),
        (PRO, {"images": [PICTURE] * 3}, {"mode": "reference", "generate_audio": True}),
        (PRO, {"generate_audio": False, "priority": 3}, {"mode": "text", "generate_audio": False, "priority": 3}),
        (NEW, {"draft": True, "return_last_frame": True}, {"mode": "draft", "generate_audio": True, "return_last_frame": True}),
        (NEW, {"output_format": "mov"}, {"mode": "text", "generate_audio": True, "output_format": "mov"}),
        (PRO, {"web_search": True}, {"mode": "text", "generate_audio": True, "web_search": True}),
        (OLD, {"service_tier": "flex", "camera_fixed": True}, {"mode": "text", "service_tier": "flex", "camera_fixed": True}),
        # Neutral values.
        (OLD, {"generate_audio": False, "draft": False, "priority": 0, "service_tier": "default"}, {"mode": "text"}),
        (OLD, {"output_format": "mp4", "quality": "auto", "fps": 24, "task_type": "auto", "n": 1}, {"mode": "text"}),
    ],
)  # fmt: skip
def test_options(model: str, fields: dict[str, Any], options: dict[str, Any]) -> None:
    assert order(model, **fields)["options"] == options


@pytest.mark.parametrize(
    ("model", "fields", "code", "param"),
    [
        (PRO, {"negative_prompt": "people"}, "unsupported_parameter", "negative_prompt"),
        (PRO, {"quality": "high"}, "unsupported_parameter", "quality"),
        (PRO, {"sample_strength": 0.4}, "unsupported_parameter", "sample_strength"),
        (PRO, {"seed": 7}, "unsupported_parameter", "seed"),
        (OLD, {"seed": 2**31}, "invalid_value", "seed"),
        (PRO, {"fps": 30}, "unsupported_parameter", "fps"),
        (PRO, {"n": 2}, "invalid_value", "n"),
        (PRO, {"resolution": "2k"}, "invalid_value", "resolution"),
        (MINI, {"resolution": "1080p"}, "invalid_value", "resolution"),
        (PRO, {"ratio": "3:2"}, "invalid_value", "ratio"),
        (OLD, {"ratio": "adaptive-ish"}, "invalid_value", "ratio"),
        (PRO, {"duration": 3}, "invalid_value", "duration"),
        (PRO, {"duration": 16}, "invalid_value", "duration"),
        (NEW, {"duration": 31}, "invalid_value", "duration"),
        (OLD, {"duration": -1}, "invalid_value", "duration"),
        (OLD_FAST, {"images": [PICTURE, PICTURE]}, "unsupported_parameter", "images"),
        (OLD, {"videos": [CLIP]}, "unsupported_parameter", "videos"),
        (OLD, {"generate_audio": True}, "unsupported_parameter", "generate_audio"),
        (PRO, {"draft": True}, "unsupported_parameter", "draft"),
        (PRO, {"draft_of": "job_x"}, "unsupported_parameter", "draft_of"),
        (PRO, {"task_type": "edit", "videos": [CLIP]}, "unsupported_parameter", "task_type"),
        (NEW, {"task_type": "edit"}, "missing_required_parameter", "images"),
        (NEW, {"task_type": "edit", "images": [PICTURE]}, "missing_required_parameter", "videos"),
        (NEW, {"task_type": "edit", "videos": [CLIP], "duration": 5}, "invalid_value", "duration"),
        (NEW, {"draft": True, "resolution": "1080p"}, "invalid_value", "resolution"),
        (PRO, {"service_tier": "flex"}, "unsupported_parameter", "service_tier"),
        (OLD, {"priority": 3}, "unsupported_parameter", "priority"),
        (PRO, {"camera_fixed": True}, "unsupported_parameter", "camera_fixed"),
        (PRO, {"output_format": "mov"}, "unsupported_parameter", "output_format"),
        (PRO, {"web_search": True, "image": PICTURE}, "invalid_value", "web_search"),
        (OLD, {"web_search": True}, "unsupported_parameter", "web_search"),
        (PRO, {"end_frame_image": PICTURE}, "missing_required_parameter", "first_frame_image"),
        # Numbers of references.
        (PRO, {"audios": [SONG]}, "invalid_value", "audios"),
        (PRO, {"images": [PICTURE] * 10}, "invalid_value", "images"),
        (PRO, {"videos": [CLIP] * 4}, "invalid_value", "videos"),
        (PRO, {"images": [PICTURE], "audios": [SONG] * 4}, "invalid_value", "audios"),
        (NEW, {"images": [PICTURE] * 31}, "invalid_value", "images"),
    ],
)
def test_what_the_model_cannot_do_is_refused(model: str, fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(DreameryError) as caught:
        job(model, **fields)
    found = (caught.value.param or "").partition(".")[0]
    assert (caught.value.code, found) == (code, param), caught.value.message
    assert caught.value.kind.status == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"generate_audio": True}, {"return_last_frame": True}, {"draft": True}, {"draft_of": "job_x"},
        {"task_type": "edit"}, {"service_tier": "flex"}, {"web_search": True}, {"camera_fixed": True},
        {"priority": 3}, {"output_format": "mov"},
    ],
)  # fmt: skip
def test_fields_of_other_upstreams_are_refused_and_models_that_have_them_named(fields: dict[str, Any]) -> None:
    with pytest.raises(DreameryError, match=r"Models that have it: .*seedance") as caught:
        job("jimeng-video-3.0", **fields)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", next(iter(fields)))


def test_inputs_are_checked_by_the_limits_of_the_model() -> None:
    for width, height, reason in ((200, 200, "each side"), (400, 2000, "width / height"), (7000, 7000, "each side")):
        with pytest.raises(DreameryError, match=reason) as caught:
            job(PRO, image=picture(width, height))
        assert caught.value.code == "invalid_image"
    assert job(PRO, image=picture(300, 300)).params["images"][0]["width"] == 300
    with pytest.raises(DreameryError, match="width x height"):
        job(PRO, videos=[clip(3, side=320)])
    with pytest.raises(DreameryError, match=r"1\.0 seconds"):
        job(PRO, videos=[clip(1)])
    assert job(PRO, videos=[clip(3)]).params["clips"] == [3.0]
    assert job(PRO, videos=[CLIP]).params["clips"] == [None]


def test_clips_need_a_public_address(monkeypatch) -> None:
    monkeypatch.setenv("DREAMERY_PUBLIC_URL", "")
    get_settings.cache_clear()
    with pytest.raises(DreameryError, match="DREAMERY_PUBLIC_URL") as caught:
        job(PRO, videos=[CLIP])
    assert (caught.value.code, caught.value.kind.status) == ("invalid_video", 400)
    assert job("jimeng-video-seedance-2.0", videos=[CLIP]).params["images"] == [CLIP], "uploaded there"


def test_flags_of_the_vendor_leave_the_prompt_and_the_job_says_so() -> None:
    found = job(PRO, prompt="waves --dur 15 --rs=4k at dawn")
    assert found.params["order"]["prompt"] == "waves at dawn"
    assert (found.params["order"]["seconds"], found.params["order"]["resolution"]) == (5, "720p")
    assert found.params["adjusted"] == {"prompt": "removed --dur 15 --rs=4k"}


def test_prompt_is_split_at_its_references() -> None:
    found = order(PRO, prompt="@image1 dances to @audio_file_1", images=[PICTURE], audios=[SONG])
    assert found["parts"] == [{"material": 0}, {"text": " dances to "}, {"material": 1}]


BOTH = [AccountGroup("dreamina", "sandbox"), AccountGroup("ark", "intl", "USD")]


@pytest.mark.parametrize(
    ("accounts", "name", "model"),
    [
        (BOTH[:1], "seedance-2.0", "jimeng-video-seedance-2.0"),
        (BOTH[1:], "seedance-2.0", "seedance-2.0"),
        (BOTH, "seedance-2.0", "jimeng-video-seedance-2.0"),
        # A vendor's own name means its model first.
        (BOTH, "doubao-seedance-2-0-260128", "seedance-2.0"),
        (BOTH[:1], "doubao-seedance-2-0-260128", "jimeng-video-seedance-2.0"),
        (BOTH, "sora-2", "jimeng-video-3.0"),
        (BOTH[1:], "sora-2", "seedance-2.0-mini"),
        (BOTH[1:], None, "seedance-2.0-mini"),
    ],
)
def test_first_provider_with_an_account_runs_a_name_of_several(accounts, name, model) -> None:
    found = job(name, offer=UpstreamModels(accounts=accounts))
    assert found.model == model
    options = [one["model"] for one in found.params.get("route", {}).get("options", [])]
    assert len(options) == (2 if len(accounts) == 2 else 0)


@pytest.mark.parametrize(
    ("usable", "model", "rule"),
    [
        ((True, True), "seedance-2.0", "operator"),
        # The next model of the route, because no account of the first one can work now.
        ((True, False), "jimeng-video-seedance-2.0", "operator"),
        ((False, False), "seedance-2.0", "operator"),
    ],
)
def test_routes_of_the_operator_decide(monkeypatch, tmp_path, usable, model, rule) -> None:
    path = tmp_path / "own.toml"
    path.write_text('[routes]\n"seedance-2.0" = ["ark", "dreamina"]\n"only-ark" = ["seedance-2.0"]\n')
    monkeypatch.setenv("DREAMERY_CATALOG_FILE", str(path))
    for cached in (get_settings, get_catalog):
        cached.cache_clear()
    accounts = [AccountGroup("dreamina", "sandbox", None, usable[0]), AccountGroup("ark", "intl", "USD", usable[1])]
    found = job("seedance-2.0", offer=UpstreamModels(accounts=accounts))
    assert (found.model, found.params["route"]["rule"]) == (model, rule)
    # A route with one model has no failover.
    assert job("only-ark", offer=UpstreamModels(accounts=accounts)).model == "seedance-2.0"


def test_chosen_providers_narrow_the_models() -> None:
    assert job("seedance-2.0", offer=UpstreamModels(accounts=BOTH[1:], only={"ark"})).model == "seedance-2.0"
    with pytest.raises(DreameryError, match="Accounts of ark do not have this model") as caught:
        job("jimeng-video-3.0", offer=UpstreamModels(accounts=BOTH[1:], only={"ark"}))
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
