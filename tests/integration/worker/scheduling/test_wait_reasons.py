"""Why a queued job waits: each account is counted once, by the first reason why it does not take the job."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from api.jobs.timeline.waiting import waiting_object
from tests.integration.worker.scheduling.test_account_choice import add_account, claim_with
from tests.support.engine import Engine
from worker.db.batches import held_jobs
from worker.db.engine import transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import Viewer
from worker.db.scheduling.wait_reasons import find_wait_reasons


def waiting(job: UUID, *, shows_labels: bool = False) -> dict[str, Any]:
    with transaction() as tx:
        view = queries.job_view(tx, job, Viewer(all_jobs=True))
        assert view is not None
        return waiting_object(view, find_wait_reasons(tx, job), shows_labels=shows_labels)


def counts(job: UUID) -> dict[str, int]:
    return {one["reason"]: one["accounts"] for one in waiting(job)["data"]}


def test_each_account_has_one_reason_with_its_end(engine: Engine) -> None:
    changes = {
        "paused": "state = 'paused', rest_until = now() + interval '1 hour'",
        "needs_login": "state = 'needs_login', state_code = 'upstream_session_expired'",
        "blocked": "state = 'blocked', state_code = 'upstream_risk_control'",
        "resting": "rest_until = now() + interval '1 hour', rest_code = 'upstream_error'",
        "daily_cap": "max_jobs_per_day = 0",
        "credits": "credits = 5, credits_at = now()",
        "pace": "next_submit_at = now() + interval '1 hour'",
        "retired": "state = 'retired'",
    }
    accounts = {reason: add_account(engine, max_images=1) for reason in [*changes, "busy", "model_resting", "refused"]}
    first = engine.add_job(accounts["busy"])
    assert claim_with(accounts["busy"]).id == first
    for reason, change in changes.items():
        engine.sql(f"UPDATE accounts SET {change} WHERE id = :id", id=accounts[reason])
    job = engine.add_job()
    engine.sql("UPDATE jobs SET price = 8, avoid_accounts = :ids WHERE id = :id", id=job, ids=[accounts["refused"]])
    rests = {engine.job_row(job).model: {"until": time.time() + 3600, "code": "upstream_error"}}
    engine.sql(
        "UPDATE accounts SET model_rests = CAST(:rests AS jsonb) WHERE id = :id",
        id=accounts["model_resting"],
        rests=json.dumps(rests),
    )
    assert counts(job) == {reason: 1 for reason in accounts if reason != "retired"}
    found = {one["reason"]: one for one in waiting(job, shows_labels=True)["data"]}
    assert all(found[reason]["labels"] == [engine.account_row(accounts[reason]).label] for reason in found)
    ends = {reason for reason, one in found.items() if one["until"]}
    assert ends == {"resting", "daily_cap", "model_resting", "pace"}
    assert all(found[reason]["until"] > time.time() for reason in ends)
    codes = {reason: one["code"] for reason, one in found.items() if one["code"]}
    assert codes == {
        "needs_login": "upstream_session_expired",
        "blocked": "upstream_risk_control",
        "resting": "upstream_error",
    }


def test_summary_names_the_queue_or_what_is_missing(engine: Engine) -> None:
    removed = add_account(engine)
    engine.sql("UPDATE accounts SET state = 'retired' WHERE id = :id", id=removed)
    assert "no account" in waiting(engine.add_job(removed))["text"]["en"]
    account = add_account(engine, max_images=1)
    job = engine.add_job(account)
    behind = engine.add_job(account)
    assert counts(job) == {"ready": 1}
    assert "is next" in waiting(job)["text"]["en"]
    assert waiting(behind)["text"]["en"].endswith("queue: 1.")
    assert all(one["labels"] is None for one in waiting(job)["data"]), "other callers see no names"
    engine.sql("UPDATE jobs SET due_at = now() + interval '1 minute' WHERE id = :id", id=job)
    assert counts(job) == {"delay": 0, "ready": 1}
    engine.sql("UPDATE accounts SET state = 'paused' WHERE id = :id", id=account)
    assert waiting(job)["text"]["en"].startswith("No account can take")
    engine.sql("UPDATE accounts SET state = 'ok' WHERE id = :id", id=account)
    engine.sql("UPDATE jobs SET due_at = now() WHERE id = :id", id=job)
    assert claim_with(account).id == job
    shown = waiting(job)
    assert (shown["data"], shown["position"], shown["status"]) == ([], None, "in_progress")
    assert counts(behind) == {"busy": 1}
    assert "waits for an account" in waiting(behind)["text"]["en"]


@pytest.mark.parametrize(
    ("hold", "said"),
    [
        (held_jobs.IDLE, "an account that nobody else needs"),
        (held_jobs.key_hold(UUID(int=1)), "as many jobs at work as it may"),
        (held_jobs.batch_hold(UUID(int=2), "image"), "its turn in its batch"),
    ],
)
def test_held_jobs_say_what_holds_them(engine: Engine, hold: str, said: str) -> None:
    account = add_account(engine)
    shown = waiting(engine.add_job(account, hold=hold))
    assert said in shown["text"]["en"]
    assert (shown["status"], shown["position"], shown["data"]) == ("queued", None, [])
    later = engine.add_job(account, hold=hold, not_before=datetime.now(UTC) + timedelta(hours=1))
    assert waiting(later)["text"]["en"] == "The job waits for its time."
