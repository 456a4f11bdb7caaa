"""A list of session ids succeeds while one of them can do the job, and the job's timeline says why each was skipped."""

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


def order(http: TestClient, tokens: str, prompt: str = "a boat") -> UUID:
    body = {"prompt": prompt, "n": 1, "async": True}
    answer = http.post("/v1/images/generations", json=body, headers={"Authorization": f"Bearer {tokens}"})
    assert answer.status_code == 202, answer.text
    job_id = parse_public_id("job", answer.json()["id"])
    assert job_id is not None
    return job_id


def skipped(engine: Engine, job: UUID) -> set[tuple[str, str]]:
    """Account and code of each refusal on the job's timeline."""
    return {(e.note["account"], e.note["code"]) for e in engine.job_events(job) if {"account", "code"} <= set(e.note)}


def test_a_list_succeeds_while_one_member_can(engine: Engine, http: TestClient) -> None:
    tokens = [*REFUSE, GOOD]
    # Each has an account of its own first, so that the labels are known; the good one was used last and is tried last.
    labels = {}
    for session in REFUSE:
        alone = order(http, f"{session}:sandbox")
        assert engine.run_until_final(alone) == ["failed"]
        labels[session] = engine.account_row(engine.job_row(alone).account_ids[0]).label
    # Nobody knows any more what was learned of them, also not that one has no credits.
    engine.sql("UPDATE accounts SET rest_until = NULL, rest_code = NULL, credits = NULL, credits_at = NULL")
    engine.sql("DELETE FROM account_marks")
    good = order(http, f"{GOOD}:sandbox")
    assert engine.run_until_final(good) == ["succeeded"]
    engine.sql("UPDATE accounts SET last_submit_at = NULL WHERE id <> :id", id=engine.job_row(good).account_id)
    job = order(http, ", ".join(f"{session}:sandbox" for session in tokens))
    assert engine.run_until_final(job) == ["succeeded"]
    assert engine.job_row(job).account_id == engine.job_row(good).account_id
    assert skipped(engine, job) == {(labels[session], code) for session, code in REFUSE.items()}
    assert engine.charge_count() == 2
    # Whoever presents any of them sees the job.
    for session in tokens:
        seen = http.get("/v1/jobs", headers={"Authorization": f"Bearer {session}:sandbox"}).json()["data"]
        assert job in {parse_public_id("job", row["id"]) for row in seen}


def test_a_list_without_a_good_member_says_why(engine: Engine, http: TestClient) -> None:
    job = order(http, ",".join(f"{session}:sandbox" for session in REFUSE))
    assert engine.run_until_final(job) == ["failed"]
    assert engine.job_row(job).error_code in set(REFUSE.values())
    assert {code for _, code in skipped(engine, job)} == set(REFUSE.values())
    assert engine.charge_count() == 0


@pytest.mark.parametrize("script", ["[[refuse:2038]]", "[[fail:2038]]", "[[fail:10]]"])
def test_a_content_refusal_does_not_go_to_the_next(engine: Engine, http: TestClient, script: str) -> None:
    job = order(http, "plain-of-content-1:sandbox,plain-of-content-2:sandbox", prompt=f"bad {script}")
    assert engine.run_until_final(job) == ["failed"]
    assert engine.job_row(job).error_code == "content_policy_violation"
    assert len(engine.submits()) == 1
    assert len(engine.job_row(job).account_ids) == 2
    assert not any(row.rest_until for row in engine.sql("SELECT rest_until FROM accounts"))


def test_repeats_and_blanks_in_a_list_are_one_account(engine: Engine, http: TestClient) -> None:
    job = order(http, f" ,{GOOD}:sandbox, , {GOOD}:SANDBOX,direct://@{GOOD}:sandbox,")
    assert len(engine.job_row(job).account_ids) == 1
    assert engine.run_until_final(job) == ["succeeded"]


def test_an_expired_session_is_told_in_both_languages(engine: Engine, http: TestClient) -> None:
    auth = {"Authorization": "Bearer dead-in-languages-1:sandbox"}
    job = order(http, "dead-in-languages-1:sandbox")
    assert engine.run_until_final(job) == ["failed"]
    texts = {}
    for language in ("en", "zh-CN"):
        [row] = http.get("/v1/jobs", headers={**auth, "Accept-Language": language}).json()["data"]
        assert row["error"]["code"] == "upstream_session_expired"
        texts[language] = row["error"]["message"]
    assert "Log in again" in texts["en"]
    assert "重新登录" in texts["zh-CN"]
