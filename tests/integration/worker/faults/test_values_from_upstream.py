"""Numbers and texts that no column can hold, from upstream and from media files: bounded before they are written."""

import struct
import zlib
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.worker.tasks.test_killed_tasks import charged_once
from tests.support.engine import GENERATE, HISTORY, MEDIA, Engine
from worker.db.accounts import accounts
from worker.db.column_values import MAX_INTEGER
from worker.db.credits import balances, daily_credits
from worker.db.engine import transaction
from worker.db.jobs import inputs
from worker.providers.base import OpenOrder, Record, Submitted
from worker.providers.dreamina.credit_history import parse_credits, parse_history, parse_received
from worker.providers.dreamina.job_records import parse_record
from worker.providers.registry import PROVIDERS
from worker.tasks.sync_credits import sum_entries

HUGE = [2**31, 2**53 - 1, 2**63, 1e300, -(2**40), float("inf"), float("nan"), "9" * 16, True, None, [], {"a": 1}]
TEXTS = ["a\x00b", "\ud800", "\u202e" * 70, "x" * 100_000]


@pytest.mark.parametrize("value", HUGE)
def test_queue_numbers_of_a_submit_fit_their_columns(engine: Engine, value: Any) -> None:
    job = engine.add_job(engine.add_account())
    if (isinstance(value, float) and value != value) or value == float("inf"):
        value = 1e308

    def answer(_path: str, _body: bytes) -> Response:
        queue = {"queue_status": 1, "queue_length": value, "queue_idx": value}
        data = {"history_record_id": "h\x00" + "1" * 100, "queue_info": queue, "forecast_queue_cost": value}
        return JSONResponse({"ret": "0", "data": {"aigc_data": data}})

    engine.interceptor.before[GENERATE] = answer
    engine.submit(job)
    row = engine.job_row(job)
    assert row.state == "running"
    assert "\x00" not in row.upstream_id
    assert row.queue_position is None or 0 <= row.queue_position <= MAX_INTEGER
    assert row.forecast_seconds is None or 0 < row.forecast_seconds <= MAX_INTEGER


@pytest.mark.parametrize("value", HUGE)
def test_progress_of_a_poll_fits_its_columns(engine: Engine, value: Any) -> None:
    account = engine.add_account()
    job = engine.add_running_job(account)
    key = str(engine.job_row(job).submit_key)
    raw = {
        "status": 20,
        "queue_info": {"queue_status": 1, "queue_length": value, "queue_idx": value},
        "forecast_queue_cost": value,
        "total_image_count": value,
        "finished_image_count": value,
    }
    record = parse_record(key, raw)

    async def fetch(_account: Any, _keys: list[str]) -> dict[str, Record]:
        return {key: record}

    provider = PROVIDERS["dreamina"]()
    real, provider.fetch_records = provider.fetch_records, fetch  # type: ignore[method-assign]
    try:
        engine.poll(account)
    finally:
        provider.fetch_records = real  # type: ignore[method-assign]
    assert engine.job_row(job).state == "running"
    assert [row for row in engine.job_events(job) if row.note.get("code")] == []


def test_numbers_of_any_provider_are_bounded_at_the_database(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    job = engine.add_job(engine.add_account())

    async def submit(*_args: Any, **_values: Any) -> Submitted:
        return Submitted("upstream-1", queue_position=2**60, forecast_seconds=-(2**60))

    monkeypatch.setattr(PROVIDERS["dreamina"](), "submit_image", submit)
    engine.submit(job)
    row = engine.job_row(job)
    assert (row.state, row.queue_position, row.forecast_seconds) == ("running", MAX_INTEGER, 0)


@pytest.mark.parametrize("text", TEXTS)
def test_texts_of_a_record_can_be_stored(text: str) -> None:
    item = {
        "item_id": text,
        "image": {"large_images": [{"image_url": f"https://h/{text}", "format": text, "width": 2**40, "height": -1}]},
    }
    good = {"image": {"large_images": [{"image_url": "https://h/1", "format": text}]}}
    record = parse_record("k", {"status": 50, "history_record_id": text, "item_list": [item, good]})
    stored = [
        record.upstream_id,
        *(str(value) for ref in record.results for value in (ref.url, ref.format, ref.item_id)),
    ]
    for value in stored:
        value.encode()
        assert "\x00" not in value
    assert len(record.upstream_id) <= 64
    assert any(ref.url == "https://h/1" for ref in record.results)


@pytest.mark.parametrize("value", HUGE)
def test_credits_fit_their_column(value: Any) -> None:
    credit = {"gift_credit": value, "purchase_credit": value, "vip_credit": value}
    assert 0 <= parse_credits({"data": {"credit": credit}}).total <= MAX_INTEGER
    assert 0 <= parse_received({"data": {"receive_quota": value}}) <= MAX_INTEGER
    row = {"amount": value, "create_time": value, "submit_id": "01a22ee5-3a4b-7e9e-9bcc-7214fc470a38"}
    history = parse_history({"data": {"records": [row] * 3, "total_credit": value}})
    assert history.total is None or 0 <= history.total <= MAX_INTEGER
    assert all(entry.credits <= MAX_INTEGER for entry in sum_entries(list(history.records)))


def test_sums_of_credits_fit_their_columns(engine: Engine) -> None:
    account = engine.add_account()
    row = {"amount": 2**31 - 1, "create_time": 1e9, "submit_id": "01a22ee5-3a4b-7e9e-9bcc-7214fc470a38"}
    [entry] = sum_entries(list(parse_history({"data": {"records": [row] * 5}}).records))
    assert entry.credits == MAX_INTEGER
    with transaction() as tx:
        balances.record_credits(tx, account, 2**40)
        for _ in range(2):
            daily_credits.record_result(tx, account, gained=2**40, manual=True)
        found = accounts.get_account(tx, account)
    assert found is not None
    assert engine.account_row(account).credits == MAX_INTEGER
    assert engine.sql("SELECT gained FROM credit_receives")[0].gained == MAX_INTEGER


def png(width: int, height: int) -> bytes:
    """Return the beginning of a PNG with these dimensions."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(2**32 - 1, 2**32 - 1), (2**31, 1), (1, 2**31 + 5)])
def test_result_with_absurd_dimensions_is_stored_or_refused_but_never_a_fault(
    engine: Engine, size: tuple[int, int]
) -> None:
    job = engine.add_saving_job(engine.add_account())
    engine.interceptor.before[MEDIA] = lambda *_: Response(png(*size), media_type="image/png")
    engine.save(job)
    assert engine.job_row(job).state in {"succeeded", "saving"}
    assert [row.note for row in engine.job_events(job) if "internal_error" in str(row.note)] == []
    for row in engine.files(job):
        assert row.width is None or row.width <= MAX_INTEGER


@pytest.mark.parametrize("milliseconds", [2**31, 2**60, -5])
def test_length_of_an_input_fits_its_column(engine: Engine, milliseconds: int) -> None:
    job = engine.add_job(engine.add_account())
    stored = inputs.StoredInput("k", "audio/wav", 10, 2**33, None, "", milliseconds=milliseconds)
    engine.sql("INSERT INTO job_inputs (job_id, n, url, media) VALUES (:id, 0, 'https://h/a', 'audio')", id=job)
    with transaction() as tx:
        inputs.record_stored(tx, job, 0, stored)
    [row] = engine.sql("SELECT * FROM job_inputs")
    assert 0 <= row.milliseconds <= MAX_INTEGER
    assert row.width == MAX_INTEGER


def test_poll_with_a_broken_answer_body_keeps_the_job(engine: Engine) -> None:
    """Answers that are JSON, but not what was asked for: nested a thousand times, or with numbers of a thousand digits."""
    account = engine.add_account()
    job = engine.add_job(account)
    engine.submit(job)
    bodies = iter(
        [b'{"ret":"0","data":' + b"[" * 900 + b"]" * 900 + b"}", b'{"ret":' + b"9" * 5000 + b"}", b'{"ret":NaN}']
    )
    engine.interceptor.before[HISTORY] = lambda *_: Response(next(bodies), media_type="application/json")
    for _ in range(3):
        engine.poll(account)
    assert engine.job_row(job).state == "running"
    engine.interceptor.clear()
    charged_once(engine, job)


def test_values_of_a_result_reference_survive_their_row(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    account = engine.add_account()
    job: UUID = engine.add_job(account)
    engine.submit(job)
    engine.finish_upstream()
    provider = PROVIDERS["dreamina"]()
    real = provider.fetch_records

    async def odd(row: Any, orders: list[OpenOrder]) -> dict[str, Record]:
        records = await real(row, orders)
        return {
            key: replace(
                record, results=tuple(replace(ref, width=2**60, seconds=float("inf")) for ref in record.results)
            )
            for key, record in records.items()
        }

    monkeypatch.setattr(provider, "fetch_records", odd)
    engine.poll(account)
    assert engine.job_row(job).state == "saving"
    monkeypatch.undo()
    charged_once(engine, job)
