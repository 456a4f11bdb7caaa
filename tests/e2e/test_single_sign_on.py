"""Sign-in to the console through an OpenID provider: a real one over HTTP, and what goes wrong with it."""

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.support.api_client import ApiClient
from tests.support.platform import CheckedPlatform, eventually, free_port, start_platform

CLIENT = "dreamery"


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port), "--require-nonce"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://localhost:{port}"
        eventually(lambda: is_up(url), what="the provider answers")
        yield url
    finally:
        process.kill()
        process.wait(10)


def is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/.well-known/openid-configuration", timeout=2).is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, provider: str) -> Iterator[CheckedPlatform]:
    settings = {
        "DREAMERY_OIDC_ISSUER": provider,
        "DREAMERY_OIDC_CLIENT_ID": CLIENT,
        "DREAMERY_OIDC_CLIENT_SECRET": "a secret",
        "DREAMERY_OIDC_LABEL": "Studio login",
        "DREAMERY_OIDC_ROLES": "bosses=admin,painters=member",
    }
    with start_platform(tmp_path_factory.mktemp("platform"), extra_env=settings) as running:
        yield running


@pytest.fixture
def admin(platform: CheckedPlatform) -> Iterator[ApiClient]:
    with ApiClient(platform, platform.admin_key) as client:
        yield client


@contextmanager
def browser(platform: CheckedPlatform) -> Iterator[httpx.Client]:
    last = [random.SystemRandom().randrange(1, 255) for _ in range(3)]
    own = httpx.HTTPTransport(local_address=f"127.{last[0]}.{last[1]}.{last[2]}")
    with httpx.Client(base_url=platform.url, timeout=60, transport=own) as client:
        yield client


def new_person(provider: str, **claims: Any) -> str:
    """Add a user to the provider; return its `sub`."""
    subject = f"sub-{random.SystemRandom().randrange(10**12)}"
    body = {"preferred_username": subject.replace("sub", "name"), "groups": ["painters"], **claims}
    assert httpx.put(f"{provider}/users/{subject}", json=body).status_code == 204
    return subject


def go_to_provider(client: httpx.Client) -> httpx.URL:
    """Start; return where the browser is sent."""
    answer = client.get("/console/oidc/start")
    assert answer.status_code == 303, answer.text
    return httpx.URL(answer.headers["location"])


def consent(url: httpx.URL, subject: str, **form: str) -> httpx.URL:
    """Sign in at the provider; return where it sends the browser."""
    answer = httpx.post(url, data={"sub": subject, **form})
    assert answer.status_code in {302, 303}, answer.text
    return httpx.URL(answer.headers["location"])


def come_back(client: httpx.Client, url: httpx.URL) -> str:
    """Follow the provider to the platform; return the reason of a failure, or ""."""
    answer = client.get(
        url.copy_with(scheme=client.base_url.scheme, host=client.base_url.host, port=client.base_url.port)
    )
    assert answer.status_code == 303, answer.text
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    return query.get("sign_in_error", [""])[0]


def sign_in(client: httpx.Client, subject: str) -> str:
    return come_back(client, consent(go_to_provider(client), subject))


def session(client: httpx.Client) -> dict[str, Any]:
    return dict(client.get("/console/session").json())


def test_new_person_becomes_a_user_and_returns_as_the_same_one(platform: CheckedPlatform, provider: str) -> None:
    subject = new_person(provider)
    with browser(platform) as client:
        assert 'data-oidc="Studio login"' in client.get("/console").text
        url = go_to_provider(client)
        query = parse_qs(urlsplit(str(url)).query)
        assert query["client_id"] == [CLIENT]
        assert query["code_challenge_method"] == ["S256"]
        assert come_back(client, consent(url, subject)) == ""
        first = session(client)
        assert (first["user"], first["role"]) == (subject.replace("sub", "name"), "member")
        assert client.get("/console/sign-in").json()["identities"] == [provider]
        assert client.get("/console/sign-in").json()["sessions"][0]["method"] == "oidc"
    with browser(platform) as again:
        assert sign_in(again, subject) == ""
        assert session(again)["user"] == first["user"]


def test_groups_decide_the_role_at_each_sign_in(platform: CheckedPlatform, provider: str) -> None:
    subject = new_person(provider, groups=["painters", "bosses"])
    with browser(platform) as client:
        assert sign_in(client, subject) == ""
        assert session(client)["role"] == "admin"
        httpx.put(f"{provider}/users/{subject}", json={"groups": ["painters"]})
        assert sign_in(client, subject) == ""
        assert session(client)["role"] == "member"
    outsider = new_person(provider, groups=["guests"])
    with browser(platform) as client:
        assert sign_in(client, outsider) == "no_access"
        assert client.get("/console/session").status_code == 401


def test_a_name_that_exists_is_linked_by_its_own_user_only(
    platform: CheckedPlatform, provider: str, admin: ApiClient
) -> None:
    subject = new_person(provider)
    name = subject.replace("sub", "name")
    assert admin.http.post("/admin/v1/users", json={"name": name}).status_code == 201
    link = admin.http.post(f"/admin/v1/users/{name}/invitations").json()["url"]
    with browser(platform) as stranger:
        assert sign_in(stranger, subject) == "name_taken"
    with browser(platform) as owner:
        assert owner.post("/console/session/invitation", json={"token": link.partition("#")[2]}).status_code == 201
        assert sign_in(owner, subject) == ""
        assert session(owner)["user"] == name
    with browser(platform) as later:
        assert sign_in(later, subject) == ""
        assert session(later)["user"] == name
        admin.http.patch(f"/admin/v1/users/{name}", json={"disabled": True})
        assert sign_in(later, subject) == "disabled"


def test_a_key_with_few_rights_cannot_be_linked(platform: CheckedPlatform, provider: str, admin: ApiClient) -> None:
    subject = new_person(provider)
    name = subject.replace("sub", "name")
    assert admin.http.post("/admin/v1/users", json={"name": name}).status_code == 201
    keys = [
        {"scopes": ["read"]},
        {"models": ["agent"]},
        {"providers": ["ark"]},
        {"limits": {"jobs_per_day": 1}},
    ]
    for rights in keys:
        key = admin.http.post("/admin/v1/keys", json={"user": name, **rights}).json()["key"]
        with browser(platform) as client:
            signed_in = client.post("/console/session", headers={"Authorization": f"Bearer {key}"})
            assert signed_in.status_code == 201, signed_in.text
            assert sign_in(client, subject) == "name_taken"
    assert admin.http.get(f"/admin/v1/users/{name}/sign-in").json()["identities"] == []


@pytest.mark.parametrize("name", ["two\nlines", "a\x00b", "  ", "x" * 300, "\u202e"])
def test_names_of_the_provider_become_names_of_users(platform: CheckedPlatform, provider: str, name: str) -> None:
    subject = new_person(provider, preferred_username=name)
    with browser(platform) as client:
        reason = sign_in(client, subject)
        assert reason in {"", "name_taken"}
        if not reason:
            assert session(client)["user"].isprintable()


def test_answers_that_the_browser_did_not_ask_for_are_refused(platform: CheckedPlatform, provider: str) -> None:
    subject = new_person(provider)
    with browser(platform) as client, browser(platform) as victim:
        answer = consent(go_to_provider(client), subject)
        # Somebody else's answer, an answer without a start, a changed state, a refusal, an invented code.
        assert come_back(victim, answer) == "failed"
        go_to_provider(victim)
        assert come_back(victim, answer) == "failed"
        assert come_back(client, answer.copy_set_param("state", "x")) == "failed"
        own = go_to_provider(client)
        assert come_back(client, consent(own, subject, action="deny")) == "failed"
        state = parse_qs(urlsplit(str(go_to_provider(client))).query)["state"][0]
        invented = httpx.URL("/console/oidc/callback", params={"code": "invented", "state": state})
        assert come_back(client, client.base_url.join(invented)) == "failed"
        assert client.get("/console/session").status_code == 401
        # A code works once.
        good = consent(go_to_provider(client), subject)
        assert come_back(client, good) == ""
        assert come_back(client, good) == "failed"


def test_errors_in_the_address_are_reasons_not_texts(platform: CheckedPlatform) -> None:
    with browser(platform) as client:
        answer = client.get("/console/oidc/callback", params={"error": "<b>send your key to evil.example</b>"})
        assert answer.status_code == 303
        assert "evil" not in answer.headers["location"]
