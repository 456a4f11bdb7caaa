"""Polls of Ark accounts: lists and their pace, ids that a list leaves out, ends of tasks, results, cancel, callbacks."""

import time
from uuid import UUID, uuid4

import pytest
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from api.app import create_app
from tests.support.ark_jobs import CREATE, ArkJobs
from tests.support.engine import Engine
from worker.db.accounts import list_pace
from worker.db.engine import transaction

WIDE = {"max_videos": 200}


@pytest.fixture
def ark(engine: Engine) -> ArkJobs:
    return ArkJobs(engine)


def poll(ark: ArkJobs, account: UUID) -> str:
    ark.forget_lists()
    return ark.engine.poll(account)


def start(ark: ArkJobs, account: UUID, prompt: str = "waves [[hang]]", **options: object) -> UUID:
    job = ark.add_video(account, prompt=prompt, **options)
    ark.engine.submit(job)
    assert ark.engine.job_row(job).state == "running"
    return job


def reads(ark: ArkJobs) -> list[str]:
    """Return what was read since the last `clear`: `tasks` for a list, else the id of a task."""
    return [path.rpartition("/")[2] for path in ark.engine.interceptor.calls if CREATE in path]


# ---- lists


def test_one_list_asks_for_many_tasks(ark: ArkJobs) -> None:
    account = ark.add_account(**WIDE)
    jobs = [start(ark, account) for _ in range(6)]
    ark.engine.interceptor.calls.clear()
    poll(ark, account)
    assert reads(ark) == ["tasks"]
    assert set(ark.engine.states(jobs)) == {"running"}


def test_flex_tasks_have_a_list_of_their_own(ark: ArkJobs) -> None:
    account = ark.add_account(**WIDE)
    start(ark, account)
    flex = start(ark, account, "waves", service_tier="flex", model="seedance-1.0-pro")
    ark.engine.interceptor.calls.clear()
    poll(ark, account)
    assert len(reads(ark)) == 2
    assert ark.engine.job_row(flex).state == "saving"


def test_task_that_lists_leave_out_is_asked_for_alone(ark: ArkJobs) -> None:
    account = ark.add_account()
    job = start(ark, account, "waves [[absent:1]]")
    ark.engine.interceptor.calls.clear()
    poll(ark, account)
    assert reads(ark) == ["tasks", ark.tasks()[0].id]
    assert ark.engine.job_row(job).state == "saving"


def test_key_of_single_models_lists_by_model(ark: ArkJobs) -> None:
    account = ark.add_account("custom", facts={"scope": "custom"})
    job = start(ark, account, "waves")
    poll(ark, account)
    assert ark.engine.job_row(job).state == "saving"
    assert ark.engine.account_row(account).provider_facts["echo_proved"] is True


def test_key_without_the_right_to_list_asks_for_single_tasks(ark: ArkJobs) -> None:
    account = ark.add_account("custom")
    job = start(ark, account, "waves")
    poll(ark, account)
    assert ark.engine.job_row(job).state == "saving"


def test_keys_of_a_customer_share_the_pace_of_lists(engine: Engine) -> None:
    def turn(name: str) -> float | None:
        with transaction() as tx:
            return list_pace.take_turn(tx, name, pause=1.0)

    waits = [turn("group a") for _ in range(4)]
    assert waits[0] == 0
    assert [round(wait or 0) for wait in waits] == [0, 1, 2, 3]
    assert turn("group b") == 0
    many = [turn("group a") for _ in range(40)]
    assert None in many, "who would wait too long gets no turn"
    assert len(engine.sql("SELECT 1 FROM list_paces")) == 2
    engine.sql("UPDATE list_paces SET next_at = next_at - interval '2 days' WHERE name = 'group a'")
    with transaction() as tx:
        list_pace.delete_old(tx)
    assert [row.name for row in engine.sql("SELECT name FROM list_paces")] == ["group b"]


def test_lists_of_two_accounts_of_a_customer_are_a_second_apart(ark: ArkJobs) -> None:
    name = f"ark{uuid4().hex}"
    accounts = [ark.add_account(f"{name}.{n}", limit_group="customer", **WIDE) for n in range(2)]
    for account in accounts:
        start(ark, account)
    ark.engine.sql("DELETE FROM list_paces")
    times: list[float] = []
    ark.engine.interceptor.before[CREATE] = lambda *_: times.append(time.monotonic())
    lines = [ark.engine.poll(account) for account in accounts]
    assert all(line.startswith("polled 1") for line in lines), lines
    assert times[1] - times[0] > 0.9, "the sandbox refuses a list that comes earlier"


# ---- what tasks become


@pytest.mark.parametrize(
    ("prompt", "code", "doubt"),
    [
        ("[[fail:OutputVideoSensitiveContentDetected]]", "content_policy_violation", None),
        ("[[fail:InvalidParameter.TaskTypeMismatch]]", "invalid_parameters", None),
        ("[[life:0]][[hang]]", "generation_timeout", None),
    ],
)
def test_failed_tasks_cost_nothing(ark: ArkJobs, prompt: str, code: str, doubt: str | None) -> None:
    account = ark.add_account()
    job = start(ark, account, f"waves {prompt}")
    poll(ark, account)
    row = ark.engine.job_row(job)
    assert (row.state, row.error_code, row.charged, row.charge_doubt) == ("failed", code, 0, doubt)
    assert row.settled_at is not None
    assert not row.holds_slot


def test_task_that_upstream_does_not_know_any_more_fails(ark: ArkJobs) -> None:
    account = ark.add_account()
    job = start(ark, account)
    next(iter(ark.state.mains.values())).tasks.clear()
    for seconds in (0, 4, 9):
        ark.engine.sql(
            "UPDATE jobs SET absent_since = absent_since - make_interval(secs => :s) WHERE id = :id", id=job, s=seconds
        )
        assert ark.engine.job_row(job).state == "running", "three looks"
        poll(ark, account)
    assert ark.engine.job_row(job).error_code == "result_unavailable"


def test_errors_of_single_reads_change_nothing(ark: ArkJobs) -> None:
    account = ark.add_account()
    job = start(ark, account, "waves [[absent:1]]")
    ark.state.lost.shares = {"gets": 1.0}
    for _ in range(4):
        poll(ark, account)
    row = ark.engine.job_row(job)
    assert (row.state, row.absent_since) == ("running", None)
    ark.state.lost.shares = {}
    poll(ark, account)
    assert ark.engine.job_row(job).state == "saving"


def test_list_that_hides_keys_proves_nothing_any_more(ark: ArkJobs) -> None:
    account = ark.add_account("noecho", facts={"echo_proved": True})
    start(ark, account)
    poll(ark, account)
    facts = ark.engine.account_row(account).provider_facts
    assert facts["echo_proved"] is False
    assert facts["echo_failed_at"] > time.time() - 60


# ---- results


def test_last_frame_is_a_file_of_the_video(ark: ArkJobs) -> None:
    account = ark.add_account()
    job = start(ark, account, "waves", return_last_frame=True)
    poll(ark, account)
    ark.engine.save(job)
    assert {file.variant for file in ark.engine.files(job)} == {"original", "thumbnail", "spritesheet", "last_frame"}
    row = ark.engine.job_row(job)
    assert (row.state, row.result_count) == ("succeeded", 1)


def test_video_that_is_not_ready_is_fetched_again(ark: ArkJobs) -> None:
    account = ark.add_account()
    job = start(ark, account, "waves [[notready:2]]")
    poll(ark, account)
    assert ark.engine.save(job).startswith("again")
    time.sleep(2)
    ark.engine.save(job)
    assert ark.engine.job_row(job).state == "succeeded"


def test_expired_link_is_replaced_by_that_of_the_task(ark: ArkJobs) -> None:
    account = ark.add_account()
    job = start(ark, account, "waves [[resigned]][[expires:1]]")
    poll(ark, account)
    first = ark.engine.job_row(job).result_refs
    time.sleep(2.1)
    assert ark.engine.save(job).startswith("again")
    assert ark.engine.job_row(job).result_refs != first


# ---- cancel


def test_queued_task_is_cancelled_upstream_and_costs_nothing(ark: ArkJobs) -> None:
    account = ark.add_account()
    job = start(ark, account, "waves [[queue:500]]")
    cancel(ark, job)
    poll(ark, account)
    row = ark.engine.job_row(job)
    assert (row.state, row.holds_slot, row.charged) == ("cancelled", False, 0)
    assert ark.tasks()[0].status(time.time()) == "cancelled"


def test_running_task_goes_on_and_says_so(ark: ArkJobs) -> None:
    account = ark.add_account()
    job = start(ark, account, "waves [[seconds:500]]")
    cancel(ark, job)
    poll(ark, account)
    row = ark.engine.job_row(job)
    assert (row.state, row.cancel_requested_at) == ("running", None)
    assert [event.note["remark"] for event in ark.engine.job_events(job) if "remark" in event.note] == [
        "cancel_refused"
    ]
    ark.finish()
    poll(ark, account)
    ark.engine.save(job)
    row = ark.engine.job_row(job)
    assert row.state == "succeeded"
    assert row.charged > 0


def test_cancel_whose_answer_was_lost_is_found_done(ark: ArkJobs) -> None:
    account = ark.add_account()
    job = start(ark, account, "waves [[queue:500]]")
    cancel(ark, job)
    ark.engine.interceptor.after[ark.tasks()[0].id] = lambda *_: JSONResponse({}, 502)
    poll(ark, account)
    ark.engine.interceptor.clear()
    poll(ark, account)
    row = ark.engine.job_row(job)
    assert (row.state, row.holds_slot, row.charged) == ("cancelled", False, 0)


def cancel(ark: ArkJobs, job: UUID) -> None:
    ark.engine.sql("UPDATE jobs SET cancel_requested_at = now() WHERE id = :id", id=job)


# ---- callbacks


@pytest.fixture
def client(ark: ArkJobs) -> TestClient:
    return TestClient(create_app())


def token(ark: ArkJobs, job: UUID) -> str:
    return str(ark.engine.job_row(job).submit_key.hex)


def test_report_makes_the_poll_due(ark: ArkJobs, client: TestClient) -> None:
    account = ark.add_account()
    job = start(ark, account)
    ark.engine.sql("UPDATE accounts SET poll_due_at = now() + interval '1 hour', polled_at = now() - interval '1 hour'")
    answer = client.post(f"/hooks/ark/{token(ark, job)}", json={"id": "cgt-x", "status": "succeeded"})
    assert answer.status_code == 204
    [due] = ark.engine.sql("SELECT poll_due_at <= clock_timestamp() AS due FROM accounts WHERE id = :id", id=account)
    assert due.due
    row = ark.engine.job_row(job)
    assert (row.state, row.upstream_hint) == ("running", None), "what it says is not believed"


@pytest.mark.parametrize("path", ["x", "0" * 32, "deea292074724589b0f6882da2ebbe3a", "%2e%2e", "a/b"])
def test_other_tokens_are_unknown(client: TestClient, path: str) -> None:
    assert client.post(f"/hooks/ark/{path}", json={}).status_code == 404


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"id": 7}', b'{"id": "a b"}', b"\xff" * 9, b'{"id": "' + b"a" * 200 + b'"}']
)
def test_strange_reports_only_make_the_poll_due(ark: ArkJobs, client: TestClient, body: bytes) -> None:
    account = ark.add_account()
    job = start(ark, account)
    assert client.post(f"/hooks/ark/{token(ark, job)}", content=body).status_code in {204, 400}
    assert ark.engine.job_row(job).upstream_hint is None


def test_long_report_is_refused(ark: ArkJobs, client: TestClient) -> None:
    job = start(ark, ark.add_account())
    assert client.post(f"/hooks/ark/{token(ark, job)}", content=b"a" * 70_000).status_code == 413


@pytest.mark.parametrize("words", ["", "noecho"])
def test_report_finds_a_task_whose_create_was_not_answered(ark: ArkJobs, client: TestClient, words: str) -> None:
    account = ark.add_account(words)
    job = ark.add_video(account, prompt="waves [[reset:after]][[absent:1]]")
    ark.engine.submit(job)
    assert client.post(f"/hooks/ark/{token(ark, job)}", json={"id": ark.tasks()[0].id}).status_code == 204
    poll(ark, account)
    row = ark.engine.job_row(job)
    assert (row.state, row.upstream_id) == ("running", ark.tasks()[0].id)


@pytest.mark.parametrize("which", ["other", "unknown"])
def test_report_with_a_wrong_id_finds_nothing(ark: ArkJobs, client: TestClient, which: str) -> None:
    account = ark.add_account(**WIDE)
    other = start(ark, account)
    job = ark.add_video(account, prompt="waves [[reset]]")
    ark.engine.submit(job)
    hint = ark.engine.job_row(other).upstream_id if which == "other" else "cgt-20260101000000-00000000"
    client.post(f"/hooks/ark/{token(ark, job)}", json={"id": hint})
    for at in (10, 30, 90, 301):
        ark.look(job, at)
    row = ark.engine.job_row(job)
    assert (row.state, row.upstream_id) == ("queued", None), "the lists prove that it did not arrive"


# ---- failures that are not the job's


def test_task_that_upstream_failed_is_tried_again_and_costs_nothing(ark: ArkJobs) -> None:
    account = ark.add_account()
    job = start(ark, account, "waves [[fail:InternalServiceError]]")
    poll(ark, account)
    row = ark.engine.job_row(job)
    assert (row.state, row.submitted_at, row.upstream_id, row.holds_slot) == ("queued", None, None, False)
    for _ in range(2):
        ark.engine.make_due()
        ark.engine.submit(job)
        poll(ark, account)
    row = ark.engine.job_row(job)
    assert (row.state, row.error_code, row.attempt, row.charged) == ("failed", "upstream_error", 3, 0)
    assert len(ark.tasks()) == 3
