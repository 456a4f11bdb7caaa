"""Poll responses -> Record, by the rules of protocol sections 8.2 to 8.4."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.recorded_upstream import KEY, load_fixture
from worker.core.errors import ERRORS
from worker.providers.base import Record, RecordState
from worker.providers.dreamina.job_records import find_records, parse_record

URL = "https://cdn.example.test/a.png"


def parse_one(name: str) -> Record:
    answer = load_fixture(f"get_history_by_ids.{name}.json")
    (raw,) = answer["data"].values()
    return parse_record(KEY, raw)


def item(url: object = URL) -> dict:
    return {"image": {"large_images": [{"image_url": url, "width": 10, "height": 20, "format": "png"}]}}


@pytest.mark.parametrize(
    ("name", "state", "count", "settled"),
    [
        ("image.queued", RecordState.QUEUED, 0, True),
        ("image.processing", RecordState.RUNNING, 0, True),
        ("image.processing_45_empty", RecordState.RUNNING, 0, True),
        ("image.partial_45", RecordState.RUNNING, 2, False),
        ("image.all_items_45", RecordState.DONE, 4, True),
        ("image.done.cn", RecordState.DONE, 4, True),
        ("image.done.us", RecordState.DONE, 4, True),
        ("image.done.cover_only", RecordState.DONE, 1, True),
    ],
)
def test_image_fixtures(name, state, count, settled):
    record = parse_one(name)
    assert (record.state, len(record.results), record.settled) == (state, count, settled)
    assert record.upstream_id == "9000000000001"
    assert record.error_code is None


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("failed.content", "content_policy_violation"),
        ("failed.content_key_only", "content_policy_violation"),
        ("failed.generic", "generation_failed"),
        ("failed.post_check_40", "content_policy_violation"),
        ("failed.pre_check_10", "content_policy_violation"),
        ("deleted_100", "history_unavailable"),
    ],
)
def test_failure_fixtures(name, code):
    record = parse_one(name)
    assert (record.state, record.error_code) == (RecordState.FAILED, code)
    assert record.error_message is not None
    assert record.error_message.startswith(ERRORS[code].message)


def test_upstream_text_is_passed_on():
    record = parse_one("failed.content")
    assert record.error_message is not None
    assert record.error_message.endswith("The text does not meet the platform rules. Change it and try again.")
    assert record.detail is not None
    assert "fail_code=2038 key=web_text_violates_community_guidelines_toast" in record.detail


def test_queue_position():
    assert parse_one("image.queued").queue_position == 12
    assert parse_one("image.processing").queue_position is None


@pytest.mark.parametrize("queue", [{"queue_status": 2, "queue_length": 9}, {"queue_status": 1, "queue_length": 0}, 7])
def test_queue_position_requires_status_1_and_a_queue(queue):
    record = parse_record(KEY, {"status": 20, "queue_info": queue, "forecast_queue_cost": 90})
    assert (record.state, record.queue_position, record.forecast_seconds) == (RecordState.RUNNING, None, 90)


def test_results_have_size_and_format():
    (first, *_) = parse_one("image.done.cn").results
    assert (first.width, first.height, first.format) == (2560, 1440, "png")
    assert "resize:0:0" in first.url
    (cover,) = parse_one("image.done.cover_only").results
    assert "resize:4096" in cover.url
    assert cover.format is None


def test_results_keep_the_order_of_the_items():
    items = [{"image": {"large_images": [{"image_url": f"https://cdn.example.test/{n}.png"}]}} for n in (3, 1, 2, 0)]
    record = parse_record(KEY, {"status": 50, "item_list": items})
    assert [ref.url[-5] for ref in record.results] == ["3", "1", "2", "0"]


def test_preview_is_the_last_choice():
    raw = {"status": 50, "item_list": [{"common_attr": {"cover_url": URL, "cover_url_map": {"9": "x", "a": None}}}]}
    assert parse_record(KEY, raw).results[0].url == URL


@pytest.mark.parametrize(
    ("raw", "state", "code"),
    [
        ({"task": {"status": 50}, "item_list": [item()]}, RecordState.DONE, None),
        ({"status": "50", "item_list": [item()]}, RecordState.DONE, None),
        ({}, RecordState.RUNNING, None),
        ({"status": 0}, RecordState.QUEUED, None),
        ({"status": -1}, RecordState.QUEUED, None),
        ({"status": 77}, RecordState.RUNNING, None),
        ({"status": 10, "item_list": [item()]}, RecordState.DONE, None),
        ({"status": 10, "item_list": [item("data:x")]}, RecordState.FAILED, "content_policy_violation"),
        ({"status": 10, "fail_code": "1006"}, RecordState.FAILED, "insufficient_quota"),
        ({"status": 30, "item_list": [item()], "total_image_count": 4}, RecordState.DONE, None),
        ({"status": 30, "task": {"fail_code": 2038}}, RecordState.FAILED, "content_policy_violation"),
        ({"status": 30, "fail_code": "-1"}, RecordState.FAILED, "generation_failed"),
        ({"status": 40, "item_list": [item()], "total_image_count": 1, "finished_image_count": 1},
         RecordState.FAILED, "content_policy_violation"),
        ({"status": 100, "fail_code": "2002"}, RecordState.FAILED, "history_unavailable"),
        ({"status": 50}, RecordState.FAILED, "generation_failed"),
        ({"status": 50, "item_list": [item(None)]}, RecordState.FAILED, "result_unavailable"),
        ({"status": 42, "item_list": [item()], "total_image_count": 1, "finished_image_count": 1}, RecordState.DONE, None),
        ({"status": 45, "item_list": [item()], "total_image_count": 1, "finished_image_count": 0},
         RecordState.RUNNING, None),
        ({"status": 45, "item_list": [item()], "total_image_count": 0, "finished_image_count": 0},
         RecordState.RUNNING, None),
    ],
)  # fmt: skip
def test_status_table(raw, state, code):
    record = parse_record(KEY, raw)
    assert (record.state, record.error_code) == (state, code)


def test_unreadable_records_keep_the_job_running():
    for raw in (None, 7, "x", [], True):
        record = parse_record(KEY, raw)
        assert record.state is RecordState.RUNNING
        assert record.detail is not None
        assert record.detail.startswith("unreadable record")


_FIELDS = [
    "status", "task", "item_list", "total_image_count", "finished_image_count", "queue_info", "queue_status",
    "queue_length", "queue_idx", "forecast_queue_cost", "fail_code", "fail_starling_key", "fail_msg", "image",
    "large_images", "image_url", "width", "height", "format", "common_attr", "cover_url_map", "cover_url",
    "history_record_id", "fail_starling_message",
]  # fmt: skip
_nonsense = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10, 20, 30, 40, 45, 50, 100, "50", "²", "-", URL, "http://", "1" * 99])
    | st.floats()
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_FIELDS), inner, max_size=6),
    max_leaves=25,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(_FIELDS), _nonsense, max_size=12))
def test_invalid_record_never_raises_and_never_ends_a_job(raw):
    record = parse_record(KEY, raw)
    assert record.submit_key == KEY
    assert all(ref.url.startswith(("http://", "https://")) for ref in record.results)
    assert (record.state is RecordState.FAILED) == (record.error_code is not None)
    assert record.error_code is None or record.error_code in ERRORS
    assert record.state is not RecordState.DONE or record.results


@settings(max_examples=100, deadline=None)
@given(_nonsense, st.booleans())
def test_invalid_maps_never_raise(data, wrapped):
    answer = {"ret": "0", "data": data} if wrapped or not isinstance(data, dict) else data
    records = find_records([KEY], answer)
    assert records is None or records.keys() <= {KEY}


def test_both_forms_of_the_response():
    raw = load_fixture("get_history_by_ids.image.processing.json")["data"]
    assert find_records([KEY], {"ret": "0", "data": raw}) == raw
    assert find_records([KEY], raw) == raw
    assert find_records([KEY], {"data": raw}) == raw


def test_map_keyed_by_history_id_is_matched_by_submit_id():
    answer = load_fixture("get_history_by_ids.image.done.cn.json")
    (submit_id,) = [raw["submit_id"] for raw in answer["data"].values()]
    assert find_records([submit_id], answer) == {submit_id: answer["data"]["9000000000001"]}


def test_unknown_requires_an_envelope_with_empty_data():
    assert find_records([KEY], load_fixture("get_history_by_ids.not_found.json")) == {}
    assert find_records([KEY], {"ret": "0", "data": None}) == {}
    assert find_records([KEY], {"ret": "0", "data": {KEY: None}}) == {}
    for strange in (
        {},
        {"message": "error"},
        {"data": {}},
        {"ret": "0", "data": []},
        {"ret": "0", "data": {"user_id": "1"}},
    ):
        assert find_records([KEY], strange) is None
