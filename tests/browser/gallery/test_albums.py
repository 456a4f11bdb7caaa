"""Albums and share pages in a real browser: made, shared with a user who sees them, opened without a session, revoked."""

import base64
import random
import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import collect_errors
from tests.browser.test_console import check_accessibility
from tests.support.api_client import ApiClient
from tests.support.uploads import make_image


@pytest.fixture(scope="module")
def job(client: ApiClient) -> dict:
    return client.wait_for_end(client.start_job("a harbour in the fog", n=3)["id"])


def unique_name(prefix: str) -> str:
    return f"{prefix}-{random.SystemRandom().randrange(10**9)}"


def make_album(page: Page, job: dict, name: str) -> None:
    """Put the results of the job into a new album, and open it."""
    page.goto(f"/console/jobs/{job['id']}")
    page.get_by_role("button", name="Add to album").click()
    dialog = page.get_by_role("dialog", name="Add to an album (3)")
    dialog.get_by_label("New album").fill(name)
    dialog.get_by_role("button", name="Create and add").click()
    expect(page.get_by_text(f"3 added to {name}.")).to_be_visible()
    page.get_by_role("link", name="Albums", exact=True).click()
    page.get_by_role("link", name=re.compile(name)).click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()


def test_an_album_is_made_sorted_and_emptied(page: Page, job: dict):
    name = unique_name("Storyboard")
    make_album(page, job, name)
    tiles = page.locator(".tile")
    expect(tiles).to_have_count(3)
    expect(tiles.nth(0).locator("img")).to_have_attribute("src", re.compile("thumbnail"))
    first = tiles.nth(0).locator("img").get_attribute("src")
    check_accessibility(page)
    page.get_by_role("button", name="Select", exact=True).click()
    page.get_by_role("button", name="Select 1", exact=True).click()
    page.get_by_role("button", name="Move later").click()
    expect(tiles.nth(1).locator("img")).to_have_attribute("src", first)
    expect(tiles.nth(1)).to_have_class(re.compile("selected"))
    page.get_by_role("button", name="Use as cover").click()
    expect(tiles.nth(1).get_by_text("Cover")).to_be_visible()
    # The viewer shows the files of an album; Back closes it.
    page.get_by_role("button", name="Open picture 2").click()
    expect(page.locator(".pswp--ui-visible")).to_be_visible()
    page.go_back()
    expect(page.locator(".pswp")).to_have_count(0)
    page.get_by_role("button", name="Select", exact=True).click()
    page.get_by_role("button", name="Select 1", exact=True).click()
    page.get_by_role("button", name="Take out").click()
    expect(tiles).to_have_count(2)
    # A phone shows two in a row.
    page.set_viewport_size({"width": 390, "height": 844})
    first_box, second_box = tiles.nth(0).bounding_box(), tiles.nth(1).bounding_box()
    assert first_box is not None
    assert second_box is not None
    assert first_box["y"] == second_box["y"]
    page.set_viewport_size({"width": 1280, "height": 720})
    # A name that was typed is not lost without a question.
    page.get_by_role("button", name="Change album").click()
    page.get_by_role("dialog").get_by_label("Name").fill("typed")
    page.keyboard.press("Escape")
    page.get_by_role("dialog", name="Leave without saving?").get_by_role("button", name="Leave").click()
    page.get_by_role("button", name="Delete album").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete album").click()
    expect(page.get_by_role("link", name=re.compile(name))).to_have_count(0)
    page.goto(f"/console/jobs/{job['id']}")
    expect(page.locator(".result")).to_have_count(3)


def test_an_album_is_shared_with_a_user_who_sees_it_until_removed(
    page: Page, browser: Browser, client: ApiClient, job: dict
):
    user, name = unique_name("bob"), unique_name("Shared")
    client.http.post("/admin/v1/users", json={"name": user})
    key = client.http.post("/admin/v1/keys", json={"user": user}).json()["key"]
    make_album(page, job, name)
    page.get_by_role("button", name="Share with people").click()
    dialog = page.get_by_role("dialog", name=f"People of {name}")
    dialog.get_by_label("User name").fill(user)
    dialog.get_by_role("button", name="Share", exact=True).click()
    expect(dialog.get_by_role("list", name="Members")).to_contain_text(user)
    check_accessibility(page)
    with browser.new_context(
        base_url=client.platform.url, locale="en", viewport={"width": 390, "height": 800}
    ) as other:
        signed_in = other.request.post("/console/session", headers={"Authorization": f"Bearer {key}"})
        assert signed_in.status == 201
        bob = other.new_page()
        errors = collect_errors(bob)
        bob.goto("/console/albums?show=shared")
        bob.get_by_role("link", name=re.compile(name)).click()
        expect(bob.get_by_text("3 items by admin")).to_be_visible()
        expect(bob.locator(".tile img")).to_have_count(3)
        expect(bob.locator(".tile img").first).to_have_attribute("src", re.compile("thumbnail"))
        assert bob.locator(".tile img").first.evaluate("image => image.decode().then(() => image.naturalWidth > 0)")
        assert bob.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for action in ("Select", "Delete album", "Share link"):
            expect(bob.get_by_role("button", name=action, exact=True)).to_have_count(0)
        assert errors == []
        dialog.get_by_role("button", name=f"Remove {user}").click()
        page.get_by_role("dialog", name="Remove person").get_by_role("button", name="Remove person").click()
        expect(dialog.get_by_role("list", name="Members")).to_have_count(0)
        bob.reload()
        expect(bob.get_by_role("alert")).to_contain_text("No album")


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_a_share_page_opens_without_a_session_until_revoked(page: Page, browser: Browser, job: dict, language: str):
    title = unique_name("For the client")
    page.goto(f"/console/jobs/{job['id']}")
    page.get_by_role("button", name="Share link").click()
    dialog = page.get_by_role("dialog", name="Share by a link")
    dialog.get_by_label("Title").fill(title)
    dialog.get_by_label("The link works for").select_option("1")
    dialog.get_by_label("Show the prompts of my files").check()
    check_accessibility(page)
    dialog.get_by_role("button", name="Create link").click()
    link = page.get_by_role("dialog", name="The link is ready").get_by_label("Link", exact=True).input_value()
    page.get_by_role("button", name="Done").click()
    chinese = language == "zh-CN"
    with browser.new_context(locale=language, viewport={"width": 390, "height": 800}) as visitor:
        shared = visitor.new_page()
        errors = collect_errors(shared)
        shared.goto(link)
        expect(shared.get_by_role("heading", name=title)).to_be_visible()
        expect(shared.get_by_text("有效期至" if chinese else "Available until")).to_be_visible()
        assert shared.evaluate("document.documentElement.scrollWidth <= innerWidth")
        check_accessibility(shared)
        shared.get_by_role("link", name="查看第 1 张图片" if chinese else "Open picture 1").click()
        picture = shared.locator(".viewer:target img")
        expect(picture).to_be_visible()
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth > 0)")
        before = picture.bounding_box()
        shared.locator(".viewer:target .stage").click()
        after = picture.bounding_box()
        assert before is not None
        assert after is not None
        assert after["width"] > before["width"], "a click zooms"
        expect(shared.locator(".viewer:target")).to_contain_text("a harbour in the fog")
        check_accessibility(shared)
        shared.locator(".viewer:target").get_by_role("link", name="下一个" if chinese else "Next").click()
        expect(shared.locator("#v2")).to_be_visible()
        shared.go_back()
        expect(shared.locator("#v1")).to_be_visible()
        assert visitor.cookies() == []
        assert errors == []
        page.goto("/console/albums?show=links")
        page.get_by_role("button", name=f"Revoke: {title}").click()
        page.get_by_role("dialog").get_by_role("button", name="Revoke link").click()
        expect(page.get_by_text(title)).to_have_count(0)
        shared.goto(link)
        expect(
            shared.get_by_role("heading", name="此页面已不再分享" if chinese else "no longer shared")
        ).to_be_visible()
        picture_url = f"{link}/{'0' * 32}"
        assert visitor.request.get(picture_url).status == 410


def test_a_job_shows_where_its_inputs_come_from_and_what_was_made_from_it(page: Page, client: ApiClient, job: dict):
    upload = f"data:image/png;base64,{base64.b64encode(make_image('green', side=64)).decode()}"
    again = client.wait_for_end(
        client.start_job("the harbour at night", n=1, images=[job["output"][1]["url"], upload])["id"]
    )
    page.goto(f"/console/jobs/{again['id']}")
    references = page.locator(".job-inputs figure")
    expect(references).to_have_count(2)
    expect(references.nth(1)).to_contain_text("Uploaded")
    for n in range(2):
        image = references.nth(n).locator("img")
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth > 0)")
    references.nth(0).get_by_role("link", name=re.compile("From picture 2 of job")).click()
    expect(page.get_by_role("heading", name="a harbour in the fog")).to_be_visible()
    made = page.locator("section").filter(has=page.get_by_role("heading", name="Made from this"))
    expect(made).to_contain_text("from result 2")
    made.get_by_role("link", name="the harbour at night").click()
    expect(page.get_by_role("heading", name="the harbour at night")).to_be_visible()
