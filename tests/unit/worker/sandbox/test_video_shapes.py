"""Video records and model lists have the format of the recorded ones."""

import json
import uuid

from tests.unit.worker.sandbox.test_response_shapes import call, recorded, shape
from worker.sandbox.options import Options
from worker.sandbox.server import create_app

GENERATE = "/mweb/v1/aigc_draft/generate"
POLL = "/mweb/v1/get_history_by_ids"


def _submit(app, script=""):
    body = recorded("generate.video.text.request")["body"] | {"submit_id": str(uuid.uuid4())}
    body["draft_content"] = body["draft_content"].replace("the boat drifts slowly", f"the boat drifts slowly {script}")
    answer = call(app, GENERATE, body).json()
    return body["submit_id"], answer


def _poll(app, submit_id):
    return call(app, POLL, {"submit_ids": [submit_id]}).json()["data"][submit_id]


def _first(name):
    return next(iter(recorded(name)["data"].values()))


def test_submit_response_and_both_formats_of_finished_videos():
    app = create_app(Options(seconds=0.0))
    first, answer = _submit(app, script="[[links:origin]]")
    assert shape(answer) == shape(recorded("generate.video.response"))
    assert shape(_poll(app, first)) == shape(_first("get_history_by_ids.video.done"))
    second, _ = _submit(app, script="[[links:sizes]]")
    assert shape(_poll(app, second)) == shape(_first("get_history_by_ids.video.done.ladder"))


def _versions(record):
    return record["item_list"][0]["video"]["transcoded_video"]


def test_record_has_the_file_urls_of_both_forms():
    app = create_app(Options(seconds=0.0))
    for number in range(3):
        submit_id, _ = _submit(app)
        record = _poll(app, submit_id)
        versions = _versions(record)
        older, newer = (_versions(_first(f"get_history_by_ids.video.{name}")) for name in ("done", "done.ladder"))
        assert shape({name: versions[name] for name in older}) == shape(older)
        assert shape({name: versions[name] for name in newer}) == shape(newer)
        assert set(versions) == {*older, *newer}, number
        assert all(version["video_url"].startswith("http") for version in versions.values())


def test_running_video():
    app = create_app(Options(seconds=60.0))
    submit_id, _ = _submit(app)
    assert shape(_poll(app, submit_id)) == shape(_first("get_history_by_ids.video.processing"))


def test_item_list():
    app = create_app(Options(seconds=0.0))
    submit_id, _ = _submit(app)
    item = _poll(app, submit_id)["item_list"][0]["common_attr"]["id"]
    body = recorded("get_local_item_list.video.request")["body"] | {"item_id_list": [item]}
    assert shape(call(app, "/mweb/v1/get_local_item_list", body).json()) == shape(recorded("get_local_item_list.video"))
    assert call(app, "/mweb/v1/get_local_item_list", {}).json()["ret"] == "1000"


def _models(path, **headers):
    answer = call(create_app(Options()), path, {}, **headers).json()
    return answer, {model["model_req_key"]: model for model in answer["data"]["model_list"]}


def test_image_model_list():
    _, models = _models("/mweb/v1/get_common_config")
    (expected,) = recorded("get_common_config.image")["data"]["model_list"]
    actual = models[expected["model_req_key"]]
    assert shape(actual) == shape(expected)
    assert actual["resolution_map"] == expected["resolution_map"]
    assert actual["generate_count_options"] == expected["generate_count_options"]
    assert "generate_count_options" not in models["text2img_xl_sft"]
    _, asia = _models("/mweb/v1/get_common_config", **{"X-Orig-Host": "mweb-api-sg.capcut.com"})
    assert "gpt_image_2" in models
    assert "gpt_image_2" not in asia


def test_video_model_list():
    _, models = _models("/mweb/v1/video_generate/get_common_config")
    (expected,) = recorded("video_generate.get_common_config")["data"]["model_list"]
    assert models[expected["model_req_key"]] == expected
    assert json.dumps(models["dreamina_seedance_40_mini"]["duration_option"]) == json.dumps(list(range(4, 16)))
