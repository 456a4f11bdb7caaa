"""The playground's form follows the data of the selected model: its sizes, switches and choices."""

import io
import json

import pytest
from PIL import Image
from playwright.sync_api import Page, Request, expect

from tests.browser.composer.model_choice import choose_model
from tests.browser.test_console import select_option
from tests.support.api_client import ApiClient
from tests.support.platform import CheckedPlatform, eventually


@pytest.fixture
def paid(console_platform: CheckedPlatform):
    """An account of the official API's face of the sandbox in the pool."""
    with ApiClient(console_platform, console_platform.admin_key) as client:
        body = {"tokens": "ark-browser", "provider": "ark", "region": "sandbox"}
        answer = client.http.post("/admin/v1/accounts", json=body)
        assert answer.status_code < 300, answer.text
        # The models of a caller are read every few seconds.
        eventually(
            lambda: "doubao-seedance-2-5-260628" in {row["id"] for row in client.http.get("/v1/models").json()["data"]}
        )
        yield client


def test_form_shows_the_fields_of_the_model(page: Page, paid: ApiClient) -> None:
    page.goto("/console")
    select_option(page, "Video")
    # Its public name means the model of the first provider here, so another name stands for it.
    choose_model(page, "doubao-seedance-2-5-260628")
    page.get_by_text("More settings").click()
    assert page.get_by_role("checkbox", name="With sound").is_checked()
    expect(page.get_by_label("Seed", exact=True)).to_have_count(0)
    expect(page.get_by_label("What to do with the inputs").get_by_role("option")).to_have_text(
        ["auto", "reference", "edit", "extend"]
    )
    page.get_by_role("checkbox", name="With sound").uncheck()
    page.get_by_role("checkbox", name="Store the last frame too").check()
    page.get_by_label("Priority upstream").select_option("3")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1280, "height": 900})
    # A model without these fields drops them.
    choose_model(page, "jimeng-video-3.0")
    expect(page.get_by_role("checkbox", name="With sound")).to_have_count(0)
    choose_model(page, "doubao-seedance-2-5-260628")
    page.get_by_label("Prompt", exact=True).fill("waves of the data")
    with page.expect_request(lambda request: request.url.endswith("/v1/videos/generations")) as sent:
        page.get_by_role("button", name="Generate video").click()
    request: Request = sent.value
    body = json.loads(request.post_data or "{}")
    assert {name: body[name] for name in ("model", "generate_audio", "return_last_frame", "priority")} == {
        "model": "doubao-seedance-2-5-260628", "generate_audio": False, "return_last_frame": True, "priority": 3,
    }  # fmt: skip
    assert "seed" not in body
    answer = request.response()
    assert answer is not None
    assert answer.status == 202, answer.text()
    select_option(page, "Image")
    choose_model(page, "seedream-5.5")
    expect(page.get_by_label("Background").get_by_role("option")).to_have_text(["auto", "transparent"])


def test_a_picture_larger_than_the_model_takes_is_made_smaller_and_said_so(page: Page, paid: ApiClient) -> None:
    content = io.BytesIO()
    Image.new("RGB", (6600, 660), "teal").save(content, "PNG")
    page.goto("/console?mode=video")
    choose_model(page, "doubao-seedance-2-5-260628")
    page.locator("input[type=file]").set_input_files(
        {"name": "wide.png", "mimeType": "image/png", "buffer": content.getvalue()}
    )
    expect(page.get_by_text("wide.png was made smaller, from 6600 × 660 to 6000 × 600")).to_be_visible()
    shown = page.get_by_role("img", name="First frame")
    assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") == 6000
