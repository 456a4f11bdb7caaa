"""The console as a person uses it: a real browser on a running platform, from signing in to a zip of the results."""

import base64
import io
import json
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.browser.conftest import watch
from tests.support.api_client import ApiClient
from tests.support.platform import CheckedPlatform

AXE = (Path(__file__).parent / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def client(platform: CheckedPlatform):
    with ApiClient(platform, platform.admin_key) as client:
        yield client


def card(page: Page, prompt: str) -> Locator:
    """The newest card of a job in the playground."""
    return page.get_by_role("article", name=prompt).first


def ask_for(page: Page, prompt: str, what: str = "picture") -> Locator:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name=f"Make {what}").click()
    return card(page, prompt)


def choose(page: Page, name: str) -> None:
    # The radio button itself is invisible, its label is what one clicks.
    page.locator("label.choice-item").filter(has=page.get_by_role("radio", name=name, exact=True)).click()


def row(page: Page, prompt: str) -> Locator:
    return page.get_by_role("listitem").filter(has=page.get_by_role("link", name=prompt, exact=True))


def test_signing_in_and_out_with_the_keyboard(browser: Browser, platform: CheckedPlatform):
    with browser.new_context(base_url=platform.url, locale="en") as context:
        page = context.new_page()
        complaints = watch(page)
        page.goto("/console/jobs")
        page.get_by_label("API key").fill("sk-dreamery-wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("Invalid API key")
        # That a wrong key is a 401 is all there may be to say.
        assert all("401" in complaint for complaint in complaints), complaints
        complaints.clear()
        page.get_by_label("API key").fill(platform.admin_key)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("main")).to_be_focused()
        page.reload()
        expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("API key")).to_be_visible()
        page.reload()
        expect(page.get_by_label("API key")).to_be_visible()
        assert complaints == []


def test_a_picture_is_watched_and_worked_on(page: Page, client: ApiClient):
    page.goto("/console")
    made = ask_for(page, "[[seconds:4]] a lighthouse")
    expect(made.get_by_text("In progress", exact=True)).to_be_visible()
    expect(made.get_by_role("progressbar")).to_have_attribute("aria-valuenow", re.compile(r"[1-9]"))
    expect(made.get_by_text("Completed", exact=True)).to_be_visible()
    expect(made.get_by_role("img")).to_have_count(4)
    made.get_by_role("button", name="curl").click()
    expect(made.get_by_label("curl")).to_contain_text("/v1/images/generations")
    made.get_by_role("button", name="Again", exact=True).click()
    expect(page.get_by_role("article", name="[[seconds:4]] a lighthouse")).to_have_count(2)
    (again, first) = client.http.get("/v1/jobs", params={"q": "a lighthouse"}).json()["data"]
    assert again["input"]["seed"] != first["input"]["seed"]
    page.get_by_label("Prompt", exact=True).fill("something else")
    page.get_by_role("article", name="[[seconds:4]] a lighthouse").last.get_by_role("button", name="Vary").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("[[seconds:4]] a lighthouse")
    page.get_by_text("More settings").click()
    expect(page.get_by_label("Seed")).to_have_value(str(first["input"]["seed"]))
    page.get_by_role("article", name="[[seconds:4]] a lighthouse").last.get_by_role(
        "button", name="As reference"
    ).first.click()
    expect(page.get_by_role("img", name="Reference 1")).to_be_visible()
    from_picture = ask_for(page, "the same at night")
    expect(from_picture.get_by_text("Completed", exact=True)).to_be_visible()
    assert len(client.http.get("/v1/jobs", params={"q": "at night"}).json()["data"][0]["input"]["images"]) == 1


def test_a_picture_is_made_from_a_dropped_file(page: Page, client: ApiClient):
    picture = io.BytesIO()
    Image.new("RGB", (96, 64), "teal").save(picture, "PNG")
    page.goto("/console")
    transfer = page.evaluate_handle(
        """async (content) => {
            const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
            const moved = new DataTransfer();
            moved.items.add(new File([bytes], "teal.png", { type: "image/png" }));
            return moved;
        }""",
        base64.b64encode(picture.getvalue()).decode(),
    )
    page.locator(".drop").dispatch_event("drop", {"dataTransfer": transfer})
    expect(page.get_by_role("img", name="Reference 1")).to_be_visible()
    made = ask_for(page, "in oil colours")
    expect(made.get_by_text("Completed", exact=True)).to_be_visible()
    (given,) = client.http.get("/v1/jobs", params={"q": "in oil colours"}).json()["data"][0]["input"]["images"]
    assert (given["width"], given["height"]) == (96, 64)


def test_a_video_and_the_models_own_choices(page: Page, client: ApiClient):
    page.goto("/console")
    choose(page, "Video")
    page.get_by_label("Model").select_option("jimeng-video-veo3")
    expect(page.get_by_label("Length").get_by_role("option")).to_have_text(["8 s"])
    page.get_by_label("Model").select_option("jimeng-video-3.0")
    expect(page.get_by_label("Length").get_by_role("option")).to_have_text(["5 s", "10 s"])
    choose(page, "9:16")
    made = ask_for(page, "waves roll ashore", "video")
    expect(made.get_by_text("Completed", exact=True)).to_be_visible()
    video = made.locator("video")
    # It plays: the browser can read what was stored.
    assert video.evaluate("one => one.play().then(() => one.videoWidth)") > 0
    (job,) = client.http.get("/v1/jobs", params={"q": "waves roll ashore"}).json()["data"]
    assert (job["kind"], job["input"]["ratio"]) == ("video", "9:16")


def test_the_agent_talks_and_draws(page: Page):
    page.goto("/console")
    choose(page, "Agent")
    page.get_by_label("Message").fill("draw a cat")
    page.keyboard.press("Enter")
    talk = page.get_by_role("log")
    expect(talk.get_by_role("img")).to_be_visible()
    talk.get_by_role("link", name="Show the job").click()
    expect(page.get_by_role("heading", name="draw a cat", level=1)).to_be_visible()
    expect(page.get_by_text("Made by the agent")).to_be_visible()


def test_jobs_are_live_filtered_cancelled_and_retried(page: Page, client: ApiClient):
    page.goto("/console/jobs")
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    client.start_job("[[hang]] never ends")
    hanging = row(page, "[[hang]] never ends")
    # It appears by itself: nothing was reloaded.
    expect(hanging.get_by_text("In progress", exact=True)).to_be_visible()
    hanging.get_by_role("button", name="Cancel this job").click()
    expect(hanging.get_by_text("Cancelled", exact=True)).to_be_visible()
    client.wait_for_end(client.start_job("[[fail:2038]] refused")["id"])
    refused = row(page, "[[fail:2038]] refused")
    expect(refused.get_by_text("Failed", exact=True)).to_be_visible()
    page.get_by_label("Search in prompts").fill("refused")
    expect(hanging).to_have_count(0)
    refused.get_by_role("button", name="Run this job again").click()
    expect(refused.get_by_text("Failed", exact=True)).to_have_count(2)
    page.get_by_label("Status").select_option("cancelled")
    expect(page.get_by_text("No job matches")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    hanging.get_by_role("link").click()
    expect(page.get_by_role("heading", name="Timeline")).to_be_visible()
    expect(page.get_by_text("Cancelled on request.")).to_be_visible()
    page.get_by_role("button", name="Delete this job").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    expect(hanging).to_have_count(0)


def test_a_list_goes_on_as_one_scrolls(page: Page, client: ApiClient):
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda _: client.start_job("[[fail:2038]] one of many"), range(60)))
    page.goto("/console/jobs?q=one+of+many")
    rows = page.get_by_role("list", name="Jobs").get_by_role("listitem")
    expect(rows).to_have_count(50)
    rows.last.scroll_into_view_if_needed()
    expect(rows).to_have_count(60)


def test_the_gallery_finds_marks_shows_and_packs(page: Page, client: ApiClient):
    made = {name: client.wait_for_end(client.start_job(f"{name} in the gallery", n=2)["id"]) for name in ("apple", "pear")}
    page.goto("/console/gallery")
    page.get_by_label("Search in prompts").fill("in the gallery")
    tiles = page.locator(".tile")
    expect(tiles).to_have_count(4)
    tiles.first.hover()
    tiles.first.get_by_role("button", name="Favourite").click()
    expect(page.get_by_role("button", name="Favourite", pressed=True)).to_have_count(2)
    page.get_by_role("button", name="Favourites").click()
    expect(tiles).to_have_count(2)
    page.get_by_role("button", name=re.compile("^Open picture 1")).click()
    shown = page.get_by_role("dialog")
    expect(shown.get_by_text("1 / 2")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(shown.get_by_text("2 / 2")).to_be_visible()
    with page.expect_download() as one:
        shown.get_by_role("link", name="Download").click()
    assert one.value.suggested_filename.endswith("-2.jpg")
    page.keyboard.press("Escape")
    expect(shown).to_have_count(0)
    page.get_by_role("button", name="Favourites").click()
    expect(tiles).to_have_count(4)
    page.get_by_role("button", name="Choose", exact=True).click()
    page.get_by_role("button", name="Choose all shown").click()
    with page.expect_download() as packed:
        page.get_by_role("link", name="Download zip").click()
    with zipfile.ZipFile(packed.value.path()) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        assert archive.testzip() is None
    assert sorted(line["job"] for line in manifest["files"]) == sorted([job["id"] for job in made.values()] * 2)


def test_it_speaks_chinese_and_remembers(context: BrowserContext):
    page = context.new_page()
    page.goto("/console")
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("heading", name="创作", level=1)).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="创作", level=1)).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    # Errors come in the same language from the server.
    page.goto("/console/jobs/job_0")
    expect(page.get_by_role("alert")).to_contain_text("任务")


PLACES = ("/console", "/console/jobs", "/console/gallery")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_keeps_anybody_out(
    browser: Browser, platform: CheckedPlatform, signed_in: Path, client: ApiClient, theme: str
):
    """axe-core finds nothing serious, and on a phone nothing is cut off at the side."""
    job = client.wait_for_end(client.start_job("for everybody", n=1)["id"])
    client.wait_for_end(client.start_job("[[fail:2038]] for everybody")["id"])
    options = {"base_url": platform.url, "locale": "en", "color_scheme": theme}
    with browser.new_context(**options) as context:
        page = context.new_page()
        page.goto("/console")
        expect(page.get_by_label("API key")).to_be_visible()
        check(page, theme=theme)
    with browser.new_context(**options, storage_state=signed_in) as context:
        page = context.new_page()
        for place in (*PLACES, f"/console/jobs/{job['id']}"):
            page.goto(place)
            expect(page.get_by_text("for everybody").first).to_be_attached()
            check(page, theme=theme)
            page.set_viewport_size({"width": 390, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, place
            check(page, theme=theme)
            page.set_viewport_size({"width": 1440, "height": 900})
        page.goto("/console/gallery")
        page.get_by_role("button", name=re.compile("^Open picture 1: for everybody")).first.click()
        expect(page.get_by_role("dialog")).to_be_visible()
        check(page, theme=theme)


def check(page: Page, *, theme: str = "light") -> None:
    """Nothing that axe-core calls serious or critical. What does not depend on colours is looked at in one theme."""
    # Evaluated from outside, so the page's own policy stays as it is.
    page.evaluate(AXE)
    rules = ", runOnly: ['color-contrast']" if theme == "dark" else ""
    found = page.evaluate(f"axe.run(document, {{ resultTypes: ['violations']{rules} }})")["violations"]
    grave = [
        f"{one['id']}: {one['help']} at {[node['target'] for node in one['nodes']][:3]}"
        for one in found
        if one["impact"] in {"serious", "critical"}
    ]
    assert grave == [], page.url


def test_a_phone_has_a_menu(context: BrowserContext):
    page = context.new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto("/console")
    page.get_by_role("navigation", name="Quick menu").get_by_role("link", name="Gallery").click()
    expect(page.get_by_role("heading", name="Gallery", level=1)).to_be_visible()
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("dialog").get_by_role("link", name="Jobs").click()
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)
