"""A lost connection: the console says so, keeps working as far as it can, and reconnects by itself."""

from playwright.sync_api import BrowserContext, Page, Route, expect

LOST = "Connection lost. Reconnecting…"
UNREACHABLE = "The server is not responding. Check your connection and try again."


def test_lost_stream_is_shown_although_it_is_tried_often(context: BrowserContext) -> None:
    page, calls = context.new_page(), list[str]()

    def answer(route: Route) -> None:
        calls.append(route.request.url)
        if len(calls) == 1:
            # As the server does, ask for quick attempts: each of them fails and reports an error.
            frames = 'retry: 300\n\nid: 1.5\nevent: snapshot\ndata: {"data": []}\n\n'
            route.fulfill(status=200, content_type="text/event-stream", body=frames)
        else:
            route.abort()

    page.route("**/v1/jobs/events*", answer)
    page.goto("/console/jobs")
    expect(page.get_by_text(LOST)).to_be_visible()
    assert len(calls) > 3
    page.unroute("**/v1/jobs/events*")
    expect(page.get_by_text(LOST)).to_have_count(0)


def test_offline_browser_is_shown_and_pages_still_open(context: BrowserContext) -> None:
    page = context.new_page()
    with page.expect_request_finished(lambda request: request.url.endswith("/pages/webhooks.js")):
        page.goto("/console/jobs")
    page.wait_for_timeout(500)
    context.set_offline(True)
    expect(page.get_by_text(LOST)).to_be_visible()
    page.get_by_role("link", name="Webhooks").click()
    expect(page.get_by_role("heading", name="Webhooks", level=1)).to_be_visible()
    expect(page.get_by_role("alert").first).to_contain_text(UNREACHABLE)
    context.set_offline(False)
    expect(page.get_by_text(LOST)).to_have_count(0)


def check_page_that_cannot_load(page: Page, message: str, link: str, again: str) -> None:
    page.route("**/pages/usage.js", lambda route: route.abort())
    page.goto("/console/jobs")
    page.get_by_role("link", name=link).click()
    expect(page.get_by_role("alert")).to_contain_text(message)
    expect(page.get_by_text("dynamically imported")).to_have_count(0)
    page.unroute("**/pages/usage.js")
    page.get_by_role("button", name=again).click()
    expect(page.get_by_role("heading", name=link, level=1)).to_be_visible()


def test_page_that_cannot_be_loaded_says_so_in_the_language_of_the_user(context: BrowserContext) -> None:
    check_page_that_cannot_load(context.new_page(), UNREACHABLE, "Usage", "Try again")
    page = context.new_page()
    page.add_init_script("localStorage.setItem('dreamery.language', 'zh')")
    check_page_that_cannot_load(page, "服务器没有响应，请检查网络后重试。", "用量", "重试")
