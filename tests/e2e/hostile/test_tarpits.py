"""One member's accounts, links and receivers hold every connection to them; another user's picture takes at most twice
its undisturbed time.
"""

import base64
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

from tests.support.api_client import ApiClient, new_key, new_session
from tests.support.platform import CheckedPlatform, allowance_seconds, eventually, start_platform
from tests.support.servers.tarpits import Tarpit, running_tarpit
from tests.support.uploads import make_image

pytestmark = pytest.mark.timeout(400)

ACCOUNTS, REFERENCES, ENDPOINTS, AUDIOS = 80, 45, 20, 3
# Pictures of the other user per measurement: without and with a reference in turn.
PICTURES, MEASUREMENTS = 6, 3
# For the noise of a busy machine.
OMNI = "jimeng-video-seedance-2.0"
PICTURE = "data:image/png;base64," + base64.b64encode(make_image()).decode()

Disturb = Callable[[ApiClient], None]


@pytest.fixture
def tarpit() -> Iterator[Tarpit]:
    with running_tarpit() as server:
        yield server


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[CheckedPlatform]:
    # Nothing but the shares limits the member.
    env = {
        "DREAMERY_FETCH_ALLOW": "127.0.0.1",
        "DREAMERY_ACCOUNT_MAX_VIDEOS": "60",
        "DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "6000",
    }
    with start_platform(tmp_path, extra_env=env) as running:
        yield running


@pytest.fixture
def admin(platform: CheckedPlatform) -> Iterator[ApiClient]:
    with ApiClient(platform, platform.admin_key) as client:
        answer = client.http.post("/admin/v1/accounts", json={"tokens": f"{new_key()},{new_key()}"})
        assert answer.is_success, answer.text
        yield client


def make_user(admin: ApiClient, name: str) -> ApiClient:
    assert admin.http.post("/admin/v1/users", json={"name": name}).is_success
    answer = admin.http.post("/admin/v1/keys", json={"user": name, "name": "test"})
    assert answer.is_success, answer.text
    return admin.as_caller(answer.json()["key"])


def seconds_of_a_picture(victim: ApiClient) -> float:
    """Return the median time of some pictures, one after the other."""
    times = []
    for n in range(PICTURES):
        started = time.monotonic()
        answer = victim.generate_images(n=1, **({"image": PICTURE} if n % 2 else {}))
        assert answer.status_code == 200, answer.text
        times.append(time.monotonic() - started)
    return statistics.median(times)


def assert_undisturbed(admin: ApiClient, disturb: Disturb, held: Callable[[], object]) -> None:
    with make_user(admin, "victim") as victim, make_user(admin, "member") as member:
        undisturbed = seconds_of_a_picture(victim)
        disturb(member)
        eventually(held, what="the tarpit holds the member's calls")
        for _ in range(MEASUREMENTS):
            seconds = seconds_of_a_picture(victim)
            assert seconds <= 2 * undisturbed + allowance_seconds(), (seconds, undisturbed)


KINDS = (("http", "sandbox"), ("http", "auto"), ("socks5", "sandbox"), ("socks5", "auto"))


def add_stalled_accounts(member: ApiClient, tarpit: Tarpit, kinds: Sequence[tuple[str, str]] = KINDS) -> None:
    """Add own accounts, each with a proxy of its own. Half of them need a look-up of their hosts first."""
    tokens = []
    for n in range(ACCOUNTS):
        kind, region = kinds[n % len(kinds)]
        tokens.append(f"{kind}://user{n}:pass@{tarpit.place}@{new_session()}:{region}")
    answer = member.http.post("/v1/accounts", json={"tokens": ",".join(tokens)})
    assert answer.is_success, answer.text


def use_own_accounts(member: ApiClient) -> None:
    for n in range(ACCOUNTS):
        answer = member.generate_images(f"own {n}", headers={"X-Accounts": "own"}, n=1, **{"async": True})
        assert answer.status_code == 202, answer.text


def start_video(member: ApiClient, **fields: object) -> None:
    answer = member.http.post("/v1/videos/generations", json={"prompt": "waves", "async": True, **fields})
    assert answer.status_code == 202, answer.text


def use_dripping_references(member: ApiClient, tarpit: Tarpit) -> None:
    for n in range(REFERENCES):
        start_video(member, image=f"http://{tarpit.place}/drip/{n}.jpg")


def use_large_audio(member: ApiClient, tarpit: Tarpit) -> None:
    for n in range(AUDIOS):
        start_video(member, model=OMNI, images=[PICTURE], audios=[f"http://{tarpit.place}/oggs/{n}"])


def use_stalled_receivers(member: ApiClient, tarpit: Tarpit) -> None:
    for number in range(ENDPOINTS):
        made = member.http.post("/v1/webhooks/endpoints", json={"url": f"http://{tarpit.place}/{number}"})
        assert made.status_code == 201, made.text
        assert member.http.post(f"/v1/webhooks/endpoints/{made.json()['id']}/test").status_code == 202


def test_own_accounts_behind_stalling_proxies(admin: ApiClient, tarpit: Tarpit) -> None:
    def disturb(member: ApiClient) -> None:
        add_stalled_accounts(member, tarpit)
        use_own_accounts(member)

    assert_undisturbed(admin, disturb, lambda: tarpit.open >= ACCOUNTS)


def test_polls_of_own_accounts_behind_stalling_proxies(admin: ApiClient, tarpit: Tarpit) -> None:
    """The proxies stall when the jobs are running."""

    def disturb(member: ApiClient) -> None:
        tarpit.passes = ("http://",)
        add_stalled_accounts(member, tarpit, kinds=[("http", "sandbox")])
        tarpit.passes = ("/generate?",)
        use_own_accounts(member)

    def polls() -> list[str]:
        return [line for line in tarpit.requests if "get_history_by_ids" in line]

    assert_undisturbed(admin, disturb, lambda: len(polls()) >= ACCOUNTS // 2)


def test_dripping_references(platform: CheckedPlatform, admin: ApiClient, tarpit: Tarpit) -> None:
    assert_undisturbed(admin, lambda member: use_dripping_references(member, tarpit), lambda: tarpit.open > 1)
    with psycopg.connect(platform.database_url, autocommit=True) as connection:
        held = connection.execute("SELECT count(*) FROM jobs WHERE kind = 'video' AND holds_slot").fetchone()
        assert held == (0,), "a job without its references holds no slot of an account"
        failed = "SELECT error_code, error_message FROM jobs WHERE kind = 'video' AND state = 'failed'"
        eventually(lambda: connection.execute(failed).fetchone(), within=150, what="a job with a slow link fails")
        code, message = connection.execute(failed).fetchone() or ("", "")
    assert code == "input_unavailable"
    assert "is too slow: fewer than 8192 bytes per second" in message


def test_everything_at_once(admin: ApiClient, tarpit: Tarpit) -> None:
    def disturb(member: ApiClient) -> None:
        checks = threading.Thread(target=add_stalled_accounts, args=(member, tarpit))
        checks.start()
        use_dripping_references(member, tarpit)
        use_large_audio(member, tarpit)
        use_stalled_receivers(member, tarpit)
        checks.join(60)
        use_own_accounts(member)

    assert_undisturbed(admin, disturb, lambda: tarpit.open >= ACCOUNTS)
