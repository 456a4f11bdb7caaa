"""A stopping worker finishes what it has begun, starts nothing else, and hands over the rest."""

from collections.abc import Iterator

import pytest

from tests.integration.worker.tasks.test_converse import chat, conversation_row, in_thread, run_converse
from tests.support.engine import Engine
from tests.support.platform import eventually
from worker.core.concurrency.shutdown import stopping
from worker.tasks.save import save_batch
from worker.tasks.submit import submit_batch


@pytest.fixture(autouse=True)
def _reset_stopping() -> Iterator[None]:
    yield
    stopping.reset()


def test_stopping_submit_hands_over_its_jobs(engine: Engine) -> None:
    account = engine.add_account(max_images=9)
    jobs = [engine.add_job(account) for _ in range(3)]
    engine.take_messages()
    stopping.request()
    submit_batch(account_id=account)
    assert engine.states(jobs) == ["queued"] * 3
    assert [m.ids["account_id"] for m in engine.take_messages("dreamery.submit")] == [account.hex]


def test_stopping_save_hands_over_its_jobs(engine: Engine) -> None:
    account = engine.add_account(max_images=9)
    jobs = [engine.add_saving_job(account) for _ in range(3)]
    engine.make_due()
    engine.take_messages()
    stopping.request()
    save_batch(job_ids=jobs)
    assert engine.states(jobs) == ["saving"] * 3
    [message] = engine.take_messages("dreamery.save")
    assert message.ids["job_ids"] == ",".join(job.hex for job in jobs)


def test_conversation_may_end_before_the_process_stops(engine: Engine) -> None:
    engine.configure(SHUTDOWN_GRACE_SECONDS="60")
    job = chat(engine, engine.add_account())
    stopping.request()
    run_converse(engine, job)
    assert engine.job_row(job).state == "succeeded"


def test_conversation_ends_with_its_text_before_the_process_is_killed(engine: Engine) -> None:
    engine.configure(SHUTDOWN_GRACE_SECONDS="2.1")
    job = chat(engine, engine.add_account(), prompt="talk for long [[words:2000]] [[pause:0.02]]")
    with in_thread(lambda: run_converse(engine, job)):
        eventually(lambda: engine.job_row(job).state == "running", what="it talks")
        stopping.request()
        eventually(lambda: engine.job_row(job).state == "failed", what="it ends by itself")
    assert engine.job_row(job).error_code == "stream_broken"
    assert conversation_row(engine, job).said
    assert engine.run_until_final(job) == ["failed"]
    assert len(engine.ledger()["conversations"]) == 1, "the conversation is not sent again"
