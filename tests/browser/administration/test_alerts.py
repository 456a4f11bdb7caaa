"""The system page: history with its table, rules, and a channel with a test message."""

import time
from collections.abc import Iterator

import psycopg
import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_console import check_accessibility
from tests.support.api_client import ApiClient
from tests.support.platform import CheckedPlatform

BASE = "/admin/v1/alerts"


@pytest.fixture
def admin(console_platform: CheckedPlatform) -> Iterator[ApiClient]:
    with ApiClient(console_platform, console_platform.admin_key) as client:
        yield client
        for channel in client.http.get(f"{BASE}/channels").json()["data"]:
            client.http.delete(f"{BASE}/channels/{channel['id']}")


def test_channel_is_added_tested_and_a_rule_changed(page: Page, admin: ApiClient) -> None:
    page.goto("/console/usage")
    page.get_by_role("link", name="System", exact=True).first.click()
    section = page.get_by_role("region", name="Alerts").first
    page.get_by_role("button", name="Add channel").click()
    form = page.get_by_role("dialog")
    form.get_by_label("E-mail").check()
    form.get_by_label("Name", exact=True).fill("on call")
    form.get_by_label("Mail server").fill("127.0.0.1")
    form.get_by_label("Encryption").select_option("none")
    expect(form.get_by_label("Port")).to_have_value("25")
    form.get_by_label("Port").fill("9")
    form.get_by_label("Sender").fill("dreamery@example.com")
    form.get_by_label("Recipients").fill("ops@example.com, boss@example.com")
    check_accessibility(page)
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_text("ops@example.com, boss@example.com")).to_be_visible()
    page.get_by_role("button", name="Send a test to on call").click()
    # Nothing listens on that port: the page tells what happened.
    expect(page.get_by_text("Not delivered")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("the mail server cannot be reached")).to_be_visible()
    page.get_by_text("Rules", exact=True).click()
    page.get_by_role("button", name="Edit Storage is 90 % full").click()
    form.get_by_label("Threshold (%)").fill("7")
    # What was typed is not lost by Escape or Back.
    question = page.get_by_role("dialog", name="Leave without saving?")
    page.keyboard.press("Escape")
    question.get_by_role("button", name="Cancel").click()
    page.go_back()
    question.get_by_role("button", name="Cancel").click()
    expect(form.get_by_label("Threshold (%)")).to_have_value("7")
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_role("row", name="Storage is 93 % full").get_by_text("below 7 %")).to_be_visible()
    check_accessibility(page)
    expect(section).to_be_visible()
    rules = {rule["name"]: rule for rule in admin.http.get(f"{BASE}/rules").json()["data"]}
    assert rules["storage_low"]["threshold"] == 7
    admin.http.patch(f"{BASE}/rules/storage_low", json={"threshold": 10})


def test_history_shows_the_samples_of_a_day(page: Page, console_platform: CheckedPlatform) -> None:
    at = int(time.time()) // 600 * 600 - 7200
    with psycopg.connect(console_platform.database_url, autocommit=True) as database:
        database.execute(
            """INSERT INTO metric_samples (step, at, measures) VALUES
               (600, to_timestamp(%s), '{"jobs_succeeded": 4321, "queue_wait": [0, 0, 0, 9]}') ON CONFLICT DO NOTHING""",
            [at],
        )
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto("/console/system")
    figure = page.get_by_role("figure", name="Ended jobs")
    expect(figure).to_be_visible()
    figure.get_by_text("Show as a table").click()
    expect(figure.get_by_role("cell", name="4,321")).to_be_visible()
    page.get_by_label("30 days").check()
    expect(figure.get_by_role("cell", name="4,321")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
