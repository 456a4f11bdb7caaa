"""Signing in and one's own access in a real browser: invitations, passwords, sessions, and a session that ended."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import TIMEOUT_MS, collect_errors
from tests.browser.test_console import check_accessibility
from tests.support.api_client import ApiClient
from tests.support.platform import CheckedPlatform

PASSWORD = "several words together"


@pytest.fixture
def name(client: ApiClient) -> str:
    name = f"person-{random.SystemRandom().randrange(10**9)}"
    assert client.http.post("/admin/v1/users", json={"name": name}).status_code == 201
    return name


@contextmanager
def stranger(browser: Browser, platform: CheckedPlatform, width: int = 1280, locale: str = "en") -> Iterator[Page]:
    """A page of a browser that nobody is signed in with."""
    size = {"width": width, "height": 800}
    with browser.new_context(base_url=platform.url, locale=locale, viewport=size) as context:  # type: ignore[arg-type]
        context.set_default_timeout(TIMEOUT_MS)
        yield context.new_page()


def invite(page: Page, name: str) -> str:
    """Invite the user in the console; return the link."""
    page.goto("/console/users")
    page.get_by_role("link", name=name).click()
    page.get_by_role("button", name="Invite", exact=True).click()
    link = page.get_by_role("dialog").get_by_label("Invitation link").inner_text().strip()
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    expect(page.get_by_text("Invitation open")).to_be_visible()
    return link


def test_an_invited_user_sets_a_password_and_returns_with_it(
    page: Page, browser: Browser, console_platform: CheckedPlatform, name: str
) -> None:
    link = invite(page, name)
    with stranger(browser, console_platform, width=390) as guest:
        errors = collect_errors(guest)
        guest.goto(link)
        expect(guest.get_by_role("heading", name=f"Welcome, {name}")).to_be_visible()
        assert "#" not in guest.url, "the secret leaves the address bar"
        check_accessibility(guest)
        guest.get_by_label("Choose a password (optional)").fill(PASSWORD)
        guest.get_by_role("button", name="Sign in").click()
        expect(guest.get_by_role("heading", name="Playground")).to_be_visible()
        guest.goto("/console/access")
        expect(guest.get_by_text("this browser")).to_be_visible()
        check_accessibility(guest)
        assert errors == []
    with stranger(browser, console_platform) as again:
        again.goto(link)
        expect(again.get_by_text("This invitation has been used")).to_be_visible()
        again.get_by_role("button", name="To the sign-in page").click()
        again.get_by_role("radio", name="By name").check()
        again.get_by_label("Name", exact=True).fill(name)
        again.get_by_label("Password", exact=True).fill("wrong words together")
        again.get_by_role("button", name="Sign in").click()
        expect(again.get_by_role("alert")).to_contain_text("The name or the password is wrong")
        again.get_by_label("Password", exact=True).fill(PASSWORD)
        again.get_by_role("button", name="Show").click()
        expect(again.get_by_label("Password", exact=True)).to_have_attribute("type", "text")
        again.get_by_role("button", name="Sign in").click()
        expect(again.get_by_role("heading", name="Playground")).to_be_visible()
        page.reload()
        expect(page.get_by_text("Has a password")).to_be_visible()
        page.get_by_role("button", name="Remove password").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove password").click()
        expect(page.get_by_text("Not signed in anywhere.")).to_be_visible()
        # The form offers the way first that worked the last time.
        expect(again.get_by_role("status").filter(has_text="session has ended")).to_be_visible()
        expect(again.get_by_label("Name", exact=True)).to_be_visible()
        again.get_by_role("radio", name="By key").check()
        again.reload()
        expect(again.get_by_label("Name", exact=True)).to_be_visible()


def test_a_session_that_ended_says_why_and_keeps_the_prompt(
    browser: Browser, console_platform: CheckedPlatform, client: ApiClient, name: str
) -> None:
    link = client.http.post(f"/admin/v1/users/{name}/invitations").json()["url"]
    with stranger(browser, console_platform) as guest:
        guest.goto(link)
        guest.get_by_role("button", name="Sign in").click()
        guest.get_by_role("textbox", name="Prompt", exact=True).fill("a boat that is not lost")
        client.http.delete(f"/admin/v1/users/{name}/sessions")
        expect(guest.get_by_role("status").filter(has_text="session has ended")).to_be_visible()
        key = client.http.post("/admin/v1/keys", json={"user": name}).json()["key"]
        guest.get_by_label("API key").fill(key)
        guest.get_by_role("button", name="Sign in").click()
        expect(guest.get_by_role("textbox", name="Prompt", exact=True)).to_have_value("a boat that is not lost")
        client.http.patch(f"/admin/v1/users/{name}", json={"disabled": True})
        disabled = guest.get_by_role("status").filter(has_text="This user is disabled")
        expect(disabled).to_be_visible()
        guest.reload()
        expect(disabled).to_be_visible()


@pytest.mark.parametrize("locale", ["en", "zh-CN"])
def test_a_user_changes_the_password_and_ends_other_sessions(
    browser: Browser, console_platform: CheckedPlatform, client: ApiClient, name: str, locale: str
) -> None:
    chinese = locale != "en"
    link = client.http.post(f"/admin/v1/users/{name}/invitations").json()["url"]
    with stranger(browser, console_platform, locale=locale) as first, stranger(browser, console_platform) as second:
        first.goto(link)
        first.get_by_label("设置密码（可选）" if chinese else "Choose a password (optional)").fill(PASSWORD)
        first.get_by_role("button", name="登录" if chinese else "Sign in", exact=True).click()
        expect(first.locator("h1")).to_have_text("创作" if chinese else "Playground")
        answer = second.request.post("/console/session/password", data={"name": name, "password": PASSWORD})
        assert answer.status == 201
        first.goto("/console/access")
        first.get_by_label("当前密码" if chinese else "Present password").fill(PASSWORD)
        first.get_by_label("新密码" if chinese else "New password").fill("other words together")
        first.get_by_role("button", name="保存" if chinese else "Save").click()
        expect(first.locator("tbody tr")).to_have_count(1)
        assert second.request.get("/v1/jobs").status == 401
