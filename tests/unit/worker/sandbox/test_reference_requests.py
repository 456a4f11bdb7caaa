"""Blend and video drafts: the recorded ones pass once their uploads exist, and every planted mistake is found."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from worker.sandbox.models.video_models import closest_ratio, video_size
from worker.sandbox.requests.fields import Belongings, RefusedError
from worker.sandbox.requests.submit import glimpse, read_order
from worker.sandbox.uploads.file_inspection import examine_picture

FIXTURES = Path(__file__).parents[3] / "fixtures" / "sandbox"
GIVEN = "gen_video.text_to_video_params.video_gen_inputs.0"
BLEND = "blend.ability_list.0"


class Anything(Belongings):
    """An account that has uploaded whatever a recorded request names."""

    def __init__(self):
        out = io.BytesIO()
        Image.new("RGB", (1024, 1536), (9, 9, 9)).save(out, "PNG")
        self.__dict__["known"] = examine_picture(out.getvalue())

    def image(self, image, name):
        if "unknown" in image["uri"]:
            raise RefusedError("1000", f"{name} is unknown")
        return self.known

    def media(self, info, name):
        assert info["vid"], name
        return self.known


def _recorded(name):
    return json.loads((FIXTURES / f"generate.{name}.json").read_bytes())


def _read(name, path="", value=None):
    """Read a recorded request, with one field of its abilities replaced, or removed when the value is None."""
    recorded = _recorded(name)
    body = recorded["body"]
    draft = json.loads(body["draft_content"])
    if path:
        *parents, last = path.split(".")
        place = draft["component_list"][0]["abilities"]
        for step in parents:
            place = place[int(step)] if step.isdigit() else place[step]
        if value is None:
            del place[last]
        else:
            place[last] = value
    body["draft_content"] = json.dumps(draft)
    return read_order(json.dumps(body).encode(), aid=recorded["query"]["aid"], place=None, owner=Anything())


@pytest.mark.parametrize(
    ("name", "kind", "pasted", "price"),
    [
        ("blend.request.cn", "blend", 1, 8),
        ("blend.request.us.two_refs", "blend", 2, 8),
        ("video.text.request", "video", 0, 25),
        ("video.first_frame.request", "video", 0, 25),
        ("video.first_last.request", "video", 0, 25),
        ("video.omni.request.cn", "video", 2, 25),
        ("video.seedance_mini.request.cn", "video", 0, 20),
    ],
)
def test_recorded_requests_are_taken(name, kind, pasted, price):
    order = _read(name)
    assert (order.kind, len(order.pasted), order.price) == (kind, pasted, price)


def test_frames_reach_the_order():
    first = _read("video.first_frame.request")
    assert (first.film.first is not None, first.film.last) == (True, None)
    assert first.film.ratio == "3:4"
    both = _read("video.first_last.request")
    assert both.film.last is not None
    assert (_read("video.text.request").width, _read("video.text.request").height) == (1280, 720)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("blend.core_param.prompt", "no mark"),
        ("blend.core_param.model", "high_aes_general_v41"),
        ("blend.core_param.seed", "7"),
        ("blend.ability_list", []),
        (f"{BLEND}.name", "canny"),
        (f"{BLEND}.strength", 3),
        (f"{BLEND}.image_uri_list", ["else"]),
        (f"{BLEND}.image_list", []),
        (f"{BLEND}.image_list.0.uri", "unknown"),
        ("blend.prompt_placeholder_info_list", None),
        ("blend.prompt_placeholder_info_list.0.ability_index", 1),
        ("blend.postedit_param", None),
    ],
)
def test_a_wrong_blend_is_an_invalid_parameter(path, value):
    with pytest.raises(RefusedError) as caught:
        _read("blend.request.cn", path, value)
    assert caught.value.code == "1000"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{GIVEN}.duration_ms", 7000),
        (f"{GIVEN}.resolution", "4k"),
        (f"{GIVEN}.video_mode", 1),
        (f"{GIVEN}.fps", 0),
        (f"{GIVEN}.prompt", None),
        (f"{GIVEN}.idip_meta_list", None),
        (f"{GIVEN}.min_version", None),
        (f"{GIVEN}.end_frame_image.uri", "unknown"),
        (f"{GIVEN}.unified_edit_input", {}),
        ("gen_video.video_task_extra", "{}"),
        ("gen_video.text_to_video_params.video_aspect_ratio", "5:4"),
        ("gen_video.text_to_video_params.model_req_key", "dreamina_veo3_generate_video"),
        ("gen_video.text_to_video_params.seed", None),
        ("gen_video.text_to_video_params.video_gen_inputs", []),
    ],
)
def test_a_wrong_video_is_an_invalid_parameter(path, value):
    with pytest.raises(RefusedError) as caught:
        _read("video.first_last.request", path, value)
    assert caught.value.code == "1000"


OMNI = f"{GIVEN}.unified_edit_input"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{GIVEN}.prompt", "a text"),
        (f"{OMNI}.material_list", []),
        (f"{OMNI}.material_list.0.material_type", "smell"),
        (f"{OMNI}.material_list.1.video_info.duration", 4.05),
        (f"{OMNI}.meta_list", []),
        (f"{OMNI}.meta_list.1.material_ref.material_idx", 1),
        (f"{OMNI}.meta_list.3.material_ref.material_idx", 2),
        (f"{OMNI}.meta_list.0.text", None),
    ],
)
def test_a_wrong_omni_reference_is_an_invalid_parameter(path, value):
    with pytest.raises(RefusedError) as caught:
        _read("video.omni.request.cn", path, value)
    assert caught.value.code == "1000"


@pytest.mark.parametrize("change", [{"benefit_type": "free"}, {"benefit_type": None}, {"resource_id": "x"}])
def test_the_commerce_info_is_checked(change):
    recorded = _recorded("video.text.request")
    recorded["body"]["extend"]["m_video_commerce_info"] |= change
    with pytest.raises(RefusedError):
        read_order(json.dumps(recorded["body"]).encode(), aid="513641", place=None)


def test_models_without_the_ability_refuse_it():
    recorded = _recorded("video.first_last.request")
    text = json.dumps(recorded["body"]).replace("vgfm_3.0", "vgfm_lite")
    with pytest.raises(RefusedError, match="takes no end_frame_image"):
        read_order(text.encode(), aid="513641", place=None, owner=Anything())
    with pytest.raises(RefusedError, match="not on offer in us"):
        read_order(text.encode(), aid="513641", place="us", owner=Anything())
    old = json.dumps(_recorded("blend.request.cn")["body"]).replace("high_aes_general_v40", "text2img_xl_sft")
    with pytest.raises(RefusedError, match="0 references"):
        read_order(old.encode(), aid="513695", place=None, owner=Anything())


def test_what_can_be_read_of_a_refused_draft():
    for name, prompt in (("blend.request.cn", "##put a green hat on the cat"), ("video.text.request", "the boat")):
        known = glimpse(json.dumps(_recorded(name)["body"]).encode())
        assert known["prompt"].startswith(prompt)
        assert known["model"]


@pytest.mark.parametrize(
    ("resolution", "ratio", "size"),
    [
        ("720p", "16:9", (1280, 720)),
        ("720p", "9:16", (720, 1280)),
        ("720p", "4:3", (960, 720)),
        ("720p", "1:1", (720, 720)),
        ("720p", "21:9", (1680, 720)),
        ("480p", "16:9", (854, 480)),
        ("480p", "3:4", (480, 640)),
        ("1080p", "4:3", (1440, 1080)),
    ],
)
def test_sizes_of_videos(resolution, ratio, size):
    assert video_size(resolution, ratio) == size


def test_a_first_frame_finds_the_nearest_ratio():
    assert [closest_ratio(*size) for size in ((1000, 1000), (1920, 1080), (1024, 1536))] == ["1:1", "16:9", "3:4"]
