"""`/v1/webhooks`: endpoints, secrets, the delivery log, test events, replays, and isolation of callers (I9)."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.auth.dependencies import _from_tokens
from api.auth.session_tokens import parse_session_tokens
from api.jobs.webhooks.schemas import DeliveryList, DeliveryObject, EndpointList, EndpointWithSecret
from api.jobs.webhooks.schemas import Endpoint as EndpointModel
from tests.integration.conftest import ADMIN_KEY
from tests.support.api_client import assert_error
from tests.support.engine import Engine
from tests.support.servers.http_servers import WebhookReceiver
from worker.core.ids import parse_public_id
from worker.core.security.encryption import webhook_secret
from worker.db.engine import transaction
from worker.db.jobs import state_machine
from worker.db.users import api_keys, users
from worker.db.webhooks import endpoints
from worker.tasks.cleanup import clean_up
from worker.tasks.deliver_webhooks import deliver

ENDPOINTS = "/v1/webhooks/endpoints"
DELIVERIES = "/v1/webhooks/deliveries"
URL = "https://example.com/hook"
MINE = "Bearer mine-0123456789:sandbox"


class Caller:
    """A caller of the API."""

    def __init__(self, engine: Engine, http: TestClient, credential: str) -> None:
        self.engine, self.http = engine, http
        self.headers = {"Authorization": credential}
        bearer = credential.removeprefix("Bearer ")
        self.owner = _from_tokens(parse_session_tokens(bearer)).owner if ":" in bearer else ""

    def request(self, method: str, path: str, **body: Any) -> Any:
        return self.http.request(method, path, headers=self.headers, **({"json": body} if body else {}))

    def create_endpoint(self, **fields: Any) -> dict[str, Any]:
        response = self.request("POST", ENDPOINTS, **{"url": URL, **fields})
        assert response.status_code == 201, response.text
        EndpointWithSecret.model_validate(response.json(), strict=True)
        return response.json()

    def get_endpoint(self, endpoint_id: str) -> dict[str, Any]:
        response = self.request("GET", f"{ENDPOINTS}/{endpoint_id}")
        assert response.status_code == 200, response.text
        EndpointModel.model_validate(response.json(), strict=True)
        return response.json()

    def log(self, path: str = DELIVERIES, **query: Any) -> dict[str, Any]:
        response = self.http.get(path, headers=self.headers, params=query)
        assert response.status_code == 200, response.text
        DeliveryList.model_validate(response.json(), strict=True)
        return response.json()

    def fail(self, **changes: Any) -> UUID:
        """Create a job of this caller that fails immediately."""
        job = self.engine.add_job(self.engine.add_account(), **{"owner": self.owner, **changes})
        with transaction() as tx:
            assert state_machine.mark_failed(
                tx, job_id=job, attempt=None, code="upstream_error", message="x", actor="test"
            )
        return job


@pytest.fixture
def http(engine: Engine) -> Iterator[TestClient]:
    with TestClient(create_app(), raise_server_exceptions=False) as client:
        with transaction() as tx:
            api_keys.ensure_bootstrap_key(tx, users.ensure_admin(tx), ADMIN_KEY)
        yield client


@pytest.fixture
def me(engine: Engine, http: TestClient) -> Caller:
    return Caller(engine, http, MINE)


@pytest.fixture
def other_caller(engine: Engine, http: TestClient) -> Caller:
    return Caller(engine, http, "Bearer other-caller-0001:sandbox")


@pytest.fixture
def admin(engine: Engine, http: TestClient) -> Caller:
    return Caller(engine, http, f"Bearer {ADMIN_KEY}")


def execute_deliveries(engine: Engine) -> list[str]:
    return [message.execute() for message in engine.take_messages("dreamery.notify")]


# --- endpoints ---


def test_endpoint_lifecycle(engine: Engine, me: Caller) -> None:
    made = me.create_endpoint(description="the shop", events=["job.failed", "job.failed", "job.started"])
    assert made["secret"].startswith("whsec_")
    assert (made["events"], made["scope"], made["api_key_id"]) == (["job.failed", "job.started"], "tokens", None)
    assert (made["disabled"], made["disabled_reason"], made["failing_since"]) == (False, None, None)
    other = me.create_endpoint()
    assert other["events"] == ["job.completed", "job.failed", "job.cancelled"]
    assert other["secret"] != made["secret"]
    listed = me.request("GET", ENDPOINTS).json()
    EndpointList.model_validate(listed, strict=True)
    assert [item["id"] for item in listed["data"]] == [made["id"], other["id"]]
    without = {name: value for name, value in made.items() if name != "secret"}
    assert listed["data"][0] == me.get_endpoint(made["id"]) == without, "the secret is not shown again"
    engine.sql("UPDATE webhook_endpoints SET failing_since = now(), slow_until = now()")
    same = me.request("PATCH", f"{ENDPOINTS}/{made['id']}", description="the other shop", url=None).json()
    assert (same["description"], same["url"]) == ("the other shop", URL)
    assert same["failing_since"]
    moved = me.request("PATCH", f"{ENDPOINTS}/{made['id']}", url=f"{URL}/2", events=["job.completed"]).json()
    assert (moved["url"], moved["events"], moved["failing_since"]) == (f"{URL}/2", ["job.completed"], None)
    deleted = me.request("DELETE", f"{ENDPOINTS}/{made['id']}")
    assert deleted.json() == {"id": made["id"], "object": "webhook.endpoint", "deleted": True}
    assert_error(me.request("DELETE", f"{ENDPOINTS}/{made['id']}"), 404, "webhook_not_found")


def test_secrets_are_encrypted_at_rest(engine: Engine, me: Caller) -> None:
    made = me.create_endpoint()
    rotated = me.request("POST", f"{ENDPOINTS}/{made['id']}/rotate").json()
    [row] = engine.sql("SELECT to_jsonb(e)::text AS text FROM webhook_endpoints e")
    for secret in (made["secret"], rotated["secret"]):
        assert secret.removeprefix("whsec_") not in row.text


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"url": "ftp://example.com"}, "invalid_value", "url"),
        ({"url": "https://me:pw@example.com/"}, "invalid_value", "url"),
        ({"url": "https://10.0.0.1/hook"}, "invalid_value", "url"),
        ({"url": "https://localhost/hook"}, "invalid_value", "url"),
        ({"url": "https://example.com/" + "x" * 2000}, "invalid_value", "url"),
        ({"url": "https://x\x00"}, "invalid_value", "url"),
        ({"url": 5}, "invalid_value", "url"),
        ({"url": URL, "events": []}, "invalid_value", "events"),
        ({"url": URL, "events": ["job.progress"]}, "invalid_value", "events.0"),
        ({"url": URL, "scope": "world"}, "invalid_value", "scope"),
        ({"url": URL, "scope": "key"}, "invalid_value", "scope"),
        ({"url": URL, "scope": "user"}, "invalid_value", "scope"),
        ({"url": URL, "description": "x" * 501}, "invalid_value", "description"),
        ({"description": "no url"}, "missing_required_parameter", "url"),
    ],
)
def test_invalid_endpoint_returns_400(me: Caller, fields: dict[str, Any], code: str, param: str) -> None:
    assert_error(me.request("POST", ENDPOINTS, **fields), 400, code, param)
    assert me.request("GET", ENDPOINTS).json()["data"] == []
    if param in {"url", "events", "description"} and code == "invalid_value":
        made = me.create_endpoint()
        assert_error(me.request("PATCH", f"{ENDPOINTS}/{made['id']}", **fields), 400, code, param)


def test_webhook_url_of_a_job_is_validated(me: Caller) -> None:
    for url in ("https://169.254.169.254/latest", "https://me:pw@example.com", "gopher://x"):
        response = me.request("POST", "/v1/images/generations", prompt="a boat", webhook=url)
        assert_error(response, 400, "invalid_value", "webhook")


def test_endpoints_per_caller_are_limited(me: Caller, other_caller: Caller) -> None:
    for n in range(endpoints.MAX_PER_OWNER):
        me.create_endpoint(url=f"{URL}/{n}")
    assert_error(me.request("POST", ENDPOINTS, url=URL), 400, "webhook_endpoint_limit")
    other_caller.create_endpoint()
    me.request("DELETE", f"{ENDPOINTS}/{me.request('GET', ENDPOINTS).json()['data'][0]['id']}")
    me.create_endpoint()


def test_endpoint_scopes_of_an_api_key(engine: Engine, admin: Caller) -> None:
    whole, single = admin.create_endpoint(), admin.create_endpoint(scope="key")
    assert (whole["scope"], whole["api_key_id"]) == ("user", None)
    assert single["scope"] == "key"
    [key] = engine.sql("SELECT id FROM api_keys")
    assert single["api_key_id"] == f"key_{key.id.hex}"
    assert_error(admin.request("POST", ENDPOINTS, url=URL, scope="tokens"), 400, "invalid_value", "scope")


def test_i9_other_callers_endpoint_or_delivery_returns_404(me: Caller, other_caller: Caller, admin: Caller) -> None:
    made = me.create_endpoint()
    me.fail()
    [delivery] = me.log()["data"]
    one, sent = f"{ENDPOINTS}/{made['id']}", f"{DELIVERIES}/{delivery['id']}"
    for other in (other_caller, admin):
        for method, path in [
            ("GET", one), ("PATCH", one), ("DELETE", one), ("POST", f"{one}/rotate"), ("POST", f"{one}/test"),
            ("GET", f"{one}/deliveries"), ("GET", sent), ("POST", f"{sent}/replay"),
        ]:  # fmt: skip
            body = {"description": "mine now"} if method == "PATCH" else {}
            assert_error(other.request(method, path, **body), 404, "webhook_not_found")
        assert other.request("GET", ENDPOINTS).json()["data"] == []
        assert other.log()["data"] == []
        assert other.log(endpoint_id=made["id"])["data"] == []
    for invalid in ("whe_x", "x", made["id"].upper(), made["id"].replace("whe", "msg")):
        assert_error(me.request("GET", f"{ENDPOINTS}/{invalid}"), 404, "webhook_not_found")
    assert_error(me.request("GET", f"{DELIVERIES}/{made['id']}"), 404, "webhook_not_found")
    assert me.get_endpoint(made["id"])["description"] == ""
    assert me.request("GET", sent).json()["status"] == "pending"


@pytest.mark.parametrize("path", [ENDPOINTS, DELIVERIES, "/v1/webhooks/secret"])
def test_missing_key_returns_401(http: TestClient, path: str) -> None:
    assert_error(http.get(path), 401, "missing_api_key")


def test_webhook_secret_of_the_caller_is_stable(me: Caller) -> None:
    assert me.request("GET", "/v1/webhooks/secret").json() == {
        "object": "webhook.secret",
        "secret": webhook_secret(me.owner),
    }


@pytest.mark.parametrize("scopes", [["generate"], ["read"], []])
def test_webhook_secret_requires_both_scopes(http: TestClient, admin: Caller, scopes: list[str]) -> None:
    """It signs the webhooks of every key of the user, so a key that sees only its own jobs must not have it."""
    with transaction() as tx:
        user_id = users.ensure_admin(tx)
        key_of = {
            name: api_keys.create_key(tx, api_keys.NewKey(user_id=user_id, name=name, scopes=wanted))[1]
            for name, wanted in (("some", scopes), ("both", ["generate", "read"]))
        }
    path = "/v1/webhooks/secret"
    assert_error(http.get(path, headers={"Authorization": f"Bearer {key_of['some']}"}), 403, "forbidden")
    allowed = http.get(path, headers={"Authorization": f"Bearer {key_of['both']}"})
    assert allowed.json() == admin.request("GET", path).json()


# --- rotation, disabling ---


def test_rotation_creates_a_new_secret_and_reports_when_the_old_one_expires(engine: Engine, me: Caller) -> None:
    made = me.create_endpoint()
    path = f"{ENDPOINTS}/{made['id']}/rotate"
    rotated = me.request("POST", path).json()
    EndpointWithSecret.model_validate(rotated, strict=True)
    assert rotated["secret"] != made["secret"]
    [row] = engine.sql("SELECT extract(epoch FROM previous_until - now()) AS left FROM webhook_endpoints")
    assert 86_000 < row.left <= 86_400
    assert me.get_endpoint(made["id"])["previous_secret_expires_at"] == rotated["previous_secret_expires_at"]
    leaked = me.request("POST", f"{path}?keep_hours=0").json()
    assert leaked["previous_secret_expires_at"] is None
    assert engine.sql("SELECT previous_secret FROM webhook_endpoints")[0].previous_secret is None
    assert_error(me.request("POST", f"{path}?keep_hours=169"), 400, "invalid_value", "keep_hours")


def test_disabling_gives_up_pending_deliveries_and_enabling_resets_the_endpoint(engine: Engine, me: Caller) -> None:
    made = me.create_endpoint()
    me.fail()
    paused = me.request("PATCH", f"{ENDPOINTS}/{made['id']}", disabled=True).json()
    assert (paused["disabled"], paused["disabled_reason"]) == (True, "paused by its owner")
    [delivery] = me.log()["data"]
    assert (delivery["status"], delivery["next_try_at"]) == ("failed", None)
    assert "paused" in delivery["last_error"]
    me.fail()
    assert len(me.log()["data"]) == 1
    assert_error(me.request("POST", f"{DELIVERIES}/{delivery['id']}/replay"), 409, "webhook_endpoint_disabled")
    again = me.request("PATCH", f"{ENDPOINTS}/{made['id']}", disabled=False).json()
    assert (again["disabled"], again["disabled_reason"]) == (False, None)
    me.fail()
    assert me.request("POST", f"{DELIVERIES}/{delivery['id']}/replay").json()["status"] == "pending"
    assert [item["status"] for item in me.log()["data"]] == ["pending", "pending"]


# --- test events, delivery log, replay ---


def test_test_event_is_sent_once_and_its_result_is_logged(
    engine: Engine, me: Caller, receiver: WebhookReceiver
) -> None:
    made = me.create_endpoint(url=receiver.url)
    engine.take_messages()
    response = me.request("POST", f"{ENDPOINTS}/{made['id']}/test")
    assert response.status_code == 202
    DeliveryObject.model_validate(response.json(), strict=True)
    assert (response.json()["event"], response.json()["job_id"]) == ("webhook.test", None)
    assert me.request("POST", f"{ENDPOINTS}/{made['id']}/test").json()["id"] == response.json()["id"], "one at a time"
    assert [line.split()[0] for line in execute_deliveries(engine)] == ["delivered", "not"]
    [got] = receiver.received
    body = json.loads(got.body)
    assert (body["type"], body["data"]["id"]) == ("webhook.test", made["id"])
    assert got.headers["webhook-id"] == response.json()["id"]
    after = me.request("GET", response.headers["location"]).json()
    assert (after["status"], after["last_status"]) == ("delivered", 200)
    assert [(item["n"], item["status"], item["error"]) for item in after["attempts"]] == [(1, 200, None)]
    assert after["attempts"][0]["seconds"] < 20


def test_failed_test_event_is_not_retried_and_does_not_count_as_failure(
    engine: Engine, me: Caller, receiver: WebhookReceiver
) -> None:
    made = me.create_endpoint(url=receiver.url)
    receiver.answers = [500]
    sent = me.request("POST", f"{ENDPOINTS}/{made['id']}/test").json()
    execute_deliveries(engine)
    after = me.request("GET", f"{DELIVERIES}/{sent['id']}").json()
    assert (after["status"], after["last_status"], after["next_try_at"]) == ("failed", 500, None)
    assert me.get_endpoint(made["id"])["failing_since"] is None


def test_disabled_endpoint_accepts_a_test_event(engine: Engine, me: Caller, receiver: WebhookReceiver) -> None:
    made = me.create_endpoint(url=receiver.url)
    me.request("PATCH", f"{ENDPOINTS}/{made['id']}", disabled=True)
    engine.take_messages()
    me.request("POST", f"{ENDPOINTS}/{made['id']}/test")
    assert execute_deliveries(engine)[0].startswith("delivered")
    assert me.get_endpoint(made["id"])["disabled"]


def test_delivery_log_pagination_and_filters(engine: Engine, me: Caller, receiver: WebhookReceiver) -> None:
    first, second = (
        me.create_endpoint(url=receiver.url),
        me.create_endpoint(url=f"{receiver.url}/2", events=["job.failed"]),
    )
    job = me.fail(webhook_url=f"{receiver.url}/own")
    for _ in range(2):
        me.fail()
    everything = me.log(limit=100)["data"]
    assert len(everything) == 7
    assert [item["created_at"] for item in everything] == sorted((i["created_at"] for i in everything), reverse=True)
    pages, after = [], None
    while True:
        page = me.log(limit=3, **({"after": after} if after else {}))
        pages += page["data"]
        after = page["last_id"]
        if not page["has_more"]:
            break
    assert pages == everything
    exact = me.log(limit=7)
    assert (exact["data"], exact["has_more"]) == (everything, False)
    backwards = me.log(limit=100, order="asc")["data"]
    assert backwards == everything[::-1]
    assert [i["id"] for i in me.log(order="asc", after=backwards[1]["id"])["data"]] == [i["id"] for i in backwards[2:]]
    of_second = me.log(f"{ENDPOINTS}/{second['id']}/deliveries")["data"]
    assert of_second == me.log(endpoint_id=second["id"])["data"]
    assert {item["endpoint_id"] for item in of_second} == {second["id"]}
    of_job = me.log(job_id=f"job_{job.hex}")["data"]
    assert {item["endpoint_id"] for item in of_job} == {first["id"], second["id"], None}
    [sent] = me.log(job_id=f"job_{job.hex}", endpoint_id=first["id"])["data"]
    engine.make_due()
    deliver(delivery_id=parse_public_id("msg", sent["id"]))
    assert [item["id"] for item in me.log(status="delivered")["data"]] == [sent["id"]]
    assert len(me.log(status="pending")["data"]) == 6
    assert me.log(event="job.completed")["data"] == []
    assert len(me.log(f"{ENDPOINTS}/{first['id']}/deliveries", event="job.failed", status="pending")["data"]) == 2


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": 0}, "limit"), ({"limit": 101}, "limit"), ({"after": "x"}, "after"), ({"order": "up"}, "order"),
        ({"after": "msg_" + "0" * 32}, "after"), ({"status": "lost"}, "status"), ({"job_id": "x"}, "job_id"),
        ({"endpoint_id": "job_" + "0" * 32}, "endpoint_id"), ({"event": "\x00"}, "event"),
    ],
)  # fmt: skip
def test_invalid_log_query_returns_400(me: Caller, query: dict[str, Any], param: str) -> None:
    assert_error(me.http.get(DELIVERIES, headers=me.headers, params=query), 400, "invalid_value", param)


@pytest.mark.parametrize("own", [True, False])
def test_replay_sends_the_same_event_again(engine: Engine, me: Caller, receiver: WebhookReceiver, *, own: bool) -> None:
    if not own:
        me.create_endpoint(url=receiver.url)
    me.fail(webhook_url=receiver.url if own else None)
    [before] = me.log()["data"]
    engine.make_due()
    receiver.answers = [500, 200, 500]
    delivery_id = parse_public_id("msg", before["id"])
    for _ in range(2):
        engine.make_due()
        deliver(delivery_id=delivery_id)
    engine.take_messages()
    replayed = me.request("POST", f"{DELIVERIES}/{before['id']}/replay")
    assert replayed.status_code == 202
    DeliveryObject.model_validate(replayed.json(), strict=True)
    assert (replayed.json()["status"], replayed.json()["delivered_at"]) == ("pending", None)
    execute_deliveries(engine)
    engine.make_due()
    deliver(delivery_id=delivery_id)
    after = me.request("GET", f"{DELIVERIES}/{before['id']}").json()
    assert [(item["n"], item["status"]) for item in after["attempts"]] == [(1, 500), (2, 200), (3, 500), (4, 200)]
    assert after["status"] == "delivered"
    assert engine.sql("SELECT tries FROM webhook_deliveries")[0].tries == 2, "the replay has its own retry schedule"
    assert {got.headers["webhook-id"] for got in receiver.received} == {before["id"]}
    assert len({got.body for got in receiver.received}) == 1


def test_replay_does_not_disturb_an_attempt_in_progress(engine: Engine, me: Caller) -> None:
    me.create_endpoint()
    me.fail()
    engine.sql("UPDATE webhook_deliveries SET claimed_until = now() + interval '1 minute', tries = 3")
    [sending] = me.log()["data"]
    assert sending["status"] == "sending"
    engine.take_messages()
    assert me.request("POST", f"{DELIVERIES}/{sending['id']}/replay").json()["status"] == "sending"
    assert engine.sql("SELECT tries FROM webhook_deliveries")[0].tries == 3
    assert engine.take_messages("dreamery.notify") == []


# --- cleanup ---


def test_settled_deliveries_are_deleted_after_a_month(engine: Engine, me: Caller) -> None:
    me.create_endpoint()
    for _ in range(3):
        me.fail()
    rows = engine.sql("SELECT id FROM webhook_deliveries ORDER BY id")
    engine.sql("UPDATE webhook_deliveries SET created_at = now() - interval '31 days' WHERE id <> :id", id=rows[0].id)
    engine.sql("UPDATE webhook_deliveries SET due_at = NULL, delivered_at = now() WHERE id <> :id", id=rows[1].id)
    engine.sql("INSERT INTO webhook_attempts (delivery_id, n, at) SELECT id, 1, now() FROM webhook_deliveries")
    assert "1 deliveries" in clean_up()
    left = {row.id for row in engine.sql("SELECT id FROM webhook_deliveries")}
    assert left == {rows[0].id, rows[1].id}, "recent and pending deliveries are kept"


def test_delivery_of_a_disabled_endpoint_is_given_up(engine: Engine, me: Caller) -> None:
    me.create_endpoint()
    me.fail()
    engine.sql("UPDATE webhook_endpoints SET disabled_at = now(), disabled_reason = 'test'")
    clean_up()
    [delivery] = me.log()["data"]
    assert (delivery["status"], delivery["last_error"]) == ("failed", "endpoint disabled: test")


def test_endpoints_of_unproven_session_ids_are_deleted_after_a_week(
    engine: Engine, me: Caller, other_caller: Caller, admin: Caller
) -> None:
    worked, fresh, of_user = me.create_endpoint(), other_caller.create_endpoint(), admin.create_endpoint()
    engine.add_running_job(engine.add_account(), owner=me.owner)
    made_up = Caller(engine, me.http, "Bearer made-up-0123456:sandbox")
    made_up.create_endpoint()
    engine.sql(
        "UPDATE webhook_endpoints SET created_at = now() - interval '8 days' WHERE owner <> :o", o=other_caller.owner
    )
    clean_up()
    assert made_up.request("GET", ENDPOINTS).json()["data"] == []
    for caller, made in ((me, worked), (other_caller, fresh), (admin, of_user)):
        assert caller.get_endpoint(made["id"])
    engine.sql("UPDATE jobs SET submitted_at = NULL")
    clean_up()
    assert me.get_endpoint(worked["id"]), "a proven caller stays proven"


# --- the OpenAPI document ---


def test_openapi_document_contains_routes_and_events(http: TestClient) -> None:
    document = http.get("/openapi.json").json()
    assert set(document["webhooks"]) == {
        *("job.completed", "job.failed", "job.cancelled", "job.started"),
        *("batch.completed", "batch.failed", "batch.expired", "batch.cancelled"),
    }
    created = document["paths"][ENDPOINTS]["post"]
    assert "EndpointWithSecret" in json.dumps(created["responses"]["201"])
    assert document["components"]["schemas"]["EndpointCreate"]["examples"][0]["url"].startswith("https://")
    for path in (f"{ENDPOINTS}/{{endpoint_id}}/rotate", f"{DELIVERIES}/{{delivery_id}}/replay"):
        assert "post" in document["paths"][path]
    ids = [op["operationId"] for item in document["paths"].values() for op in item.values()]
    ids += [op["operationId"] for item in document["webhooks"].values() for op in item.values()]
    assert len(ids) == len(set(ids))
