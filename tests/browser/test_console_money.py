"""Costs in money in a real browser: budgets of a user, the cost of a job, usage."""

import random
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.test_console import check_accessibility
from tests.support.api_client import ApiClient


def test_money_of_a_user(page: Page, client: ApiClient, tmp_path: Path) -> None:
    name = f"paula-{random.SystemRandom().randrange(10**9)}"
    user = client.http.post("/admin/v1/users", json={"name": name}).json()
    key = client.http.post("/admin/v1/keys", json={"user": name}).json()["key"]
    with client.as_caller(key) as caller:
        token = {"token": f"money-{name}", "provider": "ark", "region": "sandbox"}
        assert caller.http.post("/v1/accounts", json=token).status_code < 300
        body = {"model": "seedream-5.0-flash", "prompt": "a boat", "size": "1024x1024", "n": 2}
        assert caller.http.post("/v1/images/generations", json=body, timeout=120).status_code == 200
    page.goto(f"/console/users/{user['id']}")
    page.get_by_label("US dollars per day: Hard limit").fill("0.04")
    page.get_by_label("Most money per request: Hard limit").fill("0.5")
    page.get_by_role("button", name="Save limits").click()
    expect(page.get_by_text("$0.036 of $0.04 used")).to_be_visible()
    expect(page.get_by_role("heading", name="USD per day")).to_be_visible()
    expect(page.get_by_label("US dollars per day: Hard limit")).to_have_value("0.04")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    page.screenshot(path=tmp_path / "user-narrow.png", full_page=True)
    page.set_viewport_size({"width": 1440, "height": 900})
    check_accessibility(page)
    page.goto("/console/usage?who=all")
    expect(page.get_by_text("Cost in USD")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text=name)).to_contain_text("$0.036")
    page.screenshot(path=tmp_path / "usage.png", full_page=True)
