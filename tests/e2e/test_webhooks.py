"""Webhooks of a whole platform: a real job, real workers, a real receiver, checked with the openai SDK."""

import json
from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.support.api_client import ApiClient, assert_error
from tests.support.platform import eventually
from tests.support.servers.http_servers import ReceivedWebhook, WebhookReceiver, WebhookReceivers
from worker.local.supervisor import Platform

ENDPOINTS = "/v1/webhooks/endpoints"
DELIVERIES = "/v1/webhooks/deliveries"


@pytest.fixture
def client(multi_region_platform: Platform) -> Iterator[ApiClient]:
    """A caller with an API key, on a platform whose webhooks may go to `webhook_receivers`."""
    with ApiClient(multi_region_platform, multi_region_platform.admin_key) as client:
        yield client


@pytest.fixture
def receiver(webhook_receivers: WebhookReceivers) -> WebhookReceiver:
    return webhook_receivers.new()


def verified(got: ReceivedWebhook, secret: str) -> dict:
    OpenAI(api_key="none").webhooks.verify_signature(got.body, got.headers, secret=secret)
    return json.loads(got.body)


def test_a_picture_is_told_to_endpoint_and_webhook_and_its_links_work(client: ApiClient, receiver: WebhookReceiver) -> None:
    endpoint = client.http.post(ENDPOINTS, json={"url": f"{receiver.url}/endpoint"}).json()
    job = client.start_job(webhook=f"{receiver.url}/own", metadata={"order": "42"})
    eventually(lambda: len(receiver.received) == 2, what="both are told")
    own_secret = client.http.get("/v1/webhooks/secret").json()["secret"]
    log = {item["id"]: item for item in client.http.get(DELIVERIES, params={"job_id": job["id"]}).json()["data"]}
    for got in receiver.received:
        to_endpoint = log[got.headers["webhook-id"]]["endpoint_id"] == endpoint["id"]
        event = verified(got, endpoint["secret"] if to_endpoint else own_secret)
        assert (event["type"], event["data"]["id"]) == ("job.completed", job["id"])
        assert event["data"]["metadata"] == {"order": "42"}
        [picture] = event["data"]["output"]
        assert len(client.http.get(picture["url"]).content) == picture["bytes"]
        assert client.http.get(event["data"]["urls"]["get"]).json()["output"] == event["data"]["output"]
    # Endpoints of other tests of the same caller may hear of it too.
    assert {item["endpoint_id"] for item in log.values()} >= {endpoint["id"], None}

    def noted() -> set[str | None]:
        told = client.http.get(DELIVERIES, params={"job_id": job["id"], "status": "delivered"}).json()["data"]
        return {item["endpoint_id"] for item in told}

    eventually(lambda: noted() >= {endpoint["id"], None}, what="both are noted")


def test_a_receiver_that_stumbles_is_told_again_within_seconds(client: ApiClient, receiver: WebhookReceiver) -> None:
    endpoint = client.http.post(ENDPOINTS, json={"url": receiver.url, "events": ["job.failed"]}).json()
    receiver.answers = [500]
    job = client.start_job("[[fail:2038]]")
    eventually(lambda: len(receiver.received) == 2, what="told again after 5 s")
    events = [verified(got, endpoint["secret"]) for got in receiver.received]
    assert events[0] == events[1]
    assert events[0]["data"]["id"] == job["id"]
    assert events[0]["data"]["error"]["code"] == client.wait_for_end(job["id"])["error"]["code"]


def test_a_test_event_arrives_at_once(client: ApiClient, receiver: WebhookReceiver) -> None:
    endpoint = client.http.post(ENDPOINTS, json={"url": receiver.url}).json()
    sent = client.http.post(f"{ENDPOINTS}/{endpoint['id']}/test")
    assert sent.status_code == 202
    eventually(lambda: receiver.received, within=10, what="the test event")
    assert verified(receiver.received[0], endpoint["secret"])["type"] == "webhook.test"
    path = sent.headers["location"]
    eventually(lambda: client.http.get(path).json()["status"] == "delivered", within=10, what="it is noted")


def test_an_address_of_the_private_network_is_refused_at_once(client: ApiClient) -> None:
    assert_error(client.http.post(ENDPOINTS, json={"url": "https://10.0.0.1/"}), 400, "invalid_value", "url")
