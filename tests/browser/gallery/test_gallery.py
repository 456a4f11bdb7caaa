"""The gallery: single pictures are starred, selected and deleted, alone and in bulk, by mouse, keyboard and finger."""

import json
import re
import zipfile
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect

from tests.browser.conftest import TIMEOUT_MS, collect_errors
from tests.browser.test_console import check_accessibility, select_option
from tests.support.api_client import ApiClient
from tests.support.platform import CheckedPlatform


def pictures(client: ApiClient, prompt: str, n: int = 2, **fields: Any) -> dict[str, Any]:
    return client.wait_for_end(client.start_job(prompt, n=n, **fields)["id"])


def show(page: Page, words: str, tiles: int) -> Locator:
    """Open the gallery with the results of these words; return their tiles."""
    page.goto(f"/console/gallery?q={quote(words)}")
    found = page.locator(".tile")
    expect(found).to_have_count(tiles)
    return found


def bar(page: Page) -> Locator:
    return page.get_by_role("region", name="Selection")


def ticked(page: Page) -> Locator:
    return page.locator(".tile.selected")


def focused(tiles: Locator, n: int) -> Locator:
    opener = tiles.nth(n).locator(".tile-open")
    expect(opener).to_be_focused()
    return opener


def test_one_of_four_pictures_is_starred_and_deleted(page: Page, context: BrowserContext, client: ApiClient) -> None:
    job = pictures(client, "a heron among four", n=4)
    tiles = show(page, "a heron among four", 4)
    other_tab = context.new_page()
    others = show(other_tab, "a heron among four", 4)
    tiles.nth(1).hover()
    tiles.nth(1).get_by_role("button", name="Favourite").click()
    expect(page.get_by_role("button", name="Favourite", pressed=True)).to_have_count(1)
    page.get_by_role("button", name="Favourites").click()
    expect(tiles).to_have_count(1)
    page.go_back()
    expect(tiles).to_have_count(4)
    tiles.nth(2).locator(".tile-open").focus()
    page.keyboard.press("Delete")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="Delete 1 picture of 1 job?")).to_be_visible()
    dialog.get_by_role("button", name="Delete").click()
    expect(tiles).to_have_count(3)
    expect(page.get_by_text("Deleted 1 picture of 1 job.")).to_be_visible()
    focused(tiles, 2)
    # Also in another tab, together with the star.
    expect(others).to_have_count(3)
    expect(other_tab.get_by_role("button", name="Favourite", pressed=True)).to_have_count(1)
    output = client.job(job["id"])["output"]
    assert [(item["n"], item["favourite"]) for item in output] == [(0, False), (1, True), (3, False)]


def test_results_of_several_jobs_are_selected_and_changed_together(page: Page, client: ApiClient) -> None:
    jobs = [pictures(client, f"{name} in a bulk", n=2) for name in ("apple", "pear", "plum")]
    newest_first = [item["id"] for job in reversed(jobs) for item in job["output"]]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tiles = show(page, "in a bulk", 6)
    tiles.nth(1).hover()
    tiles.nth(1).get_by_role("button", name=re.compile("^Select")).click()
    # With a selection a click selects, and shift selects all in between.
    tiles.nth(4).locator(".tile-open").click(modifiers=["Shift"])
    expect(bar(page)).to_contain_text("4 pictures of 3 jobs selected")
    tiles.nth(2).locator(".tile-open").click()
    expect(bar(page)).to_contain_text("3 pictures of 3 jobs selected")
    bar(page).get_by_role("button", name="Favourite", exact=True).click()
    expect(page.locator(".tile").get_by_role("button", name="Favourite", pressed=True)).to_have_count(3)
    bar(page).get_by_role("button", name="Pin", exact=True).click()
    expect(page.get_by_text("Pinned 3: they are kept permanently.")).to_be_visible()
    chosen = [newest_first[n] for n in (1, 3, 4)]
    marked = {
        item["id"] for job in jobs for item in client.job(job["id"])["output"] if item["favourite"] and item["pinned"]
    }
    assert marked == set(chosen)
    with page.expect_download() as download:
        bar(page).get_by_role("button", name="Download zip").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert {entry["file"] for entry in json.loads(archive.read("manifest.json"))["files"]} == set(chosen)
    bar(page).get_by_role("button", name="Copy links").click()
    expect(page.get_by_text("Copied 3 links.")).to_be_visible()
    links = page.evaluate("navigator.clipboard.readText()").split("\n")
    assert [link.split("/")[-2] for link in links] == chosen
    bar(page).get_by_role("button", name="Delete", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("3 of them are favourites or pinned")
    check_accessibility(page)
    dialog.get_by_role("button", name="Delete").click()
    expect(tiles).to_have_count(3)
    expect(bar(page)).to_have_count(0)
    assert all(client.job(job["id"])["status"] == "completed" for job in jobs), "the jobs stay"


def test_grid_is_used_by_keyboard(page: Page, client: ApiClient) -> None:
    pictures(client, "keys of a grid", n=4)
    tiles = show(page, "keys of a grid", 4)
    tiles.first.locator(".tile-open").focus()
    page.keyboard.press("ArrowRight")
    focused(tiles, 1)
    page.keyboard.press("Space")
    expect(ticked(page)).to_have_count(1)
    page.keyboard.press("Shift+ArrowRight")
    focused(tiles, 2)
    expect(ticked(page)).to_have_count(2)
    page.keyboard.press("s")
    expect(page.locator(".tile").get_by_role("button", name="Favourite", pressed=True)).to_have_count(2)
    page.keyboard.press("End")
    focused(tiles, 3)
    page.keyboard.press("s")
    expect(page.locator(".tile").get_by_role("button", name="Favourite", pressed=True)).to_have_count(3)
    page.keyboard.press("Escape")
    expect(ticked(page)).to_have_count(0)
    page.keyboard.press("Control+a")
    expect(ticked(page)).to_have_count(4)
    page.keyboard.press("Escape")
    page.keyboard.press("Home")
    focused(tiles, 0)
    page.keyboard.press("Enter")
    viewer = page.get_by_role("dialog", name="Viewer")
    expect(viewer).to_be_focused()  # keys count once the opening is over
    # The viewer selects, stars and deletes the one picture that it shows.
    page.keyboard.press("x")
    page.keyboard.press("Delete")
    page.get_by_role("dialog", name=re.compile("^Delete")).get_by_role("button", name="Delete").click()
    expect(tiles).to_have_count(3)
    page.keyboard.press("Escape")
    expect(viewer).to_have_count(0)
    expect(tiles).to_have_count(3)


def test_filters_order_and_days_are_in_the_address(page: Page, client: ApiClient) -> None:
    pictures(client, "wide one of shapes", n=1, size="1344x768")
    pictures(client, "tall one of shapes", n=1, size="768x1344")
    tiles = show(page, "one of shapes", 2)
    expect(page.get_by_role("heading", name="Today")).to_be_visible()
    page.get_by_role("button", name="More filters").click()
    page.get_by_label("Shape", exact=True).select_option("portrait")
    expect(tiles).to_have_count(1)
    expect(tiles.locator(".tile-open")).to_have_accessible_name(re.compile("tall one of shapes"))
    assert "shape=portrait" in page.url
    page.reload()
    expect(tiles).to_have_count(1)
    page.go_back()
    expect(tiles).to_have_count(2)
    page.get_by_label("Order", exact=True).select_option("oldest")
    expect(tiles.first.locator(".tile-open")).to_have_accessible_name(re.compile("wide one of shapes"))
    page.get_by_label("To", exact=True).fill("2001-01-01")
    expect(page.get_by_text("No matching results")).to_be_visible()
    select_option(page, "Videos")
    page.get_by_role("button", name="Clear filters").first.click()
    assert "sort=oldest" in page.url
    assert "to=" not in page.url


def test_new_results_appear_and_tiles_have_a_size(page: Page, client: ApiClient) -> None:
    show(page, "comes later", 0)
    expect(page.get_by_text("No matching results")).to_be_visible()
    pictures(client, "comes later", n=2)
    tiles = page.locator(".tile")
    expect(tiles).to_have_count(2)
    expect(tiles.first.get_by_text("Sandbox")).to_be_visible()
    page.get_by_role("button", name="More filters").click()
    before = tiles.first.bounding_box()
    page.get_by_label("Tile size").fill("400")
    after = tiles.first.bounding_box()
    assert before
    assert after
    assert after["height"] > before["height"] + 50
    page.reload()
    expect(tiles).to_have_count(2)
    kept = tiles.first.bounding_box()
    assert kept
    assert round(kept["height"]) == round(after["height"])


def test_few_thumbnails_load_at_once_and_in_the_size_of_the_tiles(page: Page, client: ApiClient) -> None:
    pictures(client, "one after the other", n=8)
    held: list[Route] = []
    released: list[bool] = []
    page.route(re.compile(r"/thumbnail(\?|$)"), lambda route: route.continue_() if released else held.append(route))
    show(page, "one after the other", 8)
    loading = page.locator(".tile img[src]")
    expect(loading).to_have_count(3)
    released.append(True)
    for route in held:
        route.continue_()
    expect(loading).to_have_count(8)
    page.get_by_role("button", name="More filters").click()
    page.get_by_label("Tile size").fill("110")
    held.clear()
    released.clear()
    page.reload()
    small = page.locator('.tile img[src*="size=small"]')
    expect(small).to_have_count(3)
    page.get_by_role("button", name="More filters").click()
    # Those that are on their way are too small afterwards.
    page.get_by_label("Tile size").fill("300")
    released.append(True)
    for route in held:
        route.continue_()
    expect(page.locator('.tile img[src]:not([src*="size=small"])')).to_have_count(8)


def test_job_page_stars_and_selects_single_results(page: Page, client: ApiClient) -> None:
    job = pictures(client, "on the page of a job", n=3)
    page.goto(f"/console/jobs/{job['id']}")
    results = page.locator(".result")
    expect(results).to_have_count(3)
    results.nth(1).hover()
    results.nth(1).get_by_role("button", name="Favourite").click()
    expect(results.nth(1).get_by_role("button", name="Favourite", pressed=True)).to_be_visible()
    results.nth(1).get_by_role("button", name=re.compile("^Select 2")).click()
    expect(bar(page)).to_contain_text("1 picture of 1 job selected")
    bar(page).get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(results).to_have_count(2)
    assert [item["n"] for item in client.job(job["id"])["output"]] == [0, 2]


def test_finger_that_rests_on_a_tile_begins_a_selection(
    browser: Browser, console_platform: CheckedPlatform, signed_in: Any, client: ApiClient
) -> None:
    pictures(client, "under a finger", n=3)
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "locale": "en"}
    with browser.new_context(base_url=console_platform.url, storage_state=signed_in, **phone) as context:
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        errors = collect_errors(page)
        tiles = show(page, "under a finger", 3)
        tiles.first.scroll_into_view_if_needed()
        box = tiles.first.bounding_box()
        assert box
        session = context.new_cdp_session(page)
        point = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
        expect(ticked(page)).to_have_count(1)
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        tiles.nth(1).locator(".tile-open").tap()
        expect(bar(page)).to_contain_text("2 pictures of 1 job selected")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        edges = bar(page).bounding_box()
        assert edges
        assert edges["x"] >= 0
        assert edges["x"] + edges["width"] <= 390
        check_accessibility(page)
        bar(page).get_by_role("button", name="Clear selection").tap()
        # Who does not know that: a button begins a selection, and then taps select.
        expect(tiles.first.locator(".tile-tick")).to_be_hidden()
        page.get_by_role("button", name="Select", exact=True).tap()
        tiles.nth(2).get_by_role("button", name=re.compile("^Select")).tap()
        tiles.nth(1).locator(".tile-open").tap()
        expect(bar(page)).to_contain_text("2 pictures of 1 job selected")
        page.get_by_role("button", name="Cancel", exact=True).tap()
        expect(ticked(page)).to_have_count(0)
        tiles.nth(1).locator(".tile-open").tap()
        expect(page.get_by_role("dialog", name="Viewer")).to_be_visible()
        assert errors == []
