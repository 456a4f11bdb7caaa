"""The poll task: one upstream response, applied to the rows of all open jobs of the account."""

import json
import threading

import pytest
from starlette.responses import Response

from tests.support.engine import HISTORY, Engine
from worker.db.engine import transaction
from worker.db.jobs import state_machine
from worker.tasks.dispatch import sweep
from worker.tasks.poll import STABLE_POLLS, poll


def cancel(job_id):
    """Request the cancellation as the API does."""
    with transaction() as tx:
        return state_machine.cancel(tx, job_id)


def set_answer(engine: Engine, **record):
    """Make upstream return this for every polled job."""

    def hook(_path, body):
        asked = json.loads(body)["submit_ids"]
        data = {key: {"submit_id": key, "history_record_id": "77", **record} for key in asked}
        return Response(json.dumps({"ret": "0", "errmsg": "success", "data": data}), media_type="application/json")

    engine.interceptor.before[HISTORY] = hook


def items(number):
    return [
        {"image": {"large_images": [{"image_url": f"http://127.0.0.1/{n}", "width": 8, "height": 8}]}}
        for n in range(number)
    ]


@pytest.mark.parametrize("others", [0, 1])
def test_finished_job_is_enqueued_for_save_and_frees_its_slot_for_those_that_wait(engine: Engine, others: int) -> None:
    account = engine.add_account()
    job = engine.add_job(account, count=2)
    engine.submit(job)
    for _ in range(others):
        engine.add_job(account)
    engine.take_messages()
    assert engine.poll(account).startswith("polled 1 jobs")
    row = engine.job_row(job)
    assert (row.state, row.holds_slot, len(row.result_refs), row.progress) == ("saving", False, 2, 95)
    assert {m.task for m in engine.take_messages()} - {"dreamery.poll"} == {
        "dreamery.save",
        *["dreamery.submit"] * others,
    }


def test_account_without_open_jobs_is_not_polled(engine: Engine) -> None:
    account = engine.add_account()
    engine.add_succeeded_job(account)
    before = engine.poll_count()
    assert engine.poll(account) == "not due"
    assert engine.account_row(account).poll_due_at is None
    assert engine.poll(account) == "not due"
    assert engine.poll_count() == before


def test_one_call_polls_all_jobs_of_the_account(engine: Engine) -> None:
    account = engine.add_account(max_images=5)
    open_jobs = [engine.add_running_job(account) for _ in range(5)]
    before = engine.poll_count()
    engine.poll(account)
    assert engine.poll_count() - before == 1
    assert engine.ledger()["polls"][next(iter(engine.ledger()["polls"]))]["max_ids"] == 5
    assert engine.states(open_jobs) == ["running"] * 5


def test_more_jobs_than_fit_in_a_call_are_all_polled(engine: Engine) -> None:
    engine.configure(POLL_BATCH="2")
    account = engine.add_account(max_images=6)
    hanging = [engine.add_running_job(account) for _ in range(4)]
    last = engine.add_job(account)
    engine.submit(last)
    for _ in range(60):
        if engine.job_row(last).state != "running":
            break
        engine.poll(account)
    assert engine.job_row(last).state == "saving", "hanging jobs at the front do not block the others"
    assert engine.states(hanging) == ["running"] * 4
    [calls] = engine.ledger()["polls"].values()
    assert calls["max_ids"] == 2


def test_progress_and_queue_position_are_stored_once(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_running_job(account, prompt="a boat [[queue:400]]")
    engine.poll(account)
    row = engine.job_row(job)
    assert row.queue_position > 390
    set_answer(engine, status=42, item_list=[], total_image_count=4, finished_image_count=0)
    engine.poll(account)
    event_count = len(engine.job_events(job))
    assert (engine.job_row(job).progress, engine.job_row(job).queue_position) == (5, None)
    engine.poll(account)
    assert len(engine.job_events(job)) == event_count


def test_temporarily_missing_job_continues(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_running_job(account, prompt="a boat [[absent:3]]")
    for _ in range(3):
        engine.poll(account)
        assert engine.job_row(job).state == "running"
        assert engine.job_row(job).absent_since is not None
    engine.poll(account)
    assert engine.job_row(job).state == "saving"


def test_absence_timer_restarts_after_a_record(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_running_job(account)
    engine.interceptor.before[HISTORY] = lambda *_: Response('{"ret": "0", "data": {}}', media_type="application/json")
    engine.poll(account)
    engine.interceptor.clear()
    engine.poll(account)
    assert engine.job_row(job).absent_since is None


def test_permanently_missing_job_fails(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_running_job(account, prompt="a boat [[absent:99]]")
    engine.poll(account)
    engine.sql("UPDATE jobs SET absent_since = now() - interval '6 minutes'")
    engine.poll(account)
    assert engine.job_row(job).error_code == "history_unavailable"


def test_unchanged_record_ends_the_absence(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_running_job(account)
    set_answer(engine, status=42)
    engine.poll(account)
    engine.sql("UPDATE jobs SET absent_since = now() - interval '4 minutes'")
    engine.poll(account)
    assert engine.job_row(job).absent_since is None


def test_unchanged_records_open_no_transaction(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_running_job(account)
    set_answer(engine, status=42)
    engine.poll(account)
    [before] = engine.sql("SELECT xmin::text AS version FROM jobs WHERE id = :id", id=job)
    engine.poll(account)
    [after] = engine.sql("SELECT xmin::text AS version FROM jobs WHERE id = :id", id=job)
    assert before.version == after.version


def test_fewer_images_than_requested_is_a_success(engine: Engine) -> None:
    job = engine.add_job(engine.add_account(), prompt="a boat [[partial:2]]", count=4)
    assert engine.run_until_final(job) == ["succeeded"]
    assert len(engine.files(job)) == 2


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("[[partial:0]]", "generation_failed"),
        ("[[fail:30]]", "generation_failed"),
        ("[[fail:100]]", "history_unavailable"),
        ("[[fail:2002]]", "generation_failed"),
    ],
)
def test_failed_record_fails_the_job_with_its_reason(engine: Engine, script: str, code: str) -> None:
    job = engine.add_job(engine.add_account(), prompt=f"a boat {script}")
    assert engine.run_until_final(job) == ["failed"]
    row = engine.job_row(job)
    assert (row.error_code, row.holds_slot) == (code, False)


def test_unsettled_items_must_be_stable(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_running_job(account)
    set_answer(engine, status=45, item_list=items(2), total_image_count=4, finished_image_count=2)
    for _ in range(STABLE_POLLS + 1):
        engine.poll(account)
    assert engine.job_row(job).state == "running", "the stability period has not passed"
    engine.sql("UPDATE jobs SET stable_since = now() - interval '16 seconds', stable_polls = 0")
    for _ in range(STABLE_POLLS - 1):
        engine.poll(account)
    assert engine.job_row(job).state == "running", "there were too few polls"
    set_answer(engine, status=45, item_list=items(3), total_image_count=4, finished_image_count=3)
    engine.poll(account)
    assert engine.job_row(job).stable_polls == 0, "a new item restarts the count"
    engine.sql("UPDATE jobs SET stable_since = now() - interval '16 seconds'")
    for _ in range(STABLE_POLLS):
        engine.poll(account)
    row = engine.job_row(job)
    assert (row.state, len(row.result_refs)) == ("saving", 3)


@pytest.mark.parametrize("status", [500, 200])
def test_failed_poll_changes_nothing(engine: Engine, status: int) -> None:
    account = engine.add_account()
    job = engine.add_running_job(account, prompt="a boat")
    engine.interceptor.before[HISTORY] = lambda *_: Response("<html>", status_code=status)
    before = engine.job_row(job)
    assert "failed" in engine.poll(account)
    after = engine.job_row(job)
    assert (after.state, after.event_seq, after.progress) == ("running", before.event_seq, 0)
    engine.interceptor.clear()
    assert engine.run_until_final(job) == ["succeeded"]


def test_unreadable_record_of_unclear_submit_requeues_nothing(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_job(account, prompt="a boat [[reset:after]]")
    engine.submit(job)
    engine.expire_leases()
    for strange in ("[]", '{"ret": "0", "data": []}', '{"data": {}}', '{"ret": "-1"}', ""):
        engine.interceptor.before[HISTORY] = lambda *_, text=strange: Response(text, media_type="application/json")
        engine.poll(account)
        assert engine.job_row(job).state == "submitting", strange
    engine.interceptor.clear()
    assert engine.run_until_final(job) == ["succeeded"]
    assert engine.charge_count() == 1


def test_moved_session_is_looked_up_by_the_same_poll(engine: Engine) -> None:
    account = engine.add_account(session="hk-lookup-again-1", region="auto")
    job = engine.add_running_job(account)
    engine.finish_upstream()
    engine.sql(
        """UPDATE accounts SET cluster = '{"country": "US", "idc": "useast5",
           "mweb": "https://dreamina-api.us.capcut.com", "commerce": "https://commerce.us.capcut.com"}'"""
    )
    engine.interceptor.calls.clear()
    engine.poll(account)
    assert engine.account_row(account).cluster["country"] == "HK"
    assert engine.job_row(job).state in {"running", "saving"}
    # Polled at the old hosts, looked up, polled at the new hosts.
    calls = [path.rpartition("/")[2] for path in engine.interceptor.calls]
    assert calls.count("get_history_by_ids") == 2
    assert 1 <= calls.count("user_info") <= 4, "the first probe that succeeds ends the look-up"


def test_expired_session_is_looked_up_once_per_poll(engine: Engine) -> None:
    account = engine.add_account(session="hk-lookup-again-2", region="auto")
    job = engine.add_running_job(account)
    engine.interceptor.before[HISTORY] = lambda *_: Response(
        '{"ret": "1015", "data": null}', media_type="application/json"
    )
    engine.interceptor.calls.clear()
    assert "upstream_session_expired" in engine.poll(account)
    calls = [path.rpartition("/")[2] for path in engine.interceptor.calls]
    assert calls.count("get_history_by_ids") == 2
    assert 1 <= calls.count("user_info") <= 4, "the first probe that succeeds ends the look-up"
    assert engine.job_row(job).state == "running"


def test_undecryptable_session_leaves_jobs_to_their_deadline(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_running_job(account)
    engine.configure(MASTER_KEY="quite another master key, forty characters long")
    assert "overloaded" in engine.poll(account)
    assert engine.job_row(job).state == "running"


def test_hanging_generation_fails_at_its_deadline(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_running_job(account)
    engine.poll(account)
    sweep()
    assert engine.job_row(job).state == "running"
    engine.pass_deadline(job)
    sweep()
    row = engine.job_row(job)
    assert (row.state, row.error_code, row.holds_slot) == ("failed", "generation_timeout", False)


# --- cancel ---


def test_queued_job_is_cancelled_at_once(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_job(account)
    assert cancel(job).state == "cancelled"
    engine.submit(job)
    assert engine.submits() == []


def test_running_job_is_cancelled_by_poll_and_keeps_its_slot_until_upstream_ends(engine: Engine) -> None:
    account = engine.add_account(max_images=1)
    job = engine.add_running_job(account)
    assert cancel(job) is None
    assert engine.job_row(job).state == "running"
    engine.poll(account)
    row = engine.job_row(job)
    assert (row.state, row.holds_slot) == ("cancelled", True)
    waiting = engine.add_job(account, prompt="the next")
    engine.submit(waiting)
    engine.poll(account)
    assert engine.job_row(waiting).state == "queued"
    engine.finish_upstream()
    engine.poll(account)
    assert engine.job_row(job).holds_slot is False
    assert engine.run_until_final(waiting) == ["succeeded"]
    assert engine.job_row(job).state == "cancelled"
    [account_view] = engine.ledger()["accounts"].values()
    assert account_view["max_in_flight"] == 1


def test_temporarily_missing_cancelled_job_keeps_its_slot(engine: Engine) -> None:
    account = engine.add_account(max_images=1)
    job = engine.add_running_job(account)
    cancel(job)
    engine.poll(account)
    engine.interceptor.before[HISTORY] = lambda *_: Response('{"ret": "0", "data": {}}', media_type="application/json")
    engine.poll(account)
    assert engine.job_row(job).holds_slot is True
    engine.sql("UPDATE jobs SET absent_since = now() - interval '6 minutes'")
    engine.poll(account)
    assert engine.job_row(job).holds_slot is False


def test_cancelled_job_releases_its_slot_at_its_deadline(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_running_job(account)
    cancel(job)
    engine.poll(account)
    engine.pass_deadline(job)
    sweep()
    row = engine.job_row(job)
    assert (row.state, row.holds_slot) == ("cancelled", False)


@pytest.mark.parametrize(("script", "charges"), [("[[reset:after]]", 1), ("[[reset:before]]", 0)])
def test_unclear_submit_is_cancelled_once_it_is_found(engine: Engine, script: str, charges: int) -> None:
    account = engine.add_account()
    job = engine.add_job(account, prompt=f"a boat {script}")
    engine.submit(job)
    assert cancel(job) is None
    engine.expire_leases()
    engine.poll(account)
    assert engine.job_row(job).state == "cancelled"
    engine.make_due()
    engine.poll(account)
    assert engine.job_row(job).holds_slot is False
    assert engine.charge_count() == charges
    assert len(engine.submits()) == charges


@pytest.mark.parametrize("end", ["saving", "succeeded"])
def test_finished_job_is_not_cancelled(engine: Engine, end: str) -> None:
    account = engine.add_account()
    job = engine.add_saving_job(account) if end == "saving" else engine.add_succeeded_job(account)
    assert cancel(job) is None
    assert engine.run_until_final(job) == ["succeeded"]
    assert engine.job_row(job).cancel_requested_at is None


def test_cancel_request_survives_a_refused_submit(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_job(account, prompt="a boat [[refuse:1057]]")

    def during_call(_path, _body):
        cancel(job)

    engine.interceptor.before["/generate"] = during_call
    engine.submit(job)
    assert engine.job_row(job).state == "cancelled"


def test_concurrent_polls_make_one_call(engine: Engine) -> None:
    account = engine.add_account()
    engine.add_running_job(account)
    engine.make_due()
    before = engine.poll_count()
    barrier = threading.Barrier(8)
    answers = []

    def ask():
        barrier.wait()
        answers.append(poll(account_id=account))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert engine.poll_count() - before == 1
    assert answers.count("not due") == 7
