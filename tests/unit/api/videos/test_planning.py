"""Plans of video requests: ratio, duration, frames, references, and errors that name alternatives."""

import asyncio
import base64
import io
from typing import Any
from uuid import uuid4

import pytest

from api.auth.caller import Caller
from api.generation.acceptance import GenerationPlan
from api.http.body_parsing import Upload
from api.videos.planning import plan_videos_with
from api.videos.schemas import VideoGenerationRequest
from tests.support.media_files import make_audio, make_video
from tests.support.uploads import make_image
from worker import storage
from worker.core.catalog.models import get_catalog
from worker.core.catalog.upstream_models import ModelListing, UpstreamModels
from worker.core.errors import DreameryError
from worker.core.security.session_tokens import parse_tokens
from worker.core.settings import get_settings

LINK = "https://example.org/a.png"
VIDEO = "https://example.org/dance.mp4"
AUDIO = "https://example.org/song.mp3"
OMNI = "jimeng-video-seedance-2.0"
PLAIN = "jimeng-video-3.0"
VIDEO_3 = {"key": "dreamina_ic_generate_video_model_vgfm_3.0", "name": "Video 3.0", "tip": ""}


@pytest.fixture(autouse=True)
def _plain_settings(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for cached in (get_settings, get_catalog, storage._store):
        cached.cache_clear()
    yield
    for cached in (get_settings, get_catalog, storage._store):
        cached.cache_clear()


def plan(prompt: str = "waves", *, caller: Caller | None = None, **fields: Any) -> GenerationPlan:
    body = VideoGenerationRequest.model_validate({"prompt": prompt, **fields})
    return asyncio.run(plan_videos_with("/v1/videos/generations", body, caller or Caller(owner="user:x")))


def order(*args: Any, **fields: Any) -> dict[str, Any]:
    return plan(*args, **fields).jobs[0].params["order"]


def error_message(code: str, param: str | None, *args: Any, **fields: Any) -> str:
    with pytest.raises(DreameryError) as caught:
        plan(*args, **fields)
    assert (caught.value.code, caught.value.param) == (code, param), caught.value.message
    return caught.value.message


def uploaded(data: bytes, name: str = "") -> Upload:
    return Upload(name=name, size=len(data), file=io.BytesIO(data))


def roles(request_plan: GenerationPlan) -> list[tuple[str, str, str]]:
    return [(item.role, item.media, item.name) for item in request_plan.inputs]


def test_text_only_request_uses_model_defaults():
    request_plan = plan(user="me", metadata={"a": "b"})
    (job,) = request_plan.jobs
    seed = job.params["order"].pop("seed")
    assert 0 <= seed < 2**32
    assert (job.kind, job.model, job.metadata) == ("video", PLAIN, {"a": "b", "user": "me"})
    assert job.params == {
        "order": {"prompt": "waves", "ratio": "16:9", "resolution": "720p", "seconds": 5, "fps": 24, "parts": []},
        "n": 1,
        "flags": {},
        "asked_model": PLAIN,
        "adjusted": {},
        "openai_size": "1280x720",
        "images": [],
    }
    assert (request_plan.n, request_plan.inputs) == (1, [])


def test_n_videos_are_n_jobs_with_different_seeds():
    request_plan = plan(n=3, seed=2**32 - 1)
    assert [job.params["order"]["seed"] for job in request_plan.jobs] == [2**32 - 1, 0, 1]
    assert request_plan.n == 3
    assert [job.id for job in request_plan.jobs] == sorted(job.id for job in request_plan.jobs)


@pytest.mark.parametrize(
    ("fields", "ratio", "resolution", "seconds"),
    [
        ({"ratio": "9:16", "duration": 10, "resolution": "1080p"}, "9:16", "1080p", 10),
        ({"aspect_ratio": "1：1", "seconds": "10", "resolution": "1080P"}, "1:1", "1080p", 10),
        ({"ratio": "auto", "duration": "5s", "resolution": "auto", "size": "auto"}, "16:9", "720p", 5),
        ({"seconds": 10.0}, "16:9", "720p", 10),
        ({"duration": "", "seconds": "10"}, "16:9", "720p", 10),
        ({"size": "720x1280"}, "9:16", "720p", 5),
        ({"size": "1792x1024"}, "16:9", "1080p", 5),
        ({"size": "1024x1792", "resolution": "720p"}, "9:16", "720p", 5),
        ({"width": 960, "height": 720}, "4:3", "720p", 5),
        ({"size": "1680x720", "ratio": "21:9"}, "21:9", "720p", 5),
    ],
)
def test_ratio_resolution_and_duration_are_resolved(fields, ratio, resolution, seconds):
    order_params = order(**fields)
    assert (order_params["ratio"], order_params["resolution"], order_params["seconds"]) == (ratio, resolution, seconds)


def test_flags_override_fields_and_are_reported():
    job = plan("waves -ra 1:1 -re 1080p -d 10", ratio="16:9", size="1280x720", duration=5, resolution="720p").jobs[0]
    order_params = job.params["order"]
    assert (order_params["prompt"], order_params["ratio"], order_params["resolution"], order_params["seconds"]) == (
        "waves",
        "1:1",
        "1080p",
        10,
    )
    assert job.params["flags"] == {"ratio": "1:1", "resolution": "1080p", "duration": "10"}
    assert order("海浪 比例 9:16")["ratio"] == "9:16"


@pytest.mark.parametrize(
    ("prompt", "allowed"),
    [("waves -d 7", "5, 10"), ("waves -ra 3:2", "16:9, 21:9"), ("waves -re 4k", "720p, 1080p"), ("a -d", "5, 10")],
)
def test_invalid_flag_error_lists_allowed_values(prompt, allowed):
    assert allowed in error_message("invalid_value", "prompt", prompt)


@pytest.mark.parametrize(
    ("fields", "code", "param", "message"),
    [
        ({"duration": 7}, "invalid_value", "duration", "jimeng-video-seedance-2.0-mini"),
        ({"seconds": "4"}, "invalid_value", "seconds", "jimeng-video-sora2"),
        ({"duration": "soon"}, "invalid_value", "duration", "5, 10"),
        ({"duration": float("nan")}, "invalid_value", "duration", "5, 10"),
        ({"duration": 99}, "invalid_value", "duration", "No model does"),
        ({"resolution": "4k"}, "invalid_value", "resolution", "jimeng-video-seedance-2.0-pro"),
        ({"ratio": "3:2"}, "invalid_value", "ratio", "No model does"),
        ({"aspect_ratio": "wide"}, "invalid_value", "aspect_ratio", "16:9"),
        ({"size": "large"}, "invalid_value", "size", "1280x720"),
        ({"size": "4000x1000"}, "invalid_value", "size", "3:1"),
        ({"size": "1280x720", "ratio": "1:1"}, "invalid_value", "ratio", "Send one"),
        ({"width": 1280}, "missing_required_parameter", "height", "height"),
        ({"size": "1280x720", "width": 720, "height": 720}, "invalid_value", "size", "differ"),
        ({"negative_prompt": "rain"}, "unsupported_parameter", "negative_prompt", "prompt"),
        ({"stream": True}, "unsupported_parameter", "stream", "events"),
        ({"model": "gpt-9"}, "model_not_found", "model", PLAIN),
        ({"model": "agent"}, "model_not_found", "model", "/v1/chat/completions"),
        ({"model": "jimeng-4.0"}, "model_not_found", "model", "/v1/images/generations"),
        ({"image": [LINK, LINK], "model": "jimeng-video-3.0-fast"}, "unsupported_parameter", "image.1", PLAIN),
        ({"images": [LINK] * 3}, "unsupported_parameter", "images.0", OMNI),
        ({"videos": [VIDEO]}, "unsupported_parameter", "videos.0", OMNI),
        ({"audio": AUDIO}, "unsupported_parameter", "audio", OMNI),
        ({"function_mode": "omni_reference", "image": LINK}, "unsupported_parameter", "function_mode", OMNI),
        ({"end_image": LINK}, "missing_required_parameter", "first_frame_image", "first frame"),
        ({"image": LINK, "first_frame_image": LINK}, "invalid_value", "first_frame_image", "Send either"),
        ({"images": [LINK, LINK], "end_image": LINK}, "invalid_value", "end_image", "one image"),
        ({"first_frame_image": LINK, "end_frame_image": LINK, "end_image": LINK}, "invalid_value", "end_image", "one"),
        ({"image": "no picture"}, "invalid_image", "image", "base64"),
        ({"image": 7}, "invalid_image", "image", "link"),
    ],
)
def test_invalid_request_error_names_alternatives(fields, code, param, message):
    assert message in error_message(code, param, **fields)


def us_caller() -> Caller:
    return Caller(owner="tokens:x", tokens=tuple(("h", token) for token in parse_tokens("us-abc", "us")))


def test_model_outside_region_error_names_available_models():
    message = error_message("model_not_found", "model", model=OMNI, caller=us_caller())
    assert "region us" in message
    assert "jimeng-video-3.0," in message
    assert plan(caller=us_caller()).jobs


def test_model_of_the_first_gateway_is_tried_with_a_us_session():
    assert plan(model="jimeng-video-3.0-pro", image=[LINK, LINK], caller=us_caller()).jobs
    offer = UpstreamModels([ModelListing(account_id=uuid4(), region="us", models={"videos": [VIDEO_3]})])
    body = VideoGenerationRequest.model_validate({"prompt": "waves", "model": "jimeng-video-3.0-pro"})
    with pytest.raises(DreameryError, match="not offered in region us"):
        asyncio.run(plan_videos_with("/v1/videos", body, us_caller(), offer))


@pytest.mark.parametrize(
    ("seconds", "order_params", "adjusted"),
    [
        ("4", 5, {"seconds": "4"}),
        ("8", 10, {"seconds": "8"}),
        ("12", 10, {"seconds": "12"}),
        ("5", 5, {}),
        (None, 5, {}),
    ],
)
@pytest.mark.parametrize("name", ["sora-2", "sora-2-pro"])
def test_built_in_name_uses_nearest_duration_and_reports_it(name, seconds, order_params, adjusted):
    job = plan(model=name, seconds=seconds, size="1280x720").jobs[0]
    assert (job.model, job.params["asked_model"]) == (PLAIN, name)
    assert (job.params["order"]["seconds"], job.params["adjusted"]) == (order_params, adjusted)
    error_message("invalid_value", "seconds", model=name, seconds="soon")


def test_lengths_that_differ_are_refused():
    error_message("invalid_value", "seconds", seconds="10", duration=5)
    assert order(seconds="10", duration=10.0)["seconds"] == 10
    assert "got '3'" in error_message("invalid_value", "duration", duration=3.0)


@pytest.mark.parametrize(("seconds", "used"), [("4", 5), (8, 10), ("12", 10), (12.0, 10), ("16s", 10)])
def test_openai_call_takes_the_nearest_duration_of_a_named_model(seconds, used):
    body = VideoGenerationRequest.model_validate({"prompt": "waves", "model": PLAIN, "seconds": seconds})
    (job,) = asyncio.run(plan_videos_with("/v1/videos", body, Caller(owner="user:x"))).jobs
    assert job.params["order"]["seconds"] == used
    assert job.params["adjusted"] == {"seconds": str(seconds).removesuffix("s").removesuffix(".0")}
    for path in ("/v1/videos/generations", "/v1/video/generations"):
        with pytest.raises(DreameryError, match=r"`seconds` must be one of 5, 10"):
            asyncio.run(plan_videos_with(path, body, Caller(owner="user:x")))


@pytest.mark.parametrize("fields", [{"duration": 4}, {"seconds": "7"}, {"seconds": "soon"}, {"prompt": "waves -d 8"}])
def test_openai_call_rejects_what_openai_clients_do_not_send(fields):
    body = VideoGenerationRequest.model_validate({"prompt": "waves", **fields})
    with pytest.raises(DreameryError, match="5, 10"):
        asyncio.run(plan_videos_with("/v1/videos", body, Caller(owner="user:x")))


def test_dated_name_is_reported_with_its_duration():
    job = plan(model="sora-2-2025-12-08", seconds="4").jobs[0]
    assert (job.model, job.params["asked_model"]) == (PLAIN, "sora-2-2025-12-08")
    assert job.params["adjusted"] == {"model": "sora-2-2025-12-08", "seconds": "4"}


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "1280x720"),
        ({"size": "1280x720", "image": "square"}, "1280x720"),
        ({"size": "720x1280"}, "720x1280"),
        ({"size": "1024x1792"}, "1024x1792"),
        ({"size": "1792x1024"}, "1792x1024"),
        ({"ratio": "1:1"}, "1280x720"),
        ({"ratio": "9:16"}, "720x1280"),
        ({"ratio": "21:9", "resolution": "1080p"}, "1792x1024"),
        ({"ratio": "3:4", "resolution": "1080p"}, "1024x1792"),
        ({"width": 704, "height": 1248}, "720x1280"),
    ],
)
def test_openai_size_is_the_word_for_what_was_ordered(fields, name):
    if "image" in fields:
        fields = {**fields, "image": uploaded(make_image("red", side=64), "a.png")}
    assert plan(**fields).jobs[0].params["openai_size"] == name


def test_operator_alias_uses_exact_duration(monkeypatch, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('[aliases]\n"sora-2" = "jimeng-video-sora2"\n')
    monkeypatch.setenv("DREAMERY_CATALOG_FILE", str(own))
    get_settings.cache_clear()
    get_catalog.cache_clear()
    job = plan(model="sora-2", seconds="12").jobs[0]
    assert (job.model, job.params["order"]["seconds"], job.params["adjusted"]) == ("jimeng-video-sora2", 12, {})


# --- frames ---


@pytest.mark.parametrize(
    "field", ["image", "images", "image_url", "file_paths", "filePaths", "input_reference", "first_frame_image"]
)
@pytest.mark.parametrize("value", [LINK, [LINK], {"image_url": LINK}, {"image_url": {"url": LINK}}, {"url": LINK}])
def test_one_image_is_the_first_frame(field, value):
    request_plan = plan(**{field: value})
    assert [(item.url, item.role, item.media) for item in request_plan.inputs] == [(LINK, "first_frame", "image")]
    assert request_plan.jobs[0].params["images"] == [LINK]
    assert request_plan.jobs[0].params["order"]["parts"] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"images": [LINK, f"{LINK}?2"]},
        {"file_paths": [LINK, f"{LINK}?2"]},
        {"image": LINK, "images": f"{LINK}?2"},
        {"image": LINK, "end_image": f"{LINK}?2"},
        {"first_frame_image": LINK, "last_frame_image": f"{LINK}?2"},
        {"first_frame_image": LINK, "end_frame_image": f"{LINK}?2"},
        {"image_file_1": LINK, "image_file_2": f"{LINK}?2"},
        {"input_reference": {"image_url": [LINK, f"{LINK}?2"]}},
    ],
)
@pytest.mark.parametrize("model", [PLAIN, OMNI])
def test_two_images_are_first_and_last_frame(fields, model):
    request_plan = plan(model=model, **fields)
    assert [(item.url, item.role) for item in request_plan.inputs] == [
        (LINK, "first_frame"),
        (f"{LINK}?2", "end_frame"),
    ]


def test_first_frame_sets_the_ratio():
    tall = base64.b64encode(make_image(side=8)).decode()
    job = plan(image=tall, ratio="16:9").jobs[0]
    assert (job.params["order"]["ratio"], job.params["adjusted"]) == ("1:1", {"ratio": "16:9"})
    assert plan(image=tall).jobs[0].params["adjusted"] == {}
    assert plan(image=LINK, ratio="9:16").jobs[0].params["order"]["ratio"] == "9:16"


def test_bytes_are_stored_and_described_in_params():
    data = make_image("red")
    request_plan = plan(image=uploaded(data, "me.png"), n=2)
    (item,) = request_plan.inputs
    assert item.stored.key == f"inputs/{request_plan.jobs[0].id.hex}/0.png"
    assert storage.read_file(item.stored.key) == data
    assert item.name == "me.png"
    assert request_plan.jobs[1].params["images"][0]["sha256"] == item.stored.sha256


# --- omni ---


def test_references_are_parsed_in_reading_order():
    request_plan = plan(
        "@image_file_2 dances like @video_file_1 to @Audio_file_1。@image1在看",
        model=OMNI,
        images=[{"url": LINK, "name": "cat.png"}, "https://example.org/x/dog.webp?s=1"],
        videos=[VIDEO],
        audio=AUDIO,
    )
    assert roles(request_plan) == [
        ("reference", "image", "cat.png"),
        ("reference", "image", "dog.webp"),
        ("reference", "video", "dance.mp4"),
        ("reference", "audio", "song.mp3"),
    ]
    assert request_plan.jobs[0].params["order"]["parts"] == [
        {"material": 1},
        {"text": " dances like "},
        {"material": 2},
        {"text": " to "},
        {"material": 3},
        {"text": "。"},
        {"material": 0},
        {"text": "在看"},
    ]
    assert request_plan.jobs[0].params["images"] == [LINK, "https://example.org/x/dog.webp?s=1", VIDEO, AUDIO]


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("@1 and @2", [{"material": 0}, {"text": " and "}, {"material": 1}]),
        ("look: @my cat.png!", [{"text": "look: "}, {"material": 0}, {"text": "!"}]),
        ("look: @MY CAT!", [{"text": "look: "}, {"material": 0}, {"text": "!"}]),
        ("@image2 @image_1", [{"material": 1}, {"text": " "}, {"material": 0}]),
        ("mail me@1.com, @friend, @1st: @2", [{"text": "mail me@1.com, @friend, @1st: "}, {"material": 1}]),
    ],
)
def test_reference_name_forms(prompt, parts):
    images = [{"url": LINK, "name": "my cat.png"}, {"url": LINK}]
    assert order(prompt, model=OMNI, images=images)["parts"] == parts


def test_prompt_without_reference_is_unchanged():
    assert order("they dance", model=OMNI, images=[LINK] * 3)["parts"] == [{"text": "they dance"}]
    assert order("they dance", model=OMNI, videos=VIDEO)["parts"] == [{"text": "they dance"}]
    assert order("she", model=OMNI, image=LINK, function_mode="omni_reference")["parts"] == [{"text": "she"}]


def test_two_images_without_reference_are_frames_for_omni_models():
    assert roles(plan("they dance", model=OMNI, images=[LINK, LINK]))[1][0] == "end_frame"
    framed = plan("@image1 dances", model=OMNI, image=LINK, function_mode="first_last_frames")
    assert roles(framed)[0][0] == "first_frame"
    assert framed.jobs[0].params["order"]["parts"] == []


def test_numbered_fields_keep_their_numbers():
    parts = order("@image_file_3 and @image_file_1", model=OMNI, image_file_3=LINK, image_file_1=LINK)["parts"]
    assert parts == [{"material": 1}, {"text": " and "}, {"material": 0}]


@pytest.mark.parametrize("mark", ["@image_file_3", "@image9", "@video_file_1", "@3", "@audio1"])
def test_reference_without_input_is_rejected(mark):
    message = error_message("invalid_value", "prompt", f"@1 meets {mark} there", model=OMNI, images=[LINK, LINK])
    assert mark in message
    assert "@image_file_1, @image_file_2" in message


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"images": [LINK] * 10}, "invalid_value", "images.9"),
        ({"videos": [VIDEO] * 4}, "invalid_value", "videos.3"),
        ({"audios": [AUDIO] * 4}, "invalid_value", "audios.3"),
        ({"function_mode": "omni_reference"}, "missing_required_parameter", "images"),
        ({"videos": [VIDEO], "first_frame_image": LINK}, "invalid_value", "first_frame_image"),
        ({"videos": ["junk!"]}, "invalid_video", "videos.0"),
        ({"videos": [7]}, "invalid_video", "videos.0"),
        ({"audio": "ftp://example.org/x"}, "invalid_audio", "audio"),
    ],
)
def test_invalid_references_are_rejected(fields, code, param):
    error_message(code, param, "they dance", model=OMNI, **fields)


def test_uploaded_video_and_audio_are_inspected():
    clip, song = make_video("red", "blue", seconds=2), make_audio()
    data_url = f"data:video/mp4;base64,{base64.b64encode(clip).decode()}"
    request_plan = plan("go", model=OMNI, video=data_url, audio=uploaded(song, "C:\\songs\\hm.mp3"))
    video, audio = request_plan.inputs
    assert (video.stored.mime, video.stored.width, video.stored.height) == ("video/mp4", 64, 64)
    assert abs(video.stored.milliseconds - 2000) < 100
    assert (audio.media, audio.stored.mime, audio.name) == ("audio", "audio/mpeg", "hm.mp3")
    assert storage.read_file(video.stored.key) == clip
    assert storage.read_file(audio.stored.key) == song
    assert "seconds" in request_plan.jobs[0].params["images"][0]
    error_message("invalid_video", "video", "go", model=OMNI, video=uploaded(make_image(), "x.mp4"))
    error_message("invalid_audio", "audio", "go", model=OMNI, audio=uploaded(clip, "x.wav"))
    error_message("invalid_video", "video", "go", model=OMNI, video=uploaded(clip[: len(clip) // 2], "x.mp4"))


def test_total_video_duration_is_limited():
    long = make_video("red", seconds=8)
    message = error_message("invalid_value", "videos.1", "go", model=OMNI, videos=[uploaded(long), uploaded(long)])
    assert "16.0 seconds" in message


def test_fingerprint_depends_on_inputs_and_roles():
    prints = {
        plan(**fields).fingerprint
        for fields in [
            {},
            {"image": LINK},
            {"image": VIDEO},
            {"images": [LINK, VIDEO]},
            {"images": [VIDEO, LINK]},
            {"image": LINK, "ratio": "1:1"},
            {"model": OMNI, "image": LINK, "function_mode": "omni_reference"},
        ]
    }
    assert len(prints) == 7
    assert plan(image=LINK).fingerprint == plan(images=[LINK]).fingerprint
