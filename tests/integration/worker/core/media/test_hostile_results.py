"""Results of upstream that take gigabytes or minutes to decode: the worker neither grows nor waits, and keeps the original."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from starlette.responses import Response

from tests.support.engine import MEDIA, Engine
from tests.support.media_files import WEBP_BOMB, encode_image, slow_jpeg
from worker import storage
from worker.core.media.isolation import client

MAX_GROWTH = 64 * 1024 * 1024


@contextlib.contextmanager
def memory_is_kept() -> Iterator[None]:
    """Fail if this process, which runs the task, grows by more than 64 MB within the block."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    before = psutil.Process().memory_info().rss
    yield
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    assert int(line.split()[1]) * 1024 - before < MAX_GROWTH


def save_result(engine: Engine, data: bytes, *, wanted: str | None = None) -> Any:
    job = engine.add_saving_job(engine.add_account())
    if wanted is not None:
        output = json.dumps({"format": wanted, "compression": None})
        engine.sql("UPDATE jobs SET params = params || jsonb_build_object('output', CAST(:o AS jsonb))", o=output)
    engine.interceptor.before[MEDIA] = lambda *_: Response(data, media_type="image/webp")
    with memory_is_kept():
        engine.save(job)
    assert engine.job_row(job).state == "succeeded"
    [stored] = engine.files(job)
    return stored


def turns_given() -> int:
    return client.turns._turns_given


def test_result_that_needs_no_conversion_is_not_decoded(engine: Engine) -> None:
    before = turns_given()
    stored = save_result(engine, WEBP_BOMB)
    assert (stored.mime, stored.bytes) == ("image/webp", len(WEBP_BOMB))
    assert stored.width * stored.height > 60_000_000
    large = save_result(engine, encode_image("WEBP", (4096, 4096)), wanted="webp")
    assert (large.width, large.height) == (4096, 4096)
    assert turns_given() == before, "no child was needed"


@pytest.mark.parametrize("wanted", ["png", "jpeg"])
def test_conversion_of_a_bomb_happens_elsewhere(engine: Engine, wanted: str) -> None:
    before = turns_given()
    stored = save_result(engine, WEBP_BOMB, wanted=wanted)
    assert stored.mime in {"image/webp", f"image/{wanted}"}
    assert turns_given() == before + 1


def test_result_of_endless_passes_is_kept_as_it_is(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = client._started

    def hurried(work, result):
        return whole(replace(work, limits=replace(work.limits, cpu_seconds=1)), result)

    monkeypatch.setattr(client, "_started", hurried)
    data = slow_jpeg()
    stored = save_result(engine, data, wanted="png")
    assert (stored.mime, storage.read_file(stored.key)) == ("image/jpeg", data)
