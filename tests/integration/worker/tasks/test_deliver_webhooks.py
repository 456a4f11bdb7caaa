"""Webhooks are delivered at least once, signed as in Standard Webhooks, and repeated with the same id."""

import json

import pytest
from standardwebhooks import Webhook

from tests.support.engine import Engine
from tests.support.servers.http_servers import WebhookReceiver
from worker.core.security.encryption import webhook_secret
from worker.core.webhook_policy import RETRY_DELAYS
from worker.tasks.deliver_webhooks import deliver
from worker.tasks.dispatch import sweep


def delivery(engine: Engine):
    [row] = engine.sql("SELECT *, due_at - now() AS wait FROM webhook_deliveries")
    return row


def send(engine: Engine) -> str:
    engine.make_due()
    return deliver(delivery_id=delivery(engine).id)


@pytest.mark.parametrize(
    ("prompt", "kind", "status"),
    [("a boat", "job.completed", "completed"), ("a boat [[refuse:2038]]", "job.failed", "failed")],
)
def test_job_end_is_delivered_and_signed(engine: Engine, receiver: WebhookReceiver, prompt, kind, status) -> None:
    job = engine.add_job(engine.add_account(), prompt=prompt, webhook_url=receiver.url, metadata={"order": "42"})
    engine.run_until_final(job)
    assert send(engine).startswith("delivered")
    [got] = receiver.received
    body = Webhook(webhook_secret("tokens:test")).verify(got.body, got.headers)
    assert (body["type"], body["data"]["status"]) == (kind, status)
    assert body["data"]["id"] == f"job_{job.hex}"
    assert body["data"]["metadata"] == {"order": "42"}
    assert (body["data"]["error"] is None) == (status == "completed")
    row = delivery(engine)
    assert (row.tries, row.last_status, row.due_at) == (1, 200, None)
    assert row.delivered_at
    assert send(engine) == "not due"


def test_failed_delivery_is_retried_with_the_same_id(engine: Engine, receiver: WebhookReceiver) -> None:
    receiver.answers = [500, 302, 503]
    engine.add_succeeded_job(engine.add_account(), webhook_url=receiver.url)
    for tries, wait in enumerate(RETRY_DELAYS[:3], start=1):
        send(engine)
        row = delivery(engine)
        assert row.tries == tries
        assert wait * 0.9 - 1 < row.wait.total_seconds() <= wait * 1.1
        assert deliver(delivery_id=row.id) == "not due"
    assert send(engine).startswith("delivered")
    assert len(receiver.received) == 4
    assert len({got.headers["webhook-id"] for got in receiver.received}) == 1
    assert len({got.body for got in receiver.received}) == 1
    for got in receiver.received:
        assert Webhook(webhook_secret("tokens:test")).verify(got.body, got.headers)


def test_410_disables_endpoint(engine: Engine, receiver: WebhookReceiver) -> None:
    receiver.answers = [410]
    engine.add_succeeded_job(engine.add_account(), webhook_url=receiver.url)
    send(engine)
    row = delivery(engine)
    assert row.due_at is None
    assert row.given_up_at
    assert send(engine) == "not due"


def test_delivery_is_given_up_after_the_last_try(engine: Engine, receiver: WebhookReceiver) -> None:
    receiver.answers = [500] * 20
    engine.add_succeeded_job(engine.add_account(), webhook_url=receiver.url)
    for _ in range(len(RETRY_DELAYS) + 1):
        send(engine)
    row = delivery(engine)
    assert (row.tries, row.due_at) == (len(RETRY_DELAYS) + 1, None)
    assert row.given_up_at
    assert send(engine) == "not due"


def test_private_address_is_not_called(engine: Engine, receiver: WebhookReceiver) -> None:
    engine.configure(FETCH_ALLOW=engine.url.removeprefix("http://"))
    engine.add_succeeded_job(engine.add_account(), webhook_url=receiver.url)
    assert "private address" in send(engine)
    assert receiver.received == []
    assert "private address" in delivery(engine).last_error


def test_sweep_enqueues_due_deliveries(engine: Engine, receiver: WebhookReceiver) -> None:
    engine.add_succeeded_job(engine.add_account(), webhook_url=receiver.url)
    engine.make_due()
    engine.take_messages()
    assert sweep().endswith("1 webhooks")
    [message] = engine.take_messages("dreamery.notify")
    assert message.task == "dreamery.notify"
    message.execute()
    assert len(receiver.received) == 1
    sweep()
    assert engine.take_messages("dreamery.notify") == []


def test_body_does_not_reveal_accounts(engine: Engine, receiver: WebhookReceiver) -> None:
    account = engine.add_account(session="session-of-the-owner-1")
    engine.add_succeeded_job(account, webhook_url=receiver.url)
    send(engine)
    [got] = receiver.received
    label = engine.account_row(account).label
    text = got.body.decode() + json.dumps(got.headers)
    assert label not in text
    assert str(account) not in text
    assert "session-of-the-owner-1" not in text


def test_job_without_webhook_has_no_delivery(engine: Engine) -> None:
    engine.add_succeeded_job(engine.add_account())
    assert engine.sql("SELECT 1 FROM webhook_deliveries") == []
