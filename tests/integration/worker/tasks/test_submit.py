"""The submit task: the effect of each upstream response on the job and on the account."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from starlette.responses import Response

from tests.support.engine import GENERATE, USER_INFO, Engine
from worker.tasks.submit import submit


def event_codes(engine: Engine, job_id):
    """Return the reasons in the timeline of the job."""
    return [row.note["code"] for row in engine.job_events(job_id) if "code" in row.note]


def lookup_count(engine: Engine) -> int:
    """Return the number of host look-ups."""
    return engine.ledger()["calls"].get("/lv/v1/user/web/user_info", 0)


def test_submitted_job_is_running_and_its_account_due(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_job(account)
    assert engine.submit(job).startswith("submitted")
    row = engine.job_row(job)
    assert (row.state, row.attempt, row.holds_slot, row.account_id) == ("running", 1, True, account)
    assert row.upstream_id
    assert engine.account_row(account).poll_due_at is not None
    assert engine.state_history(job) == ["queued", "submitting", "running"]
    assert [line["submit_id"] for line in engine.submits()] == [str(row.submit_key)]


def test_submit_without_jobs_does_nothing(engine: Engine) -> None:
    account = engine.add_account()
    assert submit(account_id=account) == "nothing to submit"
    job = engine.add_running_job(account)
    assert submit(job_id=job) == "waits for a slot"
    assert len(engine.submits()) == 1


def test_expired_account_fails_over_to_the_next_account(engine: Engine) -> None:
    dead, good = engine.add_account(session="dead-one-of-two"), engine.add_account()
    engine.sql("UPDATE accounts SET last_submit_at = now() WHERE id = :id", id=good)  # the dead one is tried first
    job = engine.add_job(dead, good)
    assert engine.run_until_final(job) == ["succeeded"]
    assert engine.job_row(job).account_id == good
    assert event_codes(engine, job) == ["upstream_session_expired"]
    assert engine.account_row(dead).rest_code == "upstream_session_expired"
    assert engine.job_row(job).avoid_accounts == [dead], "it never returns to the account, however short that rests"
    [requeued] = [e for e in engine.job_events(job) if e.note.get("code")]
    assert requeued.note["account"] == engine.account_row(dead).label
    assert engine.charge_count() == 1


def test_job_refused_by_all_accounts_fails_with_the_last_reason(engine: Engine) -> None:
    first, second = engine.add_account(session="dead-a-0123456"), engine.add_account(session="dead-b-0123456")
    job = engine.add_job(first, second)
    assert engine.run_until_final(job) == ["failed"]
    assert engine.job_row(job).error_code == "upstream_session_expired"
    assert event_codes(engine, job).count("upstream_session_expired") >= 2
    assert engine.charge_count() == 0


@pytest.mark.parametrize(
    ("session", "code"),
    [
        ("broke-account-1", "insufficient_quota"),
        ("limited-account", "account_limited"),
        ("shark-account-1", "upstream_risk_control"),
        ("dead-account-12", "upstream_session_expired"),
    ],
)
def test_refusing_account_fails_the_job_and_cools_down(engine: Engine, session: str, code: str) -> None:
    account = engine.add_account(session=session)
    job = engine.add_job(account)
    engine.submit(job)
    row = engine.job_row(job)
    assert (row.state, row.error_code, row.holds_slot) == ("failed", code, False)
    rested = engine.account_row(account)
    assert rested.rest_code == code
    assert rested.rests.total_seconds() > 60
    # The next job fails at once instead of trying the account as well.
    second = engine.add_job(account)
    assert code in engine.submit(second)
    assert len(engine.submits()) <= 1


def test_limited_account_cools_down_until_tomorrow(engine: Engine) -> None:
    account = engine.add_account(session="limited-account-of-today")
    engine.submit(engine.add_job(account))
    until_midnight = datetime.combine(datetime.now(UTC) + timedelta(days=1), datetime.min.time(), UTC) - datetime.now(
        UTC
    )
    assert abs(engine.account_row(account).rests - until_midnight - timedelta(minutes=5)) < timedelta(minutes=1)


@pytest.mark.parametrize("script", ["[[refuse:2038]]", "[[refuse:2003]]"])
def test_content_refusal_never_fails_over(engine: Engine, script: str) -> None:
    first, second = engine.add_account(), engine.add_account()
    job = engine.add_job(first, second, prompt=f"bad {script}")
    assert engine.run_until_final(job) == ["failed"]
    assert engine.job_row(job).error_code == "content_policy_violation"
    assert len(engine.submits()) == 1


@pytest.mark.parametrize("script", ["[[fail:2038]]", "[[fail:10]]", "[[fail:40]]", "[[keyonly]]"])
def test_content_refusal_in_the_record_is_final(engine: Engine, script: str) -> None:
    first, second = engine.add_account(), engine.add_account()
    job = engine.add_job(first, second, prompt=f"bad {script}")
    assert engine.run_until_final(job) == ["failed"]
    assert engine.job_row(job).error_code == "content_policy_violation"
    assert len(engine.submits()) == 1


def test_account_without_credits_claims_daily_credits(engine: Engine) -> None:
    account = engine.add_account(session="gift-of-the-day-1")
    job = engine.add_job(account)
    assert engine.run_until_final(job) == ["succeeded"]
    assert event_codes(engine, job) == ["insufficient_quota"]
    assert engine.charge_count() == 1
    assert engine.account_row(account).credits == 60
    assert engine.job_row(job).max_attempts == 4  # the refusal used up none of its attempts


def test_daily_credits_can_be_disabled(engine: Engine) -> None:
    engine.configure(DAILY_RECEIVE="false")
    job = engine.add_job(engine.add_account(session="gift-of-the-day-2"))
    engine.submit(job)
    assert engine.job_row(job).error_code == "insufficient_quota"


def test_concurrency_refusal_is_retried_and_succeeds(engine: Engine) -> None:
    account = engine.add_account(session="busy-account-12", max_images=2)
    first = engine.add_running_job(account)
    second = engine.add_job(account)
    engine.submit(second)
    row = engine.job_row(second)
    assert (row.state, row.attempt) == ("queued", 1)
    assert event_codes(engine, second) == ["concurrency_limit"]
    assert engine.account_row(account).kind_rests.keys() == {"image"}
    engine.finish_upstream()
    engine.end_cooldowns()
    assert engine.run_until_final(first, second, each_round=engine.end_cooldowns) == ["succeeded", "succeeded"]
    assert engine.charge_count() == 2


def test_repeated_rate_limit_never_fails_the_job(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_job(account, prompt="a boat [[fail:1057]]")
    for _ in range(5):
        engine.end_cooldowns()
        engine.submit(job)
    row = engine.job_row(job)
    assert (row.state, row.attempt) == ("queued", 5)
    assert row.max_attempts - row.attempt == 3


@pytest.mark.parametrize("script", ["[[reset:before]]", "[[html]]", "[[http:500]]", "[[empty]]"])
def test_submit_without_effect_is_repeated_with_a_new_key(engine: Engine, script: str) -> None:
    account = engine.add_account()
    job = engine.add_job(account, prompt=f"a boat {script}")
    engine.submit(job)
    unclear = engine.job_row(job)
    assert (unclear.state, unclear.holds_slot) == ("submitting", True)
    assert engine.run_until_final(job) == ["succeeded"]
    row = engine.job_row(job)
    assert row.attempt == 2
    assert row.submit_key != unclear.submit_key
    assert engine.charge_count() == 1
    assert engine.ledger()["totals"]["duplicate_submit_ids"] == 0


@pytest.mark.parametrize("script", ["[[reset:after]]", "[[empty:after]]", "[[html:after]]"])
def test_submit_with_lost_response_is_found_by_its_key(engine: Engine, script: str) -> None:
    account = engine.add_account()
    job = engine.add_job(account, prompt=f"a boat {script}")
    engine.submit(job)
    before = engine.job_row(job)
    assert before.state == "submitting"
    engine.poll(account)
    assert engine.run_until_final(job) == ["succeeded"]
    row = engine.job_row(job)
    assert (row.attempt, row.submit_key) == (1, before.submit_key)
    assert (len(engine.submits()), engine.charge_count()) == (1, 1)


@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize("data", [None, {}, {"aigc_data": {"status": 20}}])
def test_accepted_submit_without_record_id_is_found_by_its_key(engine: Engine, kind: str, data: object) -> None:
    account = engine.add_account()
    job = engine.add_job(account, kind=kind)
    answer = json.dumps({"ret": "0", "data": data})
    engine.interceptor.after[GENERATE] = lambda _path, _body: Response(answer, media_type="application/json")
    assert engine.submit(job).startswith("unclear")
    before = engine.job_row(job)
    assert (before.state, before.holds_slot) == ("submitting", True)
    assert engine.run_until_final(job) == ["succeeded"]
    row = engine.job_row(job)
    assert (row.attempt, row.submit_key) == (1, before.submit_key)
    assert (len(engine.submits()), engine.charge_count()) == (1, 1)


def test_call_past_its_deadline_is_unclear(engine: Engine) -> None:
    engine.configure(CALL_TIMEOUT_SECONDS="0.3")
    account = engine.add_account()
    job = engine.add_job(account, prompt="a boat [[latency:0.6]]")
    assert engine.submit(job).startswith("unclear")
    assert engine.job_row(job).state == "submitting"
    assert engine.run_until_final(job) == ["succeeded"]
    assert engine.charge_count() == 1


def test_unclear_submit_counts_as_lost_after_the_grace_period(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_job(account, prompt="a boat [[reset:before]]")
    engine.submit(job)
    engine.poll(account)
    assert engine.job_row(job).state == "submitting"
    engine.expire_leases()
    engine.poll(account)
    assert engine.job_row(job).state == "queued"


def test_job_fails_when_attempts_run_out(engine: Engine) -> None:
    engine.configure(MAX_ATTEMPTS="2")
    job = engine.add_job(engine.add_account(), prompt="a boat [[reset:before]] [[html]] [[http:500]] [[empty]]")
    assert engine.run_until_final(job) == ["failed"]
    row = engine.job_row(job)
    assert (row.error_code, row.attempt) == ("upstream_unreachable", 2)


def test_unreachable_upstream_is_retried_without_charge(engine: Engine) -> None:
    account = engine.add_account()
    job = engine.add_job(account)
    home = engine.env["DREAMERY_SANDBOX_URL"]
    engine.configure(SANDBOX_URL="http://127.0.0.1:9")
    engine.submit(job)
    row = engine.job_row(job)
    assert (row.state, row.holds_slot) == ("queued", False)
    assert row.due_at.timestamp() > row.created_at.timestamp()
    engine.configure(SANDBOX_URL=home)
    assert engine.run_until_final(job) == ["succeeded"]
    assert engine.charge_count() == 1


def test_hosts_of_auto_account_are_looked_up_once(engine: Engine) -> None:
    account = engine.add_account(session="jp-looked-up-0001", region="auto")
    first = engine.add_job(account)
    assert engine.run_until_final(first) == ["succeeded"]
    assert engine.account_row(account).cluster["country"] == "JP"
    probes = lookup_count(engine)
    assert 1 <= probes <= 4
    second = engine.add_job(account)
    assert engine.run_until_final(second) == ["succeeded"]
    assert lookup_count(engine) == probes


def test_moved_session_is_looked_up_again_once(engine: Engine) -> None:
    account = engine.add_account(session="jp-moved-house-01", region="auto")
    stale = {
        "country": "US",
        "idc": "useast5",
        "mweb": "https://dreamina-api.us.capcut.com",
        "commerce": "https://commerce.us.capcut.com",
    }
    engine.sql(
        "UPDATE accounts SET cluster = CAST(:c AS jsonb), cluster_at = now() WHERE id = :id",
        c=json.dumps(stale),
        id=account,
    )
    job = engine.add_job(account)
    assert engine.run_until_final(job) == ["succeeded"]
    assert engine.account_row(account).cluster["country"] == "JP"
    assert 1 <= lookup_count(engine) <= 4
    assert event_codes(engine, job) == ["upstream_session_expired"]
    assert engine.charge_count() == 1


def test_expired_auto_account_is_looked_up_again_only_once(engine: Engine) -> None:
    account = engine.add_account(session="dead-auto-0123456", region="auto")
    engine.sql(
        """UPDATE accounts SET cluster_at = now(), cluster = '{"country": "JP", "idc": "alisg",
           "mweb": "https://mweb-api-sg.capcut.com", "commerce": "https://commerce-api-sg.capcut.com"}'
           WHERE id = :id""",
        id=account,
    )
    job = engine.add_job(account)
    assert engine.run_until_final(job) == ["failed"]
    assert engine.job_row(job).error_code == "upstream_session_expired"
    assert lookup_count(engine) == 4
    assert len([c for c in engine.interceptor.calls if GENERATE in c]) == 1


def test_failed_look_up_orders_nothing(engine: Engine) -> None:
    account = engine.add_account(session="us-look-up-00001", region="auto")
    job = engine.add_job(account)
    engine.interceptor.before[USER_INFO] = lambda _path, _body: Response(status_code=502)
    engine.submit(job)
    assert engine.job_row(job).state == "queued"
    engine.interceptor.clear()
    assert engine.run_until_final(job) == ["succeeded"]
    assert engine.charge_count() == 1


def test_undecryptable_session_fails_over(engine: Engine) -> None:
    lost, good = engine.add_account(), engine.add_account()
    engine.sql("UPDATE accounts SET secret = 'v1:' || encode('x', 'base64') WHERE id = :id", id=lost)
    engine.sql("UPDATE accounts SET last_submit_at = now() WHERE id = :id", id=good)
    job = engine.add_job(lost, good)
    assert engine.run_until_final(job) == ["succeeded"]
    assert engine.job_row(job).account_id == good
