"""Long and Chinese texts on small screens: columns stay readable, controls stay on the screen, words take the place of codes."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.browser.test_console_manage import row, unique_name
from tests.support.api_client import ApiClient, new_session
from tests.support.platform import eventually

LONG_NAME = "the account of the print department on the second floor"
# Each cell that people cannot read: (its text, its width). A column of single letters has a long text in a narrow cell.
NARROW_CELLS = """() => [...document.querySelectorAll(".table td")].filter((cell) => cell.innerText.trim().length > 24 && cell.clientWidth < 90)
    .map((cell) => [cell.innerText, cell.clientWidth])"""
SCROLLED_TABLES = """() => [...document.querySelectorAll(".table-wrap")].filter((wrap) => wrap.scrollWidth > wrap.clientWidth + 1)
    .map((wrap) => [wrap.innerText.slice(0, 60), wrap.scrollWidth, wrap.clientWidth])"""
CUT_SELECTS = (
    """() => [...document.querySelectorAll(".table select")].filter((field) => field.clientWidth < 100).length"""
)


def box(part: Locator) -> dict[str, float]:
    found = part.bounding_box()
    assert found is not None
    return dict(found)


@pytest.fixture(scope="module")
def filled(client: ApiClient) -> Iterator[dict[str, str]]:
    """A user, accounts and an endpoint with long names; the endpoint refuses the connection."""
    group = unique_name("second-floor")
    name = f"{unique_name('agency')}@creative-partners-of-the-studio.example.com"
    groups = [group, "print"]
    user = client.http.post("/admin/v1/users", json={"name": name, "groups": groups, "weight": 2.5, "priority": 2})
    assert user.status_code == 201, user.text
    # Accounts of a group, so that jobs of other tests do not run on them.
    for words in ("limited", "dead"):
        added = client.http.post(
            "/admin/v1/accounts",
            json={"tokens": f"{new_session(words)}:sandbox", "label": f"{LONG_NAME} {words}", "groups": [group]},
        )
        assert added.status_code == 201, added.text
    url = f"http://127.0.0.1:9/a/very/long/path/that/does/not/fit/in/one/line/{'0123456789abcdef' * 3}"
    endpoint = client.http.post("/v1/webhooks/endpoints", json={"url": url}).json()
    client.http.post(f"/v1/webhooks/endpoints/{endpoint['id']}/test")
    deliveries = {"endpoint_id": endpoint["id"]}
    eventually(
        lambda: any(
            one["last_error"] for one in client.http.get("/v1/webhooks/deliveries", params=deliveries).json()["data"]
        ),
        what="a refused delivery",
    )
    account = added.json()["data"][0]["id"]
    yield {"user": user.json()["id"], "name": name, "endpoint": endpoint["id"], "account": account}
    client.http.delete(f"/v1/webhooks/endpoints/{endpoint['id']}")


def in_chinese(context: BrowserContext) -> Page:
    page = context.new_page()
    page.add_init_script("localStorage.setItem('dreamery.language', 'zh')")
    return page


@pytest.mark.parametrize("path", ["accounts", "users", "webhooks", "audit"])
def test_columns_of_tables_stay_readable_and_inside(page: Page, filled: dict[str, str], path: str) -> None:
    page.goto(f"/console/{path}")
    expect(page.locator(".table tbody tr").first).to_be_visible()
    for width in (768, 1024, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(NARROW_CELLS) == [], width
        assert page.evaluate(SCROLLED_TABLES) == [], width
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width


def test_state_of_an_account_is_above_its_settings(page: Page, filled: dict[str, str]) -> None:
    page.goto(f"/console/accounts/{filled['account']}")
    settings = page.get_by_role("heading", name="Settings")
    replace = page.get_by_role("button", name="Replace session", exact=True).last
    for width in (390, 1100):
        page.set_viewport_size({"width": width, "height": 900})
        assert box(replace)["y"] < box(settings)["y"], width
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
    page.set_viewport_size({"width": 1440, "height": 900})
    assert box(replace)["x"] > box(settings)["x"] + 400, "beside it where there is room"
    page.get_by_label("Concurrent images").fill("3")
    page.get_by_role("link", name="Users", exact=True).first.click()
    question = page.get_by_role("dialog", name="Leave without saving?")
    question.get_by_role("button", name="Leave").click()
    expect(page.get_by_role("heading", name="Users", level=1)).to_be_visible()


def test_fields_in_tables_show_their_words(page: Page) -> None:
    page.set_viewport_size({"width": 768, "height": 900})
    page.goto("/console/system")
    page.get_by_text("Rules", exact=True).click()
    expect(page.locator(".table select").first).to_be_visible()
    assert page.evaluate(CUT_SELECTS) == 0


def test_cells_of_several_parts_keep_them_together_on_phones(page: Page, filled: dict[str, str]) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto("/console/users")
    tags = row(page, filled["name"]).locator(".tag")
    expect(tags).to_have_count(2)
    first, second = box(tags.nth(0)), box(tags.nth(1))
    assert second["x"] - first["x"] - first["width"] <= 8 or second["y"] > first["y"]
    title = row(page, filled["name"]).get_by_role("link")
    assert box(title)["x"] < 40, "the name begins at the left"
    cell = row(page, filled["name"]).get_by_text("2.5")
    assert box(cell)["width"] < 80, "weight and priority stand together"


def test_bar_of_the_selection_leaves_the_results_in_sight(page: Page, client: ApiClient) -> None:
    job = client.wait_for_end(client.start_job("two pictures to select", n=2)["id"])
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"/console/gallery?q={job['input']['prompt']}")
    page.get_by_role("button", name="Select", exact=True).click()
    for number in (1, 2):
        page.get_by_role("button", name=re.compile(f"^Select {number}:")).click()
    bar = page.get_by_role("region", name="Selection")
    assert box(bar)["height"] <= 844 * 0.2
    for button in bar.get_by_role("button").all():
        edges = box(button)
        assert edges["x"] >= 0
        assert edges["x"] + edges["width"] <= 390
        assert edges["height"] >= 32


def test_a_long_word_stays_on_the_page(page: Page, client: ApiClient) -> None:
    job = client.wait_for_end(client.start_job("Donaudampfschifffahrtsgesellschaft" * 5)["id"])
    page.goto(f"/console/jobs/{job['id']}")
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_be_visible()
    for width in (390, 1024):
        page.set_viewport_size({"width": width, "height": 900})
        edges = box(heading)
        assert edges["x"] + edges["width"] <= width
        assert heading.evaluate("part => part.scrollWidth <= part.clientWidth + 1")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_state_of_a_user_does_not_look_like_a_button(page: Page, filled: dict[str, str]) -> None:
    page.goto(f"/console/users/{filled['user']}")
    badge = page.locator(".page-actions .status")
    assert box(badge)["height"] < box(page.get_by_role("button", name="Disable user"))["height"] - 8


def test_deliveries_name_their_event_and_reason_in_chinese(context: BrowserContext, filled: dict[str, str]) -> None:
    page = in_chinese(context)
    page.goto(f"/console/webhooks?endpoint={filled['endpoint']}")
    delivery = row(page, "测试事件")
    expect(delivery).to_contain_text("拒绝了连接")
    expect(delivery).not_to_contain_text("webhook.test")
    expect(page.get_by_text("任务已完成、任务失败、任务已取消").first).to_be_visible()


def test_no_limit_is_written_in_the_language_of_the_page(
    context: BrowserContext, client: ApiClient, filled: dict[str, str]
) -> None:
    page = in_chinese(context)
    page.goto(f"/console/users/{filled['user']}")
    field = page.get_by_label("每日任务数: 硬上限")
    field.fill("不限")
    page.get_by_role("button", name="保存限额").click()
    expect(page.get_by_text("已保存")).to_be_visible()
    saved = client.http.get(f"/admin/v1/users/{filled['user']}").json()
    assert saved["limits"]["jobs_per_day"] == "unlimited"
    page.reload()
    expect(field).to_have_value("不限")


def test_failure_is_shown_without_its_code(context: BrowserContext, client: ApiClient) -> None:
    job = client.wait_for_end(client.start_job("a broken picture [[fail:30]]")["id"])
    for language, words in (("en", "Upstream could not generate a result"), ("zh", "上游未能生成结果")):
        page = context.new_page()
        page.add_init_script(f"localStorage.setItem('dreamery.language', '{language}')")
        page.goto(f"/console/jobs/{job['id']}")
        failure = page.locator(".failure").first
        expect(failure).to_contain_text(words)
        expect(failure).not_to_contain_text("generation_failed")
        if language == "zh":
            expect(failure).not_to_contain_text(re.compile("Change the prompt"))
        page.close()
