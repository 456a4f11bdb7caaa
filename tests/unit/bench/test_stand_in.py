"""The stand-in of the upstream: the engine reads its answers, and its ledger tells the truth."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
from PIL import Image

from tests.bench.stand_in.__main__ import GENERATE, ITEMS, POLL, Connection, State
from tests.bench.stand_in.media import picture
from worker.core.catalog.models import get_catalog
from worker.providers.base import ImageOrder, RecordState, VideoOrder
from worker.providers.dreamina.credit_history import parse_history
from worker.providers.dreamina.image_requests import build_image_body
from worker.providers.dreamina.job_records import parse_record
from worker.providers.dreamina.regions import site_for
from worker.providers.dreamina.request_drafts import SubmitContext
from worker.providers.dreamina.video_requests import build_video_body

_SIZE = 256


@pytest.fixture
def stand_in() -> Iterator[str]:
    """A stand-in in a thread of this process; its address."""
    loop = asyncio.new_event_loop()
    state = State(size=_SIZE)
    server = loop.run_until_complete(loop.create_server(lambda: Connection(state), "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    server.close()
    loop.run_until_complete(server.wait_closed())
    loop.close()


def _body(address: str, *, kind: str, prompt: str, submit_key: str) -> bytes:
    """The body of a submit as the engine sends it."""
    site, context = site_for("sandbox", None, address), SubmitContext.now(submit_key, "3.3.4")
    if kind == "video":
        return build_video_body(
            VideoOrder("jimeng-video-3.0", prompt, ratio="16:9", resolution="720p", seconds=5, seed=1),
            get_catalog(),
            site,
            context,
        )
    order = ImageOrder("jimeng-4.0", prompt, 2048, 2048, ratio="1:1", resolution="2k", count=2, seed=1)
    return build_image_body(order, get_catalog(), site, context)


def _post(address: str, path: str, body: bytes, session: str = "s1") -> dict[str, Any]:
    headers = {"Cookie": f"sid_tt=x; sessionid={session}; sessionid_ss=other", "Content-Type": "application/json"}
    answer = httpx.post(f"{address}{path}?aid=1", content=body, headers=headers, trust_env=False)
    parsed: dict[str, Any] = answer.raise_for_status().json()
    return parsed


def _submit(address: str, prompt: str, *, kind: str = "image", key: str = "", session: str = "s1") -> str:
    key = key or str(uuid4())
    answer = _post(address, GENERATE, _body(address, kind=kind, prompt=prompt, submit_key=key), session)
    assert answer["ret"] == "0"
    assert answer["data"]["aigc_data"]["history_record_id"]
    return key


def _poll(address: str, keys: list[str], session: str = "s1") -> dict[str, Any]:
    records: dict[str, Any] = _post(address, POLL, orjson.dumps({"submit_ids": keys}), session)["data"]
    return records


def _reset(address: str, **options: float) -> None:
    httpx.post(f"{address}/_reset", json=options, trust_env=False).raise_for_status()


def _ledger(address: str) -> dict[str, Any]:
    view: dict[str, Any] = httpx.get(f"{address}/_ledger", trust_env=False).json()
    return view


def _wait_until_done(address: str, key: str) -> dict[str, Any]:
    while parse_record(key, record := _poll(address, [key])[key]).state is not RecordState.DONE:
        time.sleep(0.02)
    return dict(record)


def test_a_picture_runs_then_is_done_and_can_be_downloaded(stand_in: str) -> None:
    _reset(stand_in, seconds=0.3)
    key = _submit(stand_in, "a boat 1")
    assert parse_record(key, _poll(stand_in, [key])[key]).state is RecordState.RUNNING
    record = parse_record(key, _wait_until_done(stand_in, key))
    assert [(one.width, one.height, one.format) for one in record.results] == [(_SIZE, _SIZE, "webp")] * 2
    data = httpx.get(record.results[1].url, trust_env=False).content
    with Image.open(BytesIO(data)) as image:
        image.load()
        assert (image.format, image.size) == ("WEBP", (_SIZE, _SIZE))


def test_a_video_has_a_playable_file_and_can_be_fetched_by_item(stand_in: str) -> None:
    _reset(stand_in, video_seconds=0.0)
    key = _submit(stand_in, "waves", kind="video")
    (result,) = parse_record(key, _wait_until_done(stand_in, key)).results
    assert httpx.get(result.url, trust_env=False).content[4:8] == b"ftyp"
    answer = _post(stand_in, ITEMS, orjson.dumps({"item_id_list": [result.item_id]}))
    assert [item["common_attr"]["id"] for item in answer["data"]["item_list"]] == [result.item_id]


def test_the_ledger_has_each_submit_with_its_end(stand_in: str) -> None:
    _reset(stand_in, seconds=5.0, spread=2.0)
    before = time.time()
    for number in range(20):
        _submit(stand_in, f"boat {number}")
    submits = _ledger(stand_in)["submits"]
    assert [submit["prompt"] for submit in submits] == [f"boat {number}" for number in range(20)]
    durations = [submit["finish_at"] - submit["at"] for submit in submits]
    assert all(3 <= seconds <= 7 for seconds in durations)
    assert max(durations) - min(durations) > 1
    assert all(before <= submit["at"] <= time.time() for submit in submits)


def test_the_ledger_counts_jobs_in_flight_calls_and_submit_ids_that_came_twice(stand_in: str) -> None:
    _reset(stand_in, seconds=30.0)
    first = _submit(stand_in, "one")
    _submit(stand_in, "one again", key=first)
    _submit(stand_in, "other account", session="s2")
    _poll(stand_in, [first])
    ledger = _ledger(stand_in)
    assert ledger["totals"] == {"accepted": 3, "duplicate_submit_ids": 1}
    assert sorted(account["max_images"] for account in ledger["accounts"].values()) == [1, 2]
    assert ledger["calls"] == {GENERATE: 3, POLL: 1}
    _reset(stand_in, seconds=0.0)
    assert _ledger(stand_in)["totals"]["accepted"] == 0
    _submit(stand_in, "at once")
    _submit(stand_in, "then another")
    assert [account["max_images"] for account in _ledger(stand_in)["accounts"].values()] == [1]


def test_other_accounts_jobs_are_not_shown(stand_in: str) -> None:
    key = _submit(stand_in, "mine")
    assert _poll(stand_in, [key], session="s2") == {}


def test_charges_are_in_the_credit_history_newest_first(stand_in: str) -> None:
    keys = [_submit(stand_in, f"boat {number}") for number in range(3)]
    path = "/commerce/v1/benefits/user_credit_history"
    page = parse_history(_post(stand_in, path, orjson.dumps({"count": 2, "cursor": "0"})))
    rest = parse_history(_post(stand_in, path, orjson.dumps({"count": 2, "cursor": page.cursor})))
    assert [record.submit_key for record in (*page.records, *rest.records)] == keys[::-1]
    assert (page.more, rest.more) == (True, False)


def test_a_request_in_pieces_and_two_in_one_packet_are_answered(stand_in: str) -> None:
    host, port = stand_in.removeprefix("http://").split(":")
    message = b"GET /_health HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(message[:9])
        time.sleep(0.05)
        connection.sendall(message[9:] + message)
        received = b""
        while received.count(b'{"status":"ok"}') < 2:
            received += connection.recv(4096)
    assert received.count(b"HTTP/1.1 200 OK") == 2


def test_a_call_without_a_session_or_to_an_unknown_path_is_not_found(stand_in: str) -> None:
    assert httpx.post(f"{stand_in}{POLL}", content=b"{}", trust_env=False).status_code == 404
    assert httpx.get(f"{stand_in}/nothing", headers={"Cookie": "a=b; sessionid=s"}, trust_env=False).status_code == 404


def test_the_picture_has_the_size_of_a_real_one() -> None:
    assert 100_000 < len(picture(2048)) < 600_000
