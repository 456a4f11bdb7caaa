"""The first run and the accounts in a real browser: from the sandbox to one's own account, and what needs somebody."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from tests.browser.conftest import TIMEOUT_MS, collect_errors
from tests.browser.test_console import check_accessibility, select_option
from tests.browser.test_console_manage import row, unique_name
from tests.support.api_client import ApiClient, new_session
from tests.support.platform import CheckedPlatform

WIDTHS = (390, 768, 1024, 1440, 1920)


@dataclass
class Member:
    """A user with a console session, and what it did through the API."""

    context: BrowserContext
    client: ApiClient
    database_url: str

    def set_columns(self, changes: str) -> None:
        """Change the columns of all its own accounts (SQL)."""
        ids = [account["id"].removeprefix("account_") for account in self.accounts()]
        with psycopg.connect(self.database_url) as connection:
            connection.execute(f"UPDATE accounts SET {changes} WHERE id = ANY(%s::uuid[])", (ids,))

    def accounts(self) -> list[dict]:
        return self.client.http.get("/v1/accounts").json()["data"]

    def add(self, *tokens: str, label: str = "") -> list[dict]:
        answer = self.client.http.post("/v1/accounts", json={"tokens": "\n".join(tokens), "label": label})
        assert answer.status_code == 201, answer.text
        return answer.json()["data"]


@pytest.fixture
def member(browser: Browser, console_platform: CheckedPlatform) -> Iterator[Member]:
    with ApiClient(console_platform, console_platform.admin_key) as admin:
        name = unique_name("painter")
        assert admin.http.post("/admin/v1/users", json={"name": name, "role": "member"}).status_code == 201
        key = admin.http.post("/admin/v1/keys", json={"user": name}).json()["key"]
    with (
        ApiClient(console_platform, key) as client,
        browser.new_context(base_url=console_platform.url, locale="en") as context,
    ):
        context.set_default_timeout(TIMEOUT_MS)
        answer = context.request.post("/console/session", headers={"Authorization": f"Bearer {key}"})
        assert answer.status == 201, answer.text()
        yield Member(context, client, console_platform.database_url)


@pytest.fixture
def page(member: Member) -> Iterator[Page]:
    """A page of the member; the test fails if the page reported any error."""
    new_page = member.context.new_page()
    errors = collect_errors(new_page)
    yield new_page
    assert errors == []


def fits(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def answer_unchecked(route: Route, reason: str) -> None:
    """Add the account for real, but say that its check did not reach upstream."""
    response = route.fetch()
    body = response.json()
    if route.request.method == "POST":
        body["data"][0]["check"] |= {"credits": None, "error": {"code": "upstream_unreachable", "message": reason}}
    route.fulfill(response=response, json=body)


def test_first_run_leads_to_an_own_account(page: Page, member: Member, tmp_path: Path) -> None:
    page.goto("/console")
    first_run = page.get_by_role("region", name="You are using the sandbox")
    expect(first_run).to_contain_text("Press F12")
    expect(
        first_run.get_by_role("img", name=re.compile("cookies of dreamina.capcut.com, row sessionid"))
    ).to_be_visible()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert fits(page), width
        page.screenshot(path=tmp_path / f"first-run-{width}.png", full_page=True)
    check_accessibility(page)
    select_option(page, "Jimeng 即梦")
    expect(first_run.get_by_role("link", name="jimeng.jianying.com")).to_have_attribute("target", "_blank")
    select_option(page, "ModelArk")
    expect(first_run.get_by_role("img", name=re.compile("API keys"))).to_be_visible()
    expect(first_run).to_contain_text("USD")
    select_option(page, "Dreamina")
    field = first_run.get_by_label("Your session ID")
    field.fill(f"{new_session('dead')}:sandbox")
    first_run.get_by_role("button", name="Add and check").click()
    refusal = first_run.get_by_role("alert")
    expect(refusal).to_contain_text("Upstream does not recognise this session ID")
    expect(refusal).to_contain_text("only part of the value was copied")
    page.screenshot(path=tmp_path / "first-run-refused.png", full_page=True)
    field.fill(f"{new_session()}:sandbox")
    first_run.get_by_role("button", name="Add and check").click()
    expect(page.get_by_text(re.compile(r"The account works\. [\d,]+ credits"))).to_be_visible()
    expect(refusal).to_have_count(0)
    assert [account["state"] for account in member.accounts()] == ["ok"], "what was refused is gone"
    # An account that no check reached yet is not called working.
    reason = "Upstream is not reachable."
    page.route("**/v1/accounts", lambda route: answer_unchecked(route, reason))
    field.fill(f"{new_session()}:sandbox")
    first_run.get_by_role("button", name="Add and check").click()
    note = page.get_by_role("alert").filter(has_text=f"could not be checked yet: {reason}")
    expect(note).to_be_visible()
    expect(note.get_by_role("link", name="Show the account")).to_have_attribute(
        "href", re.compile("my-accounts/account_")
    )
    note.get_by_role("button", name="Close").click()
    expect(note).to_have_count(0)
    page.unroute("**/v1/accounts")
    # A real account ends the first run; a member's own account of the sandbox does not.
    expect(first_run).to_be_visible()
    member.set_columns("region = 'cn'")
    page.reload()
    expect(page.get_by_label("Prompt", exact=True)).to_be_visible()
    expect(page.get_by_role("combobox", name="Run on")).to_be_visible()
    expect(first_run).to_have_count(0)


def test_first_run_can_be_hidden_and_leaves_a_note(page: Page) -> None:
    page.goto("/console")
    page.get_by_role("button", name="Hide this card").click()
    page.reload()
    note = page.get_by_role("note")
    expect(note).to_contain_text("results are test images")
    expect(page.get_by_label("Your session ID")).to_have_count(0)
    note.get_by_role("button", name="Use your own account").click()
    expect(page.get_by_label("Your session ID")).to_be_visible()


def test_first_run_in_chinese_and_dark(page: Page, tmp_path: Path) -> None:
    page.add_init_script(
        "localStorage.setItem('dreamery.language', 'zh'); localStorage.setItem('dreamery.theme', 'dark')"
    )
    page.goto("/console")
    first_run = page.get_by_role("region", name="当前使用沙盒")
    expect(first_run).to_contain_text("按 F12")
    expect(first_run.get_by_role("img", name=re.compile("浏览器开发者工具"))).to_be_visible()
    check_accessibility(page, theme="dark")
    for width in (390, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        assert fits(page)
        page.screenshot(path=tmp_path / f"first-run-chinese-{width}.png", full_page=True)


def test_results_of_the_sandbox_are_labelled(page: Page) -> None:
    page.goto("/console")
    page.get_by_label("Prompt", exact=True).fill("a kite of the sandbox")
    page.get_by_role("button", name="Generate image").click()
    result = page.get_by_role("article", name="a kite of the sandbox").first
    expect(result).to_contain_text("Test result of the sandbox")
    first_run = page.get_by_role("region", name="You are using the sandbox")
    assert first_run.bounding_box()["y"] > result.bounding_box()["y"], "the new result is beside the form"


def test_account_that_no_check_reached_is_not_called_working(page: Page, member: Member) -> None:
    [account] = member.add(f"{new_session()}:sandbox", label="far away")
    member.set_columns("check_code = 'upstream_unreachable', credits_at = NULL, credits = NULL, last_submit_at = NULL")
    for path in ("my-accounts", f"my-accounts/{account['id']}"):
        page.goto(f"/console/{path}")
        expect(page.get_by_text("Not checked yet").last).to_be_visible()
        expect(page.get_by_text("Working", exact=True).and_(page.locator(".status"))).to_have_count(0)


def test_member_manages_own_accounts(page: Page, member: Member, tmp_path: Path) -> None:
    page.goto("/console")
    page.get_by_role("navigation", name="Main menu").get_by_role("link", name="My accounts").click()
    expect(page.get_by_text("No accounts yet")).to_be_visible()
    page.get_by_role("button", name="Add accounts").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Groups")).to_have_count(0)
    dialog.get_by_text("How do I get a session ID?").click()
    expect(dialog.get_by_role("img", name=re.compile("row sessionid"))).to_be_visible()
    check_accessibility(page)
    page.screenshot(path=tmp_path / "add-own.png")
    dialog.get_by_label("Session IDs").fill(f"{new_session('mine')}:sandbox")
    dialog.get_by_label("Name").fill("my studio")
    dialog.get_by_role("button", name="Add and check").click()
    expect(page.get_by_role("list", name="Result of each line")).to_contain_text("Added")
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    page.get_by_role("link", name="my studio").click()
    expect(page.get_by_role("heading", name="Credits, last 30 days")).to_be_visible()
    page.get_by_label("Name").fill("my atelier")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="my atelier", level=1)).to_be_visible()
    check_accessibility(page)
    page.screenshot(path=tmp_path / "own-account.png", full_page=True)
    page.get_by_role("button", name="Retire").click()
    page.get_by_role("dialog").get_by_role("button", name="Retire", exact=True).click()
    expect(page.get_by_text("Account retired.")).to_be_visible()
    assert member.accounts() == []


@pytest.mark.parametrize(("choice", "header"), [("any", None), ("own", "own"), ("pool", "pool")])
def test_jobs_run_on_the_accounts_that_were_chosen(page: Page, member: Member, choice: str, header: str | None) -> None:
    member.add(f"{new_session('chosen')}:sandbox")
    page.goto("/console")
    page.get_by_role("combobox", name="Run on").select_option(choice)
    page.reload()
    expect(page.get_by_role("combobox", name="Run on")).to_have_value(choice)
    with page.expect_request("**/v1/estimate") as estimated:
        page.get_by_label("Prompt", exact=True).fill("a boat on chosen water")
    with page.expect_request("**/v1/images/generations") as sent:
        page.get_by_role("button", name="Generate image").click()
    assert sent.value.headers.get("x-accounts") == estimated.value.headers.get("x-accounts") == header
    page.get_by_role("button", name="Show as curl").click()
    curl = page.get_by_role("dialog").get_by_label("curl")
    expect(curl).to_contain_text("Authorization")
    assert ("X-Accounts" in curl.inner_text()) == (header is not None)


def test_no_choice_of_accounts_without_own_ones(page: Page) -> None:
    page.goto("/console")
    expect(page.get_by_role("region", name="You are using the sandbox")).to_be_visible()
    expect(page.get_by_role("combobox", name="Run on")).to_have_count(0)


def test_mistyped_session_is_named_and_replaced_where_it_was_added(page: Page, member: Member) -> None:
    page.goto("/console/my-accounts")
    page.get_by_role("button", name="Add accounts").first.click()
    dialog = page.get_by_role("dialog")
    lines = ["# from the browser", "", f"{new_session('dead')}:sandbox", "not a session", f"{new_session()}:sandbox"]
    dialog.get_by_label("Session IDs").fill("\n".join(lines))
    dialog.get_by_label("Name").fill("typed")
    dialog.get_by_role("button", name="Add and check").click()
    results = page.get_by_role("list", name="Result of each line").get_by_role("listitem")
    expect(results).to_have_count(3)
    expect(results.nth(0)).to_contain_text("Line 3")
    expect(results.nth(0)).to_contain_text("Not accepted by upstream")
    expect(results.nth(1)).to_contain_text(re.compile("Line 4.*not"))
    expect(results.nth(2)).to_contain_text("Line 5")
    check_accessibility(page)
    results.nth(0).get_by_role("button", name="Replace session").click()
    replace = page.get_by_role("dialog", name="Replace session")
    replace.get_by_label("New session ID").fill(f"{new_session('dead')}:sandbox")
    replace.get_by_role("button", name="Replace session").click()
    expect(replace.get_by_role("alert")).to_contain_text("does not recognise this session ID")
    replace.get_by_label("New session ID").fill(f"{new_session()}:sandbox")
    replace.get_by_role("button", name="Replace session").click()
    expect(page.get_by_text("Replaced. The account works.")).to_be_visible()
    expect(results.nth(0)).not_to_contain_text("Not accepted")
    assert [account["state"] for account in member.accounts()] == ["ok", "ok"]


def test_accounts_that_need_somebody_are_named(page: Page, member: Member, tmp_path: Path) -> None:
    member.add(f"{new_session('dead')}:sandbox", f"{new_session()}:sandbox", label="warned")
    page.goto("/console/my-accounts")
    warnings = page.get_by_role("list", name="Accounts that need attention").get_by_role("listitem")
    expect(warnings).to_have_count(1)
    expect(warnings).to_contain_text("Need a new session or key (1): warned 1")
    expect(row(page, "warned 1")).to_contain_text("session expired or unknown")
    expect(row(page, "warned 1").get_by_role("button", name="Replace the session of warned 1")).to_be_visible()
    member.set_columns("credits = 7, credits_at = now()")
    expect(warnings).to_have_count(2)
    expect(warnings.nth(1)).to_contain_text("Fewer than 20 credits left (1): warned 2")
    member.set_columns("credits = 0, credits_at = now()")
    expect(warnings.nth(1)).to_contain_text("No credits left (1): warned 2")
    expect(row(page, "warned 2").get_by_text("No credits", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Working 0")).to_be_visible()
    page.get_by_role("button", name="No credits 1").click()
    expect(row(page, "warned 1")).to_have_count(0)
    page.get_by_role("button", name="No credits 1").click()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert fits(page), width
        for button in row(page, "warned 1").get_by_role("button").all():
            box = button.bounding_box()
            assert box is not None
            assert box["x"] + box["width"] <= width
        page.screenshot(path=tmp_path / f"accounts-{width}.png", full_page=True)
    check_accessibility(page)
    member.set_columns("credits = NULL, credits_at = NULL")
    expect(page.get_by_role("listitem").filter(has_text=re.compile("^Credits–$"))).to_be_visible()


def test_all_accounts_are_checked_and_claim_their_credits(page: Page, member: Member) -> None:
    member.add(*(f"{new_session('gift')}:sandbox" for _ in range(2)), label="lucky")
    page.goto("/console/my-accounts")
    page.get_by_role("button", name="Check all").click()
    expect(page.get_by_text("2 of 2 accounts are working.")).to_be_visible()
    page.get_by_role("button", name="Claim daily credits").click()
    expect(page.get_by_text("120 credits claimed.")).to_be_visible()


def test_charts_of_an_account_show_thirty_days(page: Page, member: Member) -> None:
    [account] = member.add(f"{new_session('spender')}:sandbox", label="spender")
    done = member.client.http.post(
        "/v1/images/generations", json={"prompt": "paid", "n": 1}, headers={"X-Accounts": "own"}
    )
    assert done.status_code == 200, done.text
    page.goto(f"/console/my-accounts/{account['id']}")
    chart = page.get_by_role("figure", name="Credits spent per day")
    chart.get_by_text("Show as a table").click()
    expect(chart.get_by_role("row")).to_have_count(31)
