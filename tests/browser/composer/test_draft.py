"""The draft of the playground's form is never lost: reload, sign-in, outage, other modes, and what replaced it."""

import io
import json
import random
import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.composer.model_choice import choose_model, expect_model
from tests.browser.conftest import TIMEOUT_MS
from tests.browser.test_console import card, check_accessibility, generate, select_option
from tests.support.api_client import ApiClient
from tests.support.platform import CheckedPlatform


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A PNG file of 96 x 64 pixels."""
    content = io.BytesIO()
    Image.new("RGB", (96, 64), "teal").save(content, "PNG")
    path = tmp_path / "teal.png"
    path.write_bytes(content.getvalue())
    return path


def test_a_reload_keeps_text_pictures_mode_and_settings(page: Page, client: ApiClient, picture: Path) -> None:
    page.goto("/console?mode=video")
    choose_model(page, "jimeng-video-3.5-pro")
    page.get_by_label("Length").select_option("10")
    select_option(page, "9:16")
    page.locator("input[type=file]").set_input_files(picture)
    expect(page.get_by_role("img", name="First frame")).to_be_visible()
    page.get_by_label("Prompt", exact=True).fill("a draft that stays")
    page.reload()
    expect(page).to_have_url(re.compile(r"/console\?mode=video$"))
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a draft that stays")
    expect_model(page, "jimeng-video-3.5-pro")
    expect(page.get_by_label("Length")).to_have_value("10")
    expect(page.get_by_role("img", name="First frame")).to_be_visible()
    # A new tab begins with the last draft of the browser.
    other = page.context.new_page()
    other.goto("/console")
    expect(other).to_have_url(re.compile(r"/console\?mode=video$"))
    expect(other.get_by_role("img", name="First frame")).to_be_visible()
    other.close()
    page.get_by_role("button", name="Remove First frame").click()
    expect(page.get_by_role("radio", name="9:16", exact=True)).to_be_checked()
    page.locator("input[type=file]").set_input_files(picture)
    expect(page.get_by_role("img", name="First frame")).to_be_visible()
    page.reload()
    expect(page.get_by_role("img", name="First frame")).to_be_visible()
    page.get_by_role("button", name="Generate video").click()
    expect(card(page, "a draft that stays").get_by_text("Completed", exact=True)).to_be_visible()
    (job,) = client.http.get("/v1/jobs", params={"q": "a draft that stays"}).json()["data"]
    assert (job["input"]["images"][0]["width"], job["input"]["seconds"]) == (96, 10)


def test_each_mode_has_an_address_and_its_own_settings(page: Page) -> None:
    page.goto("/console")
    expect(page).to_have_url(re.compile(r"/console\?mode=image$"))
    choose_model(page, "jimeng-3.1")
    select_option(page, "Video")
    choose_model(page, "jimeng-video-3.0-pro")
    select_option(page, "Agent")
    expect(page).to_have_url(re.compile(r"mode=agent$"))
    page.go_back()
    expect(page.get_by_role("button", name="Generate video")).to_be_visible()
    expect_model(page, "jimeng-video-3.0-pro")
    page.go_back()
    expect(page.get_by_role("radio", name="Image")).to_be_checked()
    expect_model(page, "jimeng-3.1")
    page.goto("/console?mode=nothing")
    expect(page).to_have_url(re.compile(r"mode=image$"))


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("heading", name="Playground", level=1)).to_be_visible()


def test_each_user_has_a_draft(browser: Browser, console_platform: CheckedPlatform, client: ApiClient) -> None:
    keys = []
    for _ in range(2):
        name = f"writer-{random.SystemRandom().randrange(10**9)}"
        assert client.http.post("/admin/v1/users", json={"name": name}).status_code == 201
        keys.append(client.http.post("/admin/v1/keys", json={"user": name}).json()["key"])
    with browser.new_context(base_url=console_platform.url, locale="en") as context:
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        page.goto("/console")
        sign_in(page, keys[0])
        page.get_by_label("Prompt", exact=True).fill("words of the first")
        page.get_by_role("button", name="Sign out").click()
        sign_in(page, keys[1])
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("")
        page.get_by_role("button", name="Sign out").click()
        page.close()
        page = context.new_page()
        page.goto("/console")
        sign_in(page, keys[0])
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("words of the first")


@pytest.mark.parametrize("locale", ["en", "zh-CN"])
def test_a_soft_limit_is_named_before_something_is_made(
    browser: Browser, console_platform: CheckedPlatform, client: ApiClient, locale: str
) -> None:
    name = f"saver-{random.SystemRandom().randrange(10**9)}"
    limits = {"limits": {"jobs_per_day": 5000}, "soft_limits": {"jobs_per_day": 1}}
    assert client.http.post("/admin/v1/users", json={"name": name, **limits}).status_code == 201
    key = client.http.post("/admin/v1/keys", json={"user": name}).json()["key"]
    with browser.new_context(base_url=console_platform.url, locale=locale) as context:
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        context.request.post("/console/session", headers={"Authorization": f"Bearer {key}"})
        page.goto("/console")
        expect(page.locator(".studio-form, .phone-composer")).to_be_visible()
        note = page.get_by_role("status").filter(has_text="5,000")
        expect(note).to_have_count(0)
        with client.as_caller(key) as caller:
            caller.start_job("a boat")
        expect(note).to_contain_text(
            "每日任务数：已用 1 / 5,000" if locale != "en" else "Jobs per day: 1 of 5,000 used · resets"
        )
        page.set_viewport_size({"width": 390, "height": 844})
        expect(note).to_be_visible()
        page.goto("/console?mode=agent")
        expect(note).to_be_visible()


def test_an_outage_keeps_the_draft(context: BrowserContext, picture: Path) -> None:
    page = context.new_page()
    page.goto("/console")
    page.locator("input[type=file]").set_input_files(picture)
    page.get_by_label("Prompt", exact=True).fill("written before the outage")
    page.route("**/v1/**", lambda route: route.abort())
    page.get_by_role("button", name="Generate image").click()
    expect(page.get_by_role("alert").filter(has_text="not responding")).to_be_visible()
    page.reload()
    expect(page.get_by_role("alert").filter(has_text="not responding").first).to_be_visible()
    page.unroute("**/v1/**")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("written before the outage")
    expect(page.get_by_role("img", name="Reference 1")).to_be_visible()
    page.get_by_role("button", name="Generate image").click()
    expect(card(page, "written before the outage").get_by_text("Completed", exact=True)).to_be_visible()
    page.close()


def test_pictures_that_the_browser_lost_are_counted(page: Page, picture: Path) -> None:
    page.goto("/console")
    page.locator("input[type=file]").set_input_files(picture)
    expect(page.get_by_role("img", name="Reference 1")).to_be_visible()
    page.evaluate(
        """() => new Promise((resolve, reject) => {
            const request = indexedDB.open("dreamery");
            request.onsuccess = () => {
                const emptied = request.result.transaction("pictures", "readwrite");
                emptied.objectStore("pictures").clear();
                emptied.oncomplete = resolve;
                emptied.onerror = reject;
            };
        })"""
    )
    page.reload()
    expect(page.get_by_text("1 image(s) of the draft are no longer stored.")).to_be_visible()
    expect(page.get_by_role("img", name="Reference 1")).to_have_count(0)


def test_a_remake_shows_its_seed_and_what_it_replaced(page: Page, client: ApiClient) -> None:
    page.goto("/console")
    done = generate(page, "a castle with a seed")
    expect(done.get_by_text("Completed", exact=True)).to_be_visible()
    (job,) = client.http.get("/v1/jobs", params={"q": "a castle with a seed"}).json()["data"]
    field = page.get_by_label("Prompt", exact=True)
    field.fill("something of my own")
    done.get_by_role("button", name="Edit & remake").click()
    expect(field).to_be_focused()
    expect(field).to_have_value("a castle with a seed")
    chip = page.get_by_text(f"Seed {job['input']['seed']}", exact=True)
    expect(chip).to_be_visible()
    page.get_by_role("button", name="Use a random one").click()
    expect(chip).to_have_count(0)
    field.fill("a horse")
    with page.expect_request(lambda request: request.url.endswith("/v1/images/generations")) as sent:
        page.get_by_role("button", name="Generate image").click()
    assert "seed" not in json.loads(sent.value.post_data or "{}")
    field.fill("words that must come back")
    done.get_by_role("button", name="Edit & remake").click()
    page.get_by_role("button", name="Bring it back").click()
    expect(field).to_have_value("words that must come back")
    expect(page.get_by_role("button", name="Bring it back")).to_have_count(0)


def test_earlier_prompts_are_found_and_used(page: Page, client: ApiClient) -> None:
    for words in ("a heron in the reeds", "a heron in the reeds", "an owl at noon"):
        client.wait_for_end(client.start_job(words, model="jimeng-3.1", ratio="16:9")["id"])
    page.goto("/console")
    page.get_by_role("button", name="History").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Search prompts").fill("heron")
    entry = dialog.get_by_role("listitem")
    expect(entry).to_have_count(1)
    # Enter in the search field submits nothing.
    dialog.get_by_label("Search prompts").press("Enter")
    expect(dialog).to_be_visible()
    check_accessibility(page)
    entry.get_by_role("button", name="With its settings").click()
    expect(dialog).to_have_count(0)
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a heron in the reeds")
    expect_model(page, "jimeng-3.1")
    expect(page.get_by_role("radio", name="16:9", exact=True)).to_be_checked()


def test_templates_hold_pictures_and_settings(page: Page, picture: Path) -> None:
    page.goto("/console")
    page.locator("input[type=file]").set_input_files(picture)
    select_option(page, "21:9")
    page.get_by_label("Prompt", exact=True).fill("the house style")
    page.get_by_role("button", name="Templates").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name of a new template").fill("House")
    dialog.get_by_label("Name of a new template").press("Enter")
    expect(dialog.get_by_role("listitem")).to_have_count(1)
    check_accessibility(page)
    dialog.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Remove Reference 1").click()
    page.get_by_label("Prompt", exact=True).fill("")
    select_option(page, "1:1")
    page.reload()
    page.get_by_role("button", name="Templates").click()
    dialog.get_by_role("button", name="House").first.click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("the house style")
    expect(page.get_by_role("img", name="Reference 1")).to_be_visible()
    expect(page.get_by_role("radio", name="21:9", exact=True)).to_be_checked()
    page.get_by_role("button", name="Templates").click()
    dialog.get_by_role("button", name="Delete template House").click()
    page.get_by_role("dialog", name="Delete template").get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("No templates yet")).to_be_visible()
