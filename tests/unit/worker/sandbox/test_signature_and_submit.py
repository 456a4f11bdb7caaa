"""Signatures and submit bodies: the recorded ones pass, and every planted mistake is found."""

import json
from pathlib import Path

import pytest

from worker.sandbox.requests.fields import RefusedError
from worker.sandbox.requests.signature import check_app, check_sign, sign
from worker.sandbox.requests.submit import read_order

FIXTURES = Path(__file__).parents[3] / "fixtures" / "sandbox"


@pytest.mark.parametrize(
    ("path", "appvr", "expected"),
    [
        ("/mweb/v1/aigc_draft/generate", "8.4.0", "a29e0b750501aa30af81fd309a15ceca"),
        ("/mweb/v1/get_history_by_ids", "8.4.0", "89fc65c93b50132b5eded79da14f0c14"),
        ("/commerce/v1/benefits/user_credit", "8.4.0", "f3f7a12f5f13aca1846fe2ea4fd8a65e"),
        ("/lv/v1/user/web/user_info", "5.8.0", "ea287b7d7d4f1b9124fb3c1505cc0b87"),
    ],
)
def test_sign_vectors(path, appvr, expected):
    assert sign(path, pf="7", appvr=appvr, second="1700000000", tdid="") == expected


def _signed(**changes):
    headers = {
        "device-time": "1700000000",
        "pf": "7",
        "appvr": "8.4.0",
        "tdid": "",
        "sign": "89fc65c93b50132b5eded79da14f0c14",
        "sign-ver": "1",
    }
    return {**headers, **changes}


def test_a_signed_call_passes():
    check_sign("/mweb/v1/get_history_by_ids", _signed(), 1_700_000_200.0)


@pytest.mark.parametrize(
    "changes",
    [{"appvr": "5.8.0"}, {"device-time": "1699999000"}, {"device-time": "x"}, {"sign": ""}, {"sign-ver": "2"}],
)
def test_a_badly_signed_call_is_a_sign_error(changes):
    with pytest.raises(RefusedError) as caught:
        check_sign("/mweb/v1/get_history_by_ids", _signed(**changes), 1_700_000_000.0)
    assert caught.value.code == "1014"


@pytest.mark.parametrize(
    ("appid", "aid", "wanted"),
    [("", "513641", None), ("513695", "513641", None), ("513641", "", None), ("513641", "513641", "513695")],
)
def test_aid_must_agree_everywhere(appid, aid, wanted):
    with pytest.raises(RefusedError):
        check_app(appid=appid, aid=aid, aid_needed=True, wanted=wanted)


def _recorded(name):
    return json.loads((FIXTURES / f"generate.image.request.{name}.json").read_bytes())


def _read(body, aid="513641", place=None):
    return read_order(json.dumps(body).encode(), aid=aid, place=place)


@pytest.mark.parametrize(
    ("name", "place", "size", "count", "price"),
    [
        ("us", "us", (2560, 1440), 4, 8),
        ("cn", "cn", (2560, 1440), 4, 8),
        ("gen_count", "cn", (2048, 2048), 2, 4),
    ],
)
def test_recorded_requests_are_taken(name, place, size, count, price):
    recorded = _recorded(name)
    order = _read(recorded["body"], aid=recorded["query"]["aid"], place=place)
    assert (order.width, order.height) == size
    assert (order.count, order.price) == (count, price)
    assert order.prompt == "a red paper boat on a calm lake"


def _changed(path, value, name="us"):
    """The recorded body with one field of its draft replaced, or removed when the value is None."""
    body = _recorded(name)["body"]
    draft = json.loads(body["draft_content"])
    *parents, last = path.split(".")
    place = draft
    for step in parents:
        place = place[int(step)] if step.isdigit() else place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    body["draft_content"] = json.dumps(draft)
    return body


COMPONENT = "component_list.0"
CORE = f"{COMPONENT}.abilities.generate.core_param"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("type", "sketch"),
        ("id", None),
        ("version", None),
        ("min_version", None),
        ("is_from_tsn", None),
        ("main_component_id", "00000000-0000-4000-8000-000000000099"),
        ("component_list", []),
        (f"{COMPONENT}.type", "video_base_component"),
        (f"{COMPONENT}.aigc_mode", None),
        (f"{COMPONENT}.generate_type", "blend"),
        (f"{COMPONENT}.metadata", "x"),
        (f"{COMPONENT}.abilities.generate", None),
        (f"{CORE}.model", "high_aes_general_v41"),
        (f"{CORE}.prompt", "  "),
        (f"{CORE}.seed", "7"),
        (f"{CORE}.seed", 1.5),
        (f"{CORE}.sample_strength", 1.2),
        (f"{CORE}.sample_strength", None),
        (f"{CORE}.image_ratio", 9),
        (f"{CORE}.image_ratio", None),
        (f"{CORE}.large_image_info", None),
        (f"{CORE}.large_image_info.width", None),
        (f"{CORE}.large_image_info.resolution_type", "8k"),
        (f"{COMPONENT}.abilities.gen_option.gen_count", 0),
        (f"{COMPONENT}.abilities.gen_option.gen_count", 9),
    ],
)
def test_a_wrong_draft_is_an_invalid_parameter(path, value):
    with pytest.raises(RefusedError) as caught:
        _read(_changed(path, value))
    assert caught.value.code == "1000"


def test_a_draft_that_is_not_a_string_is_a_common_error():
    body = _recorded("us")["body"]
    with pytest.raises(RefusedError) as caught:
        _read({**body, "draft_content": json.loads(body["draft_content"])})
    assert caught.value.code == "1002"


@pytest.mark.parametrize(
    "changes",
    [
        {"submit_id": "7"},
        {"http_common_info": {"aid": 513695}},
        {"http_common_info": None},
        {"metrics_extra": {}},
        {"draft_content": "{"},
        {"extend": {}},
    ],
)
def test_a_wrong_body_is_an_invalid_parameter(changes):
    with pytest.raises(RefusedError) as caught:
        _read({**_recorded("us")["body"], **changes})
    assert caught.value.code == "1000"


def _with_model(key, count=None):
    body = _changed(f"{CORE}.model", key)
    body["extend"]["root_model"] = key
    if count is not None:
        draft = json.loads(body["draft_content"])
        draft["component_list"][0]["abilities"]["gen_option"]["gen_count"] = count
        body["draft_content"] = json.dumps(draft)
    return body


def test_models_are_limited_to_their_regions():
    flash = _with_model("high_aes_general_v50_flash")
    assert _read(flash, place="cn").model.key == "high_aes_general_v50_flash"
    assert _read(flash, place=None).model.most == 4
    for place in ("us", "asia"):
        with pytest.raises(RefusedError):
            _read(flash, place=place)
    with pytest.raises(RefusedError, match="unknown"):
        _read(_with_model("high_aes_general_v45"))


def test_counts_follow_the_model():
    assert _read(_with_model("high_aes_general_v40", 8)).count == 8
    assert _read(_with_model("high_aes_general_v30l:general_v3.0_18b", 1)).count == 4
    with pytest.raises(RefusedError):
        _read(_with_model("high_aes_general_v50p_large", 5))


@pytest.mark.parametrize(
    ("resolution", "asked", "made", "price"),
    [
        ("2k", (4096, 4096), (2560, 1440), 8),
        ("4k", (2560, 1440), (5404, 3040), 16),
        ("4k", (5120, 2880), (5120, 2880), 16),
        ("1k", (1664, 936), (1664, 936), 4),
        ("1k", (1024, 576), (1024, 576), 4),
    ],
)
def test_the_resolution_wins_over_a_contradicting_size(resolution, asked, made, price):
    info = {"type": "", "id": "", "width": asked[0], "height": asked[1], "resolution_type": resolution}
    order = _read(_changed(f"{CORE}.large_image_info", info))
    assert (order.width, order.height) == made
    assert order.price == price
