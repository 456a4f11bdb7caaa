"""Webhooks of a whole platform with real workers and a real receiver, verified with the openai SDK."""

import json
from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.support.api_client import ApiClient, assert_error
from tests.support.platform import eventually
from tests.support.sandbox_client import read_ledger
from tests.support.servers.http_servers import ReceivedWebhook, WebhookReceiver, WebhookReceivers
from worker.local.supervisor import Platform

ENDPOINTS = "/v1/webhooks/endpoints"
DELIVERIES = "/v1/webhooks/deliveries"


@pytest.fixture
def client(multi_region_platform: Platform) -> Iterator[ApiClient]:
    """A caller with an API key on a platform that may send webhooks to `webhook_receivers`."""
    with ApiClient(multi_region_platform, multi_region_platform.admin_key) as client:
        yield client


@pytest.fixture
def receiver(webhook_receivers: WebhookReceivers) -> WebhookReceiver:
    return webhook_receivers.new()


def verify(webhook: ReceivedWebhook, secret: str) -> dict:
    """Verify the signature; returns the event."""
    OpenAI(api_key="none").webhooks.verify_signature(webhook.body, webhook.headers, secret=secret)
    return json.loads(webhook.body)


def test_completed_job_is_delivered_to_endpoint_and_job_webhook(client: ApiClient, receiver: WebhookReceiver) -> None:
    endpoint = client.http.post(ENDPOINTS, json={"url": f"{receiver.url}/endpoint"}).json()
    job = client.start_job(webhook=f"{receiver.url}/own", metadata={"order": "42"})
    eventually(lambda: len(receiver.received) == 2, what="both receive the event")
    own_secret = client.http.get("/v1/webhooks/secret").json()["secret"]
    log = {item["id"]: item for item in client.http.get(DELIVERIES, params={"job_id": job["id"]}).json()["data"]}
    for webhook in receiver.received:
        to_endpoint = log[webhook.headers["webhook-id"]]["endpoint_id"] == endpoint["id"]
        event = verify(webhook, endpoint["secret"] if to_endpoint else own_secret)
        assert (event["type"], event["data"]["id"]) == ("job.completed", job["id"])
        assert event["data"]["metadata"] == {"order": "42"}
        [image] = event["data"]["output"]
        assert len(client.http.get(image["url"]).content) == image["bytes"]
        [shown] = client.http.get(event["data"]["urls"]["get"]).json()["output"]
        assert image == {name: shown[name] for name in image}
        assert set(shown) - set(image) == {"favourite", "pinned", "expires_at", "expired"}, "marks are no news of a job"
    # Endpoints of other tests of the same caller may also receive it.
    assert {item["endpoint_id"] for item in log.values()} >= {endpoint["id"], None}

    def delivered_endpoints() -> set[str | None]:
        deliveries = client.http.get(DELIVERIES, params={"job_id": job["id"], "status": "delivered"}).json()["data"]
        return {item["endpoint_id"] for item in deliveries}

    eventually(lambda: delivered_endpoints() >= {endpoint["id"], None}, what="both deliveries are recorded")


def test_failed_delivery_is_retried_within_seconds(client: ApiClient, receiver: WebhookReceiver) -> None:
    endpoint = client.http.post(ENDPOINTS, json={"url": receiver.url, "events": ["job.failed"]}).json()
    receiver.answers = [500]
    job = client.start_job("[[fail:2038]]")
    eventually(lambda: len(receiver.received) == 2, what="a retry after 5 s")
    events = [verify(webhook, endpoint["secret"]) for webhook in receiver.received]
    assert events[0] == events[1]
    assert events[0]["data"]["id"] == job["id"]
    assert events[0]["data"]["error"]["code"] == client.wait_for_end(job["id"])["error"]["code"]


def test_test_event_is_delivered_immediately(client: ApiClient, receiver: WebhookReceiver) -> None:
    endpoint = client.http.post(ENDPOINTS, json={"url": receiver.url}).json()
    sent = client.http.post(f"{ENDPOINTS}/{endpoint['id']}/test")
    assert sent.status_code == 202
    eventually(lambda: receiver.received, within=10, what="the test event")
    assert verify(receiver.received[0], endpoint["secret"])["type"] == "webhook.test"
    path = sent.headers["location"]
    eventually(
        lambda: client.http.get(path).json()["status"] == "delivered", within=10, what="the delivery is recorded"
    )


def test_private_network_url_returns_400(client: ApiClient) -> None:
    assert_error(client.http.post(ENDPOINTS, json={"url": "https://10.0.0.1/"}), 400, "invalid_value", "url")


def test_members_webhooks_do_not_control_the_sandbox(client: ApiClient, multi_region_platform: Platform) -> None:
    """The sandbox's address is allowed for results, so URLs of members reach it: of endpoints and of jobs."""
    sandbox = multi_region_platform.sandbox_url
    before = read_ledger(multi_region_platform, summary=True)["calls"]
    for path in ("/_reset", "/_faults", "//_reset", "/_reset?"):
        endpoint = client.http.post(ENDPOINTS, json={"url": sandbox + path}).json()
        delivery = client.http.post(f"{ENDPOINTS}/{endpoint['id']}/test").json()["id"]
        eventually(
            lambda delivery=delivery: (
                client.http.get(f"{DELIVERIES}/{delivery}").json()["status"] in {"failed", "delivered"}
            ),
            what=f"the test event to {path}",
        )
        assert client.http.get(f"{DELIVERIES}/{delivery}").json()["status"] == "failed", path
        client.http.delete(f"{ENDPOINTS}/{endpoint['id']}")
    client.wait_for_end(client.start_job(webhook=f"{sandbox}/_reset")["id"])
    after = read_ledger(multi_region_platform, summary=True)["calls"]
    assert all(after.get(path, 0) >= number for path, number in before.items()), "nothing was reset"
