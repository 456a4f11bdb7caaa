"""Conversations in the console: they survive a reload and another device, are continued, edited, searched and deleted."""

import json
import re
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.browser.test_console import check_accessibility
from tests.support.api_client import ApiClient
from tests.support.media_files import encode_image
from tests.support.platform import CheckedPlatform

AGENT = "/console?mode=agent"
CONVERSATION = re.compile(r"conversation=(conv_\w+)")


def message_field(page: Page) -> Locator:
    return page.get_by_label("Message", exact=True)


def send(page: Page, text: str) -> None:
    message_field(page).fill(text)
    message_field(page).press("Enter")


def answers(page: Page) -> Locator:
    return page.locator(".message.assistant")


def wait_for_answer(page: Page) -> None:
    """Wait until the newest answer is complete."""
    expect(page.get_by_role("log").get_by_role("button", name="Edit message")).to_have_count(1)


def begin(page: Page, text: str) -> str:
    """Begin a conversation and wait for the answer; return its id."""
    page.goto(AGENT)
    send(page, text)
    wait_for_answer(page)
    match = CONVERSATION.search(page.url)
    assert match is not None, page.url
    return match[1]


def entry(page: Page, title: str) -> Locator:
    return page.locator(".talk").filter(has_text=title)


def test_conversation_goes_on_after_a_reload_and_on_another_device(
    page: Page, browser: Browser, console_platform: CheckedPlatform, signed_in: Path
) -> None:
    conversation = begin(page, "draw [[image:2]] lighthouses")
    page.reload()
    shown = answers(page)
    expect(shown).to_contain_text("Done — 完成")
    expect(shown.get_by_role("button", name="Open image 1")).to_have_count(2)
    expect(shown.locator(".markdown img")).to_have_count(0)
    with browser.new_context(base_url=console_platform.url, storage_state=signed_in, locale="en") as device:
        other = device.new_page()
        other.goto(AGENT)
        entry(other, "lighthouses").get_by_role("link").click()
        expect(other).to_have_url(re.compile(conversation))
        expect(answers(other)).to_contain_text("Done — 完成")
        send(other, "which colours?")
        wait_for_answer(other)
        # The first device sees it without a reload.
        expect(answers(page).nth(1)).to_contain_text("which colours?")
    # Results are those of any job: the viewer, the star, another prompt, the page of the job.
    first = answers(page).first.locator(".turn-result").first
    first.hover()
    first.get_by_role("button", name="Favourite").click()
    expect(first.get_by_role("button", name="Favourite")).to_have_attribute("aria-pressed", "true")
    first.get_by_role("button", name="Open image 1").click()
    expect(page.get_by_role("dialog", name="Viewer")).to_be_visible()
    page.wait_for_timeout(700)  # it opens with a movement
    page.go_back()
    expect(page.get_by_role("dialog", name="Viewer")).to_have_count(0)
    expect(page).to_have_url(re.compile(rf"{conversation}$"))
    first.get_by_role("button", name="Edit & remake").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("draw lighthouses")
    page.go_back()
    expect(answers(page)).to_have_count(2)


def test_answer_that_is_being_written_survives_a_reload_and_can_be_stopped(page: Page) -> None:
    page.goto(AGENT)
    send(page, "count [[words:60]] [[pause:0.2]]")
    expect(answers(page)).to_contain_text("词2")
    page.reload()
    expect(answers(page)).to_contain_text("词5")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("You stopped this answer.")).to_be_visible()
    expect(answers(page)).not_to_contain_text("词59")
    page.get_by_role("button", name="Continue").click()
    expect(answers(page)).to_contain_text("词5")
    expect(answers(page)).to_contain_text("Continue exactly where it ended")


def test_answer_that_was_cut_off_is_continued_as_one(page: Page) -> None:
    page.goto(AGENT)
    send(page, "tell me [[truncate]]")
    expect(page.get_by_text("The answer was cut off.")).to_be_visible()
    page.get_by_role("button", name="Continue").click()
    expect(answers(page)).to_contain_text(re.compile("You said: “tell.*You said: “Your answer was cut off.", re.DOTALL))
    expect(page.get_by_text("The answer was cut off.")).to_have_count(0)
    page.reload()
    expect(answers(page)).to_have_count(1)
    expect(page.locator(".message.user")).to_have_count(1)
    expect(answers(page)).to_contain_text(re.compile("tell.*You said:", re.DOTALL))


def test_last_message_is_edited_and_sent_again(page: Page) -> None:
    begin(page, "first words")
    send(page, "second wrods")
    expect(answers(page)).to_have_count(2)
    wait_for_answer(page)
    page.get_by_role("button", name="Edit message").click()
    expect(message_field(page)).to_have_value("second wrods")
    expect(page.get_by_text("You are editing your last message.")).to_be_visible()
    send(page, "second words")
    expect(answers(page).nth(1)).to_contain_text("You said: “second words”")
    wait_for_answer(page)
    page.get_by_role("button", name="Retry").click()
    wait_for_answer(page)
    page.reload()
    expect(page.locator(".message.user")).to_have_text(["You:first words", "You:second words"])


def test_pictures_need_a_model_that_sees_them(page: Page, client: ApiClient) -> None:
    page.goto(AGENT)
    message_field(page).fill("a castle like this")
    file = {"name": "castle.png", "mimeType": "image/png", "buffer": encode_image("PNG")}
    page.get_by_label("Add pictures").set_input_files([file])
    # The agent reads text only, which is said before anything is sent.
    expect(page.get_by_text("The agent reads text only.")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    page.get_by_role("button", name=re.compile("^Use ")).click()
    expect(page.get_by_text("The agent reads text only.")).to_have_count(0)
    with page.expect_request("**/v1/chat/completions") as sent:
        page.get_by_role("button", name="Send").click()
    content = json.loads(sent.value.post_data or "")["messages"][0]["content"]
    assert [part["type"] for part in content] == ["text", "image_url"]
    expect(answers(page).get_by_role("button", name="Open image 1")).to_be_visible()
    page.reload()
    expect(page.get_by_role("img", name="Sent picture")).to_be_visible()
    # @ offers the newest pictures.
    message_field(page).press_sequentially("now at night @")
    page.get_by_role("option").first.click()
    expect(message_field(page)).to_have_value("now at night ")
    expect(page.get_by_role("img", name="Picture 1")).to_be_visible()
    # What is not sent yet stays with its conversation.
    page.reload()
    expect(message_field(page)).to_have_value("now at night ")
    expect(page.get_by_role("img", name="Picture 1")).to_be_visible()
    page.get_by_role("link", name="New conversation").click()
    expect(message_field(page)).to_have_value("")
    page.go_back()
    expect(message_field(page)).to_have_value("now at night ")


def test_conversations_are_renamed_searched_and_deleted(page: Page, client: ApiClient) -> None:
    begin(page, "a tale of harbours")
    row = entry(page, "a tale of harbours")
    row.get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill("Harbours")
    page.get_by_role("button", name="Save").click()
    expect(entry(page, "Harbours")).to_be_visible()
    page.get_by_label("Search conversations").fill("TALE OF HARB")
    expect(page.locator(".talk")).to_have_count(1)
    page.get_by_label("Search conversations").fill("no such words")
    expect(page.get_by_text("No conversation contains these words")).to_be_visible()
    page.get_by_label("Search conversations").fill("")
    entry(page, "Harbours").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(entry(page, "Harbours")).to_have_count(0)
    expect(page.get_by_text("Chat with the agent")).to_be_visible()
    titles = [row["title"] for row in client.http.get("/v1/conversations", params={"limit": 100}).json()["data"]]
    assert "Harbours" not in titles


def test_video_of_the_agent_is_a_result(page: Page) -> None:
    begin(page, "[[video:1]] waves")
    shown = answers(page)
    expect(shown.locator(".turn-result video")).to_have_count(1)
    expect(shown.locator("video")).to_have_count(1)
    expect(shown).not_to_contain_text("<video")


def test_message_that_was_not_accepted_stays(context: BrowserContext) -> None:
    page = context.new_page()
    begin(page, "hello")
    page.route("**/v1/chat/completions", lambda route: route.abort())
    send(page, "do not lose this")
    expect(page.get_by_role("alert")).to_be_visible()
    expect(message_field(page)).to_have_value("do not lose this")
    expect(page.locator(".message.user")).to_have_count(1)


def test_phone_has_a_list_and_no_sideways_scroll(page: Page) -> None:
    begin(page, "draw [[image:1]] a bridge, then explain it in " + "many " * 30 + "words")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    check_accessibility(page)
    page.get_by_role("button", name="Conversations").click()
    drawer = page.get_by_role("dialog")
    check_accessibility(page)
    drawer.get_by_role("link", name="New conversation").click()
    expect(drawer).to_have_count(0)
    expect(page.get_by_text("Chat with the agent")).to_be_visible()
    page.go_back()
    expect(answers(page)).to_have_count(1)
