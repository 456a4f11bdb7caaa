"""Orders of the official API through the real engine: images within the call, sets, files within the order."""

import pytest

from tests.support.ark_jobs import ArkJobs
from tests.support.engine import Engine


@pytest.fixture
def ark(engine: Engine) -> ArkJobs:
    return ArkJobs(engine)


def test_image_is_made_within_the_call_and_copied(engine: Engine, ark: ArkJobs) -> None:
    account = ark.add_account()
    job = ark.add_image(account)
    engine.submit(job)
    row = engine.job_row(job)
    assert (row.state, row.holds_slot) == ("saving", False)
    assert engine.state_history(job) == ["queued", "submitting", "running", "saving"]
    engine.save(job)
    assert engine.job_row(job).state == "succeeded"
    assert [(file.width, file.height) for file in engine.files(job)] == [(1024, 1024)]
    assert ark.ledger()["totals"] == {"image_calls": 1, "images": 1, "tokens": 0}


def test_video_is_a_task(engine: Engine, ark: ArkJobs) -> None:
    account = ark.add_account()
    job = ark.add_video(account)
    engine.submit(job)
    row = engine.job_row(job)
    assert row.state == "running"
    [task] = ark.tasks()
    assert task.id == row.upstream_id
    ark.finish()
    assert engine.run_until_final(job) == ["succeeded"]
    assert len(ark.tasks()) == 1


def test_set_streams_and_may_miss_some(engine: Engine, ark: ArkJobs) -> None:
    account = ark.add_account()
    job = ark.add_image(account, prompt="[[refused:1]] a boat", series=True)
    engine.sql(
        """UPDATE jobs SET model = 'seedream-4.5', params = jsonb_set(jsonb_set(jsonb_set(params, '{order,count}', '3'),
               '{order,width}', '2048'), '{order,height}', '2048') WHERE id = :id""",
        id=job,
    )
    assert engine.run_until_final(job) == ["succeeded"]
    assert len(engine.files(job)) == 2
    assert ark.ledger()["totals"]["images"] == 2
    assert ark.ledger()["totals"]["image_calls"] == 1
