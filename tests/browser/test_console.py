"""The console in a real browser on a running platform: sign-in, playground, jobs, gallery and accessibility."""

import base64
import io
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect

from tests.browser.composer.model_choice import choose_model
from tests.browser.conftest import collect_errors
from tests.support.api_client import ApiClient
from tests.support.platform import CheckedPlatform

AXE = (Path(__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def card(page: Page, prompt: str) -> Locator:
    """The newest playground card of a job with this prompt."""
    return page.get_by_role("article", name=prompt).first


def generate(page: Page, prompt: str, kind: str = "image") -> Locator:
    """Submit the playground form and return the card of the new job."""
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name=f"Generate {kind}").click()
    return card(page, prompt)


def select_option(page: Page, name: str) -> None:
    # The radio button itself is invisible; users click its label.
    page.locator("label.choice-item").filter(has=page.get_by_role("radio", name=name, exact=True)).click()


def row(page: Page, prompt: str) -> Locator:
    return page.get_by_role("listitem").filter(has=page.get_by_role("link", name=prompt, exact=True))


def answer_late(route: Route) -> None:
    answer = route.fetch()
    time.sleep(2)
    route.fulfill(response=answer)


def test_keyboard_sign_in_and_sign_out(browser: Browser, console_platform: CheckedPlatform):
    with browser.new_context(base_url=console_platform.url, locale="en") as context:
        page = context.new_page()
        errors = collect_errors(page)
        page.goto("/console/jobs")
        page.get_by_label("API key").fill("sk-dreamery-wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("Invalid API key")
        # The 401 of the wrong key is the only allowed error.
        assert all("401" in error for error in errors), errors
        errors.clear()
        page.get_by_label("API key").fill(console_platform.admin_key)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("main")).to_be_focused()
        page.reload()
        expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
        # The list has loaded: a request during the sign-out would be a 401.
        expect(page.locator("main .spinner")).to_have_count(0)
        # The answer is late: an event stream that were still open would be opened again and refused.
        page.route("**/console/session", answer_late)
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("API key")).to_be_visible()
        page.unroute("**/console/session")
        page.reload()
        expect(page.get_by_label("API key")).to_be_visible()
        assert errors == []


def test_image_job_progress_rerun_remake_and_reference(page: Page, client: ApiClient):
    page.goto("/console")
    job_card = generate(page, "[[seconds:4]] a lighthouse")
    expect(job_card.get_by_text("In progress", exact=True)).to_be_visible()
    expect(job_card.get_by_role("progressbar")).to_have_attribute("aria-valuenow", re.compile(r"[1-9]"))
    expect(job_card.get_by_text("Completed", exact=True)).to_be_visible()
    expect(job_card.get_by_role("img")).to_have_count(4)
    job_card.get_by_role("button", name="curl").click()
    expect(job_card.get_by_label("curl")).to_contain_text("/v1/images/generations")
    job_card.get_by_role("button", name="Run again", exact=True).click()
    expect(page.get_by_role("article", name="[[seconds:4]] a lighthouse")).to_have_count(2)
    (again, first) = client.http.get("/v1/jobs", params={"q": "a lighthouse"}).json()["data"]
    assert again["input"]["seed"] != first["input"]["seed"]
    page.get_by_label("Prompt", exact=True).fill("something else")
    page.get_by_role("article", name="[[seconds:4]] a lighthouse").last.get_by_role(
        "button", name="Edit & remake"
    ).click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("[[seconds:4]] a lighthouse")
    page.get_by_text("More settings").click()
    expect(page.get_by_label("Seed", exact=True)).to_have_value(str(first["input"]["seed"]))
    page.get_by_role("article", name="[[seconds:4]] a lighthouse").last.get_by_role(
        "button", name="Use as reference"
    ).first.click()
    expect(page.get_by_role("img", name="Reference 1")).to_be_visible()
    from_reference = generate(page, "the same at night")
    expect(from_reference.get_by_text("Completed", exact=True)).to_be_visible()
    assert len(client.http.get("/v1/jobs", params={"q": "at night"}).json()["data"][0]["input"]["images"]) == 1


def test_dropped_file_becomes_reference_image(page: Page, client: ApiClient):
    image = io.BytesIO()
    Image.new("RGB", (96, 64), "teal").save(image, "PNG")
    page.goto("/console")
    transfer = page.evaluate_handle(
        """async (content) => {
            const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
            const moved = new DataTransfer();
            moved.items.add(new File([bytes], "teal.png", { type: "image/png" }));
            return moved;
        }""",
        base64.b64encode(image.getvalue()).decode(),
    )
    page.locator(".drop").dispatch_event("drop", {"dataTransfer": transfer})
    expect(page.get_by_role("img", name="Reference 1")).to_be_visible()
    job_card = generate(page, "in oil colours")
    expect(job_card.get_by_text("Completed", exact=True)).to_be_visible()
    (reference,) = client.http.get("/v1/jobs", params={"q": "in oil colours"}).json()["data"][0]["input"]["images"]
    assert (reference["width"], reference["height"]) == (96, 64)


def test_video_generation_offers_options_of_the_model(page: Page, client: ApiClient):
    page.goto("/console")
    select_option(page, "Video")
    choose_model(page, "jimeng-video-veo3")
    expect(page.get_by_label("Length").get_by_role("option")).to_have_text(["8 s"])
    choose_model(page, "jimeng-video-3.0")
    expect(page.get_by_label("Length").get_by_role("option")).to_have_text(["5 s", "10 s"])
    select_option(page, "9:16")
    job_card = generate(page, "waves roll ashore", "video")
    expect(job_card.get_by_text("Completed", exact=True)).to_be_visible()
    video = job_card.locator("video")
    # It plays, so the browser can decode the stored file.
    assert video.evaluate("video => video.play().then(() => video.videoWidth)") > 0
    (job,) = client.http.get("/v1/jobs", params={"q": "waves roll ashore"}).json()["data"]
    assert (job["kind"], job["input"]["ratio"]) == ("video", "9:16")


def test_agent_chat_creates_image(page: Page):
    page.goto("/console")
    select_option(page, "Agent")
    page.get_by_label("Message").fill("draw a cat")
    page.keyboard.press("Enter")
    log = page.get_by_role("log")
    expect(log.get_by_role("img")).to_be_visible()
    log.get_by_role("link", name="View job").click()
    expect(page.get_by_role("heading", name="draw a cat", level=1)).to_be_visible()
    expect(page.get_by_text("Jobs created by the agent")).to_be_visible()


def test_job_list_updates_filters_cancels_and_retries(page: Page, client: ApiClient):
    page.goto("/console/jobs")
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    client.start_job("[[hang]] never ends")
    hanging = row(page, "[[hang]] never ends")
    # The row appears without a reload.
    expect(hanging.get_by_text("In progress", exact=True)).to_be_visible()
    hanging.get_by_role("button", name="Cancel job").click()
    expect(hanging.get_by_text("Cancelled", exact=True)).to_be_visible()
    client.wait_for_end(client.start_job("[[fail:2002]] refused")["id"])
    refused = row(page, "[[fail:2002]] refused")
    expect(refused.get_by_text("Failed", exact=True)).to_be_visible()
    page.get_by_label("Search prompts").fill("refused")
    expect(hanging).to_have_count(0)
    refused.get_by_role("button", name="Run job again").click()
    expect(refused.get_by_text("Failed", exact=True)).to_have_count(2)
    page.get_by_label("Status").select_option("cancelled")
    expect(page.get_by_text("No matching jobs")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    hanging.get_by_role("link").click()
    expect(page.get_by_role("heading", name="Timeline")).to_be_visible()
    expect(page.get_by_text("Cancelled by you.")).to_be_visible()
    page.get_by_role("button", name="Delete job").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    expect(hanging).to_have_count(0)


def test_closed_event_stream_is_begun_anew(context: BrowserContext, client: ApiClient):
    """After a restart of the API a proxy answers 502 for a moment; `EventSource` gives up at any status but 200."""
    page = context.new_page()
    refusals = []

    def refuse_twice(route: Route) -> None:
        if len(refusals) < 2:
            refusals.append(route.request.url)
            route.fulfill(status=502, body="")
        else:
            route.continue_()

    page.route("**/v1/jobs/events*", refuse_twice)
    with page.expect_response(lambda response: "/v1/jobs/events" in response.url and response.status == 200):
        page.goto("/console/jobs")
    assert len(refusals) == 2
    client.start_job("[[hang]] after the restart")
    moving = row(page, "[[hang]] after the restart")
    expect(moving.get_by_text("In progress", exact=True)).to_be_visible()
    moving.get_by_role("button", name="Cancel job").click()
    expect(moving.get_by_text("Cancelled", exact=True)).to_be_visible()
    page.close()


def test_job_list_loads_next_page_on_scroll(page: Page, client: ApiClient):
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda _: client.start_job("[[fail:2038]] one of many"), range(60)))
    pages: list[str] = []
    page.on("request", lambda request: pages.append(request.url) if "/v1/jobs?" in request.url else None)
    page.goto("/console/jobs?q=one+of+many")
    rows = page.get_by_role("list", name="Jobs").get_by_role("listitem")
    expect(rows).to_have_count(50)
    rows.last.scroll_into_view_if_needed()
    expect(rows).to_have_count(60)
    assert len(pages) == 2, "each page is asked for once"


def test_chinese_language_is_remembered(context: BrowserContext):
    page = context.new_page()
    page.goto("/console")
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("heading", name="创作", level=1)).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="创作", level=1)).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    # The server returns error messages in the same language.
    page.goto("/console/jobs/job_0")
    expect(page.get_by_role("alert")).to_contain_text("任务")


PATHS = ("/console", "/console/jobs", "/console/gallery")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_are_accessible(
    browser: Browser, console_platform: CheckedPlatform, signed_in: Path, client: ApiClient, theme: str
):
    """axe-core finds no serious violation, and no page is wider than a phone."""
    job = client.wait_for_end(client.start_job("for accessibility", n=1)["id"])
    client.wait_for_end(client.start_job("[[fail:2038]] for accessibility")["id"])
    options = {"base_url": console_platform.url, "locale": "en", "color_scheme": theme}
    with browser.new_context(**options) as context:
        page = context.new_page()
        page.goto("/console")
        expect(page.get_by_label("API key")).to_be_visible()
        check_accessibility(page, theme=theme)
    with browser.new_context(**options, storage_state=signed_in) as context:
        page = context.new_page()
        for path in (*PATHS, f"/console/jobs/{job['id']}"):
            page.goto(path)
            expect(page.get_by_text("for accessibility").first).to_be_attached()
            check_accessibility(page, theme=theme)
            page.set_viewport_size({"width": 390, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
            check_accessibility(page, theme=theme)
            page.set_viewport_size({"width": 1440, "height": 900})
        page.goto("/console/gallery")
        page.get_by_role("button", name=re.compile("^Open image 1: for accessibility")).first.click()
        expect(page.get_by_role("dialog")).to_be_visible()
        check_accessibility(page, theme=theme)


def check_accessibility(page: Page, *, theme: str = "light") -> None:
    """Assert that axe-core finds no serious or critical violation. The dark theme is only checked for contrast."""
    # Evaluated by Playwright, so the page's content security policy is not affected.
    page.evaluate(AXE)
    rules = ", runOnly: ['color-contrast']" if theme == "dark" else ""
    violations = page.evaluate(f"axe.run(document, {{ resultTypes: ['violations']{rules} }})")["violations"]
    serious = [
        f"{one['id']}: {one['help']} at {[node['target'] for node in one['nodes']][:3]}"
        for one in violations
        if one["impact"] in {"serious", "critical"}
    ]
    assert serious == [], page.url


def test_a_page_that_arrives_late_does_not_replace_the_next_one(context: BrowserContext):
    page, waiting = context.new_page(), list[Route]()
    page.route("**/pages/playground.js", lambda route: waiting.append(route))  # noqa: PLW0108 - it must be a function
    page.goto("/console")
    page.get_by_role("link", name="Gallery").first.click()
    expect(page.get_by_role("heading", name="Gallery", level=1)).to_be_visible()
    with page.expect_response("**/pages/playground.js"):
        waiting[0].continue_()
    page.wait_for_timeout(500)
    expect(page.get_by_role("heading", name="Gallery", level=1)).to_be_visible()


def test_phone_navigation(context: BrowserContext):
    page = context.new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto("/console")
    page.get_by_role("navigation", name="Quick menu").get_by_role("link", name="Gallery").click()
    expect(page.get_by_role("heading", name="Gallery", level=1)).to_be_visible()
    brand, menu = page.locator(".topbar .brand"), page.get_by_role("button", name="Menu")
    centres = [place.evaluate("one => one.offsetTop + one.offsetHeight / 2") for place in (brand, menu)]
    assert abs(centres[0] - centres[1]) <= 1, "brand and button stand on one line"
    menu.click()
    page.get_by_role("dialog").get_by_role("link", name="Jobs").click()
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)
