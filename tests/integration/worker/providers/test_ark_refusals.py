"""Every error that the official API may name, through the real engine: what becomes of the job, the model, the account."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import orjson
import pytest
from starlette.responses import Response

from tests.support.ark_jobs import CREATE, IMAGES, VIDEO_MODEL, ArkJobs
from tests.support.engine import Engine
from worker.db.accounts.eligibility import CLOSED


@pytest.fixture
def ark(engine: Engine) -> ArkJobs:
    return ArkJobs(engine)


def refuse(engine: Engine, status: int, code: str, text: str = "no", *, times: int = 99) -> list[bytes]:
    """Let upstream refuse the next orders with this error. Return the bodies of the orders, as they come."""
    bodies: list[bytes] = []

    def hook(_path: str, body: bytes) -> Response | None:
        bodies.append(body)
        if len(bodies) > times:
            return None
        error = {"error": {"code": code, "message": f"{text} Request id: 0217", "param": "", "type": "BadRequest"}}
        return Response(orjson.dumps(error), status, media_type="application/json")

    for path in (CREATE, IMAGES):
        engine.interceptor.before[path] = hook
    return bodies


def health(engine: Engine, account: UUID) -> tuple[Any, ...]:
    row = engine.account_row(account)
    return row.state, row.rest_code, row.model_rests


FIX = [
    (400, "MissingParameter.content", "no", "missing_required_parameter"),
    (400, "InvalidParameter.resolution", "no", "invalid_parameters"),
    (400, "InvalidArgumentError.UnknownRole", "no", "invalid_parameters"),
    (400, "InvalidParameter.UnsupportedParameter", "no", "unsupported_parameter"),
    (400, "InvalidParameter.TaskTypeConstraint", "no", "invalid_parameters"),
    (400, "InvalidImageURL.InvalidFormat", "no", "invalid_image"),
    (400, "InvalidParameter", "the video must be given as a web url", "invalid_video"),
    (400, "InvalidParameter", "audio duration is too long", "invalid_audio"),
    (400, "SensitiveContentDetected.Violence", "no", "content_policy_violation"),
    (400, "InputTextSensitiveContentDetected", "no", "content_policy_violation"),
    (400, "InputImageSensitiveContentDetected.PrivacyInformation", "no", "content_policy_violation"),
    (400, "OutputImageSensitiveContentDetected.PolicyViolation", "no", "content_policy_violation"),
    (400, "InputTextRiskDetection", "no", "content_policy_violation"),
    (400, "SomethingNew", "no", "invalid_parameters"),
]


@pytest.mark.parametrize(("status", "code", "text", "ours"), FIX)
def test_fault_of_the_caller_fails_the_job_and_leaves_no_mark(
    engine: Engine, ark: ArkJobs, status: int, code: str, text: str, ours: str
) -> None:
    first, second = ark.add_account(), ark.add_account()
    bodies = refuse(engine, status, code, text)
    job = ark.add_video(first, second)
    assert engine.run_until_final(job) == ["failed"]
    row = engine.job_row(job)
    assert row.error_code == ours
    if code.endswith("PrivacyInformation"):
        assert "real person" in row.error_message
    else:
        assert code in row.error_message
    assert "Request id" not in row.error_message
    assert len(bodies) == 1
    assert [health(engine, account) for account in (first, second)] == [("ok", None, {})] * 2
    assert engine.sql("SELECT * FROM account_marks") == []
    assert row.charged == 0


WAIT_PAIR = [
    ("ModelAccountRpmRateLimitExceeded", "no", "rate_limit_exceeded", 5),
    ("ModelAccountTpmRateLimitExceeded", "no", "rate_limit_exceeded", 5),
    ("ModelAccountIpmRateLimitExceeded", "no", "rate_limit_exceeded", 5),
    ("RateLimitExceeded.EndpointRPMExceeded", "no", "rate_limit_exceeded", 5),
    ("APIAccountRpmRateLimitExceeded", "no", "rate_limit_exceeded", 5),
    ("RequestBurstTooFast", "no", "rate_limit_exceeded", 60),
    ("QuotaExceeded", "too many queued tasks", "rate_limit_exceeded", 60),
    ("ServerOverloaded", "no", "upstream_error", 30),
    ("InflightBatchsizeExceeded", "no", "upstream_error", 30),
    ("ModelLoadingError", "no", "upstream_error", 60),
]


@pytest.mark.parametrize(("code", "text", "ours", "seconds"), WAIT_PAIR)
def test_model_rests_and_another_account_takes_the_job(
    engine: Engine, ark: ArkJobs, code: str, text: str, ours: str, seconds: int
) -> None:
    first, other = ark.add_account(), ark.add_account()
    refuse(engine, 429, code, text, times=1)
    job = ark.add_video(first, other)
    engine.submit(job)
    [refused] = [row for row in engine.job_events(job) if "code" in row.note]
    assert refused.note["code"] == ours
    [rested] = [account for account in (first, other) if engine.account_row(account).model_rests]
    row = engine.account_row(rested)
    rest = row.model_rests[VIDEO_MODEL]
    assert (row.state, row.rest_code) == ("ok", None)
    assert rest["code"] == code
    assert seconds - 3 <= rest["until"] - rest["at"] <= seconds + 3
    engine.submit(job)
    assert engine.job_row(job).state == "running"
    assert engine.job_row(job).account_id != rested


def test_rests_in_a_row_grow_and_a_success_ends_the_row(engine: Engine, ark: ArkJobs) -> None:
    account = ark.add_account()
    refuse(engine, 429, "ModelAccountRpmRateLimitExceeded", times=3)
    job = ark.add_video(account)
    lengths = []
    for _ in range(3):
        engine.submit(job)
        assert engine.job_row(job).state == "queued"
        rest = engine.account_row(account).model_rests[VIDEO_MODEL]
        lengths.append(round(rest["until"] - rest["at"]))
        engine.submit(job)
        assert engine.job_row(job).state == "queued", "it waits while the model rests"
        engine.sql("UPDATE accounts SET model_rests = jsonb_set(model_rests, '{" + VIDEO_MODEL + ",until}', '1')")
    assert lengths == [5, 10, 20]
    engine.submit(job)
    assert engine.job_row(job).state == "running"
    assert engine.account_row(account).model_rests == {}
    assert engine.job_row(job).attempt <= engine.job_row(job).max_attempts


def test_full_vendor_fails_the_job_after_its_attempts(engine: Engine, ark: ArkJobs) -> None:
    account = ark.add_account()
    bodies = refuse(engine, 429, "ServerOverloaded")
    job = ark.add_video(account)
    wake = "UPDATE accounts SET model_rests = '{}'"
    assert engine.run_until_final(job, each_round=lambda: engine.sql(wake)) == ["failed"]
    row = engine.job_row(job)
    assert row.error_code == "upstream_error"
    assert len(bodies) == row.max_attempts


CLOSE_PAIR = [
    (400, "InvalidEndpoint.ClosedEndpoint", "no", "no_account_available"),
    (400, "InvalidSubscription", "no", "no_account_available"),
    (400, "UnsupportedModel", "no", "no_account_available"),
    (403, "AccessDenied", "no", "no_account_available"),
    (403, "OperationDenied.ServiceNotOpen", "no", "no_account_available"),
    (403, "OperationDenied.PermissionDenied", "no", "no_account_available"),
    (404, "ModelNotOpen", "no", "no_account_available"),
    (404, "InvalidEndpointOrModel.NotFound", "no", "model_not_found"),
    (404, "InvalidEndpointOrModel.ModelIDAccessDisabled", "no", "model_not_found"),
    (429, "QuotaExceeded", "the free trial is used up", "insufficient_quota"),
    (429, "SetLimitExceeded", "no", "insufficient_quota"),
]


@pytest.mark.parametrize(("status", "code", "text", "ours"), CLOSE_PAIR)
def test_model_is_closed_on_this_account_only(
    engine: Engine, ark: ArkJobs, status: int, code: str, text: str, ours: str
) -> None:
    account, other = ark.add_account(limit_group="customer"), ark.add_account(limit_group="customer")
    refuse(engine, status, code, text, times=1)
    job = ark.add_video(account)
    engine.submit(job)
    row = engine.job_row(job)
    assert (row.state, row.error_code, row.charged) == ("failed", ours, 0)
    if ours == "model_not_found":
        assert "/v1/models" not in row.error_message, "the caller's name of the model is right"
        assert "ask an administrator to check the accounts" in row.error_message
    state, rest_code, rests = health(engine, account)
    assert (state, rest_code, list(rests)) == ("ok", None, [VIDEO_MODEL])
    assert (rests[VIDEO_MODEL]["until"], rests[VIDEO_MODEL]["code"]) == (CLOSED, code)
    assert text in rests[VIDEO_MODEL]["detail"]
    assert health(engine, other) == ("ok", None, {})
    image, elsewhere = ark.add_image(account), ark.add_video(other)
    ark.finish()
    assert engine.run_until_final(image, elsewhere, each_round=ark.finish) == ["succeeded"] * 2


def test_closed_model_moves_the_job_to_another_account(engine: Engine, ark: ArkJobs) -> None:
    first, second = ark.add_account(), ark.add_account()
    refuse(engine, 404, "ModelNotOpen", times=1)
    engine.sql("UPDATE accounts SET max_videos = 5")
    jobs = [ark.add_video(first, second) for _ in range(3)]
    for one in (jobs[0], *jobs):
        engine.submit(one)
    assert engine.states(jobs) == ["running"] * 3
    assert len({engine.job_row(one).account_id for one in jobs}) == 1


@pytest.mark.parametrize(
    ("status", "code", "state", "ours", "shared"),
    [
        (401, "AuthenticationError", "needs_login", "accounts_need_login", False),
        (401, "InvalidAccountStatus", "blocked", "accounts_blocked", True),
        (403, "AccountOverdueError", "blocked", "insufficient_quota", True),
        (403, "OperationDenied.ServiceOverdue", "blocked", "insufficient_quota", True),
    ],
)
def test_account_stops_and_debts_stop_the_whole_customer(
    engine: Engine, ark: ArkJobs, status: int, code: str, state: str, ours: str, shared: bool
) -> None:
    account, other = (ark.add_account(limit_group="customer", pool=True) for _ in range(2))
    alone = ark.add_account(pool=True)
    refuse(engine, status, code, times=1)
    job = ark.add_video(account)
    engine.submit(job)
    assert (engine.job_row(job).state, engine.job_row(job).error_code) == ("failed", ours)
    row = engine.account_row(account)
    assert (row.state, row.state_code, row.model_rests) == (state, ours, {})
    assert engine.account_row(other).state == (state if shared else "ok")
    assert engine.account_row(alone).state == "ok"
    if ours == "insufficient_quota":
        [due] = engine.sql(
            "SELECT extract(epoch FROM refresh_due_at - now()) AS s FROM accounts WHERE id = :i", i=account
        )
        assert 3000 < due.s <= 3600


def test_overdue_customer_works_again_after_a_check(engine: Engine, ark: ArkJobs, check: Callable[[], None]) -> None:
    account = ark.add_account(pool=True)
    refuse(engine, 403, "AccountOverdueError", times=1)
    engine.submit(ark.add_video(account))
    assert engine.account_row(account).state == "blocked"
    engine.sql("UPDATE accounts SET refresh_due_at = now() - interval '1 second'")
    check()
    assert engine.account_row(account).state == "ok"


@pytest.fixture
def check() -> Callable[[], None]:
    from worker.tasks.refresh_accounts import refresh_accounts

    return lambda: print(refresh_accounts())


@pytest.mark.parametrize(
    ("code", "text", "least", "most"),
    [
        ("AccountRateLimitExceeded", "no", 25, 30),
        ("QuotaExceeded", "plan quota is used up, it resets at 2999-01-01 00:00:00 +0800", 30 * 86_400, 41 * 86_400),
        ("QuotaExceeded", "plan quota is used up, it will reset tomorrow", 3000, 3600),
    ],
)
def test_whole_customer_rests(engine: Engine, ark: ArkJobs, code: str, text: str, least: int, most: int) -> None:
    account, other = (ark.add_account(limit_group="customer") for _ in range(2))
    alone = ark.add_account()
    refuse(engine, 429, code, text, times=1)
    engine.submit(ark.add_video(account))
    for one in (account, other):
        row = engine.account_row(one)
        assert row.state == "ok"
        assert least <= row.rests.total_seconds() <= most
    assert engine.account_row(alone).rests is None


@pytest.mark.parametrize("code", ["InternalServiceError", "ContentSecurityDetectionError", "NotSeenBefore"])
def test_error_of_the_vendor_is_tried_again_and_then_elsewhere(engine: Engine, ark: ArkJobs, code: str) -> None:
    first, second = ark.add_account(), ark.add_account()
    bodies = refuse(engine, 500, code, times=3)
    job = ark.add_video(first, second)
    delays = []
    for _ in range(3):
        engine.submit(job)
        delays.append(round(engine.lease_seconds(job)))
    events = [row.note for row in engine.job_events(job) if "code" in row.note]
    assert [note["code"] for note in events] == ["upstream_error"] * 3
    assert delays == [5, 20, 0]
    engine.submit(job)
    row = engine.job_row(job)
    assert (row.state, len(bodies)) == ("running", 4)
    assert row.account_id not in row.avoid_accounts
    assert len(row.avoid_accounts) == 1


def test_error_of_the_vendor_everywhere_fails_the_job(engine: Engine, ark: ArkJobs) -> None:
    account = ark.add_account()
    bodies = refuse(engine, 500, "InternalServiceError")
    job = ark.add_image(account)
    assert engine.run_until_final(job) == ["failed"]
    assert engine.job_row(job).error_code == "upstream_error"
    assert len(bodies) == 3


def test_burst_halves_the_rate_of_the_customer(engine: Engine, ark: ArkJobs) -> None:
    account, other = (ark.add_account(limit_group="customer", submits_per_minute=60) for _ in range(2))
    refuse(engine, 429, "RequestBurstTooFast", times=1)
    engine.submit(ark.add_video(account))
    for one in (account, other):
        assert engine.account_row(one).provider_facts["slowed"]["per_minute"] == 30.0
        assert list(engine.account_row(one).model_rests) == [VIDEO_MODEL]
    engine.sql("UPDATE accounts SET model_rests = '{}'")
    engine.make_due()
    job = ark.add_image(other)
    engine.submit(job)
    pace = "SELECT extract(epoch FROM next_submit_at - last_submit_at) AS s FROM accounts WHERE id = :i"
    assert round(engine.sql(pace, i=other)[0].s, 1) == 2.0
