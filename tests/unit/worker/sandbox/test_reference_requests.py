"""Blend and video drafts: recorded requests are accepted, and every planted mistake is refused."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from worker.sandbox.models.video_models import closest_ratio, video_size
from worker.sandbox.requests.fields import AccountUploads, RefusedError
from worker.sandbox.requests.submit import peek, read_order
from worker.sandbox.uploads.file_inspection import inspect_image

FIXTURES = Path(__file__).parents[3] / "fixtures" / "sandbox"
VIDEO_INPUT = "gen_video.text_to_video_params.video_gen_inputs.0"
BLEND = "blend.ability_list.0"


class AnyUpload(AccountUploads):
    """An account that has uploaded every file that a recorded request names."""

    def __init__(self):
        out = io.BytesIO()
        Image.new("RGB", (1024, 1536), (9, 9, 9)).save(out, "PNG")
        self.__dict__["file_info"] = inspect_image(out.getvalue())

    def image(self, image, name):
        if "unknown" in image["uri"]:
            raise RefusedError("1000", f"{name} is unknown")
        return self.file_info

    def media(self, info, name):
        assert info["vid"], name
        return self.file_info


def _recorded(name):
    return json.loads((FIXTURES / f"generate.{name}.json").read_bytes())


def _read(name, path="", value=None):
    """Read a recorded request with one field of its abilities replaced, or removed if the value is None."""
    recorded = _recorded(name)
    body = recorded["body"]
    draft = json.loads(body["draft_content"])
    if path:
        *parents, last = path.split(".")
        site = draft["component_list"][0]["abilities"]
        for step in parents:
            site = site[int(step)] if step.isdigit() else site[step]
        if value is None:
            del site[last]
        else:
            site[last] = value
    body["draft_content"] = json.dumps(draft)
    return read_order(json.dumps(body).encode(), aid=recorded["query"]["aid"], site=None, uploads=AnyUpload())


@pytest.mark.parametrize(
    ("name", "kind", "references", "price"),
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
def test_recorded_requests_are_accepted(name, kind, references, price):
    order = _read(name)
    assert (order.kind, len(order.references), order.price) == (kind, references, price)


def test_frames_are_in_the_order():
    first = _read("video.first_frame.request")
    assert (first.video.first is not None, first.video.last) == (True, None)
    assert first.video.ratio == "3:4"
    both = _read("video.first_last.request")
    assert both.video.last is not None
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
def test_invalid_blend_returns_1000(path, value):
    with pytest.raises(RefusedError) as caught:
        _read("blend.request.cn", path, value)
    assert caught.value.code == "1000"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{VIDEO_INPUT}.duration_ms", 7000),
        (f"{VIDEO_INPUT}.resolution", "4k"),
        (f"{VIDEO_INPUT}.video_mode", 1),
        (f"{VIDEO_INPUT}.fps", 0),
        (f"{VIDEO_INPUT}.prompt", None),
        (f"{VIDEO_INPUT}.idip_meta_list", None),
        (f"{VIDEO_INPUT}.min_version", None),
        (f"{VIDEO_INPUT}.end_frame_image.uri", "unknown"),
        (f"{VIDEO_INPUT}.unified_edit_input", {}),
        ("gen_video.video_task_extra", "{}"),
        ("gen_video.text_to_video_params.video_aspect_ratio", "5:4"),
        ("gen_video.text_to_video_params.model_req_key", "dreamina_veo3_generate_video"),
        ("gen_video.text_to_video_params.seed", None),
        ("gen_video.text_to_video_params.video_gen_inputs", []),
    ],
)
def test_invalid_video_returns_1000(path, value):
    with pytest.raises(RefusedError) as caught:
        _read("video.first_last.request", path, value)
    assert caught.value.code == "1000"


OMNI = f"{VIDEO_INPUT}.unified_edit_input"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{VIDEO_INPUT}.prompt", "a text"),
        (f"{OMNI}.material_list", []),
        (f"{OMNI}.material_list.0.material_type", "smell"),
        (f"{OMNI}.material_list.1.video_info.duration", 4.05),
        (f"{OMNI}.meta_list", []),
        (f"{OMNI}.meta_list.1.material_ref.material_idx", 1),
        (f"{OMNI}.meta_list.3.material_ref.material_idx", 2),
        (f"{OMNI}.meta_list.0.text", None),
    ],
)
def test_invalid_omni_reference_returns_1000(path, value):
    with pytest.raises(RefusedError) as caught:
        _read("video.omni.request.cn", path, value)
    assert caught.value.code == "1000"


@pytest.mark.parametrize("change", [{"benefit_type": "free"}, {"benefit_type": None}, {"resource_id": "x"}])
def test_invalid_commerce_info_is_refused(change):
    recorded = _recorded("video.text.request")
    recorded["body"]["extend"]["m_video_commerce_info"] |= change
    with pytest.raises(RefusedError):
        read_order(json.dumps(recorded["body"]).encode(), aid="513641", site=None)


def test_models_refuse_unsupported_inputs():
    recorded = _recorded("video.first_last.request")
    text = json.dumps(recorded["body"]).replace("vgfm_3.0", "vgfm_lite")
    with pytest.raises(RefusedError, match="does not accept end_frame_image"):
        read_order(text.encode(), aid="513641", site=None, uploads=AnyUpload())
    with pytest.raises(RefusedError, match="not available in us"):
        read_order(text.encode(), aid="513641", site="us", uploads=AnyUpload())
    old = json.dumps(_recorded("blend.request.cn")["body"]).replace("high_aes_general_v40", "text2img_xl_sft")
    with pytest.raises(RefusedError, match="0 references"):
        read_order(old.encode(), aid="513695", site=None, uploads=AnyUpload())


def test_peek_reads_a_refused_draft():
    for name, prompt in (("blend.request.cn", "##put a green hat on the cat"), ("video.text.request", "the boat")):
        fields = peek(json.dumps(_recorded(name)["body"]).encode())
        assert fields["prompt"].startswith(prompt)
        assert fields["model"]


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
def test_video_sizes(resolution, ratio, size):
    assert video_size(resolution, ratio) == size


def test_first_frame_selects_the_nearest_ratio():
    assert [closest_ratio(*size) for size in ((1000, 1000), (1920, 1080), (1024, 1536))] == ["1:1", "16:9", "3:4"]
