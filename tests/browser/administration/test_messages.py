"""Texts for people: words instead of codes, times of the viewer, names instead of ids, own words for a wrong entry."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.test_console import check_accessibility
from tests.browser.test_console_modules import call
from tests.support.api_client import ApiClient
from tests.support.platform import CheckedPlatform
from worker.core.errors import ERRORS, Fault


@pytest.fixture(scope="module")
def admin(console_platform: CheckedPlatform) -> Iterator[ApiClient]:
    with ApiClient(console_platform, console_platform.admin_key) as client:
        yield client


def test_message_has_words_and_times_of_the_viewer(page: Page) -> None:
    text = (
        "The limit `jobs_per_day` of your user is 2, until 2026-12-01T00:00:00Z. "
        "See `GET /v1/usage`; `account_limited` until 2026-11-30 14:05 UTC."
    )
    parts = call(page, "lib/state/message_text.js", "messageParts", text)
    shown = "".join(part if isinstance(part, str) else f"<{part['code']}>" for part in parts)
    assert "The limit “Jobs per day” of your user" in shown
    assert "<GET /v1/usage>; “limited by upstream today” until" in shown
    assert "`" not in shown
    assert "T00:00" not in shown
    assert "UTC" not in shown
    for odd in ("", "`", "``", "a `b", "2026-99-99T00:00", "no code"):
        assert "".join(call(page, "lib/state/message_text.js", "messageParts", odd)) == odd


def test_codes_of_accounts_have_words(page: Page) -> None:
    faults = [code for code, kind in ERRORS.items() if kind.fault in {Fault.ACCOUNT, Fault.CONTENT, Fault.UPSTREAM}]
    without = [code for code in faults if call(page, "lib/state/message_text.js", "wordsOf", code) is None]
    assert without == []


def test_refused_request_shows_words_in_both_languages(context: BrowserContext, admin: ApiClient) -> None:
    name = f"bob-{uuid4().hex[:8]}"
    admin.http.post("/admin/v1/users", json={"name": name, "limits": {"jobs_per_day": 1}})
    key = admin.http.post("/admin/v1/keys", json={"user": name}).json()["key"]
    with admin.as_caller(key) as client:
        job = client.start_job("[[fail:2038]] a stamp")
        client.wait_for_end(job["id"])
    context.request.post("/console/session", headers={"Authorization": f"Bearer {key}"})
    page = context.new_page()
    page.goto(f"/console/jobs/{job['id']}")
    page.get_by_role("button", name="Retry").click()
    toast = page.locator(".toast")
    expect(toast).to_contain_text("'jobs per day'")
    expect(toast).not_to_contain_text("`")
    expect(toast).to_contain_text("It resets at")
    expect(toast).not_to_contain_text("UTC")
    page.evaluate("localStorage.setItem('dreamery.language', 'zh')")
    page.reload()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("上游判定内容违规。请修改提示词后重试。")
    expect(alert).not_to_contain_text("Change the prompt")


def test_audit_log_names_its_objects(page: Page, admin: ApiClient) -> None:
    name = f"carol-{uuid4().hex[:8]}"
    user = admin.http.post("/admin/v1/users", json={"name": name}).json()["id"]
    page.goto("/console/audit?action=user.add")
    expect(page.get_by_text(user)).to_have_count(0)
    page.get_by_role("link", name=name).click()
    expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
    key = admin.http.post("/admin/v1/keys", json={"user": name, "name": "laptop"}).json()["id"]
    job = admin.start_job("a harbour for the log")["id"]
    admin.http.post(f"/admin/v1/jobs/{job}/cancel")
    page.goto("/console/audit")
    for hidden in (user, key, job):
        expect(page.locator("tbody").get_by_text(hidden)).to_have_count(0)
    expect(page.get_by_role("link", name="a harbour for the log").first).to_have_attribute(
        "href", f"/console/jobs/{job}"
    )
    # A key is on the page of its user.
    page.get_by_role("row").filter(has_text="key.make").get_by_role("link", name="laptop").first.click()
    expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()


def test_wrong_limit_has_words_of_its_own(page: Page, admin: ApiClient) -> None:
    user = admin.http.post("/admin/v1/users", json={"name": f"dan-{uuid4().hex[:8]}"}).json()["id"]
    page.goto(f"/console/users/{user}")
    field = page.get_by_label("Jobs per day: Hard limit")
    for wrong in ("abc", "-1", "1,5"):
        field.fill(wrong)
        page.get_by_role("button", name="Save limits").click()
        assert field.evaluate("(one) => one.validationMessage") == "Enter a number or unlimited, or leave it empty."
    field.fill("unlimited")
    page.get_by_role("button", name="Save limits").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    check_accessibility(page)
