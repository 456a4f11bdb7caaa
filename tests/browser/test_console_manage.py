"""The console's pages for keys, usage, webhooks and administration, as a person uses them in a real browser."""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import watch
from tests.browser.test_console import check, choose
from tests.support.api_client import IMAGES, ApiClient, new_session
from tests.support.platform import CheckedPlatform, eventually
from tests.support.servers.http_servers import WebhookReceiver, running_app


@pytest.fixture(scope="module")
def client(platform: CheckedPlatform) -> Iterator[ApiClient]:
    with ApiClient(platform, platform.admin_key) as client:
        yield client


def new_name(word: str) -> str:
    return f"{word}-{random.SystemRandom().randrange(10**9)}"


def row(page: Page, text: str) -> Locator:
    return page.get_by_role("row").filter(has_text=text)


def shown_once(page: Page, label: str) -> str:
    """A secret that the page shows this once; the dialog is closed."""
    secret = page.get_by_role("dialog").get_by_label(label).inner_text().strip()
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    return secret


def test_a_key_is_made_used_rotated_and_revoked(page: Page, client: ApiClient):
    name = new_name("laptop")
    page.goto("/console/keys")
    page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_label("read").uncheck()
    dialog.get_by_role("combobox", name="Expires").select_option("7")
    dialog.get_by_role("button", name="Make key").click()
    key = shown_once(page, "API key")
    expect(row(page, name)).to_contain_text("in 7 days")
    expect(row(page, name)).to_contain_text("generate")
    expect(row(page, name)).not_to_contain_text("administer")
    with client.as_caller(key) as caller:
        assert caller.http.post(IMAGES, json={"prompt": "made with a new key", "n": 1}).status_code == 200
    row(page, name).get_by_role("button", name="Rotate").click()
    page.get_by_role("dialog").get_by_role("button", name="Rotate", exact=True).click()
    newer = shown_once(page, "API key")
    expect(row(page, name)).to_have_count(1)
    row(page, name).get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke", exact=True).click()
    expect(row(page, name)).to_have_count(0)
    page.get_by_role("button", name="Show").click()
    expect(row(page, name).get_by_text("Revoked")).to_have_count(2)
    for dead in (key, newer):
        with client.as_caller(dead) as caller:
            assert caller.http.get("/v1/models").status_code == 401


def test_accounts_are_added_line_by_line_changed_and_paused(page: Page, client: ApiClient):
    label, good = new_name("studio"), new_session()
    page.goto("/console/accounts")
    page.get_by_role("button", name="Add accounts").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Session ids").fill(
        f"{good}:sandbox\nnot a session!\n{new_session('dead')}:sandbox\n{good}:sandbox"
    )
    dialog.get_by_label("Name").fill(label)
    # For a group that nobody is in: other tests do not run on it.
    dialog.get_by_label("Groups").fill(label)
    dialog.get_by_role("button", name="Add and check").click()
    lines = page.get_by_role("list", name="What became of each line").get_by_role("listitem")
    expect(lines).to_have_count(4)
    expect(lines.nth(0)).to_contain_text("Added")
    expect(lines.nth(0)).to_contain_text(re.compile(r"[\d,]+ credits"))
    expect(lines.nth(1)).to_contain_text("Refused")
    expect(lines.nth(2)).to_contain_text("Added")
    expect(lines.nth(3)).to_contain_text("Already there")
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    mine = row(page, f"{label} 1")
    expect(mine.get_by_text("Working", exact=True)).to_be_visible()
    mine.get_by_role("button", name="Pause").click()
    expect(mine.get_by_text("Paused", exact=True)).to_be_visible()
    mine.get_by_role("button", name="Resume").click()
    mine.get_by_role("link", name=f"{label} 1").click()
    expect(page.get_by_role("heading", name="Credits, last 30 days")).to_be_visible()
    page.get_by_label("Pictures at once").fill("7")
    page.get_by_label("Takes jobs only within working hours").check()
    page.get_by_label("Time zone").fill("Asia/Shanghai")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    found = [
        one
        for one in client.http.get("/admin/v1/accounts", params={"limit": 1000}).json()["data"]
        if one["label"] == f"{label} 1"
    ]
    assert (found[0]["max_images"], found[0]["working_hours"]["zone"]) == (7, "Asia/Shanghai")
    page.get_by_role("button", name=f"Check {label} 1 now").click()
    expect(page.get_by_text("The account answers.")).to_be_visible()
    page.get_by_role("button", name="Replace session").click()
    page.get_by_role("dialog").get_by_label("New session id").fill(f"{new_session()}:sandbox")
    page.get_by_role("dialog").get_by_role("button", name="Replace session").click()
    expect(page.get_by_text("The session was replaced.")).to_be_visible()
    page.get_by_role("button", name="Retire").click()
    page.get_by_role("dialog").get_by_role("button", name="Retire").click()
    expect(page.get_by_text("The account is retired.")).to_be_visible()


def test_a_user_gets_a_budget_and_a_key_that_keeps_to_it(page: Page, client: ApiClient):
    name = new_name("alice")
    page.goto("/console/users")
    page.get_by_role("button", name="Add user").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_role("button", name="Add user").click()
    expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
    page.get_by_label("Jobs per day: Refuses at").fill("1")
    page.get_by_role("button", name="Save limits").click()
    expect(page.get_by_text("0 of 1 used")).to_be_visible()
    page.get_by_label("Weight").fill("2.5")
    page.get_by_label("Groups").fill("design, print")
    page.get_by_role("button", name="Save", exact=True).click()
    wanted = {"weight": 2.5, "groups": ["design", "print"]}
    eventually(lambda: wanted.items() <= client.http.get(f"/admin/v1/users/{name}").json().items(), what="it is saved")
    page.get_by_role("button", name="New key").click()
    page.get_by_role("dialog").get_by_role("button", name="Make key").click()
    key = shown_once(page, "API key")
    with client.as_caller(key) as caller:
        assert caller.generate_images("the only one today", n=1).status_code == 200
        assert caller.generate_images("one too many", n=1).json()["error"]["code"] == "budget_exceeded"
    page.reload()
    expect(page.get_by_text("1 of 1 used")).to_be_visible()
    expect(page.get_by_text("Reached", exact=True)).to_be_visible()
    page.get_by_role("button", name="Disable user").click()
    page.get_by_role("dialog").get_by_role("button", name="Disable user").click()
    expect(page.get_by_role("button", name="Enable user")).to_be_visible()
    with client.as_caller(key) as caller:
        assert caller.http.get("/v1/models").status_code == 401
    page.goto("/console/audit?action=user")
    expect(row(page, "user.change").filter(has_text=name).first).to_be_visible()


def test_a_webhook_is_delivered_and_replayed(page: Page, client: ApiClient):
    receiver = WebhookReceiver()
    with running_app(receiver) as url:
        page.goto("/console/webhooks")
        page.get_by_role("button", name="Add endpoint").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Address").fill(f"{url}/hook")
        dialog.get_by_label("Description").fill("nightly import")
        dialog.get_by_role("button", name="Add endpoint").click()
        secret = shown_once(page, "Signing secret")
        endpoint = page.get_by_role("list", name="Endpoints").get_by_role("listitem").filter(has_text=url)
        endpoint.get_by_role("button", name="Send test").click()
        sent = row(page, f"{url}/hook")
        expect(sent.filter(has_text="webhook.test").get_by_text("Delivered", exact=True)).to_be_visible()
        expect(sent.filter(has_text="webhook.test")).to_contain_text("HTTP 200")
        receiver.answers = [500]
        job = client.start_job("told to a webhook")["id"]
        told = sent.filter(has_text="job.completed")
        # It stumbled once, and was sent again by itself.
        expect(told.get_by_text("Delivered", exact=True)).to_be_visible()
        told.get_by_role("button", name="Tries: 2").click()
        expect(page.get_by_role("list", name="Tries").get_by_role("listitem")).to_have_count(2)
        told.get_by_role("button", name="Replay").click()
        expect(told.get_by_role("button", name="Tries: 3")).to_be_visible()
        mine = [got for got in receiver.received if job.encode() in got.body]
        assert len({got.headers["webhook-id"] for got in mine}) == 1
        assert len(mine) == 3
        OpenAI(api_key="none").webhooks.verify_signature(mine[-1].body, mine[-1].headers, secret=secret)
        assert json.loads(mine[-1].body)["type"] == "job.completed"
        endpoint.get_by_role("button", name="Delete this endpoint").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
        expect(endpoint).to_have_count(0)


def test_the_system_is_seen_and_drained(page: Page, client: ApiClient):
    client.wait_for_end(client.start_job("[[fail:2038]] counted")["id"])
    page.goto("/console/system")
    expect(row(page, "content_policy_violation")).to_contain_text("Content")
    expect(page.get_by_role("heading", name="Jobs ended per hour")).to_be_visible()
    expect(page.locator(".plot canvas")).to_be_attached()
    expect(page.get_by_text("Takes work").first).to_be_visible()
    for name in ("Database", "Redis", "Schema", "Scheduler"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    try:
        page.get_by_role("button", name="Take no new jobs").click()
        page.get_by_role("dialog").get_by_label("Reason").fill("a test")
        page.get_by_role("dialog").get_by_role("button", name="Take no new jobs").click()
        expect(page.get_by_text("What is open is being finished.")).to_be_visible()
        refused = client.generate_images("not now", n=1)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        page.get_by_role("button", name="Take new jobs again").click()
        expect(page.get_by_role("button", name="Take no new jobs")).to_be_visible()
    finally:
        client.http.patch("/admin/v1/drain", json={"draining": False})
    assert client.generate_images("now again", n=1).status_code == 200


def test_usage_tells_what_was_made(page: Page, client: ApiClient):
    made = client.generate_images("one for the plot", n=1)
    assert made.status_code == 200
    total: dict[str, Any] = client.http.get("/v1/usage").json()["total"]
    page.goto("/console/usage")
    expect(page.get_by_role("heading", name="Jobs per day")).to_be_visible()
    expect(page.locator(".plot canvas")).to_have_count(3)
    page.get_by_text("Show as a table").nth(1).click()
    told = page.get_by_role("region", name="Pictures per day").get_by_role("row").nth(1).inner_text()
    assert int(re.sub(r"\D", "", told.split("\t")[-1])) == total["pictures"]
    choose(page, "Everybody")
    expect(row(page, "admin").first).to_be_visible()


PLACES = ("usage", "keys", "webhooks", "accounts", "users", "system", "audit")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_of_administration_keeps_anybody_out(
    browser: Browser, platform: CheckedPlatform, signed_in: Path, client: ApiClient, theme: str
):
    """axe-core finds nothing serious on any page, and on a phone nothing is cut off at the side."""
    account = client.http.get("/admin/v1/accounts").json()["data"][0]["id"]
    user = client.http.get("/admin/v1/users").json()["data"][0]["id"]
    options = {"base_url": platform.url, "locale": "en", "color_scheme": theme}
    with browser.new_context(**options, storage_state=signed_in) as context:
        page = context.new_page()
        complaints = watch(page)
        for place in (*PLACES, f"accounts/{account}", f"users/{user}"):
            page.goto(f"/console/{place}")
            expect(page.locator("main .card").first).to_be_visible()
            check(page, theme=theme)
            page.set_viewport_size({"width": 390, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, place
            page.set_viewport_size({"width": 1440, "height": 900})
        page.goto("/console/keys")
        page.get_by_role("button", name="New key").click()
        check(page, theme=theme)
        assert complaints == []


def test_a_member_sees_no_administration(browser: Browser, platform: CheckedPlatform, client: ApiClient):
    name = new_name("member")
    client.http.post("/admin/v1/users", json={"name": name})
    key = client.http.post("/admin/v1/keys", json={"user": name}).json()["key"]
    with browser.new_context(base_url=platform.url, locale="en") as context:
        context.request.post("/console/session", headers={"Authorization": f"Bearer {key}"})
        page = context.new_page()
        complaints = watch(page)
        page.goto("/console/keys")
        expect(row(page, "signed in with it")).to_be_visible()
        menu = page.get_by_role("navigation", name="Main menu")
        expect(menu.get_by_role("link", name="Usage")).to_be_visible()
        expect(menu.get_by_role("link", name="Accounts")).to_have_count(0)
        page.goto("/console/system")
        expect(page.get_by_text("This page needs an administrator's key.")).to_be_visible()
        assert complaints == []
