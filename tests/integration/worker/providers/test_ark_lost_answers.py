"""Answers to creates of Ark that were lost: found by keys, sent again once if that is safe, else reported as unclear."""

from uuid import UUID

import pytest
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from api.app import create_app
from tests.integration.conftest import ADMIN_KEY
from tests.support.ark_jobs import CREATE, ArkJobs
from tests.support.engine import Engine
from worker.tasks.dispatch import sweep

PROVED = {"echo_proved": True}


@pytest.fixture
def ark(engine: Engine) -> ArkJobs:
    return ArkJobs(engine)


def end(ark: ArkJobs, job: UUID) -> str:
    """Run the job, which upstream has accepted, to its end."""
    ark.finish()
    ark.engine.poll(ark.engine.job_row(job).account_id)
    ark.engine.save(job)
    return str(ark.engine.job_row(job).state)


def remarks(ark: ArkJobs, job: UUID) -> list[str]:
    return [row.note["remark"] for row in ark.engine.job_events(job) if "remark" in row.note]


def reasons(ark: ArkJobs, job: UUID) -> list[str]:
    return [row.note["reason"] for row in ark.engine.job_events(job) if "reason" in row.note]


# ---- videos


@pytest.mark.parametrize("how", ["reset:after", "empty:after", "html:after"])
@pytest.mark.parametrize("facts", [{}, PROVED])
def test_lost_answer_is_found_by_its_keys(ark: ArkJobs, how: str, facts: dict[str, bool]) -> None:
    account = ark.add_account(facts=facts)
    job = ark.add_video(account, prompt=f"waves [[{how}]]")
    assert ark.engine.submit(job).startswith("unclear")
    ark.look(job, 5)
    assert ark.engine.job_row(job).state == "submitting", "the first look comes after ten seconds"
    ark.look(job, 10)
    row = ark.engine.job_row(job)
    assert (row.state, row.upstream_id, row.attempt) == ("running", ark.tasks()[0].id, 1)
    assert remarks(ark, job) == ["answer_lost"]
    assert end(ark, job) == "succeeded"
    assert len(ark.tasks()) == 1


@pytest.mark.parametrize("seconds", [10, 30, 90, 300])
def test_task_that_lists_show_late_is_found(ark: ArkJobs, seconds: float) -> None:
    account = ark.add_account(facts=PROVED)
    job = ark.add_video(account, prompt="waves [[absent:1]][[reset:after]]")
    ark.engine.submit(job)
    for at in [at for at in (10, 30, 90, 300) if at < seconds]:
        ark.look(job, at)
        assert ark.engine.job_row(job).state == "submitting"
    object.__setattr__(ark.tasks()[0].script, "absent", 0)
    ark.look(job, seconds)
    assert ark.engine.job_row(job).state == "running"
    assert end(ark, job) == "succeeded"
    assert len(ark.tasks()) == 1


def test_submit_that_did_not_arrive_is_sent_again_if_the_account_proves_it(ark: ArkJobs) -> None:
    account = ark.add_account(facts=PROVED)
    job = ark.add_video(account, prompt="waves [[reset]]")
    ark.engine.submit(job)
    for at in (10, 30, 90):
        ark.look(job, at)
        assert ark.engine.job_row(job).state == "submitting", at
    ark.look(job, 301)
    assert ark.engine.job_row(job).state == "queued"
    ark.engine.submit(job)
    assert end(ark, job) == "succeeded"
    assert ark.engine.job_row(job).attempt == 2
    assert len(ark.tasks()) == 1


def test_it_is_sent_again_once_at_most(ark: ArkJobs) -> None:
    account = ark.add_account(facts=PROVED)
    job = ark.add_video(account, prompt="waves [[reset]][[empty]]")
    for _ in range(2):
        ark.engine.submit(job)
        for at in (10, 30, 90, 301):
            ark.look(job, at)
    row = ark.engine.job_row(job)
    assert (row.state, row.error_code, row.attempt) == ("failed", "upstream_unreachable", 2)
    assert (row.charged, row.charge_doubt) == (0, None), "it is proved that nothing was charged"
    assert ark.tasks() == []


@pytest.mark.parametrize("facts", [{}, {"echo_proved": False}])
def test_without_proof_it_ends_as_unclear(ark: ArkJobs, facts: dict[str, bool]) -> None:
    account = ark.add_account(facts=facts)
    job = ark.add_video(account, prompt="waves [[reset]]")
    ark.engine.submit(job)
    for at in (10, 30, 90, 301):
        ark.look(job, at)
    row = ark.engine.job_row(job)
    assert (row.state, row.error_code, row.attempt) == ("failed", "submit_unclear", 1)
    assert (row.charge_doubt, row.settled_at) == ("submit_unclear", None), "its price stays reserved"


def test_key_that_may_not_list_proves_nothing(ark: ArkJobs) -> None:
    account = ark.add_account(facts=PROVED)
    job = ark.add_video(account, prompt="waves [[reset]]")
    ark.engine.submit(job)
    refusal = {"error": {"code": "AccessDenied", "message": "no right to list"}}
    ark.engine.interceptor.before[CREATE] = lambda *_: JSONResponse(refusal, 403)
    for at in (10, 30, 90, 301):
        ark.look(job, at)
    assert ark.engine.job_row(job).error_code == "submit_unclear"


def test_failed_searches_decide_nothing(ark: ArkJobs) -> None:
    account = ark.add_account(facts=PROVED)
    job = ark.add_video(account, prompt="waves [[reset:after]]")
    ark.engine.submit(job)
    ark.state.lost.shares = {"lists": 1.0}
    for at in (10, 30, 90, 301, 400):
        ark.look(job, at)
        assert ark.engine.job_row(job).state == "submitting", at
    ark.state.lost.shares = {}
    ark.look(job, 500)
    assert ark.engine.job_row(job).state == "running"


def test_several_matches_adopt_the_oldest_and_are_reported(ark: ArkJobs) -> None:
    account = ark.add_account()
    job = ark.add_video(account, prompt="waves [[reset:after]]")
    ark.engine.submit(job)
    first = ark.tasks()[0]
    main = next(iter(ark.state.mains.values()))
    twin = ark.state.create_task(main, first.order, first.script, first.created_at + 1)
    ark.look(job, 10)
    row = ark.engine.job_row(job)
    assert (row.upstream_id, row.charge_doubt) == (first.id, "charged_twice_possible")
    [doubt] = [
        event.note for event in ark.engine.job_events(job) if event.note.get("remark") == "charged_twice_possible"
    ]
    assert twin.id in doubt["detail"]


def test_tasks_of_other_jobs_are_no_matches(ark: ArkJobs) -> None:
    account = ark.add_account("noecho", max_videos=5)
    other = ark.add_video(account, prompt="clouds [[hang]]")
    ark.engine.submit(other)
    job = ark.add_video(account, prompt="waves [[reset]]")
    ark.engine.submit(job)
    for at in (10, 30, 90, 301):
        ark.look(job, at)
    assert ark.engine.job_row(job).error_code == "submit_unclear"


def test_deadline_ends_a_search_as_unclear(ark: ArkJobs) -> None:
    account = ark.add_account(facts=PROVED)
    job = ark.add_video(account, prompt="waves [[reset]]")
    ark.engine.submit(job)
    ark.engine.pass_deadline(job)
    sweep()
    row = ark.engine.job_row(job)
    assert (row.error_code, row.charge_doubt) == ("submit_unclear", "submit_unclear")


# ---- images


@pytest.mark.parametrize("how", ["reset:after", "reset", "empty:after", "html", "http:500", "http:408"])
def test_image_without_an_answer_is_unclear_at_once(ark: ArkJobs, how: str) -> None:
    account = ark.add_account(facts=PROVED)
    job = ark.add_image(account, prompt=f"a boat [[{how}]]")
    ark.engine.submit(job)
    row = ark.engine.job_row(job)
    assert (row.state, row.error_code, row.attempt) == ("failed", "submit_unclear", 1)
    assert row.charge_doubt == "submit_unclear"
    assert row.settled_at is None
    assert not row.holds_slot


def test_image_whose_call_was_not_written_is_sent_again(ark: ArkJobs) -> None:
    account = ark.add_account()
    job = ark.add_image(account)
    with_url = ark.engine.env["DREAMERY_SANDBOX_URL"]
    ark.engine.configure(SANDBOX_URL="http://127.0.0.1:9")
    ark.engine.submit(job)
    assert ark.engine.job_row(job).state == "queued"
    ark.engine.configure(SANDBOX_URL=with_url)
    ark.engine.submit(job)
    ark.engine.save(job)
    assert ark.engine.job_row(job).state == "succeeded"
    assert ark.ledger()["totals"]["image_calls"] == 1


def test_caller_may_ask_for_a_second_try(ark: ArkJobs) -> None:
    account = ark.add_account()
    job = ark.add_image(account, prompt="a boat [[reset:after]]", retry_unclear=True)
    assert "sent again" in ark.engine.submit(job)
    row = ark.engine.job_row(job)
    assert (row.state, row.charge_doubt) == ("queued", "charged_twice_possible")
    ark.engine.submit(job)
    ark.engine.save(job)
    assert ark.engine.job_row(job).state == "succeeded"
    assert ark.ledger()["totals"]["image_calls"] == 2


def test_second_try_is_the_last(ark: ArkJobs) -> None:
    account = ark.add_account()
    job = ark.add_image(account, prompt="a boat [[reset:after]][[empty:after]][[html:after]]", retry_unclear=True)
    ark.engine.submit(job)
    ark.engine.submit(job)
    row = ark.engine.job_row(job)
    assert (row.state, row.error_code, row.attempt) == ("failed", "submit_unclear", 2)
    assert ark.ledger()["totals"]["image_calls"] == 2


# ---- what operators and callers see


def test_operators_find_unclear_jobs_and_read_why(ark: ArkJobs) -> None:
    account = ark.add_account()
    unclear, fine = ark.add_image(account, prompt="a boat [[reset:after]]"), ark.add_image(account)
    for job in (unclear, fine):
        ark.engine.submit(job)
    with TestClient(create_app(), headers={"Authorization": f"Bearer {ADMIN_KEY}"}) as client:
        found = client.get("/admin/v1/jobs", params={"charge_doubt": True}).json()["data"]
        assert [(one["id"], one["charge_doubt"]) for one in found] == [(f"job_{unclear.hex}", "submit_unclear")]
        assert len(client.get("/admin/v1/jobs").json()["data"]) == 2
        entries = client.get(f"/admin/v1/jobs/job_{unclear.hex}").json()["timeline"]["data"]
        assert "may already have been charged" in entries[-1]["text"]["en"]


def test_timeline_tells_of_a_search(ark: ArkJobs) -> None:
    job = ark.add_video(ark.add_account(), prompt="waves [[reset:after]]")
    ark.engine.submit(job)
    with TestClient(create_app(), headers={"Authorization": f"Bearer {ADMIN_KEY}"}) as client:
        entries = client.get(f"/admin/v1/jobs/job_{job.hex}").json()["timeline"]["data"]
    assert "searched for upstream" in entries[-1]["text"]["en"]
    assert "上游" in entries[-1]["text"]["zh"]


@pytest.mark.parametrize(("path", "model"), [("images", "seedream-5.0-flash"), ("videos", "seedance-2.0-mini")])
def test_request_may_allow_a_second_try(ark: ArkJobs, path: str, model: str) -> None:
    ark.engine.sql("UPDATE accounts SET pool = true WHERE id = :id", id=ark.add_account())
    headers = {"Authorization": f"Bearer {ADMIN_KEY}", "Prefer": "respond-async", "X-Accounts": "provider=ark"}
    with TestClient(create_app(), headers=headers) as client:
        for wanted in (True, False):
            body = {"model": model, "prompt": f"waves {wanted}", "retry_unclear": wanted}
            answer = client.post(f"/v1/{path}/generations", json=body)
            assert answer.status_code == 202, answer.text
    rows = ark.engine.sql("SELECT params -> 'retry_unclear' AS wanted FROM jobs ORDER BY id")
    assert [row.wanted for row in rows] == [True, None]
