"""Finished videos in both forms (protocol section 8.4), and better bit rates."""

import json
from typing import Any

import httpx
import pytest

from tests.support.recorded_upstream import ScriptedUpstream, load_fixture, make_account
from worker.core.concurrency import event_loop
from worker.providers.base import Record, RecordState, ResultRef
from worker.providers.dreamina.job_records import parse_record, read_video_result

KEY = "22222222-2222-4222-8222-222222222222"
CDN = "https://video-cdn.example.test/synthetic"
POSTER = "https://image-cdn.example.test/synthetic/cover.jpeg?x-expires=1700086400&x-signature=SYNTHETIC"
ITEM = "7600000000000000091"


def load_raw(name: str) -> dict[str, Any]:
    return load_fixture(f"get_history_by_ids.video.{name}.json")["data"][KEY]


def parse_fixture(name: str) -> Record:
    return parse_record(KEY, load_raw(name))


@pytest.mark.parametrize(("name", "file"), [("done", "origin"), ("done.ladder", "720p")])
def test_finished_video_is_parsed_in_both_forms(name, file):
    record = parse_fixture(name)
    assert (record.state, record.settled, record.expected) == (RecordState.DONE, True, 0)
    (ref,) = record.results
    assert ref.url.startswith(f"{CDN}/{file}.mp4?")
    assert (ref.width, ref.height, ref.format, ref.seconds) == (1280, 720, "mp4", 5.042)
    assert (ref.poster_url, ref.item_id) == (POSTER, ITEM)


def test_queued_video():
    record = parse_fixture("processing")
    assert (record.state, record.queue_position) == (RecordState.QUEUED, 12)


def test_video_with_status_45_is_not_settled():
    record = parse_record(KEY, {**load_raw("done"), "status": 45})
    assert (record.state, record.settled, len(record.results)) == (RecordState.RUNNING, False, 1)


def url(name: str) -> dict[str, str]:
    return {"video_url": f"https://v/{name}"}


LADDER = {name: url(name) for name in ("360p", "2160p", "1080p", "720p")}
SOURCES: list[tuple[str, dict[str, Any]]] = [
    ("https://v/common", {"common_attr": {"transcoded_video": {"origin": url("common")}}}),
    ("https://v/origin", {"video": {"transcoded_video": {"origin": url("origin")}}}),
    ("https://v/2160p", {"video": {"transcoded_video": LADDER}}),
    ("https://v/play", {"video": {"play_url": "https://v/play"}}),
    ("https://v/download", {"video": {"download_url": "https://v/download"}}),
    ("https://v/url", {"video": {"url": "https://v/url"}}),
    ("https://v/last", {"video": {"origin_video": url("last")}}),
]


def merged(places: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    item: dict[str, Any] = {"common_attr": {"cover_url": "https://v/cover"}, "video": {"transcoded_video": {}}}
    for _, place in places:
        item["common_attr"] |= place.get("common_attr", {})
        video = place.get("video", {})
        item["video"]["transcoded_video"] |= video.get("transcoded_video", {})
        item["video"] |= {name: value for name, value in video.items() if name != "transcoded_video"}
    return item


@pytest.mark.parametrize("start", range(len(SOURCES)))
def test_video_sources_are_tried_in_order(start):
    ref = read_video_result(merged(SOURCES[start:]))
    assert ref is not None
    assert (ref.url, ref.poster_url) == (SOURCES[start][0], "https://v/cover")


def test_cover_does_not_replace_missing_video():
    item = {"common_attr": {"cover_url": "https://v/cover"}, "video": {"video_id": "v", "transcoded_video": None}}
    record = parse_record(KEY, {"status": 50, "item_list": [item]})
    assert (record.state, record.error_code) == (RecordState.FAILED, "result_unavailable")


@pytest.mark.parametrize("length", [None, "x", -1, 10**12, True])
def test_invalid_video_length_is_ignored(length):
    ref = read_video_result({"video": {"play_url": "https://v/a", "duration_ms": length}})
    assert ref is not None
    assert (ref.seconds, ref.poster_url, ref.item_id, ref.format) == (None, None, None, "mp4")


# --- a better bit rate ---

(SMALL,) = parse_fixture("done.ladder").results


@pytest.mark.parametrize("name", ["item_list", "local_item_list"])
def test_better_video_is_found(name):
    answer = load_fixture("get_local_item_list.video.json")
    answer["data"] = {name: answer["data"]["item_list"]}
    script = ScriptedUpstream(httpx.Response(200, json=answer))
    better = event_loop.run(script.provider.find_better_video(make_account(), SMALL))
    assert better.url.startswith(f"{CDN}/origin.mp4?")
    assert (better.poster_url, better.seconds, better.item_id) == (POSTER, 5.042, ITEM)
    assert json.loads(script.last_request.content) == load_fixture("get_local_item_list.video.request.json")["body"]


def lower_quality() -> httpx.Response:
    answer = load_fixture("get_local_item_list.video.json")
    answer["data"]["item_list"][0]["video"]["transcoded_video"]["origin"]["width"] = 64
    return httpx.Response(200, json=answer)


def other_item() -> httpx.Response:
    answer = load_fixture("get_local_item_list.video.json")
    answer["data"]["item_list"][0]["common_attr"]["id"] = "1"
    return httpx.Response(200, json=answer)


def cut_url() -> httpx.Response:
    raise httpx.ConnectError("no")


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: lower_quality(),
        lambda _: other_item(),
        lambda _: cut_url(),
        lambda _: httpx.Response(200, json={"ret": "1015"}),
        lambda _: httpx.Response(200, json={"ret": "0", "data": {"item_list": [None, {"video": 5}]}}),
        lambda _: httpx.Response(200, text="<html>"),
    ],
)
def test_missing_better_video_keeps_the_result(answer):
    assert event_loop.run(ScriptedUpstream(answer).provider.find_better_video(make_account(), SMALL)) == SMALL


def test_result_without_item_id_makes_no_call():
    script = ScriptedUpstream("user_credit.json")
    ref = ResultRef("https://v/a", None, None, None)
    assert event_loop.run(script.provider.find_better_video(make_account(), ref)) is ref
    assert script.requests == []
