"""The page /docs in Chromium: readable in both languages and themes, on a phone, and linked from the console."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import collect_errors
from tests.browser.test_console import AXE
from tests.support.platform import CheckedPlatform

# Swagger UI's own markup is not ours to repair.
OUR_PART = "{ exclude: [['#swagger-ui']] }"


@pytest.fixture(params=["light", "dark"])
def docs(request: pytest.FixtureRequest, browser: Browser, console_platform: CheckedPlatform) -> Iterator[Page]:
    context = browser.new_context(
        base_url=console_platform.url, color_scheme=request.param, locale="en-US", permissions=["clipboard-write"]
    )
    page = context.new_page()
    errors = collect_errors(page)
    page.goto("/docs")
    expect(page.locator(".opblock-tag").first).to_be_visible()
    yield page
    assert errors == []
    context.close()


def violations(page: Page) -> list[str]:
    page.evaluate(AXE)
    found = page.evaluate(f"axe.run({OUR_PART}, {{ resultTypes: ['violations'] }})")["violations"]
    return [f"{one['id']}: {[node['target'] for node in one['nodes']][:3]}" for one in found]


def test_page_is_accessible_at_every_width(docs: Page) -> None:
    for width in (390, 768, 1024, 1440, 1920):
        docs.set_viewport_size({"width": width, "height": 900})
        assert docs.evaluate("document.documentElement.scrollWidth") <= width
    assert violations(docs) == []


def test_groups_are_closed_and_a_call_can_be_opened(docs: Page) -> None:
    expect(docs.locator(".opblock-tag-section .opblock")).to_have_count(0)
    docs.locator(".opblock-tag", has_text="images").first.click()
    expect(docs.locator(".opblock", has_text="/v1/images/generations").first).to_be_visible()


def test_examples_have_the_address_of_this_platform_and_are_copied(
    docs: Page, console_platform: CheckedPlatform
) -> None:
    clients = docs.locator(".clients")
    expect(clients.locator("details[open]")).to_have_count(1)
    expect(clients).to_contain_text(f'base_url="{console_platform.url}/v1"')
    clients.get_by_role("button", name="Copy").click()
    expect(clients.get_by_role("button", name="Copied")).to_be_visible()


def test_language_can_be_changed(docs: Page) -> None:
    docs.get_by_role("link", name="中文").click()
    expect(docs.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(docs.get_by_role("heading", name="接入客户端")).to_be_visible()
    docs.get_by_role("link", name="English").click()
    expect(docs.get_by_role("heading", name="Connect a client")).to_be_visible()
    expect(docs.locator(".opblock-tag").first).to_be_visible()


def test_console_links_to_the_page_and_back(page: Page) -> None:
    page.goto("/console")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="API docs").click()
    docs = opened.value
    docs.get_by_role("link", name="Open the console").click()
    expect(docs.get_by_role("navigation", name="Main menu")).to_be_visible()
