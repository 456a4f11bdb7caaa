"""A stopping worker waits for calls that are paid anyway, and says so to the process that would kill it."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ark_jobs import IMAGES, ArkJobs
from tests.support.engine import Engine
from tests.support.platform import eventually
from tests.support.servers.http_servers import RequestPause
from worker import celery_tasks
from worker.core.concurrency import event_loop, long_calls
from worker.core.concurrency.shutdown import busy_marker, stopping
from worker.core.settings import get_settings
from worker.tasks.submit import submit_batch


@pytest.fixture(autouse=True)
def _reset_stopping() -> Iterator[None]:
    yield
    stopping.reset()


def marker() -> Path:
    return busy_marker(get_settings().data_dir, os.getpid())


def test_stop_waits_for_images_that_are_being_made(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "PATIENCE_SECONDS", 0.1)
    engine.configure(SHUTDOWN_GRACE_SECONDS="0.2")
    ark = ArkJobs(engine)
    account = ark.add_account()
    job = ark.add_image(account)
    pause = engine.interceptor.before[IMAGES] = RequestPause()
    engine.make_due()
    submit_batch(account_id=account)
    pause.wait()
    celery_tasks._request_stop()
    assert marker().exists()
    event_loop.start(_release_later(pause))
    celery_tasks._finish_background_work()
    assert engine.job_row(job).state == "saving"
    assert not marker().exists()


async def _release_later(pause: RequestPause) -> None:
    await asyncio.sleep(1.0)
    pause.release()


def test_stop_without_such_calls_says_nothing(engine: Engine) -> None:
    celery_tasks._request_stop()
    celery_tasks._finish_background_work()
    assert not marker().exists()


def test_call_that_begins_while_the_process_stops_counts(engine: Engine) -> None:
    stopping.request()
    with long_calls.counted():
        assert marker().exists()
        assert long_calls.number_open() == 1
    assert long_calls.number_open() == 0
    long_calls.withdraw()
    eventually(lambda: not marker().exists(), what="the process may be killed")
