"""Tasks with Ark jobs are killed with -9 between every two of their effects: no video is charged twice, no image made
twice, and what cannot be known is reported.
"""

import time
from uuid import UUID

import pytest
from starlette.responses import Response

from tests.integration.worker.tasks.test_killed_tasks import kill, kill_at_lock, lock_row
from tests.support.ark_jobs import CREATE, IMAGES, ArkJobs
from tests.support.engine import MEDIA, Engine
from tests.support.servers.http_servers import RequestPause

PROVED = {"echo_proved": True}


@pytest.fixture
def ark(engine: Engine) -> ArkJobs:
    return ArkJobs(engine)


class DroppedAnswer(RequestPause):
    """Blocks a call until it is released. Then its answer is lost."""

    def __call__(self, path: str, body: bytes) -> Response:  # type: ignore[override]
        super().__call__(path, body)
        return Response(status_code=502)


def run(ark: ArkJobs, *jobs: UUID) -> list[str]:
    """Advance time by two minutes a round until the jobs have ended."""
    ark.engine.interceptor.clear()

    def pass_time() -> None:
        for job in jobs:
            ark.lose_time(job, 120)
        ark.finish()

    return ark.engine.run_until_final(*jobs, each_round=pass_time)


def paid(ark: ArkJobs) -> int:
    """Return how many images and videos upstream has charged."""
    totals = ark.ledger()["totals"]
    return int(totals.get("images", 0)) + sum(one["status"] == "succeeded" for one in ark.ledger()["videos"])


def our_sum(ark: ArkJobs) -> int:
    [row] = ark.engine.sql("SELECT coalesce(sum(charged), 0) AS s FROM jobs WHERE settled_at IS NOT NULL")
    return int(row.s)


def their_sum(ark: ArkJobs) -> int:
    ledger = ark.ledger()
    return sum(round(one["cost"]) for one in (*ledger["images"], *ledger["videos"]))


# ---- videos


@pytest.mark.parametrize("facts", [PROVED, {}])
def test_video_killed_before_its_create_arrived(ark: ArkJobs, facts: dict[str, bool]) -> None:
    account = ark.add_account(facts=facts)
    job = ark.add_video(account)
    stop = ark.engine.interceptor.before[CREATE] = DroppedAnswer()
    process = ark.engine.start_process("submit", job_id=job)
    stop.wait()
    kill(process)
    stop.release()
    assert (ark.engine.job_row(job).state, ark.tasks()) == ("submitting", [])
    [state] = run(ark, job)
    row = ark.engine.job_row(job)
    if facts:
        assert (state, row.attempt, len(ark.tasks())) == ("succeeded", 2, 1)
    else:
        assert (state, row.error_code, ark.tasks()) == ("failed", "submit_unclear", [])


@pytest.mark.parametrize("facts", [PROVED, {}])
@pytest.mark.parametrize("moment", ["before the answer", "before the commit"])
def test_video_killed_after_its_create(ark: ArkJobs, facts: dict[str, bool], moment: str) -> None:
    account = ark.add_account(facts=facts)
    job = ark.add_video(account)
    stop = ark.engine.interceptor.after[CREATE] = RequestPause()
    process = ark.engine.start_process("submit", job_id=job)
    stop.wait()
    if moment == "before the answer":
        kill(process)
        stop.release()
    else:
        lock = lock_row(ark.engine, job)
        stop.release()
        kill_at_lock(ark.engine, process, lock)
    assert ark.engine.job_row(job).state == "submitting"
    assert run(ark, job) == ["succeeded"]
    assert (ark.engine.job_row(job).attempt, len(ark.tasks())) == (1, 1)
    assert our_sum(ark) == their_sum(ark) > 0


@pytest.mark.parametrize("moment", ["before the answer", "before the commit"])
def test_search_killed(ark: ArkJobs, moment: str) -> None:
    account = ark.add_account()
    job = ark.add_video(account, prompt="waves [[reset:after]]")
    ark.engine.submit(job)
    ark.lose_time(job, 15)
    ark.engine.make_due()
    stop = ark.engine.interceptor.after[CREATE] = RequestPause()
    process = ark.engine.start_process("poll", account_id=account)
    stop.wait()
    if moment == "before the answer":
        kill(process)
        stop.release()
    else:
        lock = lock_row(ark.engine, job)
        stop.release()
        kill_at_lock(ark.engine, process, lock)
    assert ark.engine.job_row(job).state == "submitting"
    assert run(ark, job) == ["succeeded"]
    assert (ark.engine.job_row(job).attempt, len(ark.tasks())) == (1, 1)


def test_poll_killed_after_the_answer(ark: ArkJobs) -> None:
    account = ark.add_account()
    job = ark.add_video(account)
    ark.engine.submit(job)
    ark.engine.make_due()
    stop = ark.engine.interceptor.after[CREATE] = RequestPause()
    process = ark.engine.start_process("poll", account_id=account)
    stop.wait()
    lock = lock_row(ark.engine, job)
    stop.release()
    kill_at_lock(ark.engine, process, lock)
    assert ark.engine.job_row(job).state == "running"
    assert run(ark, job) == ["succeeded"]
    assert our_sum(ark) == their_sum(ark) > 0


def test_cancel_killed_after_upstream_did_it(ark: ArkJobs) -> None:
    account = ark.add_account()
    job = ark.add_video(account, prompt="waves [[queue:500]]")
    ark.engine.submit(job)
    ark.engine.sql("UPDATE jobs SET cancel_requested_at = now() WHERE id = :id", id=job)
    ark.engine.make_due()
    stop = ark.engine.interceptor.after[ark.tasks()[0].id] = RequestPause(nth=2)
    process = ark.engine.start_process("poll", account_id=account)
    stop.wait()
    kill(process)
    stop.release()
    assert (ark.engine.job_row(job).state, ark.tasks()[0].status(time.time())) == ("running", "cancelled")
    assert run(ark, job) == ["cancelled"]
    assert (ark.engine.job_row(job).charged, ark.engine.job_row(job).holds_slot) == (0, False)


# ---- images


@pytest.mark.parametrize("moment", ["before it arrived", "before the answer", "before the commit"])
def test_image_killed_during_its_call_is_never_repeated(ark: ArkJobs, moment: str) -> None:
    account = ark.add_account(facts=PROVED)
    job = ark.add_image(account)
    stop = DroppedAnswer() if moment == "before it arrived" else RequestPause()
    hooks = ark.engine.interceptor.before if moment == "before it arrived" else ark.engine.interceptor.after
    hooks[IMAGES] = stop
    process = ark.engine.start_process("submit", job_id=job)
    stop.wait()
    if moment == "before the commit":
        lock = lock_row(ark.engine, job)
        stop.release()
        kill_at_lock(ark.engine, process, lock)
    else:
        kill(process)
        stop.release()
    assert ark.engine.job_row(job).state == "submitting"
    assert run(ark, job) == ["failed"]
    row = ark.engine.job_row(job)
    assert (row.error_code, row.attempt, row.charge_doubt) == ("submit_unclear", 1, "submit_unclear")
    assert paid(ark) == (0 if moment == "before it arrived" else 1)


def test_image_killed_while_it_is_copied_is_made_once(ark: ArkJobs) -> None:
    account = ark.add_account()
    job = ark.add_image(account)
    ark.engine.submit(job)
    assert ark.engine.job_row(job).state == "saving"
    ark.engine.make_due()
    stop = ark.engine.interceptor.before[MEDIA] = RequestPause()
    process = ark.engine.start_process("save", job_id=job)
    stop.wait()
    kill(process)
    stop.release()
    assert run(ark, job) == ["succeeded"]
    assert paid(ark) == 1
    assert our_sum(ark) == their_sum(ark) > 0
