"""Administrators see the jobs of everybody, cancel them, and learn why a job waits. Back undoes filters."""

import re
from collections.abc import Iterator
from uuid import uuid4

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.browser.test_console import check_accessibility, select_option
from tests.browser.test_console_modules import call
from tests.support.api_client import ApiClient
from tests.support.platform import CheckedPlatform
from worker.core.errors import ERRORS, Fault


@pytest.fixture(scope="module")
def admin(console_platform: CheckedPlatform) -> Iterator[ApiClient]:
    with ApiClient(console_platform, console_platform.admin_key) as client:
        yield client


@pytest.fixture
def alice(admin: ApiClient) -> Iterator[tuple[str, ApiClient]]:
    """A member: name and client."""
    name = f"alice-{uuid4().hex[:8]}"
    assert admin.http.post("/admin/v1/users", json={"name": name}).status_code == 201
    key = admin.http.post("/admin/v1/keys", json={"user": name, "name": "laptop"}).json()["key"]
    with admin.as_caller(key) as client:
        yield name, client


def row(page: Page, prompt: str) -> Locator:
    return page.get_by_role("listitem").filter(has=page.get_by_role("link", name=prompt, exact=True))


def test_administrator_finds_and_cancels_the_job_of_a_user(page: Page, admin: ApiClient, alice: tuple[str, ApiClient]):
    name, client = alice
    prompt = f"[[seconds:60]] harbour {uuid4().hex[:6]}"
    job = client.start_job(prompt)
    page.goto("/console/jobs")
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    expect(page.get_by_label("User", exact=True)).to_have_count(0)
    select_option(page, "All users")
    expect(row(page, prompt)).to_contain_text(name)
    # The list reads a job that starts later by itself.
    later = f"quay {uuid4().hex[:6]}"
    client.start_job(later)
    expect(row(page, later)).to_contain_text("Completed")
    page.get_by_label("User", exact=True).select_option(label=name)
    expect(page.locator(".job-row")).to_have_count(2)
    page.get_by_label("Search prompts").fill("harbour")
    expect(page.locator(".job-row")).to_have_count(1)
    check_accessibility(page)
    row(page, prompt).get_by_role("button", name="Cancel job").click()
    expect(row(page, prompt)).to_contain_text("Cancelled")
    assert client.job(job["id"])["status"] == "cancelled"
    row(page, prompt).get_by_role("link", name=prompt, exact=True).click()
    expect(page.get_by_text("Cancelled by you.")).to_be_visible()
    page.go_back()
    # It is not one of the administrator's own jobs.
    select_option(page, "Mine")
    expect(row(page, prompt)).to_have_count(0)


def test_job_of_a_user_names_user_key_and_account(page: Page, admin: ApiClient, alice: tuple[str, ApiClient]):
    name, client = alice
    job = client.start_job("[[seconds:60]] a bridge")
    client.wait_for_status(job["id"], "in_progress")
    user = admin.http.get(f"/admin/v1/users/{name}").json()
    page.goto(f"/console/users/{user['id']}")
    page.get_by_role("link", name="Jobs of this user").click()
    row(page, "[[seconds:60]] a bridge").get_by_role("link", name="a bridge").click()
    facts = page.get_by_role("complementary", name="Parameters")
    expect(facts.get_by_role("link", name=name)).to_be_visible()
    expect(facts).to_contain_text("laptop")
    expect(page.locator(".timeline")).to_contain_text("Upstream accepted the job")
    expect(page.get_by_role("button", name="Favourite")).to_have_count(0)
    account = admin.http.get(f"/admin/v1/jobs/{job['id']}").json()["account"]
    facts.get_by_role("link", name=account).click()
    page.get_by_role("link", name="Jobs on this account").click()
    expect(row(page, "[[seconds:60]] a bridge").first).to_be_visible()
    page.go_back()
    page.go_back()
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.locator(".page-header")).to_contain_text("Cancelled")
    # Running it again makes a job of the same user.
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_text("New job started.")).to_be_visible()
    again = client.http.get("/v1/jobs").json()["data"][0]
    assert again["metadata"]["retry_of"] == job["id"]
    client.cancel(again["id"])


def test_waiting_job_says_why(page: Page, admin: ApiClient, console_platform: CheckedPlatform):
    with ApiClient(console_platform) as tokens:
        first = tokens.start_job("[[seconds:60]] a pier")
        tokens.wait_for_status(first["id"], "in_progress")
        running = admin.http.get(f"/admin/v1/jobs/{first['id']}").json()
        changed = admin.http.patch(f"/admin/v1/accounts/{running['account_id']}", json={"max_images": 1})
        assert changed.status_code == 200, changed.text
        second = tokens.start_job("a boat at the pier")
        page.goto(f"/console/jobs/{second['id']}")
        reasons = page.get_by_role("region", name="Why it is waiting")
        expect(reasons).to_contain_text("The job is next and waits for an account.")
        expect(reasons).to_contain_text("Accounts that run as many jobs as they may: 1.")
        expect(reasons).to_contain_text(running["account"])
        check_accessibility(page)
        # The second slot lets it start.
        admin.http.patch(f"/admin/v1/accounts/{running['account_id']}", json={"max_images": 2})
        expect(page.locator(".page-header")).to_contain_text("Completed")
        expect(reasons).to_have_count(0)
        tokens.cancel(first["id"])


def test_back_undoes_filters_one_by_one(page: Page):
    page.goto("/console/usage")
    expect(page.get_by_role("heading", name="Usage", level=1)).to_be_visible()
    page.get_by_role("link", name="Jobs", exact=False).first.click()
    page.get_by_label("Status").select_option("failed")
    expect(page).to_have_url(re.compile(r"status=failed"))
    search = page.get_by_label("Search prompts")
    search.fill("light")
    expect(page).to_have_url(re.compile(r"q=light$"))
    search.fill("lighthouse")
    expect(page).to_have_url(re.compile(r"q=lighthouse"))
    page.go_back()
    expect(page).not_to_have_url(re.compile(r"q="))
    expect(search).to_have_value("")
    expect(page.get_by_label("Status")).to_have_value("failed")
    page.go_back()
    expect(page.get_by_label("Status")).to_have_value("")
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    page.go_forward()
    expect(page.get_by_label("Status")).to_have_value("failed")


def test_refused_content_asks_for_another_prompt_first(page: Page, admin: ApiClient):
    job = admin.start_job("[[fail:2038]] a poster")
    admin.wait_for_end(job["id"])
    page.goto(f"/console/jobs/{job['id']}")
    buttons = page.locator(".job-actions button")
    expect(buttons.first).to_have_text("Edit prompt")
    expect(buttons.first).to_have_class(re.compile("primary"))
    buttons.first.click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("[[fail:2038]] a poster")


def test_codes_that_ask_for_another_prompt_are_faults_of_the_content(page: Page):
    content = {code for code, kind in ERRORS.items() if kind.fault is Fault.CONTENT}
    asked = {code for code in ERRORS if call(page, "lib/api/jobs.js", "needsOtherPrompt", {"error": {"code": code}})}
    assert content <= asked <= content | {"prompt_too_long"}


def test_unknown_job_leads_to_the_list(context: BrowserContext):
    page = context.new_page()  # the answer 404 is an error in the browser's log
    page.goto(f"/console/jobs/job_{uuid4().hex}")
    expect(page.get_by_role("alert")).to_contain_text("No job")
    page.get_by_role("link", name="Go to the jobs").click()
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    page.goto("/console/nowhere")
    expect(page.get_by_role("heading", name="Page not found", level=1)).to_be_visible()
