"""A list of session ids succeeds if one of them can run the job; the timeline shows why each other one was skipped."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.support.engine import Engine
from worker.core.ids import parse_public_id

REFUSE = {
    "dead-of-the-list-01": "upstream_session_expired",
    "broke-of-the-list-1": "insufficient_quota",
    "limited-of-the-list": "account_limited",
    "shark-of-the-list-1": "upstream_risk_control",
}
GOOD = "plain-of-the-list-1"


@pytest.fixture
def http(engine: Engine) -> Iterator[TestClient]:
    with TestClient(create_app(), raise_server_exceptions=False) as client:
        engine.sql("DELETE FROM accounts")
        yield client


def create_job(http: TestClient, tokens: str, prompt: str = "a boat") -> UUID:
    body = {"prompt": prompt, "n": 1, "async": True}
    response = http.post("/v1/images/generations", json=body, headers={"Authorization": f"Bearer {tokens}"})
    assert response.status_code == 202, response.text
    job_id = parse_public_id("job", response.json()["id"])
    assert job_id is not None
    return job_id


def skipped(engine: Engine, job: UUID) -> set[tuple[str, str]]:
    """Return account and code of each refusal on the job's timeline."""
    return {(e.note["account"], e.note["code"]) for e in engine.job_events(job) if {"account", "code"} <= set(e.note)}


def test_session_list_succeeds_if_one_session_works(engine: Engine, http: TestClient) -> None:
    tokens = [*REFUSE, GOOD]
    # Each session first gets its own account, so that the labels are known; the good one was used last and is tried last.
    labels = {}
    for session in REFUSE:
        alone = create_job(http, f"{session}:sandbox")
        assert engine.run_until_final(alone) == ["failed"]
        labels[session] = engine.account_row(engine.job_row(alone).account_ids[0]).label
    # Reset everything learned about the accounts, also that one has no credits.
    engine.sql("UPDATE accounts SET rest_until = NULL, rest_code = NULL, credits = NULL, credits_at = NULL")
    engine.sql("DELETE FROM account_marks")
    good = create_job(http, f"{GOOD}:sandbox")
    assert engine.run_until_final(good) == ["succeeded"]
    engine.sql("UPDATE accounts SET last_submit_at = NULL WHERE id <> :id", id=engine.job_row(good).account_id)
    job = create_job(http, ", ".join(f"{session}:sandbox" for session in tokens))
    assert engine.run_until_final(job) == ["succeeded"]
    assert engine.job_row(job).account_id == engine.job_row(good).account_id
    assert skipped(engine, job) == {(labels[session], code) for session, code in REFUSE.items()}
    assert engine.charge_count() == 2
    # Each of the session ids can see the job.
    for session in tokens:
        visible = http.get("/v1/jobs", headers={"Authorization": f"Bearer {session}:sandbox"}).json()["data"]
        assert job in {parse_public_id("job", row["id"]) for row in visible}


def test_session_list_without_a_working_session_returns_the_reason(engine: Engine, http: TestClient) -> None:
    job = create_job(http, ",".join(f"{session}:sandbox" for session in REFUSE))
    assert engine.run_until_final(job) == ["failed"]
    assert engine.job_row(job).error_code in set(REFUSE.values())
    assert {code for _, code in skipped(engine, job)} == set(REFUSE.values())
    assert engine.charge_count() == 0


@pytest.mark.parametrize("script", ["[[refuse:2038]]", "[[fail:2038]]", "[[fail:10]]"])
def test_content_refusal_is_not_retried_with_the_next_session(engine: Engine, http: TestClient, script: str) -> None:
    job = create_job(http, "plain-of-content-1:sandbox,plain-of-content-2:sandbox", prompt=f"bad {script}")
    assert engine.run_until_final(job) == ["failed"]
    assert engine.job_row(job).error_code == "content_policy_violation"
    assert len(engine.submits()) == 1
    assert len(engine.job_row(job).account_ids) == 2
    assert not any(row.rest_until for row in engine.sql("SELECT rest_until FROM accounts"))


def test_duplicates_and_blanks_in_a_session_list_are_ignored(engine: Engine, http: TestClient) -> None:
    job = create_job(http, f" ,{GOOD}:sandbox, , {GOOD}:SANDBOX,direct://@{GOOD}:sandbox,")
    assert len(engine.job_row(job).account_ids) == 1
    assert engine.run_until_final(job) == ["succeeded"]


def test_expired_session_error_exists_in_both_languages(engine: Engine, http: TestClient) -> None:
    auth = {"Authorization": "Bearer dead-in-languages-1:sandbox"}
    job = create_job(http, "dead-in-languages-1:sandbox")
    assert engine.run_until_final(job) == ["failed"]
    texts = {}
    for language in ("en", "zh-CN"):
        [row] = http.get("/v1/jobs", headers={**auth, "Accept-Language": language}).json()["data"]
        assert row["error"]["code"] == "upstream_session_expired"
        texts[language] = row["error"]["message"]
    assert "Log in again" in texts["en"]
    assert "重新登录" in texts["zh-CN"]
