"""Models as cards, many prompts at once with the total first, and how the tab tells that jobs have ended."""

import io
import json
import random

from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.browser.composer.model_choice import choose_model, expect_model
from tests.browser.conftest import TIMEOUT_MS, collect_errors
from tests.browser.test_console import card, check_accessibility, generate
from tests.support.api_client import ApiClient
from tests.support.platform import CheckedPlatform, eventually


def new_member(client: ApiClient, **limits: int) -> str:
    """Add a user with limits; return a key."""
    name = f"maker-{random.SystemRandom().randrange(10**9)}"
    user = client.http.post("/admin/v1/users", json={"name": name})
    assert user.status_code == 201, user.text
    changed = client.http.patch(f"/admin/v1/users/{user.json()['id']}", json={"limits": limits})
    assert changed.status_code == 200, changed.text
    return str(client.http.post("/admin/v1/keys", json={"user": name}).json()["key"])


def test_model_cards_are_searched_filtered_and_chosen_with_the_keyboard(page: Page) -> None:
    page.goto("/console")
    page.locator("#model-button").click()
    dialog = page.get_by_role("dialog", name="Choose a model")
    # Opened at the present model.
    expect(dialog.locator('[aria-pressed="true"]')).to_be_focused()
    chosen = dialog.locator('[data-model="jimeng-4.0"]')
    expect(chosen).to_contain_text("credits for 4 images")
    expect(chosen).to_contain_text("takes 10 image(s)")
    expect(chosen).to_contain_text("Works with your accounts")
    check_accessibility(page)
    page.keyboard.press("ArrowRight")
    expect(dialog.locator('[aria-pressed="true"]')).not_to_be_focused()
    # What takes no pictures is hidden by the filter, and said so.
    dialog.get_by_text("Takes pictures").click()
    expect(dialog.locator('[data-model="jimeng-3.1"]')).to_have_count(0)
    expect(dialog.get_by_text("do not match the search or the filters")).to_be_visible()
    dialog.get_by_text("Takes pictures").click()
    dialog.get_by_role("radio", name="Video").check()
    dialog.get_by_label("Search models").fill("video-3.0-pro jimeng")
    expect(dialog.locator(".model-card")).to_have_count(1)
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("button", name="Generate video")).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_role("button", name="Settings").click()
    page.locator("#model-button").click()
    expect(dialog.locator(".model-card").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_card_shows_the_newest_own_result(page: Page, client: ApiClient) -> None:
    client.wait_for_end(client.start_job("a picture of the card", model="jimeng-4.6")["id"])
    page.goto("/console")
    page.locator("#model-button").click()
    picture = page.locator('[data-model="jimeng-4.6"] img')
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_many_prompts_show_list_and_total_first_and_are_made_together(page: Page, client: ApiClient) -> None:
    page.goto("/console")
    choose_model(page, "jimeng-4.0")
    page.get_by_role("checkbox", name="Many prompts at once").check()
    page.get_by_label("Count").or_(page.get_by_label("Images per prompt")).select_option("1")
    page.get_by_label("Prompts", exact=True).fill("many {red|blue} boats\n\nmany lighthouses")
    page.get_by_role("button", name="Add a model").click()
    page.get_by_role("dialog", name="Further models").locator('[data-model="jimeng-4.5"]').click()
    page.get_by_role("button", name="Done").click()
    page.get_by_text("16:9", exact=True).click()
    expect(page.get_by_role("group", name="Ratios (2 selected)")).to_be_visible()
    page.get_by_role("button", name="Review 12 request(s)").click()
    dialog = page.get_by_role("dialog", name="What will be made")
    expect(dialog.locator("tbody tr")).to_have_count(12)
    expect(dialog.locator("tbody tr").nth(4)).to_contain_text("many blue boats")
    total = client.http.post(
        "/v1/estimate",
        json={"matrix": {"prompts": ["a"] * 3, "models": ["jimeng-4.0", "jimeng-4.5"], "ratios": ["1:1", "16:9"], "n": 1,
                         "resolutions": ["2k"]}},
    ).json()["totals"][0]["credits"]  # fmt: skip
    expect(dialog.get_by_role("status").filter(has_text="credits")).to_contain_text(f"{total} credits")
    check_accessibility(page)
    dialog.get_by_role("button", name="Generate all 12").click()
    expect(dialog).to_have_count(0)
    jobs = client.http.get("/v1/jobs", params={"q": "many ", "limit": 50}).json()["data"]
    assert sorted({(job["input"]["prompt"], job["model"], job["input"]["ratio"]) for job in jobs}) == sorted(
        (prompt, model, ratio)
        for prompt in ("many red boats", "many blue boats", "many lighthouses")
        for model in ("jimeng-4.0", "jimeng-4.5")
        for ratio in ("1:1", "16:9")
    )
    expect(card(page, "many lighthouses").first).to_be_visible()


def test_many_prompts_beyond_a_limit_are_refused_as_a_whole(
    browser: Browser, console_platform: CheckedPlatform, client: ApiClient
) -> None:
    key = new_member(client, jobs_per_day=2)
    with browser.new_context(base_url=console_platform.url, locale="en") as context:
        context.set_default_timeout(TIMEOUT_MS)
        context.request.post("/console/session", headers={"Authorization": f"Bearer {key}"})
        page = context.new_page()
        errors = collect_errors(page)
        page.goto("/console")
        page.get_by_role("checkbox", name="Many prompts at once").check()
        page.get_by_label("Images per prompt").select_option("1")
        page.get_by_label("Prompts", exact=True).fill("one\ntwo\nthree")
        page.get_by_role("button", name="Review 3 request(s)").click()
        dialog = page.get_by_role("dialog", name="What will be made")
        expect(dialog.get_by_role("alert")).to_contain_text("jobs per day")
        expect(dialog.get_by_role("button", name="Generate all 3")).to_be_disabled()
        dialog.get_by_role("button", name="Cancel").click()
        # A line that cannot be made is marked with its reason.
        page.get_by_label("Prompts", exact=True).fill("one\ntwo -ra 7:5")
        expect(page.get_by_text("1 request(s) cannot be made.")).to_be_visible()
        page.get_by_role("button", name="Review 2 request(s)").click()
        expect(dialog.locator(".bad-row")).to_have_count(1)
        dialog.get_by_role("button", name="Cancel").click()
        page.get_by_label("Prompts", exact=True).fill("a {red|blue boat")
        expect(page.get_by_role("alert")).to_contain_text("character 3 is not closed")
        assert [error for error in errors if "400" not in error] == []
    with ApiClient(console_platform, key) as member:
        assert member.http.get("/v1/jobs").json()["data"] == []


def test_a_seed_of_a_job_holds_for_one_request(page: Page) -> None:
    page.goto("/console")
    expect(generate(page, "a seed to vary").get_by_role("button", name="Run again")).to_be_visible()
    card(page, "a seed to vary").get_by_role("button", name="Edit & remake").click()
    expect(page.get_by_role("button", name="Use a random one")).to_be_visible()
    page.get_by_label("Prompt", exact=True).fill("a seed that was varied")
    page.get_by_role("button", name="Generate image").click()
    expect(card(page, "a seed that was varied")).to_be_visible()
    expect(page.get_by_role("button", name="Use a random one")).to_have_count(0)


def test_a_large_picture_is_sent_as_a_file_with_its_progress(page: Page, client: ApiClient) -> None:
    content = io.BytesIO()
    Image.effect_noise((1500, 1500), 80).convert("RGB").save(content, "PNG")
    page.goto("/console")
    page.locator("input[type=file]").set_input_files(
        {"name": "large.png", "mimeType": "image/png", "buffer": content.getvalue()}
    )
    expect(page.get_by_role("img", name="Reference 1")).to_be_visible()
    # One request for many prompts carries no files, and says so first.
    page.get_by_role("checkbox", name="Many prompts at once").check()
    expect(page.get_by_text("no uploaded files")).to_be_visible()
    expect(page.get_by_role("button", name="Review the requests")).to_be_disabled()
    page.get_by_role("checkbox", name="Many prompts at once").uncheck()
    page.get_by_label("Prompt", exact=True).fill("a large picture")
    with page.expect_request(lambda request: request.url.endswith("/v1/images/generations")) as sent:
        page.get_by_role("button", name="Generate image").click()
    assert sent.value.headers["content-type"].startswith("multipart/form-data")
    expect(card(page, "a large picture")).to_be_visible()
    (job,) = client.http.get("/v1/jobs", params={"q": "a large picture"}).json()["data"]
    assert (job["input"]["images"][0]["width"], job["input"]["n"]) == (1500, 4)


HIDE = """() => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""
SHOW = """() => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => false });
    document.dispatchEvent(new Event("visibilitychange"));
}"""
# The browser of the tests shows no notifications, so they are recorded where the page hands them over.
RECORD = """() => {
    globalThis.shownNotifications = [];
    globalThis.Notification = class {
        static permission = "granted";
        static requestPermission = async () => "granted";
        constructor(title, options) { globalThis.shownNotifications.push({ title, ...options }); }
        close() {}
    };
}"""


def test_a_job_that_ends_unseen_is_announced_once_and_marks_the_tab(page: Page, client: ApiClient) -> None:
    other = page.context.new_page()
    for one in (page, other):
        one.add_init_script(f"({RECORD})()")
        one.goto("/console")
    page.get_by_role("button", name="Tell me when jobs end").click()
    dialog = page.get_by_role("dialog", name="Tell me when jobs end")
    check_accessibility(page)
    dialog.get_by_role("checkbox", name="Show a notification").check()
    page.keyboard.press("Escape")
    other.reload()
    hanging = client.start_job("[[hang]] an unseen job")["id"]
    icon = "document.querySelector('link[rel=icon]').type"
    for one in (page, other):
        expect(one).to_have_title("(1) Playground · Dreamery")
        eventually(lambda one=one: one.evaluate(icon) == "image/png")
        one.evaluate(HIDE)
    client.cancel(hanging)
    job = client.start_job("announced when it ends")["id"]
    client.wait_for_end(job)
    for one in (page, other):
        expect(one).to_have_title("✓ Playground · Dreamery")
    shown = "globalThis.shownNotifications"
    eventually(lambda: page.evaluate(shown) or other.evaluate(shown))
    notices = [*page.evaluate(shown), *other.evaluate(shown)]
    assert [(one["title"], one["body"], one["tag"]) for one in notices] == [
        ("Your result is ready", "announced when it ends", job)
    ], json.dumps(notices)
    # Somebody who looks needs no notification.
    page.evaluate(SHOW)
    expect(page).to_have_title("Playground · Dreamery")
    client.wait_for_end(client.start_job("seen when it ends")["id"])
    expect(card(page, "seen when it ends")).to_be_visible()
    assert [*page.evaluate(shown), *other.evaluate(shown)] == notices
    other.close()


def test_changes_of_a_user_are_not_lost_without_a_question(page: Page, client: ApiClient) -> None:
    name = f"kept-{random.SystemRandom().randrange(10**9)}"
    user = client.http.post("/admin/v1/users", json={"name": name}).json()["id"]
    page.goto("/console/users")
    page.get_by_role("link", name=name).click()
    page.get_by_label("Groups").fill("painters")
    page.get_by_role("link", name="Jobs", exact=True).first.click()
    question = page.get_by_role("dialog", name="Leave without saving?")
    question.get_by_role("button", name="Cancel").click()
    expect(page.get_by_label("Groups")).to_have_value("painters")
    page.go_back()
    question.get_by_role("button", name="Cancel").click()
    expect(page.get_by_label("Groups")).to_have_value("painters")
    page.get_by_role("button", name="Save", exact=True).click()
    eventually(lambda: client.http.get(f"/admin/v1/users/{user}").json()["groups"] == ["painters"])
    page.go_back()
    expect(page.get_by_role("heading", name="Users", level=1)).to_be_visible()


def test_a_viewer_gets_one_card_that_says_what_to_do(
    browser: Browser, console_platform: CheckedPlatform, client: ApiClient
) -> None:
    name = f"viewer-{random.SystemRandom().randrange(10**9)}"
    assert client.http.post("/admin/v1/users", json={"name": name, "role": "viewer"}).status_code == 201
    key = client.http.post("/admin/v1/keys", json={"user": name}).json()["key"]
    with browser.new_context(base_url=console_platform.url, locale="en") as context:
        context.request.post("/console/session", headers={"Authorization": f"Bearer {key}"})
        page = context.new_page()
        page.goto("/console")
        expect(page.get_by_role("heading", name="You can look, not create")).to_be_visible()
        expect(page.locator("main .card")).to_have_count(1)


def test_the_form_stays_above_the_fold_beside_the_first_run(page: Page) -> None:
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto("/console")
    button = page.get_by_role("button", name="Generate image")
    expect(button).to_be_in_viewport()
    expect_model(page, str(page.locator("#model-button").get_attribute("data-model")))
