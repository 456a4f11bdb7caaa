"""The system page: its last state is there at once at the next visit, and stays with the user who saw it."""

from playwright.sync_api import Page, Route, expect

from tests.support.platform import CheckedPlatform


def test_workers_of_the_last_visit_are_shown_until_new_ones_arrive(
    page: Page, console_platform: CheckedPlatform
) -> None:
    page.goto("/console/system")
    workers = page.locator(".workers li")
    expect(workers.first).to_be_visible()
    waiting: list[Route] = []
    page.route("**/admin/v1/workers", lambda route: waiting.append(route))  # noqa: PLW0108 - it must be a function
    menu = page.get_by_role("navigation", name="Main menu")
    menu.get_by_role("link", name="Gallery").click()
    expect(page.get_by_role("heading", name="Gallery", level=1)).to_be_visible()
    menu.get_by_role("link", name="System").click()
    expect(workers.first).to_be_visible()
    section = page.locator("section").filter(has=page.get_by_role("heading", name="Workers"))
    expect(section.get_by_text("Loading…")).to_have_count(0)
    page.unroute("**/admin/v1/workers")
    # Another user of this tab sees nothing of it.
    page.get_by_role("button", name="Sign out").click()
    page.route("**/admin/v1/workers", lambda route: waiting.append(route))  # noqa: PLW0108
    page.get_by_label("API key").fill(console_platform.admin_key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Health and versions")).to_be_visible()
    expect(section.get_by_text("Loading…")).to_be_visible()
    expect(workers).to_have_count(0)
    page.unroute_all(behavior="ignoreErrors")
