"""The console's pages for keys, usage, webhooks and administration in a real browser."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import collect_errors
from tests.browser.test_console import check_accessibility, select_option
from tests.support.api_client import IMAGES, ApiClient, new_session
from tests.support.platform import CheckedPlatform, eventually
from tests.support.servers.http_servers import WebhookReceiver, running_app


def unique_name(prefix: str) -> str:
    return f"{prefix}-{random.SystemRandom().randrange(10**9)}"


def row(page: Page, text: str) -> Locator:
    return page.get_by_role("row").filter(has_text=text)


def read_secret(page: Page, label: str) -> str:
    """The secret in the open dialog; closes the dialog."""
    secret = page.get_by_role("dialog").get_by_label(label).inner_text().strip()
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    return secret


def test_api_key_is_created_rotated_and_revoked(page: Page, client: ApiClient):
    name = unique_name("laptop")
    page.goto("/console/keys")
    page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_label("Read").uncheck()
    dialog.get_by_role("combobox", name="Expires").select_option("7")
    dialog.get_by_role("button", name="Create key").click()
    key = read_secret(page, "API key")
    expect(row(page, name)).to_contain_text("in 7 days")
    expect(row(page, name)).to_contain_text("Generate")
    expect(row(page, name)).not_to_contain_text("Administer")
    with client.as_caller(key) as caller:
        assert caller.http.post(IMAGES, json={"prompt": "created with a new key", "n": 1}).status_code == 200
    row(page, name).get_by_role("button", name="Rotate").click()
    page.get_by_role("dialog").get_by_role("button", name="Rotate", exact=True).click()
    new_key = read_secret(page, "API key")
    expect(row(page, name)).to_have_count(1)
    row(page, name).get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke", exact=True).click()
    expect(row(page, name)).to_have_count(0)
    page.get_by_role("button", name="Show").click()
    expect(row(page, name).get_by_text("Revoked")).to_have_count(2)
    for revoked in (key, new_key):
        with client.as_caller(revoked) as caller:
            assert caller.http.get("/v1/models").status_code == 401


def test_accounts_are_added_changed_paused_and_retired(page: Page, client: ApiClient):
    label, session = unique_name("studio"), new_session()
    page.goto("/console/accounts")
    page.get_by_role("button", name="Add accounts").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Session IDs").fill(
        f"{session}:sandbox\nnot a session!\n{new_session('dead')}:sandbox\n{session}:sandbox"
    )
    dialog.get_by_label("Name").fill(label)
    # A group without users, so that jobs of other tests do not run on it.
    dialog.get_by_label("Groups").fill(label)
    dialog.get_by_role("button", name="Add and check").click()
    lines = page.get_by_role("list", name="Result of each line").get_by_role("listitem")
    expect(lines).to_have_count(4)
    expect(lines.nth(0)).to_contain_text("Added")
    expect(lines.nth(0)).to_contain_text(re.compile(r"[\d,]+ credits"))
    expect(lines.nth(1)).to_contain_text("Rejected")
    expect(lines.nth(2)).to_contain_text("Not accepted by upstream")
    expect(lines.nth(3)).to_contain_text("Already added")
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    account_row = row(page, f"{label} 1")
    expect(account_row.get_by_text("Working", exact=True)).to_be_visible()
    account_row.get_by_role("button", name="Pause").click()
    expect(account_row.get_by_text("Paused", exact=True)).to_be_visible()
    account_row.get_by_role("button", name="Resume").click()
    account_row.get_by_role("link", name=f"{label} 1").click()
    expect(page.get_by_role("heading", name="Credits, last 30 days")).to_be_visible()
    page.get_by_label("Concurrent images").fill("7")
    page.get_by_label("Longest polling interval").fill("7.5")
    page.get_by_label("Only accept jobs during working hours").check()
    page.get_by_label("Time zone").fill("Asia/Shanghai")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    found = [
        one
        for one in client.http.get("/admin/v1/accounts", params={"limit": 1000}).json()["data"]
        if one["label"] == f"{label} 1"
    ]
    assert (found[0]["max_images"], found[0]["working_hours"]["zone"]) == (7, "Asia/Shanghai")
    assert (found[0]["poll_min_seconds"], found[0]["poll_max_seconds"]) == (None, 7.5)
    page.get_by_role("button", name=f"Check {label} 1 now").click()
    expect(page.get_by_text("The account is working.")).to_be_visible()
    page.get_by_role("button", name="Replace session").click()
    page.get_by_role("dialog").get_by_label("New session ID").fill(f"{new_session()}:sandbox")
    page.get_by_role("dialog").get_by_role("button", name="Replace session").click()
    expect(page.get_by_text("Replaced. The account works.")).to_be_visible()
    page.get_by_role("button", name="Retire").click()
    page.get_by_role("dialog").get_by_role("button", name="Retire").click()
    expect(page.get_by_text("Account retired.")).to_be_visible()


def test_user_limits_and_key_are_enforced(page: Page, client: ApiClient):
    name = unique_name("alice")
    page.goto("/console/users")
    page.get_by_role("button", name="Add user").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_role("button", name="Add user").click()
    expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
    page.get_by_label("Jobs per day: Hard limit").fill("1")
    page.get_by_role("button", name="Save limits").click()
    expect(page.get_by_text("0 of 1 used")).to_be_visible()
    page.get_by_label("Weight").fill("2.5")
    page.get_by_label("Groups").fill("design, print")
    page.get_by_role("button", name="Save", exact=True).click()
    expected = {"weight": 2.5, "groups": ["design", "print"]}
    eventually(
        lambda: expected.items() <= client.http.get(f"/admin/v1/users/{name}").json().items(), what="it is saved"
    )
    page.get_by_role("button", name="New key").click()
    page.get_by_role("dialog").get_by_role("button", name="Create key").click()
    key = read_secret(page, "API key")
    with client.as_caller(key) as caller:
        assert caller.generate_images("the only one today", n=1).status_code == 200
        assert caller.generate_images("one too many", n=1).json()["error"]["code"] == "budget_exceeded"
    page.reload()
    expect(page.get_by_text("1 of 1 used")).to_be_visible()
    expect(page.get_by_text("Limit reached", exact=True)).to_be_visible()
    page.get_by_role("button", name="Disable user").click()
    page.get_by_role("dialog").get_by_role("button", name="Disable user").click()
    expect(page.get_by_role("button", name="Enable user")).to_be_visible()
    with client.as_caller(key) as caller:
        assert caller.http.get("/v1/models").status_code == 401
    page.goto("/console/audit?action=user")
    expect(row(page, "user.change").filter(has_text=name).first).to_be_visible()


def test_webhook_is_delivered_retried_and_replayed(page: Page, client: ApiClient):
    receiver = WebhookReceiver()
    with running_app(receiver) as url:
        page.goto("/console/webhooks")
        page.get_by_role("button", name="Add endpoint").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("URL").fill(f"{url}/hook")
        dialog.get_by_label("Description").fill("nightly import")
        dialog.get_by_role("button", name="Add endpoint").click()
        secret = read_secret(page, "Signing secret")
        endpoint = page.get_by_role("list", name="Endpoints").get_by_role("listitem").filter(has_text=url)
        endpoint.get_by_role("button", name="Send test").click()
        deliveries = row(page, f"{url}/hook")
        expect(deliveries.filter(has_text="Test event").get_by_text("Delivered", exact=True)).to_be_visible()
        expect(deliveries.filter(has_text="Test event")).to_contain_text("HTTP 200")
        receiver.answers = [500]
        job = client.start_job("with webhook")["id"]
        delivery = deliveries.filter(has_text="Job completed")
        # The first attempt failed; the retry succeeded.
        expect(delivery.get_by_text("Delivered", exact=True)).to_be_visible()
        delivery.get_by_role("button", name="Attempts: 2").click()
        expect(page.get_by_role("list", name="Attempts").get_by_role("listitem")).to_have_count(2)
        delivery.get_by_role("button", name="Replay").click()
        expect(delivery.get_by_role("button", name="Attempts: 3")).to_be_visible()
        requests = [request for request in receiver.received if job.encode() in request.body]
        assert len({request.headers["webhook-id"] for request in requests}) == 1
        assert len(requests) == 3
        OpenAI(api_key="none").webhooks.verify_signature(requests[-1].body, requests[-1].headers, secret=secret)
        assert json.loads(requests[-1].body)["type"] == "job.completed"
        endpoint.get_by_role("button", name="Delete endpoint").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
        expect(endpoint).to_have_count(0)


def test_system_page_shows_state_and_drains(page: Page, client: ApiClient):
    client.wait_for_end(client.start_job("[[fail:2038]] counted")["id"])
    page.goto("/console/system")
    expect(row(page, "content rejected")).to_contain_text("Content")
    expect(page.get_by_role("heading", name="Finished jobs per hour")).to_be_visible()
    expect(page.locator(".plot canvas").first).to_be_attached()
    expect(page.get_by_text("Accepting jobs", exact=True).first).to_be_visible()
    for name in ("Database", "Redis", "Schema", "Scheduler"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    try:
        page.get_by_role("button", name="Stop accepting jobs").click()
        page.get_by_role("dialog").get_by_label("Reason").fill("a test")
        page.get_by_role("dialog").get_by_role("button", name="Stop accepting jobs").click()
        expect(page.get_by_text("Under maintenance")).to_be_visible()
        rejected = client.generate_images("not now", n=1)
        assert (rejected.status_code, rejected.json()["error"]["code"]) == (503, "draining")
        page.get_by_role("button", name="Accept new jobs again").click()
        expect(page.get_by_role("button", name="Stop accepting jobs")).to_be_visible()
    finally:
        client.http.patch("/admin/v1/drain", json={"draining": False})
    assert client.generate_images("now again", n=1).status_code == 200


def test_usage_page_shows_totals_and_plots(page: Page, client: ApiClient):
    response = client.generate_images("one for the plot", n=1)
    assert response.status_code == 200
    total: dict[str, Any] = client.http.get("/v1/usage").json()["total"]
    page.goto("/console/usage")
    expect(page.get_by_role("heading", name="Jobs per day")).to_be_visible()
    # A chart more if jobs for money ran on this platform.
    expect(page.locator(".plot canvas").nth(2)).to_be_visible()
    page.get_by_text("Show as a table").nth(1).click()
    last_row = page.get_by_role("region", name="Images per day").get_by_role("row").nth(1).inner_text()
    assert int(re.sub(r"\D", "", last_row.split("\t")[-1])) == total["pictures"]
    select_option(page, "All users")
    expect(row(page, "admin").first).to_be_visible()


PATHS = ("usage", "keys", "webhooks", "accounts", "users", "system", "audit")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_administration_pages_are_accessible(
    browser: Browser, console_platform: CheckedPlatform, signed_in: Path, client: ApiClient, theme: str
):
    """axe-core finds no serious violation, and no page is wider than a phone."""
    account = client.http.get("/admin/v1/accounts").json()["data"][0]["id"]
    user = client.http.get("/admin/v1/users").json()["data"][0]["id"]
    options = {"base_url": console_platform.url, "locale": "en", "color_scheme": theme}
    with browser.new_context(**options, storage_state=signed_in) as context:
        page = context.new_page()
        errors = collect_errors(page)
        for path in (*PATHS, f"accounts/{account}", f"users/{user}"):
            page.goto(f"/console/{path}")
            expect(page.locator("main .card").first).to_be_visible()
            check_accessibility(page, theme=theme)
            page.set_viewport_size({"width": 390, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
            page.set_viewport_size({"width": 1440, "height": 900})
        page.goto("/console/keys")
        page.get_by_role("button", name="New key").click()
        check_accessibility(page, theme=theme)
        assert errors == []


def test_member_has_no_access_to_administration(browser: Browser, console_platform: CheckedPlatform, client: ApiClient):
    name = unique_name("member")
    client.http.post("/admin/v1/users", json={"name": name})
    key = client.http.post("/admin/v1/keys", json={"user": name}).json()["key"]
    with browser.new_context(base_url=console_platform.url, locale="en") as context:
        context.request.post("/console/session", headers={"Authorization": f"Bearer {key}"})
        page = context.new_page()
        errors = collect_errors(page)
        page.goto("/console/keys")
        expect(row(page, "Current session")).to_be_visible()
        menu = page.get_by_role("navigation", name="Main menu")
        expect(menu.get_by_role("link", name="Usage")).to_be_visible()
        expect(menu.get_by_role("link", name="Upstream accounts")).to_have_count(0)
        page.goto("/console/system")
        expect(page.get_by_text("This page is for administrators.")).to_be_visible()
        expect(page.get_by_role("heading", name="No access", level=1)).to_be_visible()
        # A viewer gets no controls that cannot work.
        client.http.patch(f"/admin/v1/users/{name}", json={"role": "viewer"})
        for mode in ("image", "agent"):
            page.goto(f"/console?mode={mode}")
            expect(page.get_by_text("You can look, not create")).to_be_visible()
            expect(page.locator("textarea, .state.empty + .state.empty")).to_have_count(0)
        page.goto("/console/my-accounts")
        expect(page.get_by_text("does not have the right for this page")).to_be_visible()
        assert errors == []
