"""The full-screen viewer: keys, fingers, its place in the address, and what can be done with the picture it shows."""

import re
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.browser.conftest import TIMEOUT_MS, collect_errors
from tests.browser.test_console import check_accessibility
from tests.browser.test_console_modules import call
from tests.support.api_client import ApiClient
from tests.support.platform import CheckedPlatform


def pictures(client: ApiClient, prompt: str, n: int = 3) -> dict[str, Any]:
    return client.wait_for_end(client.start_job(prompt, n=n)["id"])


def viewer_of(page: Page, name: str = "Viewer") -> Locator:
    return page.get_by_role("dialog", name=name)


def open_first(page: Page, prompt: str) -> Locator:
    page.get_by_role("button", name=re.compile(f"^Open image 1: {re.escape(prompt)}")).click()
    viewer = viewer_of(page)
    # Keys count once the opening is over.
    expect(viewer).to_be_focused()
    return viewer


def expect_position(viewer: Locator, n: int, total: int) -> None:
    expect(viewer.locator(".viewer-counter")).to_have_text(f"{n} / {total}")


def starred(client: ApiClient, job: dict[str, Any]) -> list[bool]:
    return [file["favourite"] for file in client.http.get(f"/v1/jobs/{job['id']}").json()["output"]]


def test_keys_move_star_download_zoom_and_delete_one_picture(page: Page, client: ApiClient) -> None:
    prompt = "viewer by keys"
    job = pictures(client, prompt)
    page.goto(f"/console/gallery?q={prompt}")
    viewer = open_first(page, prompt)
    expect_position(viewer, 1, 3)
    expect(viewer.locator(".viewer-strip img[src*=thumbnail]")).to_have_count(3)
    expect(page.locator("img[loading=lazy]")).to_have_count(0)
    check_accessibility(page)
    page.keyboard.press("End")
    expect_position(viewer, 3, 3)
    page.keyboard.press("Home")
    expect_position(viewer, 1, 3)
    page.keyboard.press("ArrowRight")
    expect_position(viewer, 2, 3)
    page.keyboard.press(" ")
    expect_position(viewer, 2, 3)
    page.keyboard.press("s")
    expect(viewer.get_by_role("button", name="Favourite", pressed=True)).to_be_visible()
    assert starred(client, job) == [False, True, False], "only the picture that is shown"
    with page.expect_download() as download:
        page.keyboard.press("d")
    assert download.value.suggested_filename.endswith("-2.png")
    page.keyboard.press("z")
    expect(viewer).to_have_class(re.compile("pswp--zoomed-in"))
    page.keyboard.press("z")
    page.keyboard.press("x")
    expect(viewer.get_by_role("button", name="Select", pressed=True)).to_be_visible()
    page.keyboard.press("x")
    expect(viewer.get_by_role("button", name="Select", pressed=False)).to_be_visible()
    page.keyboard.press("i")
    panel = viewer.get_by_role("region", name="Parameters")
    expect(panel.get_by_text(job["model"])).to_be_visible()
    check_accessibility(page)
    page.keyboard.press("i")
    expect(panel).to_have_count(0)
    page.keyboard.press("Delete")
    question = page.locator("dialog[open]").filter(has_text="Delete")
    expect(question).to_be_visible()
    page.keyboard.press("Escape")
    expect(question).to_have_count(0)
    expect_position(viewer, 2, 3)
    page.keyboard.press("Delete")
    question.get_by_role("button", name="Delete", exact=True).click()
    # The next picture takes its place.
    expect_position(viewer, 2, 2)
    left = client.http.get(f"/v1/jobs/{job['id']}").json()["output"]
    assert [file["id"] for file in left] == [job["output"][0]["id"], job["output"][2]["id"]]
    assert page.url.endswith(left[1]["id"])


def test_back_closes_reload_opens_again_and_the_focus_returns(page: Page, client: ApiClient) -> None:
    prompt = "viewer in the address"
    job = pictures(client, prompt)
    page.goto(f"/console/gallery?q={prompt}")
    viewer = open_first(page, prompt)
    page.keyboard.press("ArrowRight")
    expect_position(viewer, 2, 3)
    assert f"view={job['id']}.{job['output'][1]['id']}" in page.url
    page.reload()
    expect_position(viewer, 2, 3)
    expect(viewer).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect_position(viewer, 1, 3)
    page.go_back()
    expect(viewer).to_have_count(0)
    assert "view=" not in page.url
    # One step per viewer, however many pictures were seen; and each way to close is that step.
    page.go_forward()
    expect_position(viewer, 1, 3)
    expect(viewer).to_be_focused()
    page.keyboard.press("End")
    expect_position(viewer, 3, 3)
    page.keyboard.press("Escape")
    expect(viewer).to_have_count(0)
    expect(page.get_by_role("button", name=re.compile("^Open image 3: viewer in the address"))).to_be_focused()
    assert "view=" not in page.url


def test_link_to_a_picture_opens_it_on_any_page_and_a_deleted_one_is_named(
    context: BrowserContext, client: ApiClient
) -> None:
    job = pictures(client, "viewer by link", n=2)
    page = context.new_page()
    page.goto(f"/console/jobs?view={job['id']}.{job['output'][1]['id']}")
    viewer = viewer_of(page)
    expect_position(viewer, 2, 2)
    expect(viewer).to_be_focused()
    page.keyboard.press("s")
    expect(viewer.get_by_role("button", name="Favourite", pressed=True)).to_be_visible()
    # Nothing to go back to within the console: the address loses the picture, and the page stays.
    viewer.get_by_role("button", name="Close").click()
    expect(viewer).to_have_count(0)
    expect(page).to_have_url(re.compile(r"/console/jobs$"))
    page.goto(f"/console/jobs?view={job['id']}.file_00000000000000000000000000000000")
    expect(page.get_by_text("This result no longer exists.")).to_be_visible()
    expect(page).to_have_url(re.compile(r"/console/jobs$"))
    page.close()


def touch(page: Page, *paths: list[tuple[int, int]]) -> None:
    """Fingers that go down together, move along their paths, and leave."""
    session = page.context.new_cdp_session(page)
    for step, places in enumerate(zip(*paths, strict=True)):
        points = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(places)]
        kind = "touchMove" if step else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        page.wait_for_timeout(20)
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_fingers_swipe_and_pinch_on_a_phone(
    browser: Browser, console_platform: CheckedPlatform, signed_in: Any, client: ApiClient
) -> None:
    prompt = "viewer on a phone"
    job = pictures(client, prompt)
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "locale": "zh-CN"}
    with browser.new_context(base_url=console_platform.url, storage_state=signed_in, **phone) as context:
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        errors = collect_errors(page)
        page.goto(f"/console/jobs/{job['id']}")
        page.get_by_role("button", name="打开第 1 张图片").tap()
        viewer = viewer_of(page, "作品查看器")
        expect(viewer).to_be_focused()
        expect_position(viewer, 1, 3)
        touch(page, [(330 - 30 * step, 400) for step in range(10)])
        expect_position(viewer, 2, 3)
        touch(page, [(60 + 30 * step, 400) for step in range(10)])
        expect_position(viewer, 1, 3)
        touch(page, [(180 - 10 * step, 400) for step in range(10)], [(210 + 10 * step, 400) for step in range(10)])
        expect(viewer).to_have_class(re.compile("pswp--zoomed-in"))
        check_accessibility(page)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        page.go_back()
        expect(viewer).to_have_count(0)
        expect(page.get_by_role("heading", name=prompt, level=1)).to_be_visible()
        assert errors == []


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_video_is_a_slide_that_plays_unless_less_motion_is_wanted(page: Page, client: ApiClient, motion: str) -> None:
    prompt = f"viewer of a video {motion}"
    body = {"prompt": prompt, "model": "jimeng-video-3.0"}
    job = client.http.post("/v1/videos/generations", json=body, headers={"Prefer": "respond-async"}).json()
    client.wait_for_end(job["id"])
    page.emulate_media(reduced_motion=motion)  # type: ignore[arg-type]
    page.goto("/console")
    card = page.get_by_role("article", name=prompt)
    card.get_by_role("button", name="Open full screen").click()
    viewer = viewer_of(page)
    expect(viewer).to_be_focused()
    video = viewer.locator("video")
    expect(video).to_have_js_property("readyState", 4)
    expect(video).to_have_js_property("paused", motion == "reduce")
    page.keyboard.press(" ")
    expect(video).to_have_js_property("paused", motion != "reduce")
    viewer.get_by_role("button", name="Close").focus()
    page.keyboard.press(" ")
    expect(viewer).to_have_count(0)


def test_items_have_one_name_whether_they_come_from_a_job_or_a_list_of_results(page: Page) -> None:
    module = "lib/ui/viewer/items.js"
    file = {"id": "file_1", "url": "http://host/v1/files/file_1/content", "mime": "image/png"}
    of_job = {"job": {"id": "job_1", "kind": "image", "input": {"prompt": "a fox"}}, "file": file}
    of_list = {"file": {**file, "job": "job_1", "prompt": "a fox"}}
    assert call(page, module, "itemKey", of_job) == call(page, module, "itemKey", of_list) == "job_1.file_1"
    assert call(page, module, "itemKey", {"file": {"url": "/v1/files/file_2/content?x=1"}}) == "file_2"
    assert [call(page, module, "titleOf", item) for item in (of_job, of_list)] == ["a fox", "a fox"]
    assert call(page, module, "isOwn", {"file": file}) is False
