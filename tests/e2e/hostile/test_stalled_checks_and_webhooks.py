"""One member's account checks and webhooks wait for servers that hold them; another user's wait at most twice as long."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.api_client import ApiClient, new_key, new_session
from tests.support.platform import CheckedPlatform, allowance_seconds, eventually, start_platform
from tests.support.servers.http_servers import WebhookReceivers, running_app
from tests.support.servers.tarpits import Tarpit, running_tarpit

REQUESTS, ENTRIES, MEMBERS, ENDPOINTS = 3, 100, 2, 20
SAMPLES = 3


@pytest.fixture
def tarpit() -> Iterator[Tarpit]:
    with running_tarpit() as server:
        yield server


@pytest.fixture
def receivers() -> Iterator[WebhookReceivers]:
    app = WebhookReceivers()
    with running_app(app) as app.url:
        yield app


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[CheckedPlatform]:
    with start_platform(tmp_path, extra_env={"DREAMERY_FETCH_ALLOW": "127.0.0.1"}) as running:
        yield running


def make_user(admin: ApiClient, name: str) -> ApiClient:
    limits = {"own_accounts": REQUESTS * ENTRIES}
    assert admin.http.post("/admin/v1/users", json={"name": name, "limits": limits}).is_success
    answer = admin.http.post("/admin/v1/keys", json={"user": name, "name": "test"})
    assert answer.is_success, answer.text
    return admin.as_caller(answer.json()["key"])


def median_seconds(work: Callable[[], None]) -> float:
    times = []
    for _ in range(SAMPLES):
        started = time.monotonic()
        work()
        times.append(time.monotonic() - started)
    return statistics.median(times)


def assert_not_delayed(undisturbed: dict[str, float], works: dict[str, Callable[[], None]]) -> None:
    for name, work in works.items():
        seconds = median_seconds(work)
        assert seconds <= 2 * undisturbed[name] + allowance_seconds(), (name, seconds, undisturbed[name])


def draw(victim: ApiClient) -> None:
    answer = victim.generate_images(n=1)
    assert answer.status_code == 200, answer.text


def test_account_checks_behind_stalling_proxies(platform: CheckedPlatform, tarpit: Tarpit) -> None:
    with ApiClient(platform, platform.admin_key) as admin:
        answer = admin.http.post("/admin/v1/accounts", json={"tokens": f"{new_key()}\n{new_key()}"})
        assert answer.is_success, answer.text
        with make_user(admin, "victim") as victim, make_user(admin, "member") as member:
            added = victim.http.post("/v1/accounts", json={"tokens": f"{new_session()}:sandbox"})
            [account] = added.json()["data"]

            def check() -> None:
                answer = victim.http.post(f"/v1/accounts/{account['id']}/check")
                assert (answer.status_code, answer.json()["check"]["live"]) == (200, True), answer.text

            def check_token() -> None:
                answer = victim.http.post("/token/check", json={"token": f"{new_session()}:sandbox"})
                assert answer.json() == {"live": True}

            works = {"picture": lambda: draw(victim), "check": check, "token": check_token}
            undisturbed = {name: median_seconds(work) for name, work in works.items()}
            threads = [threading.Thread(target=add_stalled_accounts, args=(member, tarpit, n)) for n in range(REQUESTS)]
            [thread.start() for thread in threads]
            eventually(lambda: tarpit.open, what="the proxies hold the checks")
            assert_not_delayed(undisturbed, works)
            assert tarpit.open, "checks still wait"
            [thread.join(60) for thread in threads]


def add_stalled_accounts(member: ApiClient, tarpit: Tarpit, part: int) -> None:
    tokens = [f"http://user{part}-{n}:pass@{tarpit.place}@{new_session()}:sandbox" for n in range(ENTRIES)]
    answer = member.http.post("/v1/accounts", json={"tokens": "\n".join(tokens)}, timeout=60)
    assert answer.status_code == 201, answer.text


def test_webhooks_to_servers_that_never_answer(
    platform: CheckedPlatform, tarpit: Tarpit, receivers: WebhookReceivers
) -> None:
    receiver = receivers.new()
    with ApiClient(platform, platform.admin_key) as admin, make_user(admin, "victim") as victim:
        assert admin.http.post("/admin/v1/accounts", json={"tokens": new_key()}).is_success
        endpoint = victim.http.post("/v1/webhooks/endpoints", json={"url": receiver.url}).json()["id"]

        def send_test() -> None:
            answer = victim.http.post(f"/v1/webhooks/endpoints/{endpoint}/test")
            assert answer.status_code == 202, answer.text
            place, sent = answer.headers["Location"], answer.json()["id"]
            # Until it is recorded as delivered, the next request would join it instead of sending another event.
            eventually(
                lambda: victim.http.get(place).json()["status"] == "delivered", what="the test event is delivered"
            )
            assert sent in [one.headers["webhook-id"] for one in receiver.received]

        def draw_with_webhook() -> None:
            before = len(receiver.received)
            answer = victim.generate_images(n=1, webhook=receiver.url)
            assert answer.status_code == 200, answer.text
            # One for the endpoint, one for the `webhook` of the request.
            eventually(lambda: len(receiver.received) >= before + 2, what="both deliveries arrive")

        works = {"test": send_test, "picture": draw_with_webhook}
        undisturbed = {name: median_seconds(work) for name, work in works.items()}
        for number in range(MEMBERS):
            with make_user(admin, f"member{number}") as member:
                send_tests_to(member, tarpit)
        eventually(lambda: tarpit.open > MEMBERS, what="the receivers hold the deliveries")
        for _ in range(2):
            assert_not_delayed(undisturbed, works)
        assert tarpit.open, "deliveries still wait"


def send_tests_to(member: ApiClient, tarpit: Tarpit) -> None:
    for number in range(ENDPOINTS):
        made = member.http.post("/v1/webhooks/endpoints", json={"url": f"http://{tarpit.place}/{number}"})
        assert made.status_code == 201, made.text
        assert member.http.post(f"/v1/webhooks/endpoints/{made.json()['id']}/test").status_code == 202
