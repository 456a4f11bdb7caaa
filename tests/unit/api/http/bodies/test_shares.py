"""Memory and threads of bodies: shares per owner, waiting in order, and nothing kept after a cancellation."""

import asyncio
import threading

import pytest

from api.http.bodies import shares
from api.http.bodies.json_shape import MAX_VALUES, check_shape, parse_json
from api.http.bodies.shares import BodyThreads, MemoryShare
from api.http.bodies.spool import BytesUnderWay
from worker.core.errors import DreameryError
from worker.core.settings import get_settings

KB = 1000


def test_owner_waits_for_its_own_memory_and_others_do_not() -> None:
    async def run() -> None:
        share = MemoryShare(per_owner=300 * KB, total=1000 * KB)
        first = await share.acquire("a", 200 * KB)
        waiting = asyncio.create_task(share.acquire("a", 200 * KB))
        await asyncio.sleep(0)
        small = asyncio.create_task(share.acquire("a", 90 * KB))
        assert await asyncio.wait_for(share.acquire("b", 300 * KB), 5) == 300 * KB
        assert await asyncio.wait_for(share.acquire("a", 10 * KB), 5) == 0, "small bodies are not counted"
        assert not waiting.done()
        assert not small.done(), "a later body of the same owner does not overtake"
        share.release("a", first)
        assert await asyncio.wait_for(asyncio.gather(waiting, small), 5) == [200 * KB, 90 * KB]

    asyncio.run(run())


def test_memory_of_a_cancelled_wait_is_free() -> None:
    async def run() -> None:
        share = MemoryShare(per_owner=300 * KB, total=1000 * KB)
        await share.acquire("a", 300 * KB)
        waiting = asyncio.create_task(share.acquire("a", 300 * KB))
        granted = asyncio.create_task(share.acquire("a", 300 * KB))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        share.release("a", 300 * KB)
        granted.cancel()
        await asyncio.gather(waiting, granted, return_exceptions=True)
        assert await asyncio.wait_for(share.acquire("a", 300 * KB), 5) == 300 * KB

    asyncio.run(run())


def test_parsed_form_counts_in_place_of_what_was_reserved() -> None:
    async def run() -> None:
        share = MemoryShare(per_owner=300 * KB, total=1000 * KB)
        held = share.adjust("a", await share.acquire("a", 100 * KB), 900 * KB)
        waiting = asyncio.create_task(share.acquire("a", 100 * KB))
        await asyncio.sleep(0)
        assert not waiting.done(), "more than reserved: the next one waits"
        held = share.adjust("a", held, 190 * KB)
        assert await asyncio.wait_for(waiting, 5) == 100 * KB
        assert share.adjust("a", held, KB) == 0
        share.release("a", 100 * KB)
        assert (share._total, dict(share._by_owner)) == (0, {})

    asyncio.run(run())


@pytest.mark.parametrize(("owner", "code", "status"), [("a", "too_many_open_requests", 429), ("c", "overloaded", 503)])
def test_memory_that_does_not_become_free_is_an_error(monkeypatch, owner, code, status) -> None:
    monkeypatch.setattr(shares, "_WAIT_SECONDS", 0.05)

    async def run() -> None:
        share = MemoryShare(per_owner=300 * KB, total=500 * KB)
        await share.acquire("a", 300 * KB)
        await share.acquire("b", 200 * KB)
        with pytest.raises(DreameryError) as caught:
            await share.acquire(owner, 100 * KB)
        assert (caught.value.code, caught.value.status, caught.value.retry_after) == (code, status, 5)
        share.release("a", 300 * KB)
        assert await share.acquire("c", 300 * KB) == 300 * KB

    asyncio.run(run())


def test_one_owner_never_holds_all_parsing_threads() -> None:
    async def run() -> None:
        threads, gate = BodyThreads(), threading.Event()
        hogs = [asyncio.create_task(threads.parse("a", gate.wait)) for _ in range(20)]
        await asyncio.sleep(0.05)
        assert await asyncio.wait_for(threads.parse("b", lambda: "parsed"), 10) == "parsed"
        gate.set()
        await asyncio.gather(*hogs)
        assert not threads._turns

    asyncio.run(run())


def test_bytes_under_way_are_limited_and_come_back(monkeypatch) -> None:
    monkeypatch.setenv("DREAMERY_REQUEST_BYTES_UNDER_WAY", "2000000")
    monkeypatch.setenv("DREAMERY_REQUEST_BYTES_UNDER_WAY_PER_CALLER", "1500000")
    get_settings.cache_clear()
    counter = BytesUnderWay()
    counter.add("a", 1_500_000)
    for owner, size, status in (("a", 1, 429), ("b", 600_000, 503)):
        with pytest.raises(DreameryError) as caught:
            counter.add(owner, size)
        assert caught.value.status == status
    counter.remove("a", 1_500_000)
    counter.add("b", 1_500_000)
    assert counter.of("a") == 0
    get_settings.cache_clear()


@pytest.mark.parametrize(
    "text",
    ["[" + "[]," * MAX_VALUES + "[]]", "[" + "1," * MAX_VALUES + "1]", '["' + '","' * MAX_VALUES + '"]', '""' * 200_000 + "[" * 101 + ",,"],
)  # fmt: skip
def test_values_are_counted_before_objects_are_built(text) -> None:
    with pytest.raises(DreameryError) as caught:
        parse_json(text)
    assert caught.value.status in {400, 413}


def test_brackets_and_commas_in_strings_are_no_values() -> None:
    text = '{"a": "' + "[,{" * MAX_VALUES + '\\"", "b": [1, {"c": [2]}]}'
    assert parse_json(text)["b"] == [1, {"c": [2]}]


def test_depth_is_limited() -> None:
    check_shape("[" * 100 + "]" * 100)
    check_shape("[[],[]," * 90 + "[]" + "]" * 90)
    with pytest.raises(DreameryError, match="100 levels"):
        check_shape("[" * 101 + "]" * 101)
