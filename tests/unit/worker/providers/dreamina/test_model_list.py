"""Upstream's model lists (protocol section 10.3)."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.recorded_upstream import ScriptedUpstream, load_fixture, make_account
from worker.core.concurrency import event_loop
from worker.core.errors import DreameryError
from worker.providers.dreamina.model_list import parse_image_models, parse_video_models

VIDEOS = "/mweb/v1/video_generate/get_common_config"


def upstream_with(images: httpx.Response | None = None, videos: httpx.Response | None = None) -> ScriptedUpstream:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == VIDEOS:
            return videos or httpx.Response(200, json=load_fixture("video_generate.get_common_config.json"))
        assert request.url.path == "/mweb/v1/get_common_config"
        return images or httpx.Response(200, json=load_fixture("get_common_config.image.json"))

    return ScriptedUpstream(answer)


def test_image_and_video_lists_are_parsed():
    script = upstream_with()
    models = event_loop.run(script.provider.list_models(make_account()))
    (image,) = models.images
    assert (image.key, image.name, image.references) == ("high_aes_general_v50", "Seedream 5.0 Lite", 10)
    assert (image.resolutions, image.counts) == (("2k", "4k"), (1, 2, 3, 4, 5, 6, 7, 8))
    assert len(image.sizes) == 16
    assert ("4k", 3, 5404, 3040) in image.sizes
    (video,) = models.videos
    assert (video.key, video.durations, video.fps) == ("dreamina_ic_generate_video_model_vgfm_3.0", (5, 10), 24)
    assert (video.first_frame, video.end_frame) == (True, True)
    assert (video.ratios[0], video.own) == ("21:9", {"benefit": "basic_video_operation_vgfm_v_three"})
    assert json.loads(script.last_request.content) == {"scene": "generate_video", "params": {"needCache": True}}
    assert script.requests[0].url.params["needRefresh"] == "false"


def test_failed_list_leaves_its_kind_empty():
    broken = httpx.Response(200, json={"ret": "1002"})
    assert event_loop.run(upstream_with(images=broken).provider.list_models(make_account())).images == ()
    assert event_loop.run(upstream_with(images=broken).provider.list_models(make_account())).videos
    assert event_loop.run(upstream_with(videos=broken).provider.list_models(make_account())).videos == ()
    script = upstream_with(httpx.Response(200, json={"ret": "1015"}), broken)
    with pytest.raises(DreameryError) as caught:
        event_loop.run(script.provider.list_models(make_account()))
    assert caught.value.code == "upstream_session_expired"


def test_models_are_found_at_any_depth_and_once():
    row = {"model_req_key": "k", "model_name": "n\x00\n", "duration_option": [5, "x", True, -1], "feats": None}
    answer: dict[str, Any] = {"data": {"groups": [{"deep": {"list": [row, {**row, "model_name": "other"}]}}]}}
    (video,) = parse_video_models(answer)
    assert (video.name, video.durations, video.first_frame, video.end_frame) == ("n", (5,), None, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["model_req_key", "model_name", "feats", "resolution_map", "input_image_limit", "duration_option",
                 "commercial_config", "commerce_info_map", "basic", "image_ratio_sizes", "generate_count_options"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_invalid_lists_never_raise(value):
    assert isinstance(parse_image_models({"data": value}), tuple)
    assert isinstance(parse_video_models({"data": value}), tuple)
