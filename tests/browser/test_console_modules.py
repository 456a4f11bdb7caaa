"""Modules of the console that pages share, called in a real browser: what they make of odd values and of a bad network."""

import re
import shlex
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import BrowserContext, Page, Request, Route, expect

from tests.support.api_client import ApiClient
from tests.support.platform import CheckedPlatform

_CALL = """async ([path, name, values]) => {
    const app = [...document.scripts].find((one) => one.src).src;
    const module = await import(new URL(path, app).href);
    return module[name](...values);
}"""


def call(page: Page, path: str, name: str, *values: Any) -> Any:
    """Call a function of a module of the console; return its value."""
    if not page.url.endswith("/console"):
        page.goto("/console")
    return page.evaluate(_CALL, [path, name, list(values)])


def test_durations_are_rounded_once(page: Page) -> None:
    shown = [
        call(page, "lib/state/language.js", "formatDuration", n) for n in (0.4, 9.96, 59.6, 100, 3599, 5400, 7205, None)
    ]
    assert shown == ["0.4 s", "10.0 s", "1 min", "1 min 40 s", "59 min 59 s", "1 h 30 min", "2 h", "–"]


def test_curl_command_passes_a_shell_unchanged(page: Page) -> None:
    body = {"model": "jimeng-4.0", "prompt": "a cat's $HOME `id` \"hat\"\n'; rm -rf ~ #"}
    text = call(page, "lib/state/draft.js", "curlCommand", {"endpoint": "/v1/images/generations", "body": body})
    words = shlex.split(text)
    assert words[-2] == "-d"
    assert page.evaluate("(text) => JSON.parse(text)", words[-1]) == body


@pytest.mark.parametrize("query", ["", "?expires=1795900000&signature=abc_-"])
def test_thumbnail_keeps_the_signature_of_its_link(page: Page, query: str) -> None:
    file = {"mime": "image/png", "url": f"http://elsewhere.example/v1/files/file_1/content{query}"}
    for small in (False, True):
        link = urlsplit(call(page, "lib/api/jobs.js", "thumbnailUrl", file, {"small": small}))
        assert link.path == "/v1/files/file_1/thumbnail"
        assert parse_qs(link.query) == {**parse_qs(query[1:]), **({"size": ["small"]} if small else {})}


def test_new_event_stream_continues_after_the_last_event(context: BrowserContext) -> None:
    page, asked = context.new_page(), list[str]()

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) == 1:
            frames = 'retry: 100\n\nid: 1795900000.5\nevent: snapshot\ndata: {"data": []}\n\n'
            route.fulfill(status=200, content_type="text/event-stream", body=frames)
        elif len(asked) == 2:
            route.fulfill(status=502, body="")  # `EventSource` gives up
        else:
            route.continue_()

    page.route("**/v1/jobs/events*", answer)
    with page.expect_request(lambda _: len(asked) >= 2, timeout=60_000):
        page.goto("/console/jobs")
    with page.expect_response(lambda response: "/v1/jobs/events" in response.url and response.status == 200):
        pass
    assert parse_qs(urlsplit(asked[2]).query) == {"after": ["1795900000.5"]}
    page.close()


def test_late_answer_does_not_replace_a_newer_one(page: Page, console_platform: CheckedPlatform) -> None:
    with ApiClient(console_platform, console_platform.admin_key) as client:
        for word in ("tortoise", "hare"):
            client.start_job(f"[[fail:2038]] {word} in the race")
    page.goto("/console/jobs")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route(re.compile(r"/v1/jobs\?.*q=tortoise"), hold)
    rows = page.get_by_role("list", name="Jobs").get_by_role("listitem")

    def searches(request: Request) -> bool:
        return "q=tortoise" in request.url

    with page.expect_request(searches):
        page.get_by_label("Search prompts").fill("tortoise in the race")
    page.get_by_label("Search prompts").fill("hare in the race")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("hare in the race")
    with page.expect_response(lambda response: searches(response.request)) as late:
        held[0].continue_()
    late.value.finished()
    # The page has the answer once its entry is there; what it does with it comes before the second frame.
    page.wait_for_function("performance.getEntriesByType('resource').some((one) => one.name.includes('q=tortoise'))")
    page.evaluate(
        "() => new Promise((resolve) => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(resolve)), 300))"
    )
    # At once: `expect` would wait until the list is loaded again.
    [text] = rows.all_inner_texts()
    assert "hare in the race" in text


def test_ended_session_shows_the_sign_in_form(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/console/jobs")
    expect(page.locator("main .spinner")).to_have_count(0)
    context.clear_cookies()
    page.get_by_role("navigation").first.get_by_role("link", name="Gallery").click()
    expect(page.get_by_label("API key")).to_be_visible()
    page.close()
