"""Generated submits compared with the recorded requests (fixtures generate.image.*, .blend.*, .video.*)."""

import json
import re
import uuid
from typing import Any

import pytest

from tests.support.recorded_upstream import KEY, ScriptedUpstream, load_fixture, make_account, make_order
from worker.core.concurrency import event_loop
from worker.providers.base import Material, PromptPart, Reference, VideoOrder
from worker.providers.dreamina.request_drafts import uuids

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def normalized(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body with parsed JSON strings and placeholders for values that differ per run. Keeps the key order."""
    submitted = body["metrics_extra"]
    metrics = json.loads(submitted)
    if "sceneOptions" in metrics:
        metrics["sceneOptions"] = json.loads(metrics["sceneOptions"])
    body = {**body, "metrics_extra": metrics, "draft_content": json.loads(body["draft_content"])}
    component = body["draft_content"]["component_list"][0]
    component["metadata"]["created_time_in_ms"] = "NOW"
    if gen_video := component["abilities"].get("gen_video"):
        # The draft repeats the telemetry; comparing the strings also checks the key order.
        gen_video["video_task_extra"] = gen_video["video_task_extra"] == submitted
    preserved = json.dumps(body).replace(KEY, "THE-KEY")
    return json.loads(UUID.sub("UUID", preserved))


def submit_image(script: ScriptedUpstream, region: str, **changes: Any) -> dict[str, Any]:
    event_loop.run(script.provider.submit_image(make_account(region), make_order(**changes), submit_key=KEY))
    return json.loads(script.last_request.content)


@pytest.mark.parametrize(("region", "model"), [("cn", "jimeng-5.0"), ("us", "jimeng-4.0")])
def test_body_and_query_equal_the_browser_request(region, model):
    fixture = load_fixture(f"generate.image.request.{region}.json")
    script = ScriptedUpstream("generate.image.response.json")
    body = submit_image(script, region, model=model)
    assert json.dumps(normalized(body)) == json.dumps(normalized(fixture["body"]))
    url = script.last_request.url
    assert f"{url.scheme}://{url.host}{url.path}" == fixture["url"]
    query = dict(url.params)
    web_id = "webId" if region == "cn" else "web_id"
    assert re.fullmatch(r"[1-9]\d{18}", query[web_id])
    assert query == {**fixture["query"], web_id: query[web_id]}


def test_exact_count_equals_the_browser_draft_and_declares_its_price():
    fixture = normalized(load_fixture("generate.image.request.gen_count.json")["body"])
    script = ScriptedUpstream("generate.image.response.json", provider_constants={"dreamina_da_version": "3.3.20"})
    changes = {"model": "jimeng-5.0", "count": 2, "width": 2048, "height": 2048, "ratio": "1:1"}
    body = normalized(submit_image(script, "cn", **changes))
    ours, recorded = body.pop("metrics_extra"), fixture.pop("metrics_extra")
    assert body == fixture
    # The recording is of another page: it sends a templateId and no sceneOptions; we must declare the charge.
    assert recorded.pop("templateId") == "0"
    assert recorded.items() <= ours.items()
    assert ours["sceneOptions"][0]["benefitCount"] == 2


def test_model_without_counts_sends_no_count():
    script = ScriptedUpstream("generate.image.response.json")
    body = normalized(submit_image(script, "sg", model="jimeng-3.1", count=2))
    abilities = body["draft_content"]["component_list"][0]["abilities"]
    assert "gen_count" not in abilities["gen_option"]
    assert body["metrics_extra"]["sceneOptions"][0]["benefitCount"] == 4


def test_model_key_depends_on_region():
    script = ScriptedUpstream("generate.image.response.json")
    assert "fangzhou" in submit_image(script, "cn", model="jimeng-3.1")["extend"]["root_model"]
    assert "fangzhou" not in submit_image(script, "us", model="jimeng-3.1")["extend"]["root_model"]


def test_forced_model_size_applies_in_the_us_only():
    script = ScriptedUpstream("generate.image.response.json")
    asked = {"model": "jimeng-nano-banana", "width": 1664, "height": 936, "resolution": "1k"}
    cluster = {"country": "US", "idc": "useast5", "mweb": "https://m.capcut.com", "commerce": "https://c.capcut.com"}
    for region, expected in (
        ("us", [1024, 1024, "2k", 1]),
        ("sg", [1664, 936, "1k", 3]),
        ("sandbox", [1664, 936, "1k", 3]),
    ):
        core = normalized(submit_image(script, region, **asked))["draft_content"]["component_list"][0]["abilities"][
            "generate"
        ]["core_param"]
        info = core["large_image_info"]
        assert [info["width"], info["height"], info["resolution_type"], core["image_ratio"]] == expected
    event_loop.run(
        script.provider.submit_image(make_account("auto", cluster=cluster), make_order(**asked), submit_key=KEY)
    )
    assert '\\"width\\":1024' in script.last_request.content.decode()


def test_fast_ids_are_version_4_uuids():
    ids = uuids(50)
    assert len(set(ids)) == 50
    assert all(uuid.UUID(text).version == 4 and uuid.UUID(text).variant == uuid.RFC_4122 for text in ids)


# --- images from images (sections 6.2, 6.5) ---

CN_A = Reference("tos-cn-i-tb4s082cfz/0000000000000000000000000000aaaa", 1024, 1536, "png")
CN_B = Reference("tos-cn-i-tb4s082cfz/0000000000000000000000000000bbbb", 1024, 1536, "png")
US_A = Reference("tos-useast5-i-wopfjsm1ax/0000000000000000000000000000aaaa", 1024, 1536, "png")
US_B = Reference("tos-useast5-i-wopfjsm1ax/0000000000000000000000000000bbbb", 2048, 2048, "png")
SQUARE = {"width": 2048, "height": 2048, "ratio": "1:1"}


@pytest.mark.parametrize(
    ("name", "region", "prompt", "references"),
    [
        ("generate.blend.request.cn.json", "cn", "put a green hat on the cat", (CN_A,)),
        (
            "generate.blend.request.us.two_refs.json",
            "us",
            "place the first subject in the second scene",
            (US_A, US_B),
        ),
    ],
)
def test_blend_equals_the_recorded_request(name, region, prompt, references):
    fixture = load_fixture(name)
    script = ScriptedUpstream("generate.image.response.json")
    body = normalized(submit_image(script, region, prompt=prompt, references=references, **SQUARE))
    recorded = normalized(fixture["body"])
    if region == "us":
        # The recording has the CN site in its blob URLs; each site uses its own.
        recorded = json.loads(json.dumps(recorded).replace("blob:https://jimeng.jianying.com", f"blob:{WORLD}"))
    assert json.dumps(body) == json.dumps(recorded)
    assert dict(script.last_request.url.params).keys() == fixture["query"].keys()


WORLD = "https://dreamina.capcut.com"


def test_blend_keeps_exact_count_and_negative_prompt():
    body = normalized(
        submit_image(
            ScriptedUpstream("generate.image.response.json"), "cn", references=(CN_A,), count=3, negative_prompt="fog"
        )
    )
    abilities = body["draft_content"]["component_list"][0]["abilities"]
    assert abilities["gen_option"]["gen_count"] == 3
    assert abilities["blend"]["core_param"]["negative_prompt"] == "fog"
    assert body["metrics_extra"]["sceneOptions"][0]["benefitCount"] == 3


# --- videos (section 7) ---


def video_order(**changes: Any) -> VideoOrder:
    values: dict[str, Any] = {
        "model": "jimeng-video-3.0",
        "prompt": "the boat drifts slowly",
        "ratio": "16:9",
        "resolution": "720p",
        "seconds": 5,
        "seed": 1000000001,
    }
    return VideoOrder(**{**values, **changes})


VIDEO_KEY = "22222222-2222-4222-8222-222222222222"
OMNI = {
    "model": "jimeng-video-seedance-2.0",
    "materials": (
        Material("image", image=CN_A),
        Material("video", upload_id="v0synthetic0001", width=1280, height=720, milliseconds=4050),
    ),
    "parts": (
        PromptPart("use "),
        PromptPart(material=0),
        PromptPart(" as the first frame and copy the motion of "),
        PromptPart(material=1),
    ),
}


def submit_video(region: str, version: str = "3.3.9", **changes: Any) -> tuple[dict[str, Any], ScriptedUpstream]:
    script = ScriptedUpstream("generate.video.response.json", provider_constants={"dreamina_da_version": version})
    taken = event_loop.run(
        script.provider.submit_video(make_account(region), video_order(**changes), submit_key=VIDEO_KEY)
    )
    assert (taken.upstream_id, taken.queue_position) == ("9000000000002", 12)
    return normalized(json.loads(script.last_request.content)), script


@pytest.mark.parametrize(
    ("name", "region", "version", "changes"),
    [
        ("text.request", "us", "3.3.9", {}),
        ("first_frame.request", "us", "3.3.9", {"first_frame": CN_A}),
        ("first_last.request", "us", "3.3.9", {"first_frame": CN_A, "end_frame": CN_B}),
        ("omni.request.cn", "cn", "3.3.9", OMNI),
        ("seedance_mini.request.cn", "cn", "3.3.20", {"model": "jimeng-video-seedance-2.0-mini", "seconds": 4}),
    ],
)
def test_video_equals_the_recorded_request(name, region, version, changes):
    fixture = load_fixture(f"generate.video.{name}.json")
    body, script = submit_video(region, version, **changes)
    assert json.dumps(body) == json.dumps(normalized(fixture["body"]))
    url = script.last_request.url
    assert f"{url.scheme}://{url.host}{url.path}" == fixture["url"]
    assert dict(url.params).keys() == fixture["query"].keys()


def test_draft_model_sends_draft_mode():
    body, _ = submit_video("cn", model="jimeng-video-seedance-2.5-draft", resolution="480p")
    draft = body["draft_content"]
    assert (draft["min_version"], draft["min_features"]) == ("3.3.28", ["AIGC_Video_Seedance25ResultAction"])
    one = draft["component_list"][0]["abilities"]["gen_video"]["text_to_video_params"]["video_gen_inputs"][0]
    assert one["is_draft_mode"] is True
    assert body["extend"]["m_video_commerce_info"]["amount"] == 5


def test_unknown_benefit_is_not_declared_and_live_list_takes_precedence():
    unknown, _ = submit_video("cn", model="seedance-2.0-lite")
    assert unknown["extend"] == {"root_model": "seedance_2_0_lite"}
    declared, _ = submit_video("cn", listed={"benefit": "from_the_live_list"})
    assert declared["extend"]["m_video_commerce_info"]["benefit_type"] == "from_the_live_list"


def test_audio_materials_and_input_seconds():
    materials = (*OMNI["materials"], Material("audio", upload_id="v0a", milliseconds=3000, name="a.mp3"))
    body, _ = submit_video("cn", model="jimeng-video-seedance-2.0-mini", materials=materials, parts=())
    assert body["extend"]["m_video_commerce_info"]["amount"] == 5 + 5
    assert body["metrics_extra"]["sceneOptions"][0]["materialTypes"] == [1, 2, 3]
    one = body["draft_content"]["component_list"][0]["abilities"]["gen_video"]["text_to_video_params"][
        "video_gen_inputs"
    ][0]["unified_edit_input"]
    assert one["meta_list"] == [{"meta_type": "text", "text": "the boat drifts slowly"}]
    assert one["material_list"][2]["audio_info"] | {"id": ""} == {
        "type": "audio", "id": "", "source_from": "upload", "vid": "v0a", "duration": 3000, "name": "a.mp3",
    }  # fmt: skip


# --- a series from one prompt (section 6.7) ---

SERIES = "连续故事，生成6张，小船的一天"


def test_series_equals_the_browser_request():
    fixture = load_fixture("generate.multi_image.request.cn.json")
    script = ScriptedUpstream("generate.image.response.json")
    assert json.dumps(normalized(submit_image(script, "cn", prompt=SERIES, **SQUARE))) == json.dumps(
        normalized(fixture["body"])
    )


@pytest.mark.parametrize(
    "changes", [{"count": 6}, {"references": (CN_A,)}, {"model": "jimeng-5.0"}, {"prompt": "a story in six pictures"}]
)
def test_request_without_series_declares_its_charge(changes):
    script = ScriptedUpstream("generate.image.response.json")
    metrics = normalized(submit_image(script, "cn", **{"prompt": SERIES, **SQUARE, **changes}))["metrics_extra"]
    assert metrics["sceneOptions"][0]["scene"] == "ImageBasicGenerate"
    assert "benefitCount" in metrics["sceneOptions"][0]
    assert "templateId" not in metrics
