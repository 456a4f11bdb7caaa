"""Comparing two pictures: slider and side by side, one zoom for both, and its place in the address."""

import re
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.browser.gallery.test_viewer import open_first, pictures, viewer_of
from tests.browser.test_console import check_accessibility, select_option
from tests.support.api_client import ApiClient

TRANSFORMS = "area => [...area.querySelectorAll('img')].map((picture) => picture.style.transform)"


def key(job: dict[str, Any], n: int) -> str:
    return f"{job['id']}.{job['output'][n]['id']}"


def compared(page: Page) -> Locator:
    return page.get_by_role("dialog", name="Compare")


def expect_zoom(page: Page, scale: str) -> None:
    """Both pictures show the same part at a scale that matches."""
    expect(page.locator(".compare-area img").first).to_have_attribute("style", re.compile(rf"scale\({scale}"))
    first, second = page.locator(".compare-area").evaluate(TRANSFORMS)
    assert first == second


def test_viewer_opens_a_comparison_by_key_and_back_returns_to_it(page: Page, client: ApiClient) -> None:
    prompt = "compared by keys"
    job = pictures(client, prompt)
    page.goto(f"/console/gallery?q={prompt}")
    viewer = open_first(page, prompt)
    page.keyboard.press("c")
    dialog = compared(page)
    divider = dialog.get_by_role("slider")
    expect(divider).to_be_focused()
    expect(viewer).to_have_count(0)
    assert f"compare={key(job, 0)}%2C{key(job, 1)}" in page.url
    expect(divider).to_have_attribute("aria-valuenow", "50")
    page.keyboard.press("ArrowRight", delay=120)
    expect(divider).not_to_have_attribute("aria-valuenow", "50")
    check_accessibility(page)
    page.keyboard.press("+")
    page.keyboard.press("+")
    expect_zoom(page, r"1\.[5-9]|[2-9]")
    page.keyboard.press("0")
    expect_zoom(page, r"1\)")
    # Another picture of the list in the place of the second, then both change sides.
    dialog.get_by_role("button", name=re.compile("^Compare with picture 2")).click()
    expect(page).to_have_url(re.compile(re.escape(f"compare={key(job, 0)}%2C{key(job, 2)}")))
    dialog.get_by_role("button", name="Swap pictures").click()
    expect(page).to_have_url(re.compile(re.escape(f"compare={key(job, 2)}%2C{key(job, 0)}")))
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(viewer_of(page).locator(".viewer-counter")).to_have_text("1 / 3")


def test_linked_comparison_side_by_side_zooms_both_at_the_pointer(page: Page, client: ApiClient) -> None:
    job = pictures(client, "compared side by side", n=2)
    page.goto(f"/console/jobs?compare={key(job, 0)},{key(job, 1)}&as=sides")
    sides = compared(page).locator("figure img")
    expect(sides).to_have_count(2)
    for side in sides.all():
        expect(side).to_have_js_property("complete", True)
    box = sides.nth(1).bounding_box()
    assert box is not None
    # A point of the second picture: the first shows the same part, not what lies under the pointer by chance.
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.wheel(0, -400)
    expect_zoom(page, r"1\.[2-9]|[2-9]")
    boxes = [one.bounding_box() for one in sides.all()]
    assert all(boxes)
    # Its upper left part was zoomed, so the left edge hardly left the frame.
    assert boxes[1] is not None
    assert box["x"] - boxes[1]["x"] < (boxes[1]["width"] - box["width"]) / 2
    select_option(page, "Slider")
    expect(compared(page).get_by_role("slider")).to_be_visible()
    assert "as=sides" not in page.url
    page.reload()
    expect(compared(page).get_by_role("slider")).to_be_focused()
    compared(page).get_by_role("button", name="Close").click()
    expect(compared(page)).to_have_count(0)
    expect(page).to_have_url(re.compile(r"/console/jobs$"))


def test_divider_follows_the_pointer_and_in_a_zoomed_picture_only_the_handle_does(
    page: Page, client: ApiClient
) -> None:
    job = pictures(client, "compared by pointer", n=2)
    page.set_viewport_size({"width": 1024, "height": 768})
    page.goto(f"/console?compare={key(job, 0)},{key(job, 1)}")
    divider = compared(page).get_by_role("slider")
    box = divider.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.3, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, middle, steps=4)
    page.mouse.up()
    expect(divider).to_have_attribute("aria-valuenow", "20")
    page.mouse.dblclick(box["x"] + box["width"] * 0.6, middle)
    expect_zoom(page, r"2\.5")
    before = page.locator(".compare-area").evaluate(TRANSFORMS)
    value = divider.get_attribute("aria-valuenow")
    page.mouse.move(box["x"] + box["width"] * 0.3, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.4, middle, steps=4)
    page.mouse.up()
    assert divider.get_attribute("aria-valuenow") == value
    after = page.locator(".compare-area").evaluate(TRANSFORMS)
    assert after[0] == after[1] != before[0], "the drag moved both pictures"
