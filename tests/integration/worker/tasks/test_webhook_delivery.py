"""Webhook delivery: signatures checked by independent libraries, receivers of every kind, a killed task."""

import base64
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import pytest
from openai import InvalidWebhookSignatureError, OpenAI
from standardwebhooks import Webhook
from starlette.responses import Response

from tests.support import factories
from tests.support.engine import Engine
from tests.support.platform import ROOT, eventually
from tests.support.servers.http_servers import ReceivedWebhook, RequestPause, WebhookReceiver, running_app
from worker.core.concurrency import event_loop
from worker.core.ids import new_id
from worker.core.security.encryption import encrypt_secret, new_webhook_secret, webhook_secret
from worker.core.webhook_policy import RETRY_DELAYS
from worker.db.engine import transaction
from worker.db.jobs import state_machine
from worker.db.webhooks import delivery_log, endpoints, outbox
from worker.db.webhooks.outbox import MAX_PER_LANE, MAX_PER_OWNER
from worker.safe_fetch import async_post
from worker.tasks.deliver_webhooks import MAX_BODY_BYTES, deliver, deliver_lane


def add_endpoint(engine: Engine, url: str, **changes: Any) -> tuple[UUID, str]:
    with transaction() as tx:
        return factories.make_endpoint(tx, url, **changes)


def fail(engine: Engine, **changes: Any) -> UUID:
    """Add a job that ends at once, so that there is an event to deliver."""
    job = engine.add_job(engine.add_account(), **changes)
    with transaction() as tx:
        assert state_machine.mark_failed(tx, job_id=job, attempt=None, code="upstream_error", message="x", actor="test")
    return job


def delivery(engine: Engine) -> Any:
    [row] = engine.sql("SELECT *, due_at - now() AS wait FROM webhook_deliveries")
    return row


def send(engine: Engine) -> str:
    engine.make_due()
    engine.sql("UPDATE webhook_endpoints SET slow_until = NULL")
    return deliver(delivery_id=delivery(engine).id)


def endpoint_row(engine: Engine, endpoint_id: UUID) -> Any:
    return engine.sql("SELECT *, slow_until - now() AS pause FROM webhook_endpoints WHERE id = :id", id=endpoint_id)[0]


def attempts(engine: Engine) -> list[tuple[int, int | None, str | None]]:
    return [(r.n, r.status, r.error) for r in engine.sql("SELECT * FROM webhook_attempts ORDER BY n")]


@pytest.fixture
def more_receivers(engine: Engine) -> Iterator[Callable[[], WebhookReceiver]]:
    """Start more receivers, each on its own port, which the fetcher may reach."""
    with ExitStack() as stack:

        def make() -> WebhookReceiver:
            new_receiver = WebhookReceiver()
            url = stack.enter_context(running_app(new_receiver))
            new_receiver.url = f"{url}/hook"
            engine.configure(FETCH_ALLOW=f"{engine.env['DREAMERY_FETCH_ALLOW']},{url.removeprefix('http://')}")
            return new_receiver

        yield make


# --- signatures ---


def matching_signatures(got: ReceivedWebhook, secret: str) -> list[bool]:
    """Return which signatures in the header match this secret, computed here from the text of the standard."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b".".join([got.headers["webhook-id"].encode(), got.headers["webhook-timestamp"].encode(), got.body])
    right = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    versions, values = zip(*(part.split(",", 1) for part in got.headers["webhook-signature"].split(" ")), strict=True)
    assert set(versions) == {"v1"}
    return [value == right for value in values]


def test_signatures_verify_with_three_independent_libraries(engine: Engine, receiver: WebhookReceiver) -> None:
    _, secret = add_endpoint(engine, receiver.url)
    job = engine.add_succeeded_job(engine.add_account(), metadata={"order": "42", "name": "Wei\u00df \u9a6c"})
    assert send(engine).startswith("delivered job.completed")
    [got] = receiver.received
    assert matching_signatures(got, secret) == [True]
    openai = OpenAI(api_key="none")
    openai.webhooks.verify_signature(got.body, got.headers, secret=secret)
    for wrong in (webhook_secret("tokens:test"), new_webhook_secret()):
        with pytest.raises(InvalidWebhookSignatureError):
            openai.webhooks.verify_signature(got.body, got.headers, secret=wrong)
    with pytest.raises(InvalidWebhookSignatureError):
        openai.webhooks.verify_signature(got.body + b" ", got.headers, secret=secret)
    body = Webhook(secret).verify(got.body, got.headers)
    assert body["data"]["id"] == f"job_{job.hex}"
    assert body["data"]["metadata"] == {"order": "42", "name": "Wei\u00df \u9a6c"}
    assert "." not in got.headers["webhook-id"]
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 30


def test_two_secrets_sign_during_rotation_and_one_afterwards(engine: Engine, receiver: WebhookReceiver) -> None:
    endpoint, old = add_endpoint(engine, receiver.url)
    new = new_webhook_secret()
    with transaction() as tx:
        encrypted = encrypt_secret(new, context=endpoints.secret_context(endpoint))
        assert endpoints.rotate_secret(tx, endpoint, "tokens:test", secret=encrypted, keep_hours=24)
    receiver.answers = [500]
    fail(engine)
    send(engine)
    engine.sql("UPDATE webhook_endpoints SET previous_until = now() - interval '1 second'")
    send(engine)
    during, after = receiver.received
    assert matching_signatures(during, new) == [True, False]
    assert matching_signatures(during, old) == [False, True]
    for secret in (old, new):
        OpenAI(api_key="none").webhooks.verify_signature(during.body, during.headers, secret=secret)
        Webhook(secret).verify(during.body, during.headers)
    assert matching_signatures(after, new) == [True]
    with pytest.raises(InvalidWebhookSignatureError):
        OpenAI(api_key="none").webhooks.verify_signature(after.body, after.headers, secret=old)


def test_delivery_whose_secret_cannot_be_read_waits_for_the_operator(engine: Engine, receiver: WebhookReceiver) -> None:
    """Neither the receiver nor its owner is at fault: no try is counted, and the endpoint stays enabled."""
    endpoint, secret = add_endpoint(engine, receiver.url)
    readable = endpoint_row(engine, endpoint).secret
    other = encrypt_secret(secret, context="webhook:of another row")
    engine.sql("UPDATE webhook_endpoints SET secret = :s, failing_since = now() - interval '9 days'", s=other)
    fail(engine)
    engine.sql("UPDATE webhook_deliveries SET tries = :n", n=len(RETRY_DELAYS))
    for _ in range(3):
        assert "waits" in send(engine)
    assert receiver.received == []
    row = delivery(engine)
    assert (row.tries, row.attempts, row.given_up_at) == (len(RETRY_DELAYS), 0, None)
    assert 50 < row.wait.total_seconds() <= 60
    assert "DREAMERY_MASTER_KEY" in row.last_error
    assert attempts(engine) == []
    assert endpoint_row(engine, endpoint).disabled_at is None
    assert 50 < endpoint_row(engine, endpoint).pause.total_seconds() <= 60, "its other deliveries wait too"
    engine.sql("UPDATE webhook_endpoints SET secret = :s", s=readable)
    assert send(engine).startswith("delivered")
    assert (delivery(engine).tries, attempts(engine)) == (len(RETRY_DELAYS) + 1, [(1, 200, None)])
    assert matching_signatures(receiver.received[0], secret) == [True]


def test_test_event_whose_secret_cannot_be_read_waits_too(engine: Engine, receiver: WebhookReceiver) -> None:
    endpoint, secret = add_endpoint(engine, receiver.url)
    engine.sql("UPDATE webhook_endpoints SET secret = :s", s=encrypt_secret(secret, context="webhook:of another row"))
    with transaction() as tx:
        delivery_log.add_test(tx, delivery_id=new_id(), endpoint_id=endpoint, owner="tokens:test", url=receiver.url)
    assert "waits" in send(engine)
    assert (delivery(engine).given_up_at, receiver.received) == (None, [])


# --- bodies ---


def body_of(got: ReceivedWebhook) -> dict[str, Any]:
    assert len(got.body) < MAX_BODY_BYTES
    return json.loads(got.body)


@pytest.mark.parametrize("public", ["", "https://gen.example.com"])
def test_body_contains_links_and_the_job(engine: Engine, receiver: WebhookReceiver, public: str) -> None:
    engine.configure(PUBLIC_URL=public, API_PORT="8123")
    add_endpoint(engine, receiver.url, events=("job.started", "job.completed"))
    job = engine.add_succeeded_job(engine.add_account(), count=2, prompt="a secret prompt")
    for row in engine.sql("SELECT id FROM webhook_deliveries"):
        engine.make_due()
        deliver(delivery_id=row.id)
    by_type = {body["type"]: body for body in map(body_of, receiver.received)}
    assert set(by_type) == {"job.started", "job.completed"}
    row, base = engine.job_row(job), public or "http://127.0.0.1:8123"
    done = by_type["job.completed"]
    assert set(done) == {"id", "object", "type", "timestamp", "created_at", "data"}
    # The event has the time at which its transaction began, which may be in the second before.
    assert int(row.finished_at.timestamp()) - done["created_at"] in {0, 1}
    data = done["data"]
    assert (data["object"], data["kind"], data["status"], data["progress"]) == ("job", "image", "completed", 100)
    assert [item["url"] for item in data["output"]] == [
        f"{base}/v1/files/file_{item.id.hex}/content" for item in engine.files(job)
    ]
    assert {item["mime"] for item in data["output"]} <= {"image/jpeg", "image/png", "image/webp"}
    assert data["urls"]["get"] == f"{base}/v1/jobs/job_{job.hex}"
    assert (data["error"], data["completed_at"]) == (None, int(row.finished_at.timestamp()))
    # A late delivery still has the time of its event.
    started = by_type["job.started"]
    assert int(row.submitted_at.timestamp()) - started["created_at"] in {0, 1}
    assert (started["data"]["status"], started["data"]["output"]) == ("in_progress", None)
    assert (started["data"]["completed_at"], started["data"]["progress"]) == (None, 0)
    assert b"secret prompt" not in b"".join(got.body for got in receiver.received)


def test_failed_job_body_contains_the_error(engine: Engine, receiver: WebhookReceiver) -> None:
    add_endpoint(engine, receiver.url)
    fail(engine)
    send(engine)
    data = body_of(receiver.received[0])["data"]
    assert (data["status"], data["output"]) == ("failed", None)
    assert data["error"] == {"code": "upstream_error", "message": "x", "type": "server_error", "param": None}


def test_too_large_metadata_is_omitted_with_a_flag(engine: Engine, receiver: WebhookReceiver) -> None:
    add_endpoint(engine, receiver.url)
    fail(engine, metadata={f"{n}": "\u9a6c" * 512 for n in range(16)})
    send(engine)
    data = body_of(receiver.received[0])["data"]
    assert (data["metadata"], data["metadata_omitted"]) == ({}, True)


# --- receivers of every kind ---


def test_delivery_succeeds_after_500(engine: Engine, receiver: WebhookReceiver) -> None:
    endpoint, secret = add_endpoint(engine, receiver.url)
    receiver.answers = [500]
    fail(engine)
    assert "HTTP status 500" in send(engine)
    row = delivery(engine)
    assert (row.tries, row.last_status, row.delivered_at, row.claimed_until) == (1, 500, None, None)
    assert 4 < row.wait.total_seconds() < 6
    assert endpoint_row(engine, endpoint).failing_since
    assert send(engine).startswith("delivered")
    assert endpoint_row(engine, endpoint).failing_since is None
    assert attempts(engine) == [(1, 500, "HTTP status 500"), (2, 200, None)]
    assert [matching_signatures(got, secret) for got in receiver.received] == [[True], [True]]
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == f"msg_{row.id.hex}"
    assert first.body == second.body
    assert send(engine) == "not due"


def test_410_disables_endpoint_and_gives_up_pending_deliveries(engine: Engine, receiver: WebhookReceiver) -> None:
    endpoint, _ = add_endpoint(engine, receiver.url)
    receiver.answers = [410]
    jobs_ended = [fail(engine) for _ in range(3)]
    engine.make_due()
    first = engine.sql("SELECT id FROM webhook_deliveries LIMIT 1")[0].id
    deliver(delivery_id=first)
    row = endpoint_row(engine, endpoint)
    assert row.disabled_at
    assert "410" in row.disabled_reason
    rows = engine.sql("SELECT * FROM webhook_deliveries")
    assert len(rows) == len(jobs_ended)
    assert all(item.given_up_at and item.due_at is None for item in rows)
    assert all("410" in item.last_error for item in rows)
    assert len(receiver.received) == 1
    fail(engine)
    assert len(engine.sql("SELECT 1 FROM webhook_deliveries")) == 3, "the endpoint is disabled"


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_pauses_the_endpoint(engine: Engine, receiver: WebhookReceiver, status: int) -> None:
    endpoint, _ = add_endpoint(engine, receiver.url)
    receiver.answers = [Response(status_code=status, headers={"Retry-After": "120"})]
    fail(engine)
    engine.make_due()
    first = delivery(engine).id
    deliver(delivery_id=first)
    assert 115 < delivery(engine).wait.total_seconds() <= 121
    assert 115 < endpoint_row(engine, endpoint).pause.total_seconds() <= 121
    fail(engine)
    engine.make_due()
    for row in engine.sql("SELECT id FROM webhook_deliveries"):
        assert deliver(delivery_id=row.id) == "not due", "its deliveries wait"
    assert len(receiver.received) == 1
    engine.sql("UPDATE webhook_endpoints SET slow_until = now() - interval '1 second'")
    for row in engine.sql("SELECT id FROM webhook_deliveries"):
        assert deliver(delivery_id=row.id).startswith("delivered")


def test_retry_after_is_capped(engine: Engine, receiver: WebhookReceiver) -> None:
    endpoint, _ = add_endpoint(engine, receiver.url)
    receiver.answers = [Response(status_code=503, headers={"Retry-After": "Wed, 01 Jan 2098 00:00:00 GMT"})]
    fail(engine)
    send(engine)
    assert 3500 < endpoint_row(engine, endpoint).pause.total_seconds() <= 3600


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_fail_and_are_never_followed(
    engine: Engine, receiver: WebhookReceiver, more_receivers: Callable[[], WebhookReceiver], status: int
) -> None:
    elsewhere = more_receivers()
    add_endpoint(engine, receiver.url)
    receiver.answers = [Response(status_code=status, headers={"Location": elsewhere.url})]
    fail(engine)
    assert "redirects are not followed" in send(engine)
    assert elsewhere.received == []
    assert delivery(engine).due_at


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
def test_private_targets_are_never_called(engine: Engine, receiver: WebhookReceiver, host: str) -> None:
    engine.configure(FETCH_ALLOW="")
    add_endpoint(engine, receiver.url.replace("127.0.0.1", host))
    fail(engine)
    assert "private address" in send(engine)
    assert receiver.received == []
    [(_, status, error)] = attempts(engine)
    assert status is None
    assert "private" in error


def test_unreachable_receiver_is_a_failure(engine: Engine, more_receivers: Callable[[], WebhookReceiver]) -> None:
    engine.configure(FETCH_ALLOW="127.0.0.1")
    endpoint, _ = add_endpoint(engine, "http://127.0.0.1:1/hook")
    fail(engine)
    assert "not delivered" in send(engine)
    assert endpoint_row(engine, endpoint).slow_until is None, "a refused connection causes no pause"


# --- slow receivers ---


def test_slow_receiver_fails_at_the_deadline(
    engine: Engine, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_post, "POST_DEADLINE_SECONDS", 0.5)
    add_endpoint(engine, receiver.url)
    stop = RequestPause()
    receiver.hook = lambda: stop("", b"")
    fail(engine)
    begin = time.monotonic()
    assert "did not answer in time" in send(engine)
    assert time.monotonic() - begin < 20
    stop.release()
    assert delivery(engine).due_at


def test_slow_receiver_delays_only_its_own_lane(
    engine: Engine, receiver: WebhookReceiver, more_receivers: Callable[[], WebhookReceiver]
) -> None:
    quick = more_receivers()
    slow_one, _ = add_endpoint(engine, receiver.url)
    quick_one, _ = add_endpoint(engine, quick.url)
    stop = threading.Event()
    receiver.hook = lambda: stop.wait(20)
    for _ in range(MAX_PER_LANE + 3):
        fail(engine)
    engine.make_due()
    of = {row.id: row.endpoint_id for row in engine.sql("SELECT id, endpoint_id FROM webhook_deliveries")}
    results: list[str] = []
    threads = [
        threading.Thread(target=lambda item=item: results.append(deliver(delivery_id=item)))
        for item, endpoint in of.items()
        if endpoint == slow_one
    ]
    [thread.start() for thread in threads]
    eventually(lambda: len(results) == 3 and len(receiver.received) == MAX_PER_LANE, what="the lane is full")
    # The other messages found the lane full and returned at once.
    assert sum(thread.is_alive() for thread in threads) == MAX_PER_LANE
    assert results == ["not due"] * 3
    begin = time.monotonic()
    first = next(item for item, endpoint in of.items() if endpoint == quick_one)
    line = event_loop.run(deliver_lane(first))
    assert line.endswith(f"and {MAX_PER_LANE + 2} more")
    assert time.monotonic() - begin < 15
    assert len(quick.received) == MAX_PER_LANE + 3
    stop.set()
    [thread.join(20) for thread in threads]
    assert len(receiver.received) == MAX_PER_LANE


def test_owner_with_many_slow_receivers_does_not_block_others(engine: Engine, receiver: WebhookReceiver) -> None:
    for n in range(MAX_PER_OWNER):
        add_endpoint(engine, f"{receiver.url}/{n}")
    add_endpoint(engine, f"{receiver.url}/other", owner="tokens:other")
    stop = threading.Event()
    receiver.hook = lambda: stop.wait(20)
    fail(engine)
    fail(engine)
    fail(engine, owner="tokens:other")
    engine.make_due()
    rows = engine.sql("SELECT id, owner FROM webhook_deliveries")
    threads = [threading.Thread(target=deliver, kwargs={"delivery_id": r.id}) for r in rows if r.owner == "tokens:test"]
    [thread.start() for thread in threads]
    eventually(
        lambda: sum(thread.is_alive() for thread in threads) <= MAX_PER_OWNER, what="no more than these are sent"
    )
    eventually(lambda: len(receiver.received) == MAX_PER_OWNER, what="these are sent")
    [foreign] = [
        threading.Thread(target=deliver, kwargs={"delivery_id": r.id}) for r in rows if r.owner == "tokens:other"
    ]
    foreign.start()
    eventually(lambda: len(receiver.received) == MAX_PER_OWNER + 1, what="the other owner's is sent too")
    stop.set()
    [thread.join(20) for thread in (*threads, foreign)]


# --- crashes ---


def test_delivery_killed_before_commit_is_repeated_with_the_same_id(engine: Engine, receiver: WebhookReceiver) -> None:
    _, secret = add_endpoint(engine, receiver.url)
    fail(engine)
    engine.make_due()
    stop = RequestPause()
    receiver.hook = lambda: stop("", b"")
    process = engine.start_process("notify", delivery_id=delivery(engine).id)
    stop.wait()
    process.kill()
    process.join()
    stop.release()
    receiver.hook = None
    row = delivery(engine)
    assert (row.delivered_at, row.tries) == (None, 1)
    assert attempts(engine) == [(1, None, None)], "recorded without an outcome"
    assert deliver(delivery_id=row.id) == "not due", "the lease is still valid"
    assert send(engine).startswith("delivered")
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert matching_signatures(first, secret) == matching_signatures(second, secret) == [True]
    assert attempts(engine)[1] == (2, 200, None)


@pytest.mark.parametrize(("late", "error"), [(503, "HTTP status 503"), (200, None)])
def test_try_that_outlived_its_lease_changes_nothing_of_the_newer_one(
    engine: Engine, receiver: WebhookReceiver, late: int, error: str | None
) -> None:
    add_endpoint(engine, receiver.url)
    fail(engine)
    engine.make_due()
    item = delivery(engine).id
    receiver.answers = [404, late]
    stop = RequestPause()
    receiver.hook = lambda: stop("", b"")
    # The answer of the first call is chosen when it is released, after that of the second.
    old = threading.Thread(target=deliver, kwargs={"delivery_id": item})
    old.start()
    stop.wait()
    assert "404" in send(engine)
    newer = engine.sql("SELECT * FROM webhook_deliveries")
    stop.release()
    old.join(20)
    assert attempts(engine) == [(1, late, error), (2, 404, "HTTP status 404")], "the old try has ended"
    assert engine.sql("SELECT * FROM webhook_deliveries") == newer


def test_two_messages_send_one_delivery_once(engine: Engine, receiver: WebhookReceiver) -> None:
    add_endpoint(engine, receiver.url)
    fail(engine)
    engine.make_due()
    item = delivery(engine).id
    threads = [threading.Thread(target=deliver, kwargs={"delivery_id": item}) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join(20) for thread in threads]
    assert len(receiver.received) == 1
    assert delivery(engine).tries == 1


# --- giving up and disabling ---


def test_event_is_given_up_after_the_last_try_and_endpoint_stays_enabled(
    engine: Engine, receiver: WebhookReceiver
) -> None:
    endpoint, _ = add_endpoint(engine, receiver.url)
    receiver.answers = [500] * 20
    fail(engine)
    for tries, wait in enumerate(RETRY_DELAYS, start=1):
        send(engine)
        row = delivery(engine)
        assert row.tries == tries
        assert wait * 0.9 - 1 < row.wait.total_seconds() <= wait * 1.1
    send(engine)
    row = delivery(engine)
    assert (row.tries, row.due_at) == (len(RETRY_DELAYS) + 1, None)
    assert row.given_up_at
    assert len(attempts(engine)) == len(RETRY_DELAYS) + 1
    assert endpoint_row(engine, endpoint).disabled_at is None
    assert send(engine) == "not due"


@pytest.mark.parametrize(("days", "disabled"), [(4, False), (6, True)])
def test_endpoint_failing_for_days_is_disabled_when_an_event_is_given_up(
    engine: Engine, receiver: WebhookReceiver, *, days: int, disabled: bool
) -> None:
    endpoint, _ = add_endpoint(engine, receiver.url)
    receiver.answers = [500, 500]
    fail(engine)
    engine.sql("UPDATE webhook_endpoints SET failing_since = now() - make_interval(days => :days)", days=days)
    send(engine)
    assert endpoint_row(engine, endpoint).disabled_at is None, "one failed try is not enough"
    engine.sql("UPDATE webhook_deliveries SET tries = :n", n=len(RETRY_DELAYS))
    fail(engine)
    engine.make_due()
    last = engine.sql("SELECT id FROM webhook_deliveries WHERE tries > 0")[0].id
    deliver(delivery_id=last)
    row = endpoint_row(engine, endpoint)
    assert bool(row.disabled_at) == disabled
    waiting = engine.sql("SELECT 1 FROM webhook_deliveries WHERE due_at IS NOT NULL")
    assert len(waiting) == (0 if disabled else 1)
    if disabled:
        assert "no delivery succeeded since" in row.disabled_reason
        assert "HTTP status 500" in row.disabled_reason


def test_delivery_in_flight_at_disabling_stays_given_up_unless_delivered(
    engine: Engine, receiver: WebhookReceiver
) -> None:
    endpoint, _ = add_endpoint(engine, receiver.url)
    for answer in (500, 200):
        receiver.answers = [answer]
        stop = RequestPause()
        receiver.hook = lambda stop=stop: stop("", b"")
        engine.sql("DELETE FROM webhook_deliveries")
        with transaction() as tx:
            endpoints.enable_endpoint(tx, endpoint, "tokens:test")
        fail(engine)
        engine.make_due()
        thread = threading.Thread(target=deliver, kwargs={"delivery_id": delivery(engine).id})
        thread.start()
        stop.wait()
        with transaction() as tx:
            assert endpoints.disable_endpoint(tx, endpoint, reason="test")
            assert outbox.give_up_pending(tx, endpoint) == 1
        stop.release()
        thread.join(20)
        row = delivery(engine)
        assert row.due_at is None
        assert bool(row.given_up_at) == (answer == 500)
        assert bool(row.delivered_at) == (answer == 200)


# --- docs/webhooks.md ---


def test_documented_receiver_accepts_our_deliveries(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs/webhooks.md").read_text(encoding="utf-8")
    [source] = re.findall(r"```python\n(.+?)```", text, re.DOTALL)
    engine.configure(FETCH_ALLOW="127.0.0.1")
    endpoint, secret = add_endpoint(engine, "http://127.0.0.1/replaced")
    monkeypatch.setenv("DREAMERY_WEBHOOK_SECRET", secret)
    module: dict[str, Any] = {}
    exec(compile(source, "webhooks.md", "exec"), module)
    job = fail(engine)
    with running_app(module["app"]) as url:
        engine.sql("UPDATE webhook_endpoints SET url = :url", url=f"{url}/hook")
        assert send(engine).startswith("delivered")
        engine.sql("UPDATE webhook_deliveries SET delivered_at = NULL, due_at = now()")
        assert send(engine).startswith("delivered")
        assert capsys.readouterr().out.count(f"job.failed job_{job.hex}") == 1, "the repeat was dropped"
        with transaction() as tx:
            encrypted = encrypt_secret(new_webhook_secret(), context=endpoints.secret_context(endpoint))
            endpoints.rotate_secret(tx, endpoint, "tokens:test", secret=encrypted, keep_hours=0)
        engine.sql("UPDATE webhook_deliveries SET delivered_at = NULL, due_at = now()")
        assert "HTTP status 400" in send(engine)
