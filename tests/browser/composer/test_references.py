"""Reference images of the playground's form: what is refused, kept, labelled and sent; and what a remake does with them."""

import io
import re
from pathlib import Path
from typing import Any

import pillow_heif
from PIL import Image
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.browser.composer.model_choice import choose_model
from tests.browser.test_console import card, check_accessibility, generate, select_option
from tests.support.api_client import ApiClient
from tests.support.media_files import make_audio, make_video

pillow_heif.register_heif_opener()
OMNI = "jimeng-video-seedance-2.0"


def picture(colour: str, kind: str = "PNG", size: tuple[int, int] = (96, 64)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, kind)
    return content.getvalue()


def add(page: Page, *files: tuple[str, bytes]) -> None:
    """Select files in the dialog of the operating system."""
    # Browsers guess the type from the name.
    types = {".png": "image/png", ".txt": "text/plain", ".mp4": "video/mp4", ".mp3": "audio/mpeg"}
    chosen = [
        {"name": name, "mimeType": types.get(Path(name).suffix, ""), "buffer": content} for name, content in files
    ]
    page.locator("input[type=file]").set_input_files(chosen)  # type: ignore[arg-type]


def made(page: Page, kind: str) -> dict[str, Any]:
    """Press Generate; return the input of the job that it made."""
    with page.expect_response(lambda response: response.url.endswith(f"/v1/{kind}s/generations")) as answer:
        page.get_by_role("button", name=f"Generate {kind}").click()
    assert answer.value.status == 202, answer.value.text()
    created = answer.value.json()
    job = created["jobs"][0] if "jobs" in created else created
    found: dict[str, Any] = job["input"]
    return found


def test_what_is_no_picture_is_refused_by_its_name(page: Page) -> None:
    page.goto("/console")
    add(page, ("notes.txt", b"not a picture"))
    refusal = page.get_by_role("status").filter(has_text="Not a picture that can be used")
    expect(refusal).to_contain_text("notes.txt")
    add(page, ("disguised.png", b"not a picture either"), ("good.png", picture("teal")))
    expect(refusal).to_contain_text("disguised.png")
    expect(page.get_by_role("img", name="Reference 1")).to_be_visible()
    expect(page.get_by_role("img", name="Reference 2")).to_have_count(0)


def test_photos_of_phones_are_sent_even_if_the_browser_cannot_show_them(page: Page, client: ApiClient) -> None:
    page.goto("/console")
    add(page, ("IMG_0001.HEIC", picture("teal", "HEIF")))
    expect(page.get_by_role("img", name="Reference 1")).to_contain_text("IMG_0001.HEIC")
    page.reload()
    expect(page.get_by_role("img", name="Reference 1")).to_contain_text("IMG_0001.HEIC")
    done = generate(page, "a photo of a phone")
    expect(done.get_by_text("Completed", exact=True)).to_be_visible()
    (job,) = client.http.get("/v1/jobs", params={"q": "a photo of a phone"}).json()["data"]
    assert (job["input"]["images"][0]["width"], job["input"]["images"][0]["height"]) == (96, 64)


def test_pictures_wait_for_a_model_that_takes_them(page: Page) -> None:
    page.goto("/console")
    add(page, ("one.png", picture("teal")), ("two.png", picture("navy")))
    choose_model(page, "jimeng-3.1")
    expect(page.get_by_text("This model takes no images.")).to_be_visible()
    expect(page.get_by_text("Not used", exact=True)).to_have_count(2)
    check_accessibility(page)
    page.get_by_label("Prompt", exact=True).fill("without them")
    assert made(page, "image")["images"] == []
    choose_model(page, "jimeng-4.0")
    expect(page.get_by_text("Not used", exact=True)).to_have_count(0)
    select_option(page, "Video")
    choose_model(page, "jimeng-video-2.0-pro")
    expect(page.get_by_text("This model takes 1 image(s).")).to_be_visible()
    expect(page.get_by_role("img", name="First frame")).to_be_visible()


def test_frames_are_labelled_swapped_and_decide_the_ratio(page: Page) -> None:
    page.goto("/console?mode=video")
    choose_model(page, "jimeng-video-3.0-pro")
    select_option(page, "16:9")
    add(page, ("one.png", picture("red")), ("two.png", picture("blue", size=(128, 64))))
    expect(page.locator("figcaption").filter(has_text="First frame")).to_be_visible()
    expect(page.locator("figcaption").filter(has_text="Last frame")).to_be_visible()
    expect(page.get_by_text("As the first frame")).to_be_visible()
    expect(page.get_by_role("radio", name="16:9", exact=True)).to_be_disabled()
    first = page.get_by_role("img", name="First frame").get_attribute("src")
    page.get_by_role("button", name="Swap frames").click()
    expect(page.get_by_role("img", name="Last frame")).to_have_attribute("src", first or "")
    check_accessibility(page)
    page.get_by_label("Prompt", exact=True).fill("from blue to red")
    # The first frame decides the ratio: 2:1 is sent as none.
    assert [image["width"] for image in made(page, "video")["images"]] == [128, 96]
    for name in ("Last frame", "First frame"):
        page.get_by_role("button", name=f"Remove {name}").click()
    expect(page.get_by_role("radio", name="16:9", exact=True)).to_be_enabled()
    expect(page.get_by_role("radio", name="16:9", exact=True)).to_be_checked()


def test_an_omni_model_takes_pictures_as_frames_or_as_references(page: Page) -> None:
    page.goto("/console?mode=video")
    choose_model(page, OMNI)
    add(page, ("one.png", picture("red")), ("two.png", picture("blue")))
    expect(page.get_by_role("img", name="Last frame")).to_be_visible()
    # What names a picture makes it a reference.
    page.get_by_label("Prompt", exact=True).fill("@image1 meets @image2")
    expect(page.get_by_role("img", name="Reference 2")).to_be_visible()
    assert made(page, "video")["parts"]
    page.get_by_label("Prompt", exact=True).fill("from one to the other")
    select_option(page, "References")
    second = page.get_by_role("img", name="Reference 2").get_attribute("src")
    page.get_by_role("button", name="Move Reference 2 forward").click()
    expect(page.get_by_role("img", name="Reference 1")).to_have_attribute("src", second or "")
    select_option(page, "First and last frame")
    expect(page.get_by_role("img", name="First frame")).to_be_visible()
    assert not made(page, "video").get("parts")


def test_typing_an_at_sign_offers_pictures_clips_and_sounds(page: Page, client: ApiClient) -> None:
    page.goto("/console?mode=video")
    choose_model(page, OMNI)
    add(
        page,
        ("one.png", picture("red")),
        ("dance.mp4", make_video("red", "blue", side=320)),
        ("song.mp3", make_audio(seconds=2)),
    )
    for name in ("Reference 1", "Clip 1", "Sound 1"):
        expect(page.get_by_role("img", name=name)).to_be_visible()
    field = page.get_by_label("Prompt", exact=True)
    field.press_sequentially("the cat of @")
    choices = page.get_by_role("listbox", name="References").get_by_role("option")
    expect(choices).to_have_count(3)
    check_accessibility(page)
    field.press("Enter")
    expect(field).to_have_value("the cat of @image1 ")
    field.press_sequentially("dances like @vid")
    expect(choices).to_have_count(1)
    choices.click()
    field.press_sequentially("to @")
    field.press("ArrowUp")
    field.press("Tab")
    expect(field).to_have_value("the cat of @image1 dances like @video1 to @audio1 ")
    field.press_sequentially("or mail a@")
    expect(choices).to_have_count(0)
    page.reload()
    expect(page.get_by_role("img", name="Sound 1")).to_be_visible()
    made(page, "video")
    job = client.http.get("/v1/jobs", params={"q": "the cat of"}).json()["data"][0]
    given = client.http.get(f"/v1/jobs/{job['id']}/inputs").json()["data"]
    assert [(item["media"], item["role"]) for item in given] == [
        ("image", "reference"), ("video", "reference"), ("audio", "reference"),
    ]  # fmt: skip
    # A model of pictures has no use for them.
    select_option(page, "Image")
    expect(page.get_by_text("Not used", exact=True)).to_have_count(2)


def test_a_remake_brings_back_uploaded_pictures(page: Page, client: ApiClient) -> None:
    page.goto("/console")
    add(page, ("one.png", picture("red")))
    done = generate(page, "made from an upload")
    expect(done.get_by_text("Completed", exact=True)).to_be_visible()
    page.get_by_role("button", name="Remove Reference 1").click()
    done.get_by_role("button", name="Edit & remake").click()
    shown = page.get_by_role("img", name="Reference 1")
    expect(shown).to_be_visible()
    assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") == 96
    assert len(made(page, "image")["images"]) == 1
    page.get_by_role("link", name="Details").first.click()
    given = page.get_by_role("img", name="Image 1")
    expect(given).to_be_visible()
    assert given.evaluate("image => image.decode().then(() => image.naturalWidth)") == 96
    # The files of inputs are removed some day.
    page.route(re.compile(r"/v1/jobs/job_\w+/inputs$"), _without_files)
    page.goto("/console")
    card(page, "made from an upload").get_by_role("button", name="Edit & remake").click()
    expect(page.get_by_text("1 uploaded image(s) of that job are not kept.")).to_be_visible()
    page.get_by_role("button", name="Continue without").click()
    expect(page.get_by_text("are not kept")).to_have_count(0)


def _without_files(route: Route) -> None:
    body = route.fetch().json()
    route.fulfill(json={**body, "data": [{**item, "url": None} for item in body["data"]]})


def test_a_refusal_stands_once_and_the_button_stays_in_sight(context: BrowserContext) -> None:
    page = context.new_page()
    refusal = {"code": "quota_exceeded", "type": "insufficient_quota", "param": None, "message": "No jobs left today."}

    def estimate(route: Route) -> None:
        body = route.fetch().json()
        route.fulfill(json={**body, "refusals": [{**refusal, "status": 429}]})

    page.route("**/v1/estimate", estimate)
    page.route("**/v1/images/generations", lambda route: route.fulfill(status=429, json={"error": refusal}))
    page.set_viewport_size({"width": 1440, "height": 700})
    page.goto("/console")
    page.get_by_label("Prompt", exact=True).fill("one more")
    expect(page.get_by_text("No jobs left today.")).to_have_count(1)
    button = page.get_by_role("button", name="Generate image")
    page.locator("form.studio-form").evaluate("form => form.scrollIntoView()")
    expect(button).to_be_in_viewport(ratio=1)
    button.click()
    expect(page.get_by_role("alert").filter(has_text="No jobs left today.")).to_be_visible()
    expect(page.get_by_text("No jobs left today.")).to_have_count(1)
    expect(button).to_be_in_viewport(ratio=1)
    # Another request has not been refused yet.
    page.get_by_label("Prompt", exact=True).fill("one more, but other")
    expect(page.get_by_role("alert")).to_have_count(0)
    page.close()


def test_the_estimate_uses_own_times_until_the_platform_has_learned(page: Page, client: ApiClient) -> None:
    model = "jimeng-2.0-pro"
    job = client.wait_for_end(client.start_job("a job whose time is known", model=model)["id"])
    seconds = job["completed_at"] - job["created_at"]
    page.goto("/console")
    choose_model(page, model)
    hint = page.locator(".estimate")
    expect(hint).to_contain_text(f"about {seconds} s")
    with page.expect_response("**/v1/estimate") as answer:
        page.get_by_label("Prompt", exact=True).fill("a job like it")
    assert answer.value.json()["time_source"] == "default"
    expect(hint).to_contain_text("credits")
    expect(hint).to_contain_text(f"about {seconds} s")
