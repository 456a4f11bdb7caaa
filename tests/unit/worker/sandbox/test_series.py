"""A series of images from one prompt: the recorded request is accepted, invalid ones are refused."""

import json
from pathlib import Path

import pytest

from worker.sandbox.requests.fields import RefusedError
from worker.sandbox.requests.submit import read_order

RECORDED = Path(__file__).parents[3] / "fixtures" / "sandbox" / "generate.multi_image.request.cn.json"


def read(*, metrics=None, scene=None, model=None, prompt=None, gen_count=None):
    body = json.loads(RECORDED.read_bytes())["body"]
    metrics_extra = json.loads(body["metrics_extra"])
    scenes = json.loads(metrics_extra["sceneOptions"])
    scenes[0] |= scene or {}
    metrics_extra |= {"sceneOptions": json.dumps(scenes), **(metrics or {})}
    draft = json.loads(body["draft_content"])
    abilities = draft["component_list"][0]["abilities"]
    core = abilities["generate"]["core_param"]
    core["prompt"] = prompt or core["prompt"]
    if model:
        core["model"] = body["extend"]["root_model"] = model
    if gen_count:
        abilities["gen_option"]["gen_count"] = gen_count
    body |= {"metrics_extra": json.dumps(metrics_extra), "draft_content": json.dumps(draft)}
    return read_order(json.dumps(body).encode(), aid="513695", site="cn")


def test_series_count_is_read_from_the_prompt():
    assert read().count == 6
    assert read(prompt="绘本 12 张").count == 12
    assert read(prompt="连续的故事").count == 4
    assert read(prompt="故事999张").count == 15


@pytest.mark.parametrize(
    "wrong",
    [
        {"scene": {"benefitCount": 4}},
        {"scene": {"scene": "ImageThirdGenerate"}},
        {"metrics": {"originRequestId": None}},
        {"metrics": {"templateId": "0"}},
        {"metrics": {"sceneOptions": "{}"}},
        {"model": "high_aes_general_v50"},
        {"gen_count": 6},
    ],
)
def test_invalid_series_is_refused(wrong):
    with pytest.raises(RefusedError) as caught:
        read(**wrong)
    assert caught.value.code == "1000"
