"""Signatures and submit bodies: recorded requests are accepted, and every planted mistake is refused."""

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


def test_signed_call_is_accepted():
    check_sign("/mweb/v1/get_history_by_ids", _signed(), 1_700_000_200.0)


@pytest.mark.parametrize(
    "changes",
    [{"appvr": "5.8.0"}, {"device-time": "1699999000"}, {"device-time": "x"}, {"sign": ""}, {"sign-ver": "2"}],
)
def test_wrong_signature_returns_1014(changes):
    with pytest.raises(RefusedError) as caught:
        check_sign("/mweb/v1/get_history_by_ids", _signed(**changes), 1_700_000_000.0)
    assert caught.value.code == "1014"


@pytest.mark.parametrize(
    ("appid", "aid", "expected_aid"),
    [("", "513641", None), ("513695", "513641", None), ("513641", "", None), ("513641", "513641", "513695")],
)
def test_aid_must_be_consistent(appid, aid, expected_aid):
    with pytest.raises(RefusedError):
        check_app(appid=appid, aid=aid, aid_needed=True, expected_aid=expected_aid)


def _recorded(name):
    return json.loads((FIXTURES / f"generate.image.request.{name}.json").read_bytes())


def _read(body, aid="513641", site=None):
    return read_order(json.dumps(body).encode(), aid=aid, site=site)


@pytest.mark.parametrize(
    ("name", "site", "size", "count", "price"),
    [
        ("us", "us", (2560, 1440), 4, 8),
        ("cn", "cn", (2560, 1440), 4, 8),
        ("gen_count", "cn", (2048, 2048), 2, 4),
    ],
)
def test_recorded_requests_are_accepted(name, site, size, count, price):
    recorded = _recorded(name)
    order = _read(recorded["body"], aid=recorded["query"]["aid"], site=site)
    assert (order.width, order.height) == size
    assert (order.count, order.price) == (count, price)
    assert order.prompt == "a red paper boat on a calm lake"


def _changed(path, value, name="us"):
    """Return the recorded body with one field of its draft replaced, or removed if the value is None."""
    body = _recorded(name)["body"]
    draft = json.loads(body["draft_content"])
    *parents, last = path.split(".")
    site = draft
    for step in parents:
        site = site[int(step)] if step.isdigit() else site[step]
    if value is None:
        del site[last]
    else:
        site[last] = value
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
def test_invalid_draft_returns_1000(path, value):
    with pytest.raises(RefusedError) as caught:
        _read(_changed(path, value))
    assert caught.value.code == "1000"


def _free_size(name, width, height, **core):
    """Return the recorded body with a size and without `resolution_type`, as clients send a free width and height."""
    body = _recorded(name)["body"]
    draft = json.loads(body["draft_content"])
    param = draft["component_list"][0]["abilities"]["generate"]["core_param"]
    param["large_image_info"] = {"type": "", "id": "", "height": height, "width": width}
    param |= core
    if param["image_ratio"] is None:
        del param["image_ratio"]
    return {**body, "draft_content": json.dumps(draft)}


@pytest.mark.parametrize(
    ("size", "price"), [((1920, 1080), 8), ((1024, 1536), 8), ((3840, 2160), 16), ((2048, 2048), 8), ((512, 512), 4)]
)
@pytest.mark.parametrize("ratio", [1, 3, None])
def test_free_size_without_resolution_type_is_accepted(size, price, ratio):
    order = _read(_free_size("cn", *size, image_ratio=ratio), aid="513695", site="cn")
    assert (order.width, order.height, order.price) == (*size, price)


@pytest.mark.parametrize("site", ["us", "asia"])
def test_free_size_is_accepted_outside_china_too(site):
    order = _read(_free_size("us", 1600, 900), site=site)
    assert (order.width, order.height) == (1600, 900)


@pytest.mark.parametrize("size", [(9000, 9000), (4096, 100), (1, 1)])
def test_free_size_that_upstream_cannot_make_becomes_the_size_of_the_ratio(size):
    order = _read(_free_size("cn", *size, image_ratio=3), aid="513695", site="cn")
    assert (order.width, order.height) in {(1664, 936), (2560, 1440), (5404, 3040)}


@pytest.mark.parametrize("changes", [{"image_ratio": 0}, {"image_ratio": 9}, {"image_ratio": "1"}])
def test_free_size_does_not_excuse_a_wrong_ratio(changes):
    with pytest.raises(RefusedError):
        _read(_free_size("cn", 1920, 1080, **changes), aid="513695")


@pytest.mark.parametrize("size", [(None, 1080), ("1920", 1080), (1920, 1080.5)])
def test_free_size_needs_whole_numbers(size):
    with pytest.raises(RefusedError):
        _read(_free_size("cn", *size), aid="513695")


def test_draft_that_is_not_a_string_returns_1002():
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
def test_invalid_body_returns_1000(changes):
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


def test_models_are_limited_to_their_sites():
    flash = _with_model("high_aes_general_v50_flash")
    assert _read(flash, site="cn").model.key == "high_aes_general_v50_flash"
    assert _read(flash, site=None).model.max_count == 4
    for site in ("us", "asia"):
        with pytest.raises(RefusedError):
            _read(flash, site=site)
    with pytest.raises(RefusedError, match="unknown"):
        _read(_with_model("high_aes_general_v45"))


def test_counts_depend_on_the_model():
    assert _read(_with_model("high_aes_general_v40", 8)).count == 8
    assert _read(_with_model("high_aes_general_v30l:general_v3.0_18b", 1)).count == 4
    with pytest.raises(RefusedError):
        _read(_with_model("high_aes_general_v50p_large", 5))


@pytest.mark.parametrize(
    ("resolution", "requested", "actual", "price"),
    [
        ("2k", (4096, 4096), (2560, 1440), 8),
        ("4k", (2560, 1440), (5404, 3040), 16),
        ("4k", (5120, 2880), (5120, 2880), 16),
        ("1k", (1664, 936), (1664, 936), 4),
        ("1k", (1024, 576), (1024, 576), 4),
    ],
)
def test_resolution_overrides_a_contradicting_size(resolution, requested, actual, price):
    info = {"type": "", "id": "", "width": requested[0], "height": requested[1], "resolution_type": resolution}
    order = _read(_changed(f"{CORE}.large_image_info", info))
    assert (order.width, order.height) == actual
    assert order.price == price
