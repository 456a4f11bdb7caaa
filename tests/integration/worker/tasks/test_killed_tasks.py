"""Each task is killed with -9 between every two of its effects: the job continues, without loss or double charge."""

import signal
from uuid import UUID

import psycopg
import pytest
from starlette.responses import Response

from tests.integration.worker.tasks.test_upload_references import input_in_request
from tests.support import factories
from tests.support.engine import GENERATE, HISTORY, MEDIA, USER_INFO, Engine
from tests.support.media_files import make_audio, make_video
from tests.support.platform import eventually
from tests.support.servers.http_servers import RequestPause, WebhookReceiver
from worker import storage
from worker.db.engine import transaction
from worker.db.jobs import inputs, state_machine
from worker.db.jobs.inputs import NewInput
from worker.tasks.deliver_webhooks import deliver


def kill(process) -> None:
    process.kill()
    process.join(10)
    assert process.exitcode == -signal.SIGKILL


def kill_at_lock(engine: Engine, process, lock: psycopg.Connection) -> None:
    """Kill the task while it waits for a row that another transaction locks, then release the row."""
    waiting = """SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                 AND application_name = 'dreamery'"""
    with engine.connect() as watch:
        watch.autocommit = True
        eventually(lambda: watch.execute(waiting).fetchall(), what="the task waits for the row")
        kill(process)
        watch.execute(waiting.replace("SELECT pid", "SELECT pg_terminate_backend(pid)"))
        eventually(lambda: not watch.execute(waiting).fetchall(), what="its backend is gone")
    lock.rollback()
    lock.close()


def lock_row(engine: Engine, job_id: UUID) -> psycopg.Connection:
    """Lock the row in another transaction."""
    connection = engine.connect()
    connection.execute("SELECT 1 FROM jobs WHERE id = %s FOR UPDATE", (job_id,))
    return connection


def charged_once(engine: Engine, *job_ids: UUID) -> None:
    """Check that every job succeeds, upstream charged each once, and no key was sent twice."""
    engine.interceptor.clear()
    assert engine.run_until_final(*job_ids) == ["succeeded"] * len(job_ids)
    assert engine.charge_count() == len(job_ids)
    assert engine.ledger()["totals"]["duplicate_submit_ids"] == 0
    for job_id in job_ids:
        stories = [row.seq for row in engine.job_events(job_id)]
        assert stories == list(range(1, len(stories) + 1))
        assert engine.files(job_id)
    assert engine.sql("SELECT 1 FROM jobs WHERE holds_slot") == []


# --- submit ---


def test_submit_killed_between_claim_and_look_up(engine: Engine) -> None:
    job = engine.add_job(engine.add_account(session="us-killed-0000001", region="auto"))
    stop = engine.interceptor.before[USER_INFO] = RequestPause()
    process = engine.start_process("submit", job_id=job)
    stop.wait()
    kill(process)
    stop.release()
    row = engine.job_row(job)
    assert (row.state, row.holds_slot) == ("submitting", True)
    charged_once(engine, job)
    assert engine.job_row(job).attempt == 2


def test_submit_killed_before_the_order_arrived(engine: Engine) -> None:
    job = engine.add_job(engine.add_account())
    stop = RequestPause()

    def drop_response(path, body):
        stop(path, body)
        return Response(status_code=502)

    engine.interceptor.before[GENERATE] = drop_response
    process = engine.start_process("submit", job_id=job)
    stop.wait()
    kill(process)
    stop.release()
    assert engine.job_row(job).state == "submitting"
    assert engine.charge_count() == 0
    charged_once(engine, job)
    assert engine.job_row(job).attempt == 2


def test_submit_killed_after_acceptance_before_the_response(engine: Engine) -> None:
    job = engine.add_job(engine.add_account())
    stop = engine.interceptor.after[GENERATE] = RequestPause()
    process = engine.start_process("submit", job_id=job)
    stop.wait()
    kill(process)
    stop.release()
    row = engine.job_row(job)
    assert (row.state, engine.charge_count()) == ("submitting", 1)
    charged_once(engine, job)
    assert engine.job_row(job).submit_key == row.submit_key
    assert engine.job_row(job).attempt == 1


def test_submit_killed_after_the_response(engine: Engine) -> None:
    job = engine.add_job(engine.add_account())
    stop = engine.interceptor.after[GENERATE] = RequestPause()
    process = engine.start_process("submit", job_id=job)
    stop.wait()
    lock = lock_row(engine, job)
    stop.release()
    kill_at_lock(engine, process, lock)
    assert engine.job_row(job).state == "submitting"
    charged_once(engine, job)
    assert engine.job_row(job).attempt == 1


def test_submit_killed_after_a_refusal(engine: Engine) -> None:
    """The refusal is lost: the key is polled and unknown, the job is sent again and refused again."""
    job = engine.add_job(engine.add_account(), prompt="bad [[refuse:2038]]")
    stop = engine.interceptor.after[GENERATE] = RequestPause()
    process = engine.start_process("submit", job_id=job)
    stop.wait()
    lock = lock_row(engine, job)
    stop.release()
    kill_at_lock(engine, process, lock)
    engine.interceptor.clear()
    assert engine.run_until_final(job) == ["failed"]
    assert engine.job_row(job).error_code == "content_policy_violation"
    assert (engine.charge_count(), len(engine.submits())) == (0, 2)


def test_submit_killed_between_the_uploads_of_an_omni_video(engine: Engine) -> None:
    job_inputs = [
        NewInput(stored=input_in_request(make_video("red"), "inputs/test/0.mp4").stored, media="video"),
        NewInput(stored=input_in_request(make_audio(), "inputs/test/1.mp3").stored, media="audio"),
    ]
    with transaction() as tx:
        new = factories.new_job([engine.add_account()], kind="video", model="jimeng-video-seedance-2.0")
        state_machine.accept(tx, [new])
        inputs.add_inputs(tx, [new.id], job_inputs)
    job = new.id
    engine.make_due()
    stop = engine.interceptor.before["/upload/v1"] = RequestPause(nth=2)
    process = engine.start_process("submit", job_id=job)
    stop.wait()
    kill(process)
    stop.release()
    assert (engine.job_row(job).state, engine.charge_count()) == ("submitting", 0)
    assert [row.n for row in engine.sql("SELECT n FROM input_uploads")] == [0]
    charged_once(engine, job)
    # Files that the account already had were not uploaded again.
    applied = engine.ledger()["calls"]["/?Action=CommitUploadInner"]
    assert (applied, engine.ledger()["violations"]) == (2, {})


# --- poll ---


def test_poll_killed_after_the_response(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_job(account)
    engine.submit(job)
    engine.make_due()
    stop = engine.interceptor.after[HISTORY] = RequestPause()
    process = engine.start_process("poll", account_id=account)
    stop.wait()
    kill(process)
    stop.release()
    assert engine.job_row(job).state == "running"
    charged_once(engine, job)


def test_poll_killed_while_it_writes_the_news_of_three_jobs(engine: Engine) -> None:
    account = engine.add_account(max_images=3)
    jobs = [engine.add_job(account) for _ in range(3)]
    for job in jobs:
        engine.submit(job)
    engine.make_due()
    stop = engine.interceptor.after[HISTORY] = RequestPause()
    process = engine.start_process("poll", account_id=account)
    stop.wait()
    lock = lock_row(engine, jobs[1])
    stop.release()
    kill_at_lock(engine, process, lock)
    assert engine.states(jobs) == ["running"] * 3, "the batch is written as a whole or not at all"
    charged_once(engine, *jobs)


def test_poll_killed_while_finding_a_lost_submit(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_job(account, prompt="a boat [[reset:after]]")
    engine.submit(job)
    engine.make_due()
    stop = engine.interceptor.after[HISTORY] = RequestPause()
    process = engine.start_process("poll", account_id=account)
    stop.wait()
    lock = lock_row(engine, job)
    stop.release()
    kill_at_lock(engine, process, lock)
    assert engine.job_row(job).state == "submitting"
    charged_once(engine, job)
    assert engine.job_row(job).attempt == 1


# --- save ---


@pytest.mark.parametrize("nth", [1, 2])
def test_save_killed_while_copying(engine: Engine, nth: int) -> None:
    job = engine.add_saving_job(engine.add_account(), count=2)
    engine.make_due()
    stop = engine.interceptor.before[MEDIA] = RequestPause(nth=nth)
    process = engine.start_process("save", job_id=job)
    stop.wait()
    kill(process)
    stop.release()
    row = engine.job_row(job)
    assert (row.state, row.save_tries, engine.files(job)) == ("saving", 1, [])
    charged_once(engine, job)
    assert len(engine.files(job)) == 2


def test_save_killed_between_bytes_and_rows(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account())
    engine.make_due()
    stop = engine.interceptor.after[MEDIA] = RequestPause()
    process = engine.start_process("save", job_id=job)
    stop.wait()
    lock = lock_row(engine, job)
    stop.release()
    kill_at_lock(engine, process, lock)
    assert engine.job_row(job).state == "saving"
    assert engine.files(job) == []
    charged_once(engine, job)
    assert len(engine.files(job)) == 1


def test_save_killed_between_file_rows_and_commit(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account())
    engine.make_due()
    stop = engine.interceptor.after[MEDIA] = RequestPause()
    process = engine.start_process("save", job_id=job)
    stop.wait()
    lock = engine.connect()
    # Allows the foreign key check of the file rows, but blocks the UPDATE of the job after them.
    lock.execute("SELECT 1 FROM jobs WHERE id = %s FOR NO KEY UPDATE", (job,))
    stop.release()
    kill_at_lock(engine, process, lock)
    assert engine.job_row(job).state == "saving"
    assert engine.files(job) == []
    charged_once(engine, job)


# --- save of a video ---


@pytest.mark.parametrize("moment", ["asked for a better one", "copied"])
def test_video_save_killed_while_copying(engine: Engine, moment: str) -> None:
    job = engine.add_saving_job(engine.add_account(), kind="video")
    engine.make_due()
    stop = engine.interceptor.before[MEDIA if moment == "copied" else "/get_local_item_list"] = RequestPause()
    process = engine.start_process("save", job_id=job)
    stop.wait()
    kill(process)
    stop.release()
    assert (engine.job_row(job).state, engine.files(job)) == ("saving", [])
    charged_once(engine, job)
    assert len(engine.files(job)) == 3


def test_video_save_killed_between_images_and_rows(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account(), kind="video")
    engine.make_due()
    stop = engine.interceptor.after[MEDIA] = RequestPause()
    process = engine.start_process("save", job_id=job)
    stop.wait()
    lock = lock_row(engine, job)
    stop.release()
    kill_at_lock(engine, process, lock)
    keys = [f"jobs/{job.hex}/0.{end}" for end in ("mp4", "thumbnail.jpeg", "spritesheet.jpeg")]
    contents = [storage.read_file(key) for key in keys]
    assert (engine.job_row(job).state, engine.files(job)) == ("saving", [])
    charged_once(engine, job)
    assert {row.key for row in engine.files(job)} == set(keys)
    assert [storage.read_file(key) for key in keys] == contents


# --- webhooks ---


def test_webhook_task_killed_before_recording_the_delivery(engine: Engine, receiver: WebhookReceiver) -> None:
    job = engine.add_succeeded_job(engine.add_account(), webhook_url=receiver.url)
    engine.make_due()
    [delivery] = engine.sql("SELECT id FROM webhook_deliveries")
    stop = RequestPause()
    receiver.hook = lambda: stop("", b"")
    process = engine.start_process("notify", delivery_id=delivery.id)
    stop.wait()
    kill(process)
    stop.release()
    [row] = engine.sql("SELECT * FROM webhook_deliveries")
    assert (row.delivered_at, row.tries) == (None, 1)
    receiver.hook = None
    engine.make_due()
    assert deliver(delivery_id=delivery.id).startswith("delivered")
    assert len(receiver.received) == 2
    assert receiver.received[0].headers["webhook-id"] == receiver.received[1].headers["webhook-id"]
    assert receiver.received[0].body == receiver.received[1].body
    assert engine.job_row(job).state == "succeeded"
