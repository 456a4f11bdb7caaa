"""The console on a phone: the composer is at the bottom, settings are in a sheet, nothing is covered."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import TIMEOUT_MS, collect_errors
from tests.browser.test_console import card, check_accessibility
from tests.support.platform import CheckedPlatform

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "locale": "en"}


@pytest.fixture
def phone(browser: Browser, console_platform: CheckedPlatform, signed_in: Path) -> Iterator[Page]:
    options = {**PHONE, "storage_state": signed_in, "service_workers": "block"}
    with browser.new_context(base_url=console_platform.url, **options) as context:  # type: ignore[arg-type]
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        errors = collect_errors(page)
        yield page
        assert errors == []


def bottom_of(page: Page, selector: str) -> float:
    return float(page.locator(selector).evaluate("one => one.getBoundingClientRect().bottom"))


def test_results_are_above_the_composer_and_the_newest_is_nearest(phone: Page, tmp_path: Path) -> None:
    phone.goto("/console?mode=image")
    field, make = phone.get_by_label("Prompt", exact=True), phone.get_by_role("button", name="Generate image")
    for words in ("a first phone", "a second phone"):
        field.fill(words)
        make.click()
        expect(card(phone, words).get_by_text("Completed", exact=True)).to_be_visible()
    tops = [card(phone, words).evaluate("one => one.offsetTop") for words in ("a first phone", "a second phone")]
    assert tops[0] < tops[1]
    expect(card(phone, "a second phone").get_by_role("button", name="Run again")).to_be_in_viewport()
    expect(make).to_be_in_viewport(ratio=1)
    assert bottom_of(phone, ".phone-composer") <= phone.locator(".tab-bar").evaluate("bar => bar.offsetTop") + 1
    # The prompt grows with its text.
    low = field.evaluate("one => one.offsetHeight")
    field.fill("many words " * 20)
    assert field.evaluate("one => one.offsetHeight") > low
    expect(make).to_be_in_viewport(ratio=1)
    content = io.BytesIO()
    Image.new("RGB", (96, 64), "teal").save(content, "PNG")
    (tmp_path / "teal.png").write_bytes(content.getvalue())
    phone.locator("input[type=file]").set_input_files(tmp_path / "teal.png")
    expect(phone.get_by_role("img", name="Reference 1")).to_be_in_viewport()
    check_accessibility(phone)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390


def test_settings_are_in_a_sheet_that_back_closes(phone: Page) -> None:
    phone.goto("/console?mode=image")
    settings = phone.get_by_role("button", name="Settings")
    settings.click()
    sheet = phone.get_by_role("dialog", name="Settings")
    sheet.get_by_role("radio", name="16:9", exact=True).check()
    sheet.get_by_label("Many prompts at once").check()
    check_accessibility(phone)
    phone.go_back()
    expect(sheet).to_have_count(0)
    expect(phone).to_have_url(re.compile(r"/console\?mode=image$"))
    expect(settings).to_contain_text("16:9")
    phone.get_by_label("Prompts", exact=True).fill("a cat\na dog")
    phone.get_by_role("button", name="Review").click()
    expect(phone.get_by_role("dialog")).to_contain_text("a dog")
    phone.keyboard.press("Escape")
    # A link to the settings opens them; closing them stays on the page.
    phone.goto("/console?mode=video&sheet=settings")
    sheet.get_by_label("Many prompts at once").uncheck()
    sheet.get_by_role("button", name="Done").click()
    expect(phone).to_have_url(re.compile(r"/console\?mode=video$"))
    expect(phone.get_by_role("button", name="Generate video")).to_be_in_viewport(ratio=1)


def test_the_keyboard_covers_nothing(phone: Page) -> None:
    phone.add_init_script(
        """Object.defineProperty(visualViewport, "height", { get: () => (window.keyboard ? innerHeight - 300 : innerHeight) })"""
    )
    for mode, field, button in (("image", "Prompt", "Generate image"), ("agent", "Message", "Send")):
        phone.goto(f"/console?mode={mode}")
        phone.get_by_label(field, exact=True).click()
        phone.evaluate("window.keyboard = true; visualViewport.dispatchEvent(new Event('resize'))")
        expect(phone.locator(".tab-bar")).to_be_hidden()
        action = phone.get_by_role("button", name=button, exact=True)
        phone.wait_for_function(
            "button => button.getBoundingClientRect().bottom <= innerHeight - 300", arg=action.element_handle()
        )
        phone.evaluate("window.keyboard = false; visualViewport.dispatchEvent(new Event('resize'))")
        expect(phone.locator(".tab-bar")).to_be_visible()


def test_a_tablet_has_two_columns(phone: Page) -> None:
    phone.set_viewport_size({"width": 768, "height": 1024})
    phone.goto("/console?mode=image")
    button = phone.get_by_role("button", name="Generate image")
    expect(button).to_be_in_viewport(ratio=1)
    form = phone.locator(".studio-form").evaluate("one => one.getBoundingClientRect().toJSON()")
    results = phone.get_by_role("region", name="Results", exact=True).evaluate(
        "one => one.getBoundingClientRect().toJSON()"
    )
    assert form["right"] < results["left"]
    assert form["bottom"] <= phone.locator(".tab-bar").evaluate("bar => bar.offsetTop")
